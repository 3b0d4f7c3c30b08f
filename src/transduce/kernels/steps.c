/* What a step does beside products: cells, attention, and a look at the logits, each in one pass. */
#if defined(__x86_64__) && defined(__GNUC__)
#pragma GCC target("avx512f,avx512bw,avx512dq,avx512vl,avx512vnni,avx512bf16,fma")
#include <math.h>

#include "best.h"
#include "kernels.h"
#include "simd.h"

#define TOGETHER 8 /* queries */
#define AHEAD 12   /* positions of the memory, which are on their way from far */

/* ----------------------------------------------------------------------------------- cells */

static inline __m512 gate(const void *gates, const void *given, int kind, ix i, __mmask16 mask) {
    __m512 x = load(gates, kind, i, mask);
    return given ? _mm512_add_ps(x, load(given, kind, i, mask)) : x;
}

/* A row of each; meanwhile what is `given` next is asked for, if not NULL. */
ALWAYS void cell_row(const char *gates, const char *given, const char *next, int kind, const float *before, float *cell,
                     void *hidden, int hidden_kind, ix size) {
    const ix bytes = (ix)size_of(kind);
    for (ix j = 0; j < size; j += LANES) {
        __mmask16 mask = lanes(size - j);
        if (next && j * bytes % 64 == 0)
            for (ix g = 0; g < 4; g++) _mm_prefetch(next + (g * size + j) * bytes, _MM_HINT_T0);
        __m512 i = sigmoid(gate(gates, given, kind, j, mask));
        __m512 f = sigmoid(gate(gates, given, kind, j + size, mask));
        __m512 s = sigmoid(gate(gates, given, kind, j + 2 * size, mask));
        __m512 o = sigmoid(gate(gates, given, kind, j + 3 * size, mask));
        __m512 c = _mm512_maskz_loadu_ps(mask, before + j);
        __m512 candidate = _mm512_sub_ps(_mm512_add_ps(s, s), _mm512_set1_ps(1.0f));
        c = _mm512_fmadd_ps(f, c, _mm512_mul_ps(i, candidate));
        _mm512_mask_storeu_ps(cell + j, mask, c);
        __m512 h = _mm512_mul_ps(o, hyperbolic_tangent(c));
        store(hidden, hidden_kind, j, mask, h);
    }
}

void lstm_cell(const void *gates, const void *given, const long long *tokens, int kind, const float *before,
               float *cell, void *hidden, int hidden_kind, ix rows, ix size) {
    const ix row = 4 * size * (ix)size_of(kind);
    for (ix r = 0; r < rows; r++) {
        const char *own = given ? (const char *)given + (tokens ? tokens[r] : r) * row : NULL;
        const char *next = tokens && r + 1 < rows ? (const char *)given + tokens[r + 1] * row : NULL;
        cell_row((const char *)gates + r * row, own, next, kind, before + r * size, cell + r * size,
                 (void *)at(hidden, hidden_kind, r * size), hidden_kind, size);
    }
}

void bend(void *x, int kind, ix count) {
    for (ix i = 0; i < count; i += LANES) {
        __mmask16 mask = lanes(count - i);
        store(x, kind, i, mask, hyperbolic_tangent(load(x, kind, i, mask)));
    }
}

/* ---------------------------------------------------------------------------------- logits */

ALWAYS void look(const void *logits, const int kind, const unsigned char *allowed, ix vocabulary, ix first,
                 ix count, float *norm, float *values, long long *words) {
    float largest = best_words(logits, kind, allowed, vocabulary, first, count, values, words);
    *norm = log_sum(logits, kind, allowed, vocabulary, largest);
}

void survey(const void *logits, int kind, const unsigned char *allowed, ix beam, ix rows, ix vocabulary,
            ix first, ix count, float *norm, float *values, long long *words) {
    for (ix r = 0; r < rows; r++) {
        const void *row = at(logits, kind, r * vocabulary);
        const unsigned char *own = allowed ? allowed + r / beam * vocabulary : NULL;
        if (kind == BFLOAT16)
            look(row, BFLOAT16, own, vocabulary, first, count, norm + r, values + r * count,
                 words + r * count);
        else
            look(row, FLOAT32, own, vocabulary, first, count, norm + r, values + r * count,
                 words + r * count);
    }
}

