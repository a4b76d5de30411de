/* r = xw + b - y, Σ s r², Σ s r and Σ s r x in two floats: sums are correct to about 2⁻¹⁰⁰.
 *
 * A product is split into its rounded value and its error, and so is a sum [1]. The errors are added
 * up beside the sums. Eight rows are taken at a time, so that what is done once a row is done in
 * lanes too. Measured at D = 32, 256 and 1,024: see the notes of `Residuals`.
 *
 * [1] Ogita, Rump & Oishi (2005), SIAM J. Sci. Comput. 26(6), 1955-1988.
 */
#include "pieces.h"
#include "two_floats.h"

#define N_ROWS 8
#define EACH_OF_ROWS for (int r = 0; r < N_ROWS; r++)
/* rows whose dot products find registers */
#define DOTS (REGISTER_LANES == 8 ? 4 : 2)

/* Coefficients, and sums in two floats: a high part, then a low part. m columns of coefficients, of
 * which the first k have targets. */
struct residuals {
    int64_t m;
    int64_t k;
    const double *coefficients; /* (m, 2, d) w */
    const double *bias;         /* (m, 2)    b */
    const double *y;            /* (n, k)    y */
    const double *weight;       /* (n,)      s, or NULL: ones */
    double *rr;                 /* (m, 2)    Σ s r² */
    double *sums;               /* (m, 2)    Σ s r */
    double *products;           /* (m, 2, d) Σ s r x */
    double *scratch;            /* for rows that are widened */
};

INLINE vector vector_error(vector a, vector b, vector p)
{
#if IS_FUSED
    return fma_vector(a, b, -p);
#else
    EACH_LANE p[i_] = product_error(a[i_], b[i_], p[i_]);
    return p;
#endif
}

/* Add the products of a and b = b_high + b_low to a sum of lanes. */
INLINE void add_lane_products(lanes *high, lanes *low, lanes a, lanes b_high, lanes b_low)
{
    EACH_REGISTER
    {
        const vector p = a.at[i_] * b_high.at[i_], error = vector_error(a.at[i_], b_high.at[i_], p);
        const vector before = high->at[i_], sum = before + p, other = sum - before;
        low->at[i_] += ((before - (sum - other)) + (p - other)) + error;
        low->at[i_] = fma_vector(a.at[i_], b_low.at[i_], low->at[i_]);
        high->at[i_] = sum;
    }
}

/* r of eight rows; `w` is (2, d). */
INLINE void residuals_of(const double *rows, int64_t d, const double *w, double *high, double *low)
{
    double sums[N_LANES][N_ROWS], errors[N_LANES][N_ROWS];
    int64_t j;
    for (int first = 0; first < N_ROWS; first += DOTS) {
        lanes sum[DOTS], error[DOTS];
        for (int r = 0; r < DOTS; r++)
            sum[r] = error[r] = all_lanes(0);
        for (j = 0; j + N_LANES <= d; j += N_LANES) {
            const lanes w_high = load_float64(w + j), w_low = load_float64(w + d + j);
            _Pragma("GCC unroll 4") for (int r = 0; r < DOTS; r++)
                add_lane_products(&sum[r], &error[r], load_float64(rows + (first + r) * d + j),
                                  w_high, w_low);
        }
        for (int r = 0; r < DOTS; r++) {
            double of_lanes[2][N_LANES];
            store_float64(of_lanes[0], sum[r]);
            store_float64(of_lanes[1], error[r]);
            for (int l = 0; l < N_LANES; l++) {
                sums[l][first + r] = of_lanes[0][l];
                errors[l][first + r] = of_lanes[1][l];
            }
        }
    }
    if (d >= N_LANES)
        for (int l = 0; l < N_LANES; l++)
            EACH_OF_ROWS add_one(high + r, low + r, sums[l][r], errors[l][r]);
    for (j = d - d % N_LANES; j < d; j++)
        EACH_OF_ROWS
        {
            const double x = rows[r * d + j], p = x * w[j];
            add_one(high + r, low + r, p, product_error(x, w[j], p));
            low[r] = fma_of(x, w[d + j], low[r]);
        }
    EACH_OF_ROWS normalise(high + r, low + r);
}

