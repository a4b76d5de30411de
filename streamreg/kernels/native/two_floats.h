/* Sums and products in two floats: a high part, and its error.
 *
 * Ogita, Rump & Oishi (2005), SIAM J. Sci. Comput. 26(6), 1955-1988.
 */
#ifndef STREAMREG_TWO_FLOATS_H
#define STREAMREG_TWO_FLOATS_H

#include "lanes.h"

/* The exact error of the rounded product p of a and b. */
INLINE double product_error(double a, double b, double p)
{
#if IS_FUSED
    return __builtin_fma(a, b, -p);
#else
    /* Dekker 1971: halves of 26 bits, whose products are exact */
    const double split = 134217729.0;
    const double ha = split * a - (split * a - a), hb = split * b - (split * b - b);
    const double la = a - ha, lb = b - hb;
    return la * lb - (((p - ha * hb) - la * hb) - ha * lb);
#endif
}

/* Add b to the sum of *high and *low. */
INLINE void add_one(double *high, double *low, double b, double b_low)
{
    const double sum = *high + b, other = sum - *high;
    *low += ((*high - (sum - other)) + (b - other)) + b_low;
    *high = sum;
}

INLINE void normalise(double *high, double *low)
{
    const double sum = *high + *low;
    *low -= sum - *high;
    *high = sum;
}

#endif
