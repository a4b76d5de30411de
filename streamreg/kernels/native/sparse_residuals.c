/* r = xw + b - y, Σ s r², Σ s r and Σ s r x in two floats, over sparse rows: see residuals.c. */
#include "sparse.h"
#include "two_floats.h"

/* The fields of `struct residuals`, without scratch memory. */
struct sparse_residuals {
    int64_t m;
    int64_t k;
    const double *coefficients; /* (m, 2, d) w */
    const double *bias;         /* (m, 2)    b */
    const double *scale;        /* (d,) or NULL: ones; powers of two */
    const double *y;            /* (n, k)    y */
    const double *weight;       /* (n,)      s, or NULL: ones */
    double *rr;                 /* (m, 2)    Σ s r² */
    double *sums;               /* (m, 2)    Σ s r */
    double *products;           /* (m, 2, d) Σ s r x */
};

INLINE int64_t add_rows_of(int type, int is_wide, const struct sparse_rows *x,
                           const struct sparse_residuals *p)
{
    const int64_t d = x->d;
    for (int64_t i = 0; i < x->n; i++) {
        const int64_t first = x->bounds[i], stop = x->bounds[i + 1];
        const double s = p->weight ? p->weight[i] : 1.0;
        for (int64_t at = first; at < stop; at++)
            if (__builtin_expect(index_at(is_wide, x->indices, at) >= (uint64_t)d, 0))
                return i;
        for (int64_t c = 0; c < p->m; c++) {
            const double *w = p->coefficients + 2 * d * c;
            double high = c < p->k ? -p->y[i * p->k + c] : 0.0, low = 0.0;
            add_one(&high, &low, p->bias[2 * c], p->bias[2 * c + 1]);
            for (int64_t at = first; at < stop; at++) {
                const uint64_t j = index_at(is_wide, x->indices, at);
                double value = value_at(type, x->values, at);
                value = p->scale ? value * p->scale[j] : value;
                const double product = value * w[j];
                add_one(&high, &low, product,
                        fma_of(value, w[d + j], product_error(value, w[j], product)));
            }
            normalise(&high, &low);
            double s_high = s * high, s_low = fma_of(s, low, product_error(s, high, s_high));
            normalise(&s_high, &s_low);
            const double square = s_high * high, error = product_error(s_high, high, square);
            add_one(p->rr + 2 * c, p->rr + 2 * c + 1, square,
                    fma_of(s_high, low, fma_of(s_low, high, error)));
            add_one(p->sums + 2 * c, p->sums + 2 * c + 1, s_high, s_low);
            double *totals = p->products + 2 * d * c;
            for (int64_t at = first; at < stop; at++) {
                const uint64_t j = index_at(is_wide, x->indices, at);
                double value = value_at(type, x->values, at);
                value = p->scale ? value * p->scale[j] : value;
                const double product = value * s_high;
                add_one(totals + j, totals + d + j, product,
                        fma_of(value, s_low, product_error(value, s_high, product)));
            }
        }
    }
    return x->n;
}

EXPORT int64_t sparse_residuals_nbytes(void)
{
    return sizeof(struct sparse_residuals);
}

/* Returns the number of rows before the first one with a column beyond d. */
EXPORT int64_t add_sparse_residuals(const struct sparse_rows *x, const struct sparse_residuals *p)
{
    return FOR_STORED_TYPE(x, add_rows_of, x, p);
}
