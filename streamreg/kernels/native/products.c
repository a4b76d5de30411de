/* u = XV + b, less y in its first columns, and uᵀsX, while the rows are in cache.
 *
 * Four rows at a time: the coefficients and the sums are then read once for the four. Each dot
 * product is summed in eight lanes, then the rest of the row; each sum over rows is in their order.
 * So the bits depend neither on how many rows are taken at a time nor on the processor.
 */
#include "dots.h"
#include "products.h"

/* Narrow rows of at most this many values are widened once, into 16 KiB of the first-level cache:
 * measured 1.1 to 1.4 times as fast for float32 with one column. */
#define COPIED 512

/* products += uᵀX for some rows and columns */
INLINE void add_rows(int type, int n_rows, int n_columns, const struct rows *x, int64_t row,
                     double u[ROWS][COLUMNS], double *products)
{
    const int64_t d = x->d, first = row * d;
    lanes factors[ROWS][COLUMNS];
    EACH_ROW EACH_COLUMN factors[r][c] = all_lanes(u[r][c]);
    int64_t j = 0;
    for (; j + N_LANES <= d; j += N_LANES) {
        lanes sums[COLUMNS];
        EACH_COLUMN sums[c] = load_float64(products + c * d + j);
        EACH_ROW
        {
            lanes values = load_lanes(type, x->values, first + r * d + j);
            EACH_COLUMN sums[c] = fma_lanes(factors[r][c], values, sums[c]);
        }
        EACH_COLUMN store_float64(products + c * d + j, sums[c]);
    }
    for (; j < d; j++)
        EACH_COLUMN
        {
            double sum = products[c * d + j];
            EACH_ROW sum = fma_of(u[r][c], load_one(type, x->values, first + r * d + j), sum);
            products[c * d + j] = sum;
        }
}

/* Some rows and columns: the dot products, then the sums. */
INLINE void add_group(int type, int n_rows, int n_columns, const struct rows *x, int64_t row,
                      const struct products *p, int64_t column, int64_t target_row)
{
    double u[ROWS][COLUMNS];
    double copy[ROWS * COPIED];
    const int copies = type != FLOAT64 && x->d <= COPIED;
    if (copies)
        dot_rows(type, n_rows, n_columns, x, row, p->coefficients + column * x->d, u, copy);
    else
        dot_rows(type, n_rows, n_columns, x, row, p->coefficients + column * x->d, u, 0);
    EACH_ROW
    {
        const int64_t i = target_row + r;
        EACH_COLUMN
        {
            const int64_t at = column + c;
            const double value = at < p->k ? u[r][c] - p->y[i * p->k + at] : u[r][c] + p->bias[at];
            const double weighted = p->weight ? p->weight[i] * value : value;
            if (at < p->k)
                p->rr[at] = fma_of(weighted, value, p->rr[at]);
            p->sums[at] += weighted;
            u[r][c] = weighted;
        }
    }
    if (copies) {
        const struct rows widened = {.values = copy, .n = n_rows, .d = x->d, .type = FLOAT64};
        add_rows(FLOAT64, n_rows, n_columns, &widened, 0, u, p->products + column * x->d);
    } else {
        add_rows(type, n_rows, n_columns, x, row, u, p->products + column * x->d);
    }
}

/* Rows `start` to `stop` of x, of which the first has the target `target_row`. */
INLINE void add_columns(int type, int n_columns, const struct rows *x, int64_t start, int64_t stop,
                        const struct products *p, int64_t column, int64_t target_row)
{
    /* as many as the sums of their dot products find registers */
    const int rows = PART < 8 && n_columns > 1 ? 2 : ROWS;
    int64_t i = start;
    for (; i + rows <= stop; i += rows)
        add_group(type, rows, n_columns, x, i, p, column, target_row + i - start);
    for (; i < stop; i++)
        add_group(type, 1, n_columns, x, i, p, column, target_row + i - start);
}

INLINE void add_type(int type, const struct rows *x, int64_t start, int64_t stop,
                     const struct products *p, int64_t target_row)
{
    int64_t column = 0;
    for (; column + COLUMNS <= p->m; column += COLUMNS)
        add_columns(type, COLUMNS, x, start, stop, p, column, target_row);
    if (column < p->m)
        add_columns(type, 1, x, start, stop, p, column, target_row);
}

void add_products(const struct rows *x, const struct products *p)
{
    /* with more columns a tile is read once for each pair of them, from the cache */
    const int64_t step = p->m <= COLUMNS && is_direct(x) ? x->n : widened_rows(x->d);
    for (int64_t start = 0; start < x->n; start += step) {
        const int64_t stop = start + step < x->n ? start + step : x->n;
        if (!is_direct(x)) {
            widen(x, start, stop, p->tile);
            struct rows tile = {.values = p->tile, .n = stop - start, .d = x->d, .type = FLOAT64};
            add_type(FLOAT64, &tile, 0, tile.n, p, start);
        } else if (x->type == FLOAT64) {
            add_type(FLOAT64, x, start, stop, p, start);
        } else {
            add_type(FLOAT32, x, start, stop, p, start);
        }
    }
}
