/* Vectors of 16 floats (AVX-512): loading and storing either dtype, exponentials.
 *
 * Everything that includes this is compiled for processors that have AVX-512 with VNNI and bf16,
 * and called on no others (`supported` in module.c).
 */
#ifndef TRANSDUCE_SIMD_H
#define TRANSDUCE_SIMD_H

#include <immintrin.h>
#include <stddef.h>
#include <stdint.h>

#define FLOAT32 0 /* kinds of number */
#define BFLOAT16 1

#define LANES 16

#define MIDDLE ((int)0x80808080u) /* of fours without a sign: 128 more is another sign bit */

#define ALWAYS static inline __attribute__((always_inline))

static inline __mmask16 lanes(ptrdiff_t count) {
    return count >= LANES ? 0xFFFF : (__mmask16)((1u << count) - 1);
}

static inline size_t size_of(int kind) { return kind == BFLOAT16 ? 2 : 4; }

static inline const void *at(const void *base, int kind, ptrdiff_t index) {
    return (const char *)base + (ptrdiff_t)size_of(kind) * index;
}

/* bf16 is the upper half of a float32 */
static inline __m512 from_bf16(__m256i halves) {
    return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(halves), 16));
}

static inline __m512 load(const void *base, int kind, ptrdiff_t index, __mmask16 mask) {
    if (kind == BFLOAT16)
        return from_bf16(_mm256_maskz_loadu_epi16(mask, (const uint16_t *)base + index));
    return _mm512_maskz_loadu_ps(mask, (const float *)base + index);
}

static inline void store(void *base, int kind, ptrdiff_t index, __mmask16 mask, __m512 x) {
    if (kind == BFLOAT16)
        _mm256_mask_storeu_epi16((uint16_t *)base + index, mask, (__m256i)_mm512_cvtneps_pbh(x));
    else
        _mm512_mask_storeu_ps((float *)base + index, mask, x);
}

/* e^x to about one unit in the last place: e^x = 2^n e^r, |r| <= log(2) / 2, and for e^r the
 * polynomial of the Cephes library. 0 below -87.3 and infinite above 88.7. */
static inline __m512 exponential(__m512 x) {
    const __m512 log2e = _mm512_set1_ps(1.44269504f);
    __m512 n = _mm512_roundscale_ps(_mm512_mul_ps(x, log2e), 0);
    __m512 r = _mm512_fnmadd_ps(n, _mm512_set1_ps(0.693359375f), x);
    r = _mm512_fnmadd_ps(n, _mm512_set1_ps(-2.12194440e-4f), r);
    __m512 p = _mm512_set1_ps(1.9875691500e-4f);
    p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(1.3981999507e-3f));
    p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(8.3334519073e-3f));
    p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(4.1665795894e-2f));
    p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(1.6666665459e-1f));
    p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(5.0000001201e-1f));
    p = _mm512_fmadd_ps(p, _mm512_mul_ps(r, r), _mm512_add_ps(r, _mm512_set1_ps(1.0f)));
    __mmask16 nothing = _mm512_cmp_ps_mask(x, _mm512_set1_ps(-87.3f), _CMP_LT_OQ);
    __mmask16 endless = _mm512_cmp_ps_mask(x, _mm512_set1_ps(88.72f), _CMP_GT_OQ);
    p = _mm512_maskz_scalef_ps((__mmask16)~nothing, p, n);
    return _mm512_mask_mov_ps(p, endless, _mm512_set1_ps(__builtin_inff()));
}

/* log x to about two units in the last place: x = 2^n m with m about 1, and for log m the polynomial
 * of the Cephes library. Of 0 it is -inf. */
static inline __m512 logarithm(__m512 x) {
    const __m512 one = _mm512_set1_ps(1.0f);
    __m512 m = _mm512_getmant_ps(x, _MM_MANT_NORM_p75_1p5, _MM_MANT_SIGN_src);
    __m512 n = _mm512_getexp_ps(_mm512_div_ps(x, m));
    __m512 r = _mm512_sub_ps(m, one), square = _mm512_mul_ps(r, r);
    __m512 p = _mm512_set1_ps(7.0376836292e-2f);
    p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(-1.1514610310e-1f));
    p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(1.1676998740e-1f));
    p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(-1.2420140846e-1f));
    p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(1.4249322787e-1f));
    p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(-1.6668057665e-1f));
    p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(2.0000714765e-1f));
    p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(-2.4999993993e-1f));
    p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(3.3333331174e-1f));
    p = _mm512_mul_ps(_mm512_mul_ps(p, r), square);
    p = _mm512_fmadd_ps(n, _mm512_set1_ps(-2.12194440e-4f), p);
    p = _mm512_fnmadd_ps(_mm512_set1_ps(0.5f), square, p);
    p = _mm512_fmadd_ps(n, _mm512_set1_ps(0.693359375f), _mm512_add_ps(p, r));
    __mmask16 nothing = _mm512_cmp_ps_mask(x, _mm512_setzero_ps(), _CMP_EQ_OQ);
    return _mm512_mask_mov_ps(p, nothing, _mm512_set1_ps(-__builtin_inff()));
}

