#ifndef STREAMREG_MOMENTS_H
#define STREAMREG_MOMENTS_H

#include "rows.h"

/* The fields of `MomentsState` in kernels/states.py, for d features and k targets. */
struct moments {
    int64_t k;
    const double *y;      /* (n, k) y less its origin */
    const double *weight; /* (n,)   s, or NULL: ones */
    const double *origin; /* (d,)   o, of scaled values */
    double *s;            /* ()     Σ s */
    double *mean;         /* (d,)   x̄ - o */
    double *m2;           /* (d,)   Σ s (x - x̄)² */
    double *low;          /* (d,)   min x, never scaled */
    double *high;         /* (d,)   max x, never scaled */
    double *y_mean;       /* (k,)   ȳ less the origin of y */
    double *y_m2;         /* (k,)   Σ s (y - ȳ)² */
    double *cross;        /* (k, d) Σ s (y - ȳ)(x - x̄) */
    double *scratch;      /* (2 + k)(d + 1): sums of a tile */
    double *tile;         /* memory for a tile of 256 KiB or 8 rows, unless rows are read directly */
};

/* Rows of a tile, 256 KiB of float64 or 8 rows: they depend on nothing but d. */
INLINE int64_t moments_rows(int64_t d)
{
    const int64_t rows = (256 << 10) / (8 * d);
    return rows < 8 ? 8 : rows - rows % 4;
}

void add_moments(const struct rows *x, const struct moments *m);

#endif
