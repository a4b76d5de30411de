/* Σ s z zᵀ over sparse rows: one product for each pair of values of a row.
 *
 * Columns ascend in every row, and none is twice in it: then all pairs of a row change different
 * numbers, of the lower triangle.
 */
#include "sparse.h"

/* z are the values of the rows: float64, less the origin of their columns. */
struct sparse_gram {
    int64_t k;
    const double *y;      /* (n, k) y less its origin */
    const double *weight; /* (n,)   s, or NULL: ones */
    double *sums;         /* (d,)   Σ s z */
    double *varies;       /* (d,)   1 where a z is not 0 */
    double *cross;        /* (d, k) Σ s z y */
    double *gram;         /* (d, d) in Fortran order: the lower triangle of Σ s z zᵀ */
};

INLINE void add_sums(int is_wide, const struct sparse_rows *x, const struct sparse_gram *p)
{
    for (int64_t i = 0; i < x->n; i++) {
        const double s = p->weight ? p->weight[i] : 1.0, *y = p->y + i * p->k;
        for (int64_t at = x->bounds[i]; at < x->bounds[i + 1]; at++) {
            const uint64_t j = index_at(is_wide, x->indices, at);
            const double z = value_at(FLOAT64, x->values, at), sz = s * z;
            p->sums[j] += sz;
            p->varies[j] = z != 0 ? 1.0 : p->varies[j];
            double *cross = p->cross + j * (uint64_t)p->k;
            for (int64_t c = 0; c < p->k; c++)
                cross[c] = fma_of(sz, y[c], cross[c]);
        }
    }
}

/* The first value of a row whose column is not before `column`. */
INLINE int64_t first_value(int is_wide, const struct sparse_rows *x, int64_t row, uint64_t column)
{
    int64_t low = x->bounds[row], high = x->bounds[row + 1];
    while (low < high) {
        const int64_t middle = low + (high - low) / 2;
        if (index_at(is_wide, x->indices, middle) < column)
            low = middle + 1;
        else
            high = middle;
    }
    return low;
}

INLINE void add_pairs(int is_wide, const struct sparse_rows *x, const struct sparse_gram *p,
                      uint64_t first, uint64_t stop)
{
    const double *z = x->values;
    for (int64_t i = 0; i < x->n; i++) {
        const double s = p->weight ? p->weight[i] : 1.0;
        const int64_t end = x->bounds[i + 1];
        for (int64_t a = first_value(is_wide, x, i, first); a < end; a++) {
            const uint64_t j = index_at(is_wide, x->indices, a);
            if (j >= stop)
                break;
            double *column = p->gram + j * (uint64_t)x->d;
            const double sz = s * z[a];
            _Pragma("GCC ivdep") for (int64_t b = a; b < end; b++)
            {
                double *sum = column + index_at(is_wide, x->indices, b);
                *sum = fma_of(sz, z[b], *sum);
            }
        }
    }
}

EXPORT int64_t sparse_gram_nbytes(void)
{
    return sizeof(struct sparse_gram);
}

/* Columns must have been checked. */
EXPORT void add_sparse_sums(const struct sparse_rows *x, const struct sparse_gram *p)
{
    x->is_wide ? add_sums(1, x, p) : add_sums(0, x, p);
}

/* Add the products of columns `first` to `stop` with those that do not come before them. */
EXPORT void add_sparse_pairs(const struct sparse_rows *x, const struct sparse_gram *p,
                             int64_t first, int64_t stop)
{
    x->is_wide ? add_pairs(1, x, p, (uint64_t)first, (uint64_t)stop)
               : add_pairs(0, x, p, (uint64_t)first, (uint64_t)stop);
}
