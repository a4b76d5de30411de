/* u = XV + b, less y in its first columns, and uᵀsX, while the rows are in cache.
 *
 * Four rows at a time: the coefficients and the sums are then read once for the four. Each dot
 * product is summed in eight lanes, then over the rest of the row; sums over rows add them in
 * order. So the bits depend neither on how many rows are taken at a time nor on the processor.
 */
#include "dots.h"
#include "pieces.h"

/* What is multiplied with the rows, and the sums; m columns, of which the first k have targets. */
struct products {
    int64_t m;
    int64_t k;
    const double *coefficients; /* (m, d) V */
    const double *bias;         /* (m,)   added to xV; zeros for the first k, whose b is in y */
    const double *y;            /* (n, k) y - b */
    const double *weight;       /* (n,)   s, or NULL: ones */
    double *rr;                 /* (k,)   Σ s r² */
    double *sums;               /* (m,)   Σ s u */
    double *products;           /* (m, d) Σ s u x */
    double *scratch;            /* `products_scratch` values */
};

/* Narrow rows of at most this many values are widened once, into 16 KiB of the first-level cache:
 * measured 1.1 to 1.4 times as fast for float32 with one column. */
#define COPIED 512

/* products += uᵀX for some rows and columns; prefetches as many rows at `next`, of type `stored` */
INLINE void add_rows(int type, int n_rows, int n_columns, const struct rows *x, int64_t row,
                     double u[ROWS][COLUMNS], double *products, const char *next, int stored)
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
            if (next)
                __builtin_prefetch(next + (r * d + j) * size_of(stored));
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

/* Sums of some columns: kept in registers, because those of two threads may share a cache line. */
struct sums {
    double rr[COLUMNS];
    double u[COLUMNS];
};

/* Some rows and columns: the dot products, then the sums. */
INLINE void add_group(int type, int n_rows, int n_columns, const struct rows *x, int64_t row,
                      const struct products *p, int64_t column, int64_t target_row,
                      struct sums *sums, int by_row)
{
    const int64_t d = x->d;
    const double *coefficients = p->coefficients + column * d;
    double *products = p->products + column * d;
    double u[ROWS][COLUMNS];
    double copy[ROWS * COPIED];
    const int copies = type != FLOAT64 && d <= COPIED;
    /* the next rows, which the processor would not prefetch by itself */
    const char *next = row + 2 * n_rows <= x->n ? row_at(x, row + n_rows) : NULL;
    const int together = by_row ? 1 : n_rows;
    for (int r = 0; r < n_rows; r += together)
        dot_rows(type, together, n_columns, x, row + r, coefficients, u + r,
                 copies ? copy + r * d : NULL);
    EACH_ROW
    {
        const int64_t i = target_row + r;
        const double s = p->weight ? p->weight[i] : 1.0;
        EACH_COLUMN
        {
            const int64_t at = column + c;
            const double value = at < p->k ? u[r][c] - p->y[i * p->k + at] : u[r][c] + p->bias[at];
            u[r][c] = s * value;
            sums->rr[c] = fma_of(u[r][c], value, sums->rr[c]);
            sums->u[c] += u[r][c];
        }
    }
    if (copies) {
        const struct rows widened = {.values = copy, .n = n_rows, .d = d, .type = FLOAT64};
        add_rows(FLOAT64, n_rows, n_columns, &widened, 0, u, products, next, type);
    } else {
        add_rows(type, n_rows, n_columns, x, row, u, products, next, type);
    }
}

/* Whether rows are read in the order of memory, as processors prefetch them, rather than four at a
 * time. Measured, from memory: D = 64 to 256, 1.3 to 1.7 times as fast; shorter and longer rows,
 * and rows in cache, 0.8 to 1.0 times. */
INLINE int is_read_by_row(const struct rows *x)
{
    const int64_t row_nbytes = x->d * size_of(x->type);
    return !x->in_cache && 512 <= row_nbytes && row_nbytes <= 2048;
}

/* Rows `start` to `stop` of x, of which the first has the target `target_row`. */
INLINE void add_columns(int type, int n_columns, const struct rows *x, int64_t start, int64_t stop,
                        const struct products *p, int64_t column, int64_t target_row)
{
    /* as many rows as have registers for the sums of their dot products */
    const int rows = REGISTER_LANES < 8 && n_columns > 1 ? 2 : ROWS;
    struct sums sums = {{0}, {0}};
    EACH_COLUMN
    {
        sums.rr[c] = column + c < p->k ? p->rr[column + c] : 0;
        sums.u[c] = p->sums[column + c];
    }
    int64_t i = start;
    if (is_read_by_row(x))
        for (; i + rows <= stop; i += rows)
            add_group(type, rows, n_columns, x, i, p, column, target_row + i - start, &sums, 1);
    for (; i + rows <= stop; i += rows)
        add_group(type, rows, n_columns, x, i, p, column, target_row + i - start, &sums, 0);
    for (; i < stop; i++)
        add_group(type, 1, n_columns, x, i, p, column, target_row + i - start, &sums, 0);
    EACH_COLUMN
    {
        if (column + c < p->k)
            p->rr[column + c] = sums.rr[c];
        p->sums[column + c] = sums.u[c];
    }
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

static void add(const void *sums, const struct rows *x, int64_t row)
{
    const struct products *p = sums;
    /* with more columns a tile is read once for each pair of them, from the cache */
    const int64_t step = p->m <= COLUMNS && is_direct(x) ? x->n : widened_rows(x->d);
    for (int64_t start = 0; start < x->n; start += step) {
        const int64_t stop = start + step < x->n ? start + step : x->n;
        if (!is_direct(x)) {
            widen(x, start, stop, p->scratch);
            struct rows tile = {
                .values = p->scratch, .n = stop - start, .d = x->d, .type = FLOAT64, .in_cache = 1,
            };
            add_type(FLOAT64, &tile, 0, tile.n, p, row + start);
        } else if (x->type == FLOAT64) {
            add_type(FLOAT64, x, start, stop, p, row + start);
        } else {
            add_type(FLOAT32, x, start, stop, p, row + start);
        }
    }
}

/* Values of scratch memory, for rows that are widened. */
EXPORT int64_t products_scratch(int64_t d)
{
    return widened_rows(d) * d;
}

EXPORT int64_t products_nbytes(void)
{
    return sizeof(struct products);
}

/* The bits do not depend on how many rows are added at once, if it is a multiple of these. */
EXPORT int64_t products_rows(int64_t d)
{
    (void)d;
    return ROWS;
}

/* Returns how many rows were added: fewer if files could not be read. */
EXPORT int64_t add_products(const struct rows *x, const struct products *p, struct files *from)
{
    const int64_t fits = from ? from->piece_nbytes / (x->d * size_of(x->type)) : ROWS;
    return add_pieces(x, from, fits < ROWS ? 1 : ROWS, p, add);
}