/* A hypothesis' words are sorted, so a look at the first that is left of each is enough. */
static void choose_one(const float *scores, const float *norm, const float *best,
                       const long long *best_words, ix beam, ix each, ix count, float *values,
                       float *gains, long long *parents, long long *words) {
    ix used[MOST_BEAM] = {0};
    for (ix n = 0; n < count; n++) {
        ix from = -1;
        float most = 0.0f;
        for (ix k = 0; k < beam; k++) {
            if (used[k] == each) continue;
            float value = scores[k] - norm[k] + best[k * each + used[k]];
            if (from < 0 || value > most) from = k, most = value;
        }
        ix index = from * each + used[from]++;
        values[n] = most;
        gains[n] = best[index] - norm[from];
        parents[n] = from;
        words[n] = best_words[index];
    }
}

void choose(const float *scores, const float *norm, const float *best, const long long *best_words,
            ix sentences, ix beam, ix each, ix count, float *values, float *gains,
            long long *parents, long long *words) {
    for (ix b = 0; b < sentences; b++) {
        ix in = b * beam, out = b * count;
        choose_one(scores + in, norm + in, best + in * each, best_words + in * each, beam, each, count,
                   values + out, gains + out, parents + out, words + out);
    }
}

/* ------------------------------------------------------------------------------- attention */

typedef struct {
    const void *keys, *values;
    const float *penalty;
    int across;
    ix width, depth, sources;
} Head;

/* the sums over lanes of four vectors */
static inline __m128 sums_of_lanes(__m512 a, __m512 b, __m512 c, __m512 d) {
    __m512 ab = _mm512_add_ps(_mm512_unpacklo_ps(a, b), _mm512_unpackhi_ps(a, b));
    __m512 cd = _mm512_add_ps(_mm512_unpacklo_ps(c, d), _mm512_unpackhi_ps(c, d));
    __m512 all = _mm512_add_ps(_mm512_shuffle_ps(ab, cd, 0x44), _mm512_shuffle_ps(ab, cd, 0xEE));
    __m256 half = _mm256_add_ps(_mm512_castps512_ps256(all), _mm512_extractf32x8_ps(all, 1));
    return _mm_add_ps(_mm256_castps256_ps128(half), _mm256_extractf128_ps(half, 1));
}

/* scores[k][s] at `wide` neighbouring positions: a position is read once for all queries, a query
 * once for all positions. What one sum is does not depend on its neighbours. */
ALWAYS void score_some(const Head *head, const int kind, const float *queries, ix stride, float *scores,
                       ix s, const ix count, const ix wide) {
    const __m512 nothing = _mm512_setzero_ps();
    __m512 sums[TOGETHER][4];
    for (ix k = 0; k < count; k++)
        for (ix i = 0; i < 4; i++) sums[k][i] = nothing;
    for (ix d = 0; d < head->width; d += LANES) {
        __mmask16 mask = lanes(head->width - d);
        __m512 key[4];
        for (ix i = 0; i < wide; i++) {
            const ix place = (s + i) * head->width + d;
            key[i] = load(head->keys, kind, place, mask);
            _mm_prefetch(at(head->keys, kind, place + AHEAD * head->width), _MM_HINT_T0);
        }
        for (ix k = 0; k < count; k++) {
            __m512 query = _mm512_maskz_loadu_ps(mask, queries + k * stride + d);
            for (ix i = 0; i < wide; i++) sums[k][i] = _mm512_fmadd_ps(key[i], query, sums[k][i]);
        }
    }
    for (ix k = 0; k < count; k++) {
        __m128 found = sums_of_lanes(sums[k][0], sums[k][1], sums[k][2], sums[k][3]);
        _mm_mask_storeu_ps(scores + k * head->sources + s, (__mmask8)((1 << wide) - 1), found);
    }
}

