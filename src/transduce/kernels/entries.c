/* Products of a matrix of which few entries are known to be not zero, by rows and, turned, by columns.
 *
 * Each sums rows of a table in bf16, whose even and odd numbers are apart in the sums: one is the upper, one the lower
 * half of 32 bits, and neither has to be moved to be multiplied.
 */
#if defined(__x86_64__) && defined(__GNUC__)
#pragma GCC target("avx512f,avx512bw,avx512dq,avx512vl,avx512vnni,avx512bf16,fma")
#include "kernels.h"
#include "simd.h"
#include "threads.h"

#include <stdlib.h>

#define WIDE (2 * LANES) /* numbers that are loaded together */
#define MOST 8           /* vectors of so many that are summed together; two sums each */
#define AHEAD 4          /* entries that are on their way to the cache */

/* The entries of a row or column: which rows of the table, and what they are multiplied by */
typedef struct {
    const int *index;
    const float *values;
    ix count;
} Few;

/* of two vectors the numbers with an even place, or an odd one */
ALWAYS __m512 every_second(__m512 first, __m512 second, const int odd) {
    const __m512i even = _mm512_set_epi32(30, 28, 26, 24, 22, 20, 18, 16, 14, 12, 10, 8, 6, 4, 2, 0);
    return _mm512_permutex2var_ps(first, _mm512_add_epi32(even, _mm512_set1_epi32(odd)), second);
}

/* and back: the first 16 numbers in their order, or the second */
ALWAYS __m512 in_order(__m512 even, __m512 odd, const int second) {
    const __m512i first = _mm512_set_epi32(23, 7, 22, 6, 21, 5, 20, 4, 19, 3, 18, 2, 17, 1, 16, 0);
    return _mm512_permutex2var_ps(even, _mm512_add_epi32(first, _mm512_set1_epi32(second * LANES / 2)), odd);
}

/* share x the sums of the table's columns, into the first row of sums (threads, width) */
static void sum_columns(const Sums *s, float *sums, ix threads) {
    SHARED(s->height, threads, {
        for (ix c = 0; c < s->width; c += MOST * LANES) {
            __m512 sum[MOST];
            __mmask16 mask[MOST];
            for (int j = 0; j < MOST; j++) {
                const ix left = s->width - c - j * LANES;
                mask[j] = left > 0 ? lanes(left) : 0, sum[j] = _mm512_setzero_ps();
            }
            for (ix r = from; r < to; r++)
                for (int j = 0; j < MOST; j++) sum[j] += load(s->table, BFLOAT16, r * s->width + c + j * LANES, mask[j]);
            for (int j = 0; j < MOST; j++)
                store(sums + part * s->width, FLOAT32, c + j * LANES, mask[j], sum[j] * _mm512_set1_ps(s->share));
        }
    })
    for (ix part = 1; part < threads; part++)
        for (ix c = 0; c < s->width; c++) sums[c] += sums[part * s->width + c];
}

/* y = scale (sum of values x rows - less), of `columns` columns, which fill the vectors or the first part of one */
ALWAYS void add_rows(const Few *few, const Sums *s, const float *less, ix from, ix columns, int vectors, void *y,
                     int y_kind) {
    const uint16_t *table = (const uint16_t *)s->table + from;
    const __m512i upper = _mm512_set1_epi32((int)0xFFFF0000);
    const __m512 scale = _mm512_set1_ps(s->scale);
    const __mmask32 some = vectors > 1 || columns >= WIDE ? ~0u : (1u << columns) - 1;
    const __mmask16 low = (__mmask16)some, high = (__mmask16)(some >> LANES);
    __m512 sums[2 * MOST];
    for (int j = 0; j < vectors; j++) {
        const __m512 one = _mm512_maskz_loadu_ps(low, less + from + WIDE * j);
        const __m512 other = _mm512_maskz_loadu_ps(high, less + from + WIDE * j + LANES);
        for (int odd = 0; odd < 2; odd++) sums[2 * j + odd] = -every_second(one, other, odd);
    }
    for (ix k = 0; k < few->count; k++) {
        const uint16_t *row = table + few->index[k] * s->width;
        const ix later = k + AHEAD < few->count ? k + AHEAD : k;
        const char *next = (const char *)(table + few->index[later] * s->width);
        const __m512 value = _mm512_set1_ps(few->values[k]);
        for (int j = 0; j < vectors; j++) {
            const __m512i both = vectors > 1 ? _mm512_loadu_si512(row + WIDE * j) : _mm512_maskz_loadu_epi16(some, row);
            _mm_prefetch(next + 2 * WIDE * j, _MM_HINT_T0);
            sums[2 * j] = _mm512_fmadd_ps(value, _mm512_castsi512_ps(_mm512_slli_epi32(both, 16)), sums[2 * j]);
            sums[2 * j + 1] =
                _mm512_fmadd_ps(value, _mm512_castsi512_ps(_mm512_and_si512(both, upper)), sums[2 * j + 1]);
        }
    }
    for (int j = 0; j < vectors; j++) {
        const __m512 a = sums[2 * j] * scale, b = sums[2 * j + 1] * scale;
        store(y, y_kind, from + WIDE * j, low, in_order(a, b, 0));
        store(y, y_kind, from + WIDE * j + LANES, high, in_order(a, b, 1));
    }
}

