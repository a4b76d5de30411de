/* A tile of rows, widened, shifted and weighted, column by column for LAPACK. */
#include "rows.h"

#define GROUP 8

/* Write (x·scale - shift)·√s to `out`, whose columns begin `step` numbers apart: eight rows at a
 * time, which fill a line of the cache in each column. `roots` is (n,) √s, or NULL. `tile` holds
 * eight rows. */
EXPORT void columns(const struct rows *x, const double *roots, double *tile, double *out, int64_t step)
{
    const int64_t d = x->d;
    for (int64_t start = 0; start < x->n; start += GROUP) {
        const int n = x->n - start < GROUP ? (int)(x->n - start) : GROUP;
        widen(x, start, start + n, tile);
        if (roots)
            for (int r = 0; r < n; r++)
                for (int64_t j = 0; j < d; j++)
                    tile[r * d + j] *= roots[start + r];
        double *to = out + start;
        if (n == GROUP) {
            for (int64_t j = 0; j < d; j++, to += step)
                for (int r = 0; r < GROUP; r++)
                    to[r] = tile[r * d + j];
        } else {
            for (int64_t j = 0; j < d; j++, to += step)
                for (int r = 0; r < n; r++)
                    to[r] = tile[r * d + j];
        }
    }
}
