/* Widen, centre and weight a tile of rows, from which BLAS then computes XᵀX. */
#include "rows.h"

/* Write the n rows of x to `out` as (x·scale - shift - mean)·√s, and their mean to `mean` (d,).
 *
 * Columns that differ from their shift are marked in `varies` (d,), unless it is NULL. `weight` is
 * (n,) or NULL; `total` is the sum of the weights, or n. If `mean` is NULL, only the shift is
 * subtracted.
 */
EXPORT void centre(const struct rows *x, const double *weight, double total, double *mean, double *varies,
            double *out)
{
    const int64_t n = x->n, d = x->d;
    if (mean)
        memset(mean, 0, d * sizeof(double));
    for (int64_t i = 0; i < n; i++) {
        double *row = out + i * d;
        widen(x, i, i + 1, row);
        const double s = weight ? weight[i] : 1.0;
        for (int64_t j = 0; varies && j < d; j++)
            varies[j] = row[j] != 0 ? 1.0 : varies[j];
        if (mean)
            for (int64_t j = 0; j < d; j++)
                mean[j] = fma_of(s, row[j], mean[j]);
    }
    if (mean)
        for (int64_t j = 0; j < d; j++)
            mean[j] /= total;
    if (!mean && !weight)
        return;
    for (int64_t i = 0; i < n; i++) {
        double *row = out + i * d;
        const double root = weight ? __builtin_sqrt(weight[i]) : 1.0;
        if (!mean)
            for (int64_t j = 0; j < d; j++)
                row[j] *= root;
        else if (weight)
            for (int64_t j = 0; j < d; j++)
                row[j] = (row[j] - mean[j]) * root;
        else
            for (int64_t j = 0; j < d; j++)
                row[j] -= mean[j];
    }
}
