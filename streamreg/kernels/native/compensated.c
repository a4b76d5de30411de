/* The residual product in two floats: sums are correct to about 2⁻¹⁰⁰, for corrections of weights.
 *
 * Each product is split into its rounded value and its error, and each sum as well (Ogita, Rump &
 * Oishi 2005, "Accurate sum and dot product", SIAM J. Sci. Comput. 26(6)).
 */
#include "rows.h"

typedef struct {
    double high;
    double low;
} two;

/* The exact error of the rounded product p of a and b. */
INLINE double product_error(double a, double b, double p)
{
#if defined(__FMA__) || defined(__ARM_NEON)
    return __builtin_fma(a, b, -p);
#else
    /* Dekker 1971: halves of 26 bits, whose products are exact */
    const double split = 134217729.0;
    const double ha = split * a - (split * a - a), hb = split * b - (split * b - b);
    const double la = a - ha, lb = b - hb;
    return la * lb - (((p - ha * hb) - la * hb) - ha * lb);
#endif
}

INLINE two add_product(two sum, double a, double b)
{
    const double p = a * b, high = sum.high + p, other = high - sum.high;
    const double error = (sum.high - (high - other)) + (p - other);
    return (two){high, sum.low + (error + product_error(a, b, p))};
}

INLINE two normalised(two sum)
{
    const double high = sum.high + sum.low;
    return (two){high, sum.low - (high - sum.high)};
}

/* Add r = xw - y, in two floats, and s r x; `w`, `y` and `products` are pairs of a high part and a
 * low part, (2, d), (2, n) and (2, d); `sums` is (4,): Σ s r² and Σ s r. `tile` holds one row. */
EXPORT void add_compensated(const struct rows *x, const double *w, const double *y, const double *weight,
                     double *sums, double *products, double *tile)
{
    const int64_t d = x->d;
    double *high = products, *low = products + d;
    two rr = {sums[0], sums[1]}, r_sum = {sums[2], sums[3]};
    for (int64_t i = 0; i < x->n; i++) {
        widen(x, i, i + 1, tile);
        two lanes_of[N_LANES] = {{0, 0}};
        int64_t j = 0;
        for (; j + N_LANES <= d; j += N_LANES)
            for (int l = 0; l < N_LANES; l++) {
                lanes_of[l] = add_product(lanes_of[l], tile[j + l], w[j + l]);
                lanes_of[l].low = fma_of(tile[j + l], w[d + j + l], lanes_of[l].low);
            }
        two r = {-y[i], -y[x->n + i]};
        for (int l = 0; l < N_LANES; l++) {
            r = add_product(r, lanes_of[l].high, 1.0);
            r.low += lanes_of[l].low;
        }
        for (; j < d; j++) {
            r = add_product(r, tile[j], w[j]);
            r.low = fma_of(tile[j], w[d + j], r.low);
        }
        r = normalised(r);
        const double s = weight ? weight[i] : 1.0;
        /* s·r in two floats */
        const double sr = s * r.high;
        const two weighted = normalised((two){sr, product_error(s, r.high, sr) + s * r.low});
        rr = add_product(rr, weighted.high, r.high);
        rr.low += weighted.high * r.low + weighted.low * r.high;
        r_sum = add_product(r_sum, weighted.high, 1.0);
        r_sum.low += weighted.low;
        for (j = 0; j < d; j++) {
            const two sum = add_product((two){high[j], low[j]}, weighted.high, tile[j]);
            high[j] = sum.high;
            low[j] = fma_of(weighted.low, tile[j], sum.low);
        }
    }
    rr = normalised(rr);
    r_sum = normalised(r_sum);
    sums[0] = rr.high, sums[1] = rr.low, sums[2] = r_sum.high, sums[3] = r_sum.low;
}
