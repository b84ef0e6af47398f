/* What the processor can do that C has no words for. */

#ifndef MEDMLLM_PROCESSOR_H
#define MEDMLLM_PROCESSOR_H

#include <Python.h>

#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#if defined(__SSE2__) && defined(__GNUC__)
#define X86
#include <immintrin.h>
#define AVX2 __attribute__((target("avx2")))
#if defined(__x86_64__)
#define AVX512 __attribute__((target("avx512f,avx512bw,avx512vl,avx512vbmi,avx512vnni")))
#endif
#if defined(__clang__)
#define UNROLLED _Pragma("unroll")
#else
#define UNROLLED _Pragma("GCC unroll 128")
#endif
#endif
#if defined(__GNUC__)
#define INLINE static inline __attribute__((always_inline))
#elif defined(_MSC_VER)
#define INLINE static __forceinline
#else
#define INLINE static inline
#endif

/* Bytes that are computed side by side. */
enum { LANES = 16 };

/* How many of the ways to compute, from the slowest, this processor runs: plain C, SSE2, AVX2, AVX-512 with VBMI and
 * VNNI (Ice Lake, Zen 4 and later). They give the same bytes.
 */
static int kernels(void)
{
#if defined(AVX512)
    if (__builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512vl")
        && __builtin_cpu_supports("avx512vbmi") && __builtin_cpu_supports("avx512vnni"))
        return 4;
#endif
#if defined(X86)
    return __builtin_cpu_supports("avx2") ? 3 : 2;
#else
    return 1;
#endif
}

#endif
