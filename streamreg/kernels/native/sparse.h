/* Sparse rows in memory (CSR), as the loops read them. */
#ifndef STREAMREG_SPARSE_H
#define STREAMREG_SPARSE_H

#include "rows.h"

/* n rows of d columns. Row i stores the values `bounds[i]` to `bounds[i + 1]`, in any order; values
 * of one column in one row add up. */
struct sparse_rows {
    const void *values;
    const void *indices;   /* columns, read as unsigned: negative ones are beyond d */
    const int64_t *bounds; /* (n + 1,) from 0 on */
    int64_t n;
    int64_t d;
    int64_t type;    /* FLOAT64 or FLOAT32 */
    int64_t is_wide; /* whether indices have 64 bits, not 32 */
};

/* `is_wide` is a constant in every caller. */
INLINE uint64_t index_at(int is_wide, const void *indices, int64_t at)
{
    return is_wide ? ((const uint64_t *)indices)[at] : ((const uint32_t *)indices)[at];
}

INLINE double value_at(int type, const void *values, int64_t at)
{
    return type == FLOAT64 ? ((const double *)values)[at] : ((const float *)values)[at];
}

typedef double pair __attribute__((vector_size(16)));

INLINE pair fma_pair(pair a, pair b, pair c)
{
#if defined(__FMA__)
    return (pair)_mm_fmadd_pd((__m128d)a, (__m128d)b, (__m128d)c);
#elif defined(__ARM_NEON)
    return (pair)vfmaq_f64((float64x2_t)c, (float64x2_t)a, (float64x2_t)b);
#else
    return a * b + c;
#endif
}

INLINE pair load_pair(const double *from)
{
    pair two;
    memcpy(&two, from, sizeof two);
    return two;
}

INLINE void store_pair(double *to, pair two)
{
    memcpy(to, &two, sizeof two);
}

/* Call `loop(type, is_wide, …)` with constants, as the rows are stored. */
#define FOR_STORED_TYPE(x, loop, ...) \
    ((x)->type == FLOAT64 ? ((x)->is_wide ? loop(FLOAT64, 1, __VA_ARGS__) \
                                          : loop(FLOAT64, 0, __VA_ARGS__)) \
                          : ((x)->is_wide ? loop(FLOAT32, 1, __VA_ARGS__) \
                                          : loop(FLOAT32, 0, __VA_ARGS__)))

#endif
