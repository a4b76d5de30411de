/* Predictions Xw + b of sparse rows. */
#include "sparse.h"

INLINE int64_t predict_rows(int type, int is_wide, const struct sparse_rows *x, const double *w,
                            const double *b, int64_t k, double *out)
{
    const uint64_t d = (uint64_t)x->d;
    for (int64_t i = 0; i < x->n; i++) {
        double *predicted = out + i * k;
        memset(predicted, 0, (size_t)k * sizeof(double));
        for (int64_t at = x->bounds[i]; at < x->bounds[i + 1]; at++) {
            const uint64_t j = index_at(is_wide, x->indices, at);
            if (__builtin_expect(j >= d, 0))
                return i;
            const double value = value_at(type, x->values, at);
            for (int64_t c = 0; c < k; c++)
                predicted[c] = fma_of(value, w[j * (uint64_t)k + c], predicted[c]);
        }
        for (int64_t c = 0; c < k; c++)
            predicted[c] += b[c];
    }
    return x->n;
}

/* Write Xw + b to `out` (n, k); w is (d, k), b (k,). Returns how many rows were written: those
 * before the first one with a column beyond d. */
EXPORT int64_t sparse_predict(const struct sparse_rows *x, const double *w, const double *b,
                              int64_t k, double *out)
{
    return FOR_STORED_TYPE(x, predict_rows, x, w, b, k, out);
}
