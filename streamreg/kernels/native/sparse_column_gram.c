/* Σ s z zᵀ of chosen columns z of sparse rows: the lower triangle, packed by rows.
 *
 * The chosen values of a row are gathered first, and then multiplied in pairs.
 */
#include "sparse.h"

struct sparse_column_gram {
    const int32_t *places; /* (d,) the number of a chosen column; -1: not chosen */
    const double *scale;   /* (d,) or NULL: ones */
    const double *weight;  /* (n,) s, or NULL: ones */
    double *triangle;      /* (k (k + 1)/2,) element (i, j), j <= i, at i (i + 1)/2 + j */
    double *values;        /* scratch: the chosen values of the longest row */
    int64_t *chosen;       /* scratch: their columns' numbers */
};

INLINE int64_t add_rows_of(int type, int is_wide, const struct sparse_rows *x,
                           const struct sparse_column_gram *p)
{
    const uint64_t d = (uint64_t)x->d;
    for (int64_t i = 0; i < x->n; i++) {
        const double s = p->weight ? p->weight[i] : 1.0;
        int64_t m = 0;
        for (int64_t at = x->bounds[i]; at < x->bounds[i + 1]; at++) {
            const uint64_t j = index_at(is_wide, x->indices, at);
            if (__builtin_expect(j >= d, 0))
                return i;
            const double value = value_at(type, x->values, at);
            p->values[m] = p->scale ? value * p->scale[j] : value;
            p->chosen[m] = p->places[j];
            m += p->places[j] >= 0;
        }
        for (int64_t a = 0; a < m; a++) {
            const int64_t row = p->chosen[a];
            const double value = s * p->values[a];
            double *own = p->triangle + row * (row + 1) / 2;
            own[row] = fma_of(value, p->values[a], own[row]);
            for (int64_t b = 0; b < a; b++) {
                const int64_t other = p->chosen[b];
                const double product = value * p->values[b];
                if (other < row)
                    own[other] += product;
                else if (other > row)
                    p->triangle[other * (other + 1) / 2 + row] += product;
                else /* values of one column add up */
                    own[row] += 2 * product;
            }
        }
    }
    return x->n;
}

EXPORT int64_t sparse_column_gram_nbytes(void)
{
    return sizeof(struct sparse_column_gram);
}

/* Returns the number of rows before the first one with a column beyond d. */
EXPORT int64_t add_sparse_column_gram(const struct sparse_rows *x, const struct sparse_column_gram *p)
{
    return FOR_STORED_TYPE(x, add_rows_of, x, p);
}
