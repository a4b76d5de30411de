/* Dot products of some rows with some columns of coefficients, in a fixed order. */
#ifndef STREAMREG_DOTS_H
#define STREAMREG_DOTS_H

#include "rows.h"

#define COLUMNS 2
#define EACH_COLUMN _Pragma("GCC unroll 2") for (int c = 0; c < n_columns; c++)

/* xV; `v` is (n_columns, d). Eight lanes are summed along the row, then the rest of the row.
 * Unless `copy` (n_rows, d) is NULL, the rows are also written to it, as float64. */
INLINE void dot_rows(int type, int n_rows, int n_columns, const struct rows *x, int64_t row,
                     const double *v, double dots[ROWS][COLUMNS], double *copy)
{
    const int64_t d = x->d, first = row * d;
    lanes sums[ROWS][COLUMNS];
    EACH_ROW EACH_COLUMN sums[r][c] = all_lanes(0);
    int64_t j = 0;
    for (; j + N_LANES <= d; j += N_LANES) {
        lanes w[COLUMNS];
        EACH_COLUMN w[c] = load_float64(v + c * d + j);
        EACH_ROW
        {
            lanes values = load_lanes(type, x->values, first + r * d + j);
            if (copy)
                store_float64(copy + r * d + j, values);
            EACH_COLUMN sums[r][c] = fma_lanes(values, w[c], sums[r][c]);
        }
    }
    EACH_ROW EACH_COLUMN dots[r][c] = sum_of(sums[r][c]);
    for (; j < d; j++) {
        if (copy)
            EACH_ROW copy[r * d + j] = load_one(type, x->values, first + r * d + j);
        EACH_ROW EACH_COLUMN dots[r][c] =
            fma_of(load_one(type, x->values, first + r * d + j), v[c * d + j], dots[r][c]);
    }
}

#endif