/* scores[k][s] of `count` queries of one head, queries (count, stride) */
ALWAYS void score(const Head *head, const int kind, const float *queries, ix stride, float *scores,
                  const ix count) {
    ix sources = head->sources;
    if (head->across) {
        for (ix s = 0; s < sources; s += LANES) {
            __mmask16 mask = lanes(sources - s);
            __m512 sums[TOGETHER];
            for (ix k = 0; k < count; k++) sums[k] = _mm512_setzero_ps();
            for (ix d = 0; d < head->width; d++) {
                __m512 key = load(head->keys, kind, d * sources + s, mask);
                for (ix k = 0; k < count; k++)
                    sums[k] = _mm512_fmadd_ps(key, _mm512_set1_ps(queries[k * stride + d]), sums[k]);
            }
            for (ix k = 0; k < count; k++)
                _mm512_mask_storeu_ps(scores + k * sources + s, mask, sums[k]);
        }
        return;
    }
    const ix wide = count <= 4 ? 4 : 2; /* as many sums as there are registers for */
    ix s = 0;
    for (; s + wide <= sources; s += wide) score_some(head, kind, queries, stride, scores, s, count, wide);
    for (; s < sources; s++) score_some(head, kind, queries, stride, scores, s, count, 1);
}

/* scores (S,) -> probabilities, in place */
static void soften(float *scores, const float *penalty, ix sources) {
    __m512 most = _mm512_set1_ps(-__builtin_inff()), sum = _mm512_setzero_ps();
    for (ix s = 0; s < sources; s += LANES) {
        __mmask16 mask = lanes(sources - s);
        __m512 x = _mm512_maskz_loadu_ps(mask, scores + s);
        if (penalty) x = _mm512_add_ps(x, _mm512_maskz_loadu_ps(mask, penalty + s));
        _mm512_mask_storeu_ps(scores + s, mask, x);
        most = _mm512_mask_max_ps(most, mask, most, x);
    }
    __m512 shift = _mm512_set1_ps(_mm512_reduce_max_ps(most));
    for (ix s = 0; s < sources; s += LANES) {
        __mmask16 mask = lanes(sources - s);
        __m512 x = exponential(_mm512_sub_ps(_mm512_maskz_loadu_ps(mask, scores + s), shift));
        _mm512_mask_storeu_ps(scores + s, mask, x);
        sum = _mm512_mask_add_ps(sum, mask, sum, x);
    }
    __m512 share = _mm512_set1_ps(1.0f / _mm512_reduce_add_ps(sum));
    for (ix s = 0; s < sources; s += LANES) {
        __mmask16 mask = lanes(sources - s);
        __m512 x = _mm512_mul_ps(_mm512_maskz_loadu_ps(mask, scores + s), share);
        _mm512_mask_storeu_ps(scores + s, mask, x);
    }
}

/* `wide` vectors of the context of `count` queries, from d on */
ALWAYS void mix_some(const Head *head, const int memory_kind, const float *scores, void *context,
                     int kind, ix stride, ix d, const ix count, const ix wide) {
    __mmask16 masks[4];
    __m512 sums[TOGETHER][4];
    for (ix i = 0; i < wide; i++) {
        masks[i] = lanes(head->depth - d - i * LANES);
        for (ix k = 0; k < count; k++) sums[k][i] = _mm512_setzero_ps();
    }
    for (ix s = 0; s < head->sources; s++) {
        __m512 value[4];
        for (ix i = 0; i < wide; i++) {
            const ix place = s * head->depth + d + i * LANES;
            value[i] = load(head->values, memory_kind, place, masks[i]);
            _mm_prefetch(at(head->values, memory_kind, place + AHEAD * head->depth), _MM_HINT_T0);
        }
        for (ix k = 0; k < count; k++) {
            __m512 share = _mm512_set1_ps(scores[k * head->sources + s]);
            for (ix i = 0; i < wide; i++) sums[k][i] = _mm512_fmadd_ps(value[i], share, sums[k][i]);
        }
    }
    for (ix k = 0; k < count; k++)
        for (ix i = 0; i < wide; i++)
            store(context, kind, k * stride + d + i * LANES, masks[i], sums[k][i]);
}