/* 1 / (1 + e^-x), to about two units in the last place of 1: e^-x = 2^n 2^r, |r| <= 1/2, and for 2^r the Taylor
 * polynomial of e^(r log 2). The reciprocal is one of 14 bits and a step of Newton's, since a division takes as long
 * as all the rest. Below -87 it is that of -87. */
static inline __m512 sigmoid(__m512 x) {
    const __m512 one = _mm512_set1_ps(1.0f);
    __m512 y = _mm512_mul_ps(x, _mm512_set1_ps(-1.44269504f));
    y = _mm512_min_ps(_mm512_set1_ps(126.0f), y); /* the second is kept if it is no number */
    y = _mm512_max_ps(_mm512_set1_ps(-150.0f), y);
    const __m512 n = _mm512_roundscale_ps(y, 0), r = _mm512_sub_ps(y, n);
    __m512 p = _mm512_set1_ps(1.5403530e-4f);
    p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(1.3333558e-3f));
    p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(9.6181291e-3f));
    p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(5.5504109e-2f));
    p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(2.4022651e-1f));
    p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(6.9314718e-1f));
    p = _mm512_fmadd_ps(p, r, one);
    const __m512 sum = _mm512_add_ps(one, _mm512_scalef_ps(p, n));
    const __m512 about = _mm512_rcp14_ps(sum);
    return _mm512_mul_ps(about, _mm512_fnmadd_ps(sum, about, _mm512_set1_ps(2.0f)));
}

/* tanh x = 2 sigmoid(2 x) - 1 */
static inline __m512 hyperbolic_tangent(__m512 x) {
    __m512 s = sigmoid(_mm512_add_ps(x, x));
    return _mm512_sub_ps(_mm512_add_ps(s, s), _mm512_set1_ps(1.0f));
}

/* Pairs (bf16) or fours (8 bits) of two times 16 numbers, multiplied and added. In assembly, since GCC copies sums
 * back and forth otherwise. */
ALWAYS __m512i add_products(__m512i sum, __m512i one, __m512i other,
                                                                  const int eight_bits) {
    if (eight_bits)
        __asm__("vpdpbusd %2, %1, %0" : "+v"(sum) : "v"(one), "v"(other));
    else
        __asm__("vdpbf16ps %2, %1, %0" : "+v"(sum) : "v"(one), "v"(other));
    return sum;
}

/* two rows of 16 numbers in bf16 as pairs */
static inline __m512i pairs_of(__m256i one, __m256i other) {
    return _mm512_or_si512(_mm512_cvtepu16_epi32(one), _mm512_slli_epi32(_mm512_cvtepu16_epi32(other), 16));
}

/* Half of the exchange of a square's rows and columns: between rows i and i + `apart` for all i without
 * that bit, numbers without it and with it. Four of these turn 16 x 16 numbers. */
ALWAYS void exchange(__m512 *x, int apart) {
    int first[LANES], second[LANES];
    for (int lane = 0; lane < LANES; lane++) { /* 16 and more: a lane of the other row */
        first[lane] = lane & apart ? (lane ^ apart) + LANES : lane;
        second[lane] = lane & apart ? lane + LANES : lane ^ apart;
    }
    const __m512i low = _mm512_loadu_si512(first), high = _mm512_loadu_si512(second);
    for (int i = 0; i < LANES; i++)
        if (!(i & apart)) {
            const __m512 a = x[i], b = x[i + apart];
            x[i] = _mm512_permutex2var_ps(a, low, b);
            x[i + apart] = _mm512_permutex2var_ps(a, high, b);
        }
}

/* 16 x 16 numbers of 32 bits: rows become columns */
ALWAYS void turn_square(__m512 *x) {
    exchange(x, 1);
    exchange(x, 2);
    exchange(x, 4);
    exchange(x, 8);
}

#endif
