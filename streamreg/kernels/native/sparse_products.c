/* u = xV + b, less y in its first columns, and uᵀsX, over sparse rows.
 *
 * The coefficients of a column of X and its sums lie side by side, because a row reads and writes
 * both: (w, d, g, q) of a residual and a direction are half a cache line. It is fetched some values
 * ahead. A dot product is summed in four lanes, then over the rest of the row, in order: the bits
 * depend on no processor that fuses products with sums.
 */
#include "sparse.h"

/* m columns of coefficients, of which the first k have targets. */
struct sparse_products {
    int64_t m;
    int64_t k;
    double *columns;      /* (d, 2m) V, then Σ s u x */
    const double *bias;   /* (m,)   added to xV; zeros for the first k, whose b is in y */
    const double *y;      /* (n, k) y - b */
    const double *weight; /* (n,)   s, or NULL: ones */
    double *rr;           /* (k,)   Σ s r² */
    double *sums;         /* (m,)   Σ s u */
    double *scratch;      /* (m,)   u of a row */
};

/* values ahead of which a column is fetched */
#define AHEAD 64
/* sums of a dot product that do not wait for each other */
#define N_SUMS 4

/* Weigh u, subtract targets, and count both: u becomes s·u. */
INLINE void count_row(const struct sparse_products *p, int64_t m, int64_t row, double *u, double *rr,
                      double *sums)
{
    const double s = p->weight ? p->weight[row] : 1.0;
    for (int64_t c = 0; c < m; c++) {
        const double value = c < p->k ? u[c] - p->y[row * p->k + c] : u[c] + p->bias[c];
        u[c] = s * value;
        if (c < p->k)
            rr[c] = fma_of(u[c], value, rr[c]);
        sums[c] += u[c];
    }
}

INLINE void fetch(int is_wide, const struct sparse_rows *x, const double *columns, int64_t width,
                  int64_t at, int64_t count)
{
    if (at + AHEAD < count)
        __builtin_prefetch(columns + index_at(is_wide, x->indices, at + AHEAD) * width, 1);
}

/* Every loop returns how many rows it added: fewer if a column is beyond d. */
INLINE int64_t add_one_column(int type, int is_wide, const struct sparse_rows *x,
                              const struct sparse_products *p)
{
    const int64_t count = x->bounds[x->n];
    const uint64_t d = (uint64_t)x->d;
    double *columns = p->columns;
    double rr = p->k ? p->rr[0] : 0, sum = p->sums[0];
    for (int64_t i = 0; i < x->n; i++) {
        const int64_t stop = x->bounds[i + 1];
        int64_t at = x->bounds[i];
        double dots[N_SUMS] = {0};
        for (; at + N_SUMS <= stop; at += N_SUMS)
            _Pragma("GCC unroll 4") for (int l = 0; l < N_SUMS; l++)
            {
                const uint64_t j = index_at(is_wide, x->indices, at + l);
                if (__builtin_expect(j >= d, 0))
                    return i;
                fetch(is_wide, x, columns, 2, at + l, count);
                dots[l] = fma_of(value_at(type, x->values, at + l), columns[2 * j], dots[l]);
            }
        double u = (dots[0] + dots[1]) + (dots[2] + dots[3]);
        for (; at < stop; at++) {
            const uint64_t j = index_at(is_wide, x->indices, at);
            if (__builtin_expect(j >= d, 0))
                return i;
            fetch(is_wide, x, columns, 2, at, count);
            u = fma_of(value_at(type, x->values, at), columns[2 * j], u);
        }
        count_row(p, 1, i, &u, &rr, &sum);
        for (at = x->bounds[i]; at < stop; at++) {
            double *total = columns + 2 * index_at(is_wide, x->indices, at) + 1;
            *total = fma_of(u, value_at(type, x->values, at), *total);
        }
    }
    if (p->k)
        p->rr[0] = rr;
    p->sums[0] = sum;
    return x->n;
}

