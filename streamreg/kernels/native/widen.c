/* Convert every stored type to float64. */
#include "rows.h"

INLINE uint8_t swap_1(uint8_t bits) { return bits; }
INLINE uint16_t swap_2(uint16_t bits) { return __builtin_bswap16(bits); }
INLINE uint32_t swap_4(uint32_t bits) { return __builtin_bswap32(bits); }
INLINE uint64_t swap_8(uint64_t bits) { return __builtin_bswap64(bits); }

/* Convert a float16. Subnormals are computed as 2⁻¹⁴(1 + m/2¹⁰) - 2⁻¹⁴, from normal numbers only,
 * because a library in the same process may have told the processor to flush subnormals to zero. */
INLINE double half_of(uint16_t bits)
{
    const uint64_t magnitude = bits & 0x7fff, sign = bits & 0x8000;
    const uint64_t subnormal = magnitude < 0x400 ? (uint64_t)(1023 - 14) << 52 : 0;
    /* infinity and NaN have the largest exponent of either type */
    const uint64_t bias = magnitude >= 0x7c00 ? 2047 - 31 : 1023 - 15;
    const uint64_t wide = (magnitude << 42) + (subnormal ? subnormal : bias << 52);
    double value, less;
    memcpy(&value, &wide, sizeof value);
    memcpy(&less, &subnormal, sizeof less);
    value -= less;
    uint64_t out;
    memcpy(&out, &value, sizeof out);
    out |= sign << 48;
    memcpy(&value, &out, sizeof value);
    return value;
}

#define WIDEN(NAME, BITS, SIZE, TYPE, VALUE_OF)                                     \
    static void NAME(const char *values, int64_t n, int swapped, double *out)       \
    {                                                                               \
        for (int64_t i = 0; i < n; i++) {                                           \
            BITS bits;                                                              \
            memcpy(&bits, values + SIZE * i, SIZE);                                 \
            if (swapped)                                                            \
                bits = swap_##SIZE(bits);                                           \
            TYPE value;                                                             \
            memcpy(&value, &bits, SIZE);                                            \
            out[i] = VALUE_OF(value);                                               \
        }                                                                           \
    }

WIDEN(widen_float64, uint64_t, 8, double, (double))
WIDEN(widen_float32, uint32_t, 4, float, (double))
WIDEN(widen_float16, uint16_t, 2, uint16_t, half_of)
WIDEN(widen_int8, uint8_t, 1, int8_t, (double))
WIDEN(widen_int16, uint16_t, 2, int16_t, (double))
WIDEN(widen_int32, uint32_t, 4, int32_t, (double))
WIDEN(widen_int64, uint64_t, 8, int64_t, (double))
WIDEN(widen_uint8, uint8_t, 1, uint8_t, (double))
WIDEN(widen_uint16, uint16_t, 2, uint16_t, (double))
WIDEN(widen_uint32, uint32_t, 4, uint32_t, (double))
WIDEN(widen_uint64, uint64_t, 8, uint64_t, (double))
WIDEN(widen_bool, uint8_t, 1, uint8_t, (double)!!)

static void (*const widen_type[])(const char *, int64_t, int, double *) = {
    widen_float64, widen_float32, widen_float16,
    widen_int8, widen_int16, widen_int32, widen_int64,
    widen_uint8, widen_uint16, widen_uint32, widen_uint64,
    widen_bool,
};

void widen(const struct rows *x, int64_t start, int64_t stop, double *out)
{
    const int64_t d = x->d;
    widen_type[x->type](row_at(x, start), (stop - start) * d, x->swapped, out);
    if (!x->scale && !x->shift)
        return;
    for (int64_t i = 0; i < stop - start; i++, out += d) {
        /* the scale is a power of two, so that the product is exact, fused or not */
        if (x->scale)
            for (int64_t j = 0; j < d; j++)
                out[j] *= x->scale[j];
        if (x->shift)
            for (int64_t j = 0; j < d; j++)
                out[j] -= x->shift[j];
    }
}
