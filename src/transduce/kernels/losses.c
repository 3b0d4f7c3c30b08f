/* Cross-entropy of logits: the loss of every row with its gradient by the logits, whole or as a few entries drawn by
 * chance.
 */
#if defined(__x86_64__) && defined(__GNUC__)
#pragma GCC target("avx512f,avx512bw,avx512dq,avx512vl,avx512vnni,avx512bf16,fma")
#include "kernels.h"
#include "simd.h"
#include "threads.h"

#include <math.h>

/* The losses of a row, and its probabilities times the sum that is returned; room: `vocabulary` floats, which stay in
 * the cache */
static float row_losses(const void *logits, int kind, ix target, float smoothing, float *losses, float *room,
                        ix vocabulary) {
    __m512 most = _mm512_set1_ps(-INFINITY), total = _mm512_setzero_ps(), whole = _mm512_setzero_ps();
    for (ix i = 0; i < vocabulary; i += LANES) {
        const __mmask16 mask = lanes(vocabulary - i);
        const __m512 x = load(logits, kind, i, mask);
        most = _mm512_mask_max_ps(most, mask, most, x);
        total += x;
    }
    const float highest = _mm512_reduce_max_ps(most);
    const float picked = _mm512_cvtss_f32(load(logits, kind, target, 1));
    for (ix i = 0; i < vocabulary; i += LANES) {
        const __mmask16 mask = lanes(vocabulary - i);
        __m512 x = load(logits, kind, i, mask) - _mm512_set1_ps(highest);
        x = _mm512_maskz_mov_ps(mask, exponential(x));
        whole += x;
        store(room, FLOAT32, i, mask, x);
    }
    const float sum = _mm512_reduce_add_ps(whole), norm = highest + logf(sum);
    const float mean = _mm512_reduce_add_ps(total) / (float)vocabulary;
    losses[0] = norm - picked;
    losses[1] = (1.0f - smoothing) * losses[0] + smoothing * (norm - mean);
    return sum;
}

/* one row of logits -> its gradient, in place */
static void row_entropy(void *logits, int kind, ix target, float smoothing, float *losses, float *sums,
                        float *room, ix vocabulary) {
    const float sum = row_losses(logits, kind, target, smoothing, losses, room, vocabulary);
    room[target] -= (1.0f - smoothing) * sum;
    const __m512 share = _mm512_set1_ps(1.0f / sum);
    const __m512 uniform = _mm512_set1_ps(smoothing / (float)vocabulary);
    for (ix i = 0; i < vocabulary; i += LANES) {
        const __mmask16 mask = lanes(vocabulary - i);
        const __m512 x = load(room, FLOAT32, i, mask) * share - uniform;
        store(logits, kind, i, mask, x);
        store(sums, FLOAT32, i, mask, load(sums, FLOAT32, i, mask) + x);
    }
}

void cross_entropy(void *logits, int kind, ix stride, const long long *targets, const float *smoothing,
                   float *losses, float *grad_bias, float *room, ix rows, ix vocabulary, ix threads) {
    SHARED(rows, threads, {
        for (ix r = from; r < to; r++)
            row_entropy((void *)at(logits, kind, r * stride), kind, targets[r], *smoothing, losses + 2 * r,
                        grad_bias + part * vocabulary, room + part * vocabulary, vocabulary);
    })
}

/* Draws entries of probabilities, which are numbers times `share`, and returns how many. What is left of the small ones
 * adds up in each lane, from a start by chance, and one is drawn whenever the threshold is reached, which is then
 * taken off: each with its share of the threshold as probability, whatever came before. */
static ix draw_entries(const float *numbers, float share, float threshold, const unsigned *drawn, const Entries *e,
                       ix row) {
    const __m512 least = _mm512_set1_ps(threshold), each = _mm512_set1_ps(share);
    const __m512i next = _mm512_set1_epi32(LANES);
    __m512i word = _mm512_set_epi32(15, 14, 13, 12, 11, 10, 9, 8, 7, 6, 5, 4, 3, 2, 1, 0);
    __m512 left = _mm512_cvtepi32_ps(_mm512_srli_epi32(_mm512_loadu_si512(drawn), 8)) * (least * 0x1p-24f);
    int *words = e->words + row * e->width;
    float *values = e->values + row * e->width;
    ix count = 0;
    for (ix i = 0; i < e->vocabulary && count <= e->width - 2 * LANES; i += LANES) {
        const __m512 p = load(numbers, FLOAT32, i, lanes(e->vocabulary - i)) * each;
        const __mmask16 large = _mm512_cmp_ps_mask(p, least, _CMP_GE_OQ);
        left = _mm512_mask_add_ps(left, (__mmask16)~large, left, p);
        const __mmask16 reached = _mm512_cmp_ps_mask(left, least, _CMP_GE_OQ), some = large | reached;
        left = _mm512_mask_sub_ps(left, reached, left, least);
        /* without asking whether there are any, which is a guess at first; stored whole, since compressing into memory
         * takes long on some processors */
        _mm512_storeu_ps(values + count, _mm512_maskz_compress_ps(some, _mm512_max_ps(p, least)));
        _mm512_storeu_si512(words + count, _mm512_maskz_compress_epi32(some, word));
        count += __builtin_popcount(some);
        word = _mm512_add_epi32(word, next);
    }
    return count;
}

void sampled_entropy(const void *logits, int kind, ix stride, const long long *targets, const float *options,
                     const unsigned *drawn, float *losses, float *room, const Entries *entries, ix threads) {
    const float smoothing = options[0], threshold = options[1];
    const ix vocabulary = entries->vocabulary;
    SHARED(entries->rows, threads, {
        float *numbers = room + part * vocabulary;
        for (ix r = from; r < to; r++) {
            const float sum = row_losses(at(logits, kind, r * stride), kind, targets[r], smoothing, losses + 2 * r,
                                         numbers, vocabulary);
            const ix count = draw_entries(numbers, 1.0f / sum, threshold, drawn + r * LANES, entries, r);
            entries->words[r * entries->width + count] = (int)targets[r];
            entries->values[r * entries->width + count] = smoothing - 1.0f;
            entries->counts[r] = (int)count + 1;
        }
    })
}
#endif