/* as many columns as have room in the registers, of all rows that follow, whose part of the table stays near */
#define BY_COLUMNS(s, less, first, last, few_of, y_of, y_kind)                                            \
    for (ix c = 0, columns; c < (s)->width; c += columns) {                                               \
        const ix left = (s)->width - c;                                                                   \
        const int vectors = left >= MOST * WIDE ? MOST : left >= MOST / 2 * WIDE ? MOST / 2 : 1;          \
        columns = left < vectors * WIDE ? left : vectors * WIDE;                                          \
        for (ix r = first; r < last; r++) {                                                               \
            const Few few = few_of;                                                                       \
            void *into = y_of;                                                                            \
            if (vectors == MOST) add_rows(&few, s, less, c, columns, MOST, into, y_kind);                 \
            else if (vectors > 1) add_rows(&few, s, less, c, columns, MOST / 2, into, y_kind);            \
            else add_rows(&few, s, less, c, columns, 1, into, y_kind);                                    \
        }                                                                                                 \
    }

int sum_by_rows(const Entries *e, const Sums *s, void *y, ix threads) {
    float *less = malloc((size_t)(threads * s->width) * sizeof(float));
    if (!less) return 1;
    sum_columns(s, less, threads);
    SHARED(e->rows, threads, {
        BY_COLUMNS(s, less, from, to, ((Few){e->words + r * e->width, e->values + r * e->width, e->counts[r]}),
                   (void *)at(y, BFLOAT16, r * s->width), BFLOAT16)
    })
    free(less);
    return 0;
}

/* Entries word after word, and of one in the order of rows: those of word v from begins[v] on */
typedef struct {
    int *begins, *rows;
    float *values;
} Turned;

/* Counts every thread's entries of each word, so that all know their places. places: (threads, vocabulary), zeros */
static void turn(const Entries *e, const Turned *turned, int *places, ix threads) {
    SHARED(e->rows, threads, {
        for (ix r = from; r < to; r++)
            for (int k = 0; k < e->counts[r]; k++) places[part * e->vocabulary + e->words[r * e->width + k]]++;
    })
    int next = 0;
    for (ix v = 0; v < e->vocabulary; v++) {
        turned->begins[v] = next;
        for (ix part = 0; part < threads; part++) {
            const int count = places[part * e->vocabulary + v];
            places[part * e->vocabulary + v] = next;
            next += count;
        }
    }
    turned->begins[e->vocabulary] = next;
    SHARED(e->rows, threads, {
        for (ix r = from; r < to; r++)
            for (int k = 0; k < e->counts[r]; k++) {
                const int place = places[part * e->vocabulary + e->words[r * e->width + k]]++;
                turned->rows[place] = (int)r;
                turned->values[place] = e->values[r * e->width + k];
            }
    })
}

/* the first word of a thread's share; a word costs two entries besides its own */
static ix first_word(const int *begins, ix vocabulary, ix part, ix threads) {
    const ix before = (begins[vocabulary] + 2 * vocabulary) * part / threads;
    ix word = 0;
    while (word < vocabulary && begins[word] + 2 * word < before) word++;
    return word;
}

int sum_by_words(const Entries *e, const Sums *s, float *y, float *sums, ix threads) {
    ix count = 0;
    for (ix r = 0; r < e->rows; r++) count += e->counts[r];
    int *places = calloc((size_t)((threads + 1) * e->vocabulary + 1 + count), sizeof(int));
    float *values = malloc((size_t)(count + threads * s->width) * sizeof(float)), *less = values + count;
    const int failed = !places || !values;
    if (!failed) {
        int *begins = places + threads * e->vocabulary;
        const Turned turned = {begins, begins + e->vocabulary + 1, values};
        sum_columns(s, less, threads);
        turn(e, &turned, places, threads);
        SHARED(threads, threads, {
            const ix first = first_word(begins, e->vocabulary, from, threads);
            const ix last = first_word(begins, e->vocabulary, to, threads);
            BY_COLUMNS(s, less, first, last,
                       ((Few){turned.rows + begins[r], values + begins[r], begins[r + 1] - begins[r]}),
                       y + r * s->width, FLOAT32)
            for (ix v = first; v < last; v++) {
                float sum = -s->share * (float)s->height;
                for (int k = begins[v]; k < begins[v + 1]; k++) sum += values[k];
                sums[v] = sum * s->scale;
            }
        })
    }
    free(places);
    free(values);
    return failed;
}
#endif
