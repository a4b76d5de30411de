/* Eight float64 lanes: the same sums, in the same order, on every processor.
 *
 * A processor with AVX-512 holds the lanes in one register, one with AVX2 in two, one with NEON in
 * four. Products are fused with the sum that they are added to (one rounding), so all processors
 * give the same bits. The baseline of x86-64 has no fused instruction: it rounds twice.
 */
#ifndef STREAMREG_LANES_H
#define STREAMREG_LANES_H

#ifdef __FAST_MATH__
#error "-ffast-math would reorder the sums"
#endif

#include <stdint.h>
#include <string.h>

#if defined(__AVX512F__)
#include <immintrin.h>
#define REGISTER_LANES 8
#elif defined(__AVX2__)
#include <immintrin.h>
#define REGISTER_LANES 4
#elif defined(__ARM_NEON)
#include <arm_neon.h>
#define REGISTER_LANES 2
#else
#define REGISTER_LANES 2
#endif

/* whether fma_of and fma_vector round once */
#if defined(__FMA__) || defined(__ARM_NEON)
#define IS_FUSED 1
#else
#define IS_FUSED 0
#endif

#define N_LANES 8
#define N_REGISTERS (N_LANES / REGISTER_LANES)
/* what Python calls; other names stay within the library */
#define EXPORT __attribute__((visibility("default")))
#define INLINE static inline __attribute__((always_inline))
#define EACH_REGISTER _Pragma("GCC unroll 4") for (int i_ = 0; i_ < N_REGISTERS; i_++)
#define EACH_LANE _Pragma("GCC unroll 8") for (int i_ = 0; i_ < REGISTER_LANES; i_++)

/* what one register holds */
typedef double vector __attribute__((vector_size(8 * REGISTER_LANES)));
typedef float float_vector __attribute__((vector_size(4 * REGISTER_LANES)));

typedef struct {
    vector at[N_REGISTERS];
} lanes;

/* a·b + c of one number */
INLINE double fma_of(double a, double b, double c)
{
#if IS_FUSED
    return __builtin_fma(a, b, c);
#else
    return a * b + c;
#endif
}

INLINE vector fma_vector(vector a, vector b, vector c)
{
#if defined(__AVX512F__)
    return (vector)_mm512_fmadd_pd((__m512d)a, (__m512d)b, (__m512d)c);
#elif defined(__AVX2__)
    return (vector)_mm256_fmadd_pd((__m256d)a, (__m256d)b, (__m256d)c);
#elif defined(__ARM_NEON)
    return (vector)vfmaq_f64((float64x2_t)c, (float64x2_t)a, (float64x2_t)b);
#else
    return a * b + c;
#endif
}

/* a·b + c of each lane */
INLINE lanes fma_lanes(lanes a, lanes b, lanes c)
{
    EACH_REGISTER c.at[i_] = fma_vector(a.at[i_], b.at[i_], c.at[i_]);
    return c;
}

INLINE lanes add_lanes(lanes a, lanes b)
{
    EACH_REGISTER a.at[i_] += b.at[i_];
    return a;
}

INLINE lanes subtract_lanes(lanes a, lanes b)
{
    EACH_REGISTER a.at[i_] -= b.at[i_];
    return a;
}

INLINE lanes multiply_lanes(lanes a, lanes b)
{
    EACH_REGISTER a.at[i_] *= b.at[i_];
    return a;
}

/* The smaller, and below the larger, of each lane; that of b if a is NaN. */
INLINE vector min_vector(vector a, vector b)
{
#if defined(__AVX512F__)
    return (vector)_mm512_min_pd((__m512d)a, (__m512d)b);
#elif defined(__AVX2__)
    return (vector)_mm256_min_pd((__m256d)a, (__m256d)b);
#else
    EACH_LANE a[i_] = a[i_] < b[i_] ? a[i_] : b[i_];
    return a;
#endif
}

INLINE vector max_vector(vector a, vector b)
{
#if defined(__AVX512F__)
    return (vector)_mm512_max_pd((__m512d)a, (__m512d)b);
#elif defined(__AVX2__)
    return (vector)_mm256_max_pd((__m256d)a, (__m256d)b);
#else
    EACH_LANE a[i_] = a[i_] > b[i_] ? a[i_] : b[i_];
    return a;
#endif
}

INLINE lanes min_lanes(lanes a, lanes b)
{
    EACH_REGISTER a.at[i_] = min_vector(a.at[i_], b.at[i_]);
    return a;
}

INLINE lanes max_lanes(lanes a, lanes b)
{
    EACH_REGISTER a.at[i_] = max_vector(a.at[i_], b.at[i_]);
    return a;
}

INLINE lanes all_lanes(double value)
{
    lanes v;
    vector zero = {0};
    EACH_REGISTER v.at[i_] = zero + value;
    return v;
}

/* Values need not be aligned. */
INLINE lanes load_float64(const void *values)
{
    lanes v;
    EACH_REGISTER memcpy(&v.at[i_], (const char *)values + i_ * sizeof(vector), sizeof(vector));
    return v;
}

INLINE lanes load_float32(const void *values)
{
    lanes v;
    EACH_REGISTER
    {
        float_vector narrow;
        memcpy(&narrow, (const char *)values + i_ * sizeof narrow, sizeof narrow);
        v.at[i_] = __builtin_convertvector(narrow, vector);
    }
    return v;
}

INLINE void store_float64(double *values, lanes v)
{
    EACH_REGISTER memcpy(values + REGISTER_LANES * i_, &v.at[i_], sizeof(vector));
}

/* The sum of the lanes, in this order: the two halves are added, then theirs, then the last two. */
INLINE double sum_of(lanes v)
{
#if defined(__AVX2__)
#if REGISTER_LANES == 8
    const __m512d all = (__m512d)v.at[0];
    const __m256d four = _mm256_add_pd(_mm512_castpd512_pd256(all), _mm512_extractf64x4_pd(all, 1));
#else
    const __m256d four = _mm256_add_pd((__m256d)v.at[0], (__m256d)v.at[1]);
#endif
    const __m128d two = _mm_add_pd(_mm256_castpd256_pd128(four), _mm256_extractf128_pd(four, 1));
    return two[0] + two[1];
#else
    const vector two = (v.at[0] + v.at[2]) + (v.at[1] + v.at[3]);
    return two[0] + two[1];
#endif
}

#endif