INLINE int64_t add_two_columns(int type, int is_wide, const struct sparse_rows *x,
                               const struct sparse_products *p)
{
    const int64_t count = x->bounds[x->n];
    const uint64_t d = (uint64_t)x->d;
    double *columns = p->columns;
    double rr[2] = {0}, sums[2] = {p->sums[0], p->sums[1]};
    for (int c = 0; c < 2; c++)
        rr[c] = c < p->k ? p->rr[c] : 0;
    for (int64_t i = 0; i < x->n; i++) {
        const int64_t stop = x->bounds[i + 1];
        int64_t at = x->bounds[i];
        pair dots[N_SUMS] = {{0}};
        for (; at + N_SUMS <= stop; at += N_SUMS)
            _Pragma("GCC unroll 4") for (int l = 0; l < N_SUMS; l++)
            {
                const uint64_t j = index_at(is_wide, x->indices, at + l);
                if (__builtin_expect(j >= d, 0))
                    return i;
                fetch(is_wide, x, columns, 4, at + l, count);
                const double value = value_at(type, x->values, at + l);
                dots[l] = fma_pair((pair){value, value}, load_pair(columns + 4 * j), dots[l]);
            }
        pair both = (dots[0] + dots[1]) + (dots[2] + dots[3]);
        for (; at < stop; at++) {
            const uint64_t j = index_at(is_wide, x->indices, at);
            if (__builtin_expect(j >= d, 0))
                return i;
            fetch(is_wide, x, columns, 4, at, count);
            const double value = value_at(type, x->values, at);
            both = fma_pair((pair){value, value}, load_pair(columns + 4 * j), both);
        }
        double u[2] = {both[0], both[1]};
        count_row(p, 2, i, u, rr, sums);
        both = (pair){u[0], u[1]};
        for (at = x->bounds[i]; at < stop; at++) {
            double *totals = columns + 4 * index_at(is_wide, x->indices, at) + 2;
            const double value = value_at(type, x->values, at);
            store_pair(totals, fma_pair(both, (pair){value, value}, load_pair(totals)));
        }
    }
    for (int c = 0; c < 2; c++) {
        if (c < p->k)
            p->rr[c] = rr[c];
        p->sums[c] = sums[c];
    }
    return x->n;
}

INLINE int64_t add_many_columns(int type, int is_wide, const struct sparse_rows *x,
                                const struct sparse_products *p)
{
    const int64_t m = p->m, count = x->bounds[x->n];
    const uint64_t d = (uint64_t)x->d;
    double *columns = p->columns, *u = p->scratch;
    for (int64_t i = 0; i < x->n; i++) {
        const int64_t first = x->bounds[i], stop = x->bounds[i + 1];
        memset(u, 0, (size_t)m * sizeof(double));
        for (int64_t at = first; at < stop; at++) {
            const uint64_t j = index_at(is_wide, x->indices, at);
            if (__builtin_expect(j >= d, 0))
                return i;
            fetch(is_wide, x, columns, 2 * m, at, count);
            const double value = value_at(type, x->values, at);
            const double *v = columns + 2 * m * j;
            for (int64_t c = 0; c < m; c++)
                u[c] = fma_of(value, v[c], u[c]);
        }
        count_row(p, m, i, u, p->rr, p->sums);
        for (int64_t at = first; at < stop; at++) {
            const double value = value_at(type, x->values, at);
            double *totals = columns + 2 * m * index_at(is_wide, x->indices, at) + m;
            for (int64_t c = 0; c < m; c++)
                totals[c] = fma_of(u[c], value, totals[c]);
        }
    }
    return x->n;
}

EXPORT int64_t sparse_rows_nbytes(void)
{
    return sizeof(struct sparse_rows);
}

EXPORT int64_t sparse_products_nbytes(void)
{
    return sizeof(struct sparse_products);
}

/* Returns the number of rows before the first one with a column beyond d. */
EXPORT int64_t add_sparse_products(const struct sparse_rows *x, const struct sparse_products *p)
{
    if (p->m == 1)
        return FOR_STORED_TYPE(x, add_one_column, x, p);
    if (p->m == 2)
        return FOR_STORED_TYPE(x, add_two_columns, x, p);
    return FOR_STORED_TYPE(x, add_many_columns, x, p);
}