/* context of `count` queries: probabilities (count, S) x values (S, depth) */
ALWAYS void mix(const Head *head, const int memory_kind, const float *scores, void *context, int kind,
                ix stride, const ix count) {
    const ix wide = count <= 4 ? 4 : 2; /* as many sums as there are registers for */
    ix d = 0;
    for (; d + wide * LANES <= head->depth; d += wide * LANES)
        mix_some(head, memory_kind, scores, context, kind, stride, d, count, wide);
    for (; d < head->depth; d += LANES)
        mix_some(head, memory_kind, scores, context, kind, stride, d, count, 1);
}

/* weights (count, S) += probabilities / heads; the first head begins them */
static void average(float *weights, const float *scores, ix numbers, float share, int begin) {
    __m512 shares = _mm512_set1_ps(share);
    for (ix i = 0; i < numbers; i += LANES) {
        __mmask16 mask = lanes(numbers - i);
        __m512 old = begin ? _mm512_setzero_ps() : _mm512_maskz_loadu_ps(mask, weights + i);
        __m512 new = _mm512_maskz_loadu_ps(mask, scores + i);
        _mm512_mask_storeu_ps(weights + i, mask, _mm512_fmadd_ps(new, shares, old));
    }
}

#define COUNT(count)                                                 \
    case count:                                                      \
        score(head, memory_kind, queries, stride, scores, count);    \
        for (ix k = 0; k < count; k++)                               \
            soften(scores + k * sources, head->penalty, sources);    \
        mix(head, memory_kind, scores, context, kind, out, count);   \
        return

/* one head of one sentence, at most TOGETHER queries */
ALWAYS void ask(const Head *head, const int memory_kind, const float *queries, ix stride,
                float *scores, void *context, int kind, ix out, ix count) {
    ix sources = head->sources;
    switch (count) {
        COUNT(1);
        COUNT(2);
        COUNT(3);
        COUNT(4);
        COUNT(5);
        COUNT(6);
        COUNT(7);
        COUNT(8);
    }
}

void attend(const void *queries, int kind, const void *keys, int across, const void *values,
            int memory_kind, const float *penalty, void *context, int context_kind, float *weights, float *scratch,
            ix sentences, ix beam, ix heads, ix width, ix depth, ix sources) {
    float *scores = scratch, *converted = scratch + TOGETHER * sources;
    ix whole = heads * width;
    for (ix b = 0; b < sentences; b++)
        for (ix k = 0; k < beam; k += TOGETHER) {
            ix count = beam - k < TOGETHER ? beam - k : TOGETHER, row = b * beam + k;
            for (ix i = 0; i < count * whole; i += LANES) {
                __mmask16 mask = lanes(count * whole - i);
                __m512 q = load(queries, kind, row * whole + i, mask);
                _mm512_mask_storeu_ps(converted + i, mask, q);
            }
            for (ix h = 0; h < heads; h++) {
                ix index = b * heads + h;
                Head head = {at(keys, memory_kind, index * width * sources),
                             at(values, memory_kind, index * sources * depth),
                             penalty ? penalty + b * sources : NULL, across, width, depth, sources};
                void *out = (void *)at(context, context_kind, (row * heads + h) * depth);
                const float *asked = converted + h * width;
                if (memory_kind == BFLOAT16)
                    ask(&head, BFLOAT16, asked, whole, scores, out, context_kind, heads * depth, count);
                else
                    ask(&head, FLOAT32, asked, whole, scores, out, context_kind, heads * depth, count);
                average(weights + row * sources, scores, count * sources, 1.0f / (float)heads,
                        h == 0);
            }
        }
}
#endif
