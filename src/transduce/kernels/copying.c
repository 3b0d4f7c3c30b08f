/* What a step may say where words are copied from the source or may not be said again: the look at
 * its logits, without writing down the distribution that it is a look at.
 */
#if defined(__x86_64__) && defined(__GNUC__)
#pragma GCC target("avx512f,avx512bw,avx512dq,avx512vl,avx512vnni,avx512bf16,fma")
#include <math.h>

#include "best.h"
#include "kernels.h"
#include "simd.h"


/* logits -> float32, with room for `more` words that have none; returns the largest */
ALWAYS float widen(const void *logits, const int kind, ix vocabulary, ix more, float *row) {
    const __m512 nothing = _mm512_set1_ps(-__builtin_inff());
    __m512 most = nothing;
    for (ix v = 0; v < vocabulary; v += LANES) {
        __mmask16 mask = lanes(vocabulary - v);
        __m512 x = load(logits, kind, v, mask);
        _mm512_mask_storeu_ps(row + v, mask, x);
        most = _mm512_mask_max_ps(most, mask, most, x);
    }
    for (ix v = 0; v < more; v += LANES)
        _mm512_mask_storeu_ps(row + vocabulary + v, lanes(more - v), nothing);
    return _mm512_reduce_max_ps(most);
}

static float log_sigmoid(float x) { return x < 0 ? x - log1pf(expf(x)) : -log1pf(expf(-x)); }

/* log(e^x + e^y) */
static float log_add(float x, float y) {
    float most = x > y ? x : y, least = x > y ? y : x;
    return most == -INFINITY ? most : most + log1pf(expf(least - most));
}

/* attention -> mass (S,): that to all positions of a word, at its first, and 0 elsewhere; returns
 * the sum of what is attended where nothing can be copied */
static float gathered(const float *attention, const long long *columns, const long long *first,
                      ix sources, float *mass) {
    float rest = 0.0f;
    for (ix s = 0; s < sources; s++) mass[s] = 0.0f;
    for (ix s = 0; s < sources; s++) {
        if (columns[s] < 0)
            rest += attention[s];
        else
            mass[first[s]] += attention[s];
    }
    return rest;
}

/* row[column of s] = log(e^that + mass[s] e^against), for all s of some mass */
static void mix_in(float *row, const float *mass, const long long *columns, ix sources, float largest,
                   float against) {
    const float shift = largest > against ? largest : against;
    const __m512 shifts = _mm512_set1_ps(shift), by = _mm512_set1_ps(expf(against - shift));
    for (ix s = 0; s < sources; s += LANES) {
        __mmask16 mask = lanes(sources - s);
        __m512 m = _mm512_maskz_loadu_ps(mask, mass + s);
        mask = _mm512_mask_cmp_ps_mask(mask, m, _mm512_setzero_ps(), _CMP_GT_OQ);
        if (!mask) continue;
        __m256i low = _mm512_cvtepi64_epi32(_mm512_maskz_loadu_epi64((__mmask8)mask, columns + s));
        __m256i high = _mm512_cvtepi64_epi32(
            _mm512_maskz_loadu_epi64((__mmask8)(mask >> 8), columns + s + 8));
        __m512i column = _mm512_inserti64x4(_mm512_castsi256_si512(low), high, 1);
        __m512 old = _mm512_mask_i32gather_ps(shifts, mask, column, row, 4);
        __m512 sum = _mm512_fmadd_ps(m, by, exponential(_mm512_sub_ps(old, shifts)));
        _mm512_mask_i32scatter_ps(row, mask, column, _mm512_add_ps(logarithm(sum), shifts), 4);
    }
}

void survey_ruled(const Ruled *r, float *scratch) {
    float *row = scratch, *mass = scratch + r->vocabulary + r->sources;
    const ix more = r->extends ? r->sources : 0;
    for (ix n = 0; n < r->rows; n++) {
        const void *logits = at((void *)r->logits, (int)r->kind, n * r->vocabulary);
        float largest = r->kind == BFLOAT16 ? widen(logits, BFLOAT16, r->vocabulary, more, row)
                                            : widen(logits, FLOAT32, r->vocabulary, more, row);
        float norm = log_sum(row, FLOAT32, NULL, r->vocabulary, largest);
        if (r->sources) {
            const ix sentence = n / r->beam * r->sources;
            const long long *columns = (const long long *)r->columns + sentence;
            float gate = ((const float *)r->gate)[n];
            float log_copied = log_sigmoid(-gate);
            float rest = gathered((const float *)r->attention + n * r->sources, columns,
                                  (const long long *)r->first + sentence, r->sources, mass);
            float log_generated = log_add(log_sigmoid(gate), log_copied + logf(rest));
            mix_in(row, mass, columns, r->sources, largest, norm + log_copied - log_generated);
            norm -= log_generated; /* g e^(x - norm) of all words, and the copied, sum to 1 */
        }
        const long long *forbidden = (const long long *)r->forbidden + n * r->each;
        for (ix i = 0; i < r->each; i++)
            if (forbidden[i] >= r->first_word && forbidden[i] < r->vocabulary + more)
                row[forbidden[i]] = -INFINITY;
        ((float *)r->norm)[n] = norm;
        best_words(row, FLOAT32, NULL, r->vocabulary + more, r->first_word, r->count,
                   (float *)r->values + n * r->count, (long long *)r->words + n * r->count);
    }
}

void copied_share(const float *attention, const float *gate, const long long *columns,
                  const long long *parents, const long long *words, const float *gains, float *share,
                  ix sentences, ix beam, ix count, ix sources) {
    for (ix i = 0; i < sentences * count; i++) {
        const ix b = i / count, parent = b * beam + parents[i];
        const float *attended = attention + parent * sources;
        const __m512i word = _mm512_set1_epi64(words[i]);
        __m256 sum = _mm256_setzero_ps();
        for (ix s = 0; s < sources; s += 8) {
            __mmask8 mask = sources - s >= 8 ? 0xFF : (__mmask8)((1u << (sources - s)) - 1);
            __m512i column = _mm512_maskz_loadu_epi64(mask, columns + b * sources + s);
            mask = _mm512_mask_cmpeq_epi64_mask(mask, column, word);
            if (mask) sum = _mm256_add_ps(sum, _mm256_maskz_loadu_ps(mask, attended + s));
        }
        float lane[8], total = 0.0f;
        _mm256_storeu_ps(lane, sum);
        for (int l = 0; l < 8; l++) total += lane[l];
        float part = total * expf(log_sigmoid(-gate[parent]) - gains[i]);
        share[i] = part > 0.0f ? (part < 1.0f ? part : 1.0f) : 0.0f; /* and 0 where it is no number */
    }
}
#endif
