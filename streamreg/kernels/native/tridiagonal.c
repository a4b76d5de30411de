/* Sums over the solutions of tridiagonal equations, for many right sides and penalties. */
#include "lanes.h"

/* right sides that are solved for at once: their numbers fit in the second-level cache */
#define GROUP 16

/* Write q·z and ‖z‖² of each penalty p and right side q, (n, m) each, with L diag(δ) Lᵀz = q.
 *
 * The m right sides are columns of r numbers, `ahead` from one to the next. For each of the n
 * penalties `inverse` has 1/δ, (n, r), and `below` the r - 1 numbers of L below its diagonal of
 * ones, (n, r). `room` has 2·r·GROUP numbers. */
EXPORT void tridiagonal_sums(const double *right, int64_t ahead, int64_t r, int64_t m,
            const double *inverse, const double *below, int64_t n, double *products,
            double *squares, double *room)
{
    double *q = room, *y = room + r * GROUP;
    for (int64_t first = 0; first < m; first += GROUP) {
        const int width = m - first < GROUP ? (int)(m - first) : GROUP;
        memset(q, 0, sizeof(double) * (size_t)(r * GROUP));
        for (int j = 0; j < width; j++)
            for (int64_t i = 0; i < r; i++)
                q[i * GROUP + j] = right[(first + j) * ahead + i];
        for (int64_t p = 0; p < n; p++) {
            const double *reciprocal = inverse + p * r, *l = below + p * r;
            double z[GROUP], product[GROUP], square[GROUP];
            for (int j = 0; j < GROUP; j++) {
                z[j] = 0;
                product[j] = square[j] = 0;
            }
            for (int64_t i = 0; i < r; i++) {
                const double factor = i ? -l[i - 1] : 0;
                for (int j = 0; j < GROUP; j++)
                    y[i * GROUP + j] = z[j] = fma_of(factor, z[j], q[i * GROUP + j]);
            }
            for (int j = 0; j < GROUP; j++)
                z[j] = 0;
            for (int64_t i = r - 1; i >= 0; i--) {
                const double factor = i < r - 1 ? -l[i] : 0;
                for (int j = 0; j < GROUP; j++) {
                    z[j] = fma_of(factor, z[j], y[i * GROUP + j] * reciprocal[i]);
                    product[j] = fma_of(q[i * GROUP + j], z[j], product[j]);
                    square[j] = fma_of(z[j], z[j], square[j]);
                }
            }
            for (int j = 0; j < width; j++) {
                products[p * m + first + j] = product[j];
                squares[p * m + first + j] = square[j];
            }
        }
    }
}
