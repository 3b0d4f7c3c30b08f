/* The best words of a row of logits, as a search wants them: shared by those that look for them. */
#ifndef TRANSDUCE_BEST_H
#define TRANSDUCE_BEST_H

#include "kernels.h"
#include "simd.h"

/* which of 16 words from v on there are, and of them those that are allowed */
static inline __mmask16 there_are(const unsigned char *allowed, ix v, ix size) {
    const __mmask16 mask = lanes(size - v);
    return allowed ? _mm_test_epi8_mask(_mm_maskz_loadu_epi8(mask, allowed + v), _mm_set1_epi8(-1)) : mask;
}

/* put a word where it belongs among the best so far, and return the value to beat from now on */
static inline float enter_word(float *values, long long *words, ix count, float value, ix word) {
    ix place = count - 1;
    while (place > 0 && values[place - 1] < value) {
        values[place] = values[place - 1];
        words[place] = words[place - 1];
        place--;
    }
    values[place] = value;
    words[place] = word;
    return values[count - 1];
}

/* the `count` best of logits (size,) from `first` on, best first, of equals the first; returns the
 * largest of all. `allowed`: (size,), or NULL for all. */
static inline __attribute__((always_inline)) float best_words(const void *logits, const int kind,
                                                              const unsigned char *allowed, ix size, ix first, ix count,
                                                              float *values, long long *words) {
    const __m512 nothing = _mm512_set1_ps(-__builtin_inff());
    for (ix n = 0; n < count; n++) values[n] = -__builtin_inff(), words[n] = first + n;
    float least = -__builtin_inff();
    __m512 most = nothing;
    for (ix v = 0; v < size; v += LANES) {
        __mmask16 mask = there_are(allowed, v, size);
        __m512 x = _mm512_mask_mov_ps(nothing, mask, load(logits, kind, v, mask));
        most = _mm512_max_ps(most, x);
        unsigned better = _mm512_cmp_ps_mask(x, _mm512_set1_ps(least), _CMP_GT_OQ);
        if (!better) continue;
        float lane[LANES];
        _mm512_storeu_ps(lane, x);
        for (; better; better &= better - 1) {
            int l = __builtin_ctz(better);
            if (v + l >= first && lane[l] > least)
                least = enter_word(values, words, count, lane[l], v + l);
        }
    }
    return _mm512_reduce_max_ps(most);
}

/* the logarithm of the sum of exponentials of logits (size,), the largest of which is known */
static inline __attribute__((always_inline)) float log_sum(const void *logits, const int kind,
                                                           const unsigned char *allowed, ix size, float largest) {
    __m512 shift = _mm512_set1_ps(largest), sum = _mm512_setzero_ps();
    for (ix v = 0; v < size; v += LANES) {
        __mmask16 mask = there_are(allowed, v, size);
        __m512 x = exponential(_mm512_sub_ps(load(logits, kind, v, mask), shift));
        sum = _mm512_mask_add_ps(sum, mask, sum, x);
    }
    return largest + logf(_mm512_reduce_add_ps(sum));
}

#endif