/* Add the products of eight rows and their r, weighted; `products` is (2, d). */
INLINE void add_row_products(const double *rows, int64_t d, const double *high, const double *low,
                             double *products)
{
    int64_t j = 0;
    for (; j + N_LANES <= d; j += N_LANES) {
        lanes sum = load_float64(products + j), error = load_float64(products + d + j);
        _Pragma("GCC unroll 8") for (int r = 0; r < N_ROWS; r++)
            add_lane_products(&sum, &error, load_float64(rows + r * d + j), all_lanes(high[r]),
                              all_lanes(low[r]));
        store_float64(products + j, sum);
        store_float64(products + d + j, error);
    }
    for (; j < d; j++)
        for (int r = 0; r < N_ROWS; r++) {
            const double x = rows[r * d + j], p = x * high[r];
            add_one(products + j, products + d + j, p, product_error(x, high[r], p));
            products[d + j] = fma_of(x, low[r], products[d + j]);
        }
}

/* Add some rows, in groups of eight, for one column of coefficients; `y` has a step of k. */
INLINE void add_column(const double *rows, int64_t n, int64_t d, const struct residuals *p,
                       int64_t column, int64_t first_row)
{
    const double *w = p->coefficients + 2 * d * column, *b = p->bias + 2 * column;
    double rr[2][N_ROWS] = {{0}}, sums[2][N_ROWS] = {{0}};
    for (int64_t i = 0; i < n; i += N_ROWS) {
        double high[N_ROWS], low[N_ROWS], s[N_ROWS], s_high[N_ROWS], s_low[N_ROWS];
        const int64_t at = first_row + i;
        const int filled = n - i < N_ROWS ? (int)(n - i) : N_ROWS;
        EACH_OF_ROWS
        {
            /* rows beyond the last are zeros, and count nothing */
            s[r] = r < filled ? (p->weight ? p->weight[at + r] : 1.0) : 0.0;
            high[r] = r < filled && column < p->k ? -p->y[(at + r) * p->k + column] : 0.0;
            low[r] = 0.0;
            add_one(high + r, low + r, b[0], b[1]);
        }
        residuals_of(rows + i * d, d, w, high, low);
        EACH_OF_ROWS
        {
            s_high[r] = s[r] * high[r];
            s_low[r] = fma_of(s[r], low[r], product_error(s[r], high[r], s_high[r]));
            normalise(s_high + r, s_low + r);
        }
        EACH_OF_ROWS
        {
            const double square = s_high[r] * high[r];
            const double error = product_error(s_high[r], high[r], square);
            add_one(rr[0] + r, rr[1] + r, square,
                    fma_of(s_high[r], low[r], fma_of(s_low[r], high[r], error)));
            add_one(sums[0] + r, sums[1] + r, s_high[r], s_low[r]);
        }
        add_row_products(rows + i * d, d, s_high, s_low, p->products + 2 * d * column);
    }
    for (int r = 0; r < N_ROWS; r++) {
        add_one(p->rr + 2 * column, p->rr + 2 * column + 1, rr[0][r], rr[1][r]);
        add_one(p->sums + 2 * column, p->sums + 2 * column + 1, sums[0][r], sums[1][r]);
    }
}

/* Rows of a tile: 32 KiB, which stay in the first-level cache. The bits do not depend on how many
 * rows are added at once, if it is a multiple of these. */
EXPORT int64_t residuals_rows(int64_t d)
{
    return rows_within(32 << 10, d, N_ROWS);
}

static void add(const void *sums, const struct rows *x, int64_t row)
{
    const struct residuals *p = sums;
    const int64_t d = x->d, step = residuals_rows(d);
    for (int64_t start = 0; start < x->n; start += step) {
        const int64_t n = x->n - start < step ? x->n - start : step;
        const int64_t padding_rows = (N_ROWS - n % N_ROWS) % N_ROWS;
        const double *rows = row_at(x, start);
        const int is_aligned = (uintptr_t)x->values % sizeof(double) == 0;
        /* add_column reads whole groups of aligned float64 rows; others are copied first */
        if (!is_direct(x) || x->type != FLOAT64 || !is_aligned || padding_rows) {
            widen(x, start, start + n, p->scratch);
            memset(p->scratch + n * d, 0, (size_t)(padding_rows * d) * sizeof(double));
            rows = p->scratch;
        }
        for (int64_t column = 0; column < p->m; column++)
            add_column(rows, n, d, p, column, row + start);
    }
}

/* Values of scratch memory, for rows that are widened. */
EXPORT int64_t residuals_scratch(int64_t d)
{
    return residuals_rows(d) * d;
}

EXPORT int64_t residuals_nbytes(void)
{
    return sizeof(struct residuals);
}

/* Whole tiles of files, so that the bits are those of rows in memory. Returns how many rows were
 * added: fewer if files could not be read. */
EXPORT int64_t add_residuals(const struct rows *x, const struct residuals *p, struct files *from)
{
    return add_pieces(x, from, residuals_rows(x->d), p, add);
}
