/* Bytes by chance, which a seed and a place alone decide. */
#ifndef TRANSDUCE_RANDOM_H
#define TRANSDUCE_RANDOM_H

#include "kernels.h"
#include "simd.h"

#define STEP 0x9E3779B97F4A7C15ull /* the golden ratio, by which the sequence goes on */

/* SplitMix64 (Steele, Lea and Flood 2014): eight numbers of the sequence */
static inline __m512i mixed(__m512i x) {
    x = _mm512_xor_si512(x, _mm512_srli_epi64(x, 30));
    x = _mm512_mullo_epi64(x, _mm512_set1_epi64((long long)0xBF58476D1CE4E5B9));
    x = _mm512_xor_si512(x, _mm512_srli_epi64(x, 27));
    x = _mm512_mullo_epi64(x, _mm512_set1_epi64((long long)0x94D049BB133111EB));
    return _mm512_xor_si512(x, _mm512_srli_epi64(x, 31));
}

/* 64 bytes: the block of this number */
static inline __m512i block_of(ix seed, ix number) {
    const __m512i places = _mm512_mullo_epi64(_mm512_set_epi64(7, 6, 5, 4, 3, 2, 1, 0),
                                              _mm512_set1_epi64((long long)STEP));
    const unsigned long long first = (unsigned long long)seed + 8 * (unsigned long long)number * STEP;
    return mixed(_mm512_add_epi64(places, _mm512_set1_epi64((long long)first)));
}

#endif
