/* Predictions Xw + b. */
#include "dots.h"

INLINE void predict_columns(int type, int n_rows, int n_columns, const struct rows *x, int64_t row,
                            const double *v, const double *b, int64_t k, double *out)
{
    double dots[ROWS][COLUMNS];
    dot_rows(type, n_rows, n_columns, x, row, v, dots, 0);
    EACH_ROW EACH_COLUMN out[(row + r) * k + c] = dots[r][c] + b[c];
}

INLINE void predict_type(int type, const struct rows *x, const double *v, const double *b,
                         int64_t k, double *out)
{
    for (int64_t column = 0; column < k; column += COLUMNS) {
        const double *columns = v + column * x->d, *biases = b + column;
        double *to = out + column;
        int64_t i = 0;
        if (column + COLUMNS <= k) {
            for (; i + ROWS <= x->n; i += ROWS)
                predict_columns(type, ROWS, COLUMNS, x, i, columns, biases, k, to);
            for (; i < x->n; i++)
                predict_columns(type, 1, COLUMNS, x, i, columns, biases, k, to);
        } else {
            for (; i + ROWS <= x->n; i += ROWS)
                predict_columns(type, ROWS, 1, x, i, columns, biases, k, to);
            for (; i < x->n; i++)
                predict_columns(type, 1, 1, x, i, columns, biases, k, to);
        }
    }
}

/* Write Xw + b to `out` (n, k); `v` is wᵀ (k, d), `b` (k,), `tile` holds `products_scratch` values. */
EXPORT void predict(const struct rows *x, const double *v, const double *b, int64_t k, double *out,
             double *tile)
{
    const int64_t step = k <= COLUMNS && is_direct(x) ? x->n : widened_rows(x->d);
    for (int64_t start = 0; start < x->n; start += step) {
        const int64_t stop = start + step < x->n ? start + step : x->n;
        struct rows some = *x;
        some.n = stop - start;
        some.values = row_at(x, start);
        if (!is_direct(x)) {
            widen(x, start, stop, tile);
            some = (struct rows){.values = tile, .n = stop - start, .d = x->d, .type = FLOAT64};
        }
        if (some.type == FLOAT64)
            predict_type(FLOAT64, &some, v, b, k, out + start * k);
        else
            predict_type(FLOAT32, &some, v, b, k, out + start * k);
    }
}
