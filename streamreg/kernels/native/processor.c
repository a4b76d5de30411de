/* What this processor can do, and what was compiled. `best_level` is called in the baseline only. */
#include "lanes.h"

#if defined(__x86_64__)
#include <cpuid.h>

/* Which registers the system saves for a thread: bits 1 and 2 mean AVX, bits 5 to 7 AVX-512. */
static uint32_t saved_registers(void)
{
    uint32_t low, high;
    __asm__ volatile("xgetbv" : "=a"(low), "=d"(high) : "c"(0));
    return low;
}
#endif

/* The name of the best build: 4 for x86-64-v4, 3 for x86-64-v3, 0 for the baseline.
 *
 * __builtin_cpu_supports is not used: compiled by Zig, it recognises no processor. Bits of cpuid:
 * Intel 64 and IA-32 Architectures Software Developer's Manual, volume 2A.
 */
EXPORT int best_level(void)
{
#if defined(__x86_64__)
    const uint32_t fma = 1u << 12, xsave = 1u << 27, avx = 1u << 28;
    const uint32_t avx2 = 1u << 5, f = 1u << 16, dq = 1u << 17, bw = 1u << 30, vl = 1u << 31;
    uint32_t a, b, c, d;
    if (!__get_cpuid(1, &a, &b, &c, &d) || (c & (fma | xsave | avx)) != (fma | xsave | avx))
        return 0;
    if (!__get_cpuid_count(7, 0, &a, &b, &c, &d) || !(b & avx2))
        return 0;
    const uint32_t saved = saved_registers();
    if ((b & (f | dq | bw | vl)) == (f | dq | bw | vl) && (saved & 0xe6) == 0xe6)
        return 4;
    if ((saved & 6) == 6)
        return 3;
#endif
    return 0;
}

/* The checksum of the sources that were compiled. */
EXPORT uint32_t sources(void)
{
    return SOURCES;
}

/* The level that they were compiled for, such as "v3". */
EXPORT const char *level(void)
{
    return LEVEL;
}

/* Whether products are fused with sums. */
EXPORT int is_fused(void)
{
    return IS_FUSED;
}
