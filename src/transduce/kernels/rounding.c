/* Rounding to 8 bits: rows or columns, each by a scale of its own, to the nearest or, by chance, to one of two.
 */
#if defined(__x86_64__) && defined(__GNUC__)
#pragma GCC target("avx512f,avx512bw,avx512dq,avx512vl,avx512vnni,avx512bf16,fma")
#include "kernels.h"
#include "random.h"
#include "simd.h"
#include "threads.h"

#include <string.h>

#define SMALLEST 1e-30f /* that the largest number of a row to be rounded is taken for */
#define TALL 64         /* rows that are rounded together, a line of the cache of each column */
#define WIDE 32         /* columns: a line of the cache of each row */

static inline __m512i without_sign(__m512 x) { return _mm512_castps_si512(_mm512_abs_ps(x)); }

/* The scale by which numbers are at most 127, from their largest without its sign, in whose order they are as whole
 * numbers, too; there, what is no number is largest, and then the scale is none, either. */
static float scale_for(unsigned most) {
    float largest;
    memcpy(&largest, &most, sizeof largest);
    return (largest < SMALLEST ? SMALLEST : largest) / 127.0f;
}

/* numbers from i on, multiplied if they are to be */
ALWAYS __m512 load_times(const void *x, int kind, const float *times, ix i, __mmask16 mask) {
    const __m512 v = load(x, kind, i, mask);
    return times ? _mm512_mul_ps(v, _mm512_maskz_loadu_ps(mask, times + i)) : v;
}

static float scale_of(const void *x, int kind, const float *times, ix inputs) {
    __m512i most = _mm512_setzero_si512();
    for (ix i = 0; i < inputs; i += LANES) {
        const __m512 v = load_times(x, kind, times, i, lanes(inputs - i));
        most = _mm512_max_epu32(most, without_sign(v));
    }
    return scale_for(_mm512_reduce_max_epu32(most));
}

/* numbers from i on as whole ones, of which 8 bits are to be kept */
ALWAYS __m512i whole_numbers(const void *x, int kind, const float *times, ix i, __mmask16 mask, __m512 inverse) {
    return _mm512_cvtps_epi32(_mm512_mul_ps(load_times(x, kind, times, i, mask), inverse));
}

void to_fours(const void *x, int kind, const float *times, ix inputs, ix stride, int8_t *whole, float *scale,
              int32_t *excess) {
    *scale = scale_of(x, kind, times, inputs);
    const __m512 inverse = _mm512_set1_ps(1.0f / *scale);
    __m512i sum = _mm512_setzero_si512();
    for (ix i = 0; i < stride; i += LANES) {
        const ix left = inputs - i;
        const __m512i q = whole_numbers(x, kind, times, i, left > 0 ? lanes(left) : 0, inverse);
        sum = _mm512_add_epi32(sum, q);
        _mm_storeu_si128((__m128i *)(whole + i), _mm512_cvtsepi32_epi8(q));
    }
    *excess = _mm512_reduce_add_epi32(_mm512_slli_epi32(sum, 7));
}

void round_rows(const float *weights, int8_t *whole, float *scales, ix outputs, ix inputs, ix threads) {
    SHARED(outputs, threads, {
        for (ix r = from; r < to; r++) {
            const float *row = weights + r * inputs;
            scales[r] = scale_of(row, FLOAT32, NULL, inputs);
            const __m512 inverse = _mm512_set1_ps(1.0f / scales[r]);
            for (ix i = 0; i < inputs; i += LANES) {
                const __mmask16 mask = lanes(inputs - i);
                const __m512i q = whole_numbers(row, FLOAT32, NULL, i, mask, inverse);
                _mm_mask_storeu_epi8(whole + r * inputs + i, mask, _mm512_cvtsepi32_epi8(q));
            }
        }
    })
}

/* ------------------------------------------------------------------------------------- columns */

/* the scales of columns `from` to `to` */
static void column_scales(const Columns *c, ix from, ix to) {
    unsigned *most = (unsigned *)c->scales;
    memset(most + from, 0, (size_t)(to - from) * sizeof *most);
    for (ix r = 0; r < c->rows; r++)
        for (ix i = from; i < to; i += LANES) {
            const __mmask16 mask = lanes(to - i);
            const __m512i so_far = _mm512_maskz_loadu_epi32(mask, most + i);
            const __m512i found = without_sign(load(c->x, BFLOAT16, r * c->columns + i, mask));
            _mm512_mask_storeu_epi32(most + i, mask, _mm512_max_epu32(so_far, found));
        }
    for (ix i = from; i < to; i++) c->scales[i] = scale_for(most[i]);
}

/* 16 columns of four rows from `row` on, as fours; what is added up in `sum` is all of these */
ALWAYS __m512i four_rows(const Columns *c, ix row, ix column, __mmask16 mask, __m512 inverse, __m512i *sum) {
    const __m512i low = _mm512_set1_epi32(255), half = _mm512_set1_epi32(65535);
    const __m512i most = _mm512_set1_epi32(127), least = _mm512_set1_epi32(-127);
    const __m512i chance = block_of(c->seed, column / LANES * ((c->rows + 3) / 4) + row / 4);
    __m512i fours = _mm512_setzero_si512();
    for (int i = 0; i < 4 && row + i < c->rows; i++) {
        const ix at = (row + i) * c->columns + column;
        _mm_prefetch((const char *)c->x + 2 * (at + TALL * c->columns), _MM_HINT_T0);
        /* 16 bits b move a number by (b + 1/2) / 2^16 - 1/2; they share 8 with those of the row before, its low ones */
        const __m512 bits = _mm512_cvtepi32_ps(_mm512_and_si512(_mm512_rorv_epi32(chance, _mm512_set1_epi32(8 * i)), half));
        const __m512 moved = _mm512_fmadd_ps(bits, _mm512_set1_ps(0x1p-16f), _mm512_set1_ps(0x1p-17f - 0.5f));
        __m512i q = _mm512_cvtps_epi32(_mm512_fmadd_ps(load(c->x, BFLOAT16, at, mask), inverse, moved));
        q = _mm512_max_epi32(_mm512_min_epi32(q, most), least); /* 127 and all but a half may be more */
        *sum = _mm512_mask_add_epi32(*sum, mask, *sum, q);
        fours = _mm512_or_si512(fours, _mm512_slli_epi32(_mm512_and_si512(q, low), 8 * i));
    }
    return fours;
}

/* TALL rows of 16 columns */
ALWAYS void round_tile(const Columns *c, ix row, ix column, __m512i *sum) {
    const __mmask16 mask = lanes(c->columns - column);
    const __m512 inverse = _mm512_set1_ps(1.0f) / _mm512_maskz_loadu_ps(mask, c->scales + column);
    const ix groups = (c->rows + 3) / 4, group = row / 4;
    __m512 square[LANES];
    for (ix i = 0; i < LANES; i++)
        square[i] = _mm512_castsi512_ps(four_rows(c, row + 4 * i, column, mask, inverse, sum));
    if (c->blocks) {
        char *to = (char *)c->whole + (column / LANES * groups + group) * 64;
        for (ix i = 0; i < LANES && group + i < groups; i++)
            _mm512_storeu_si512(to + i * 64, _mm512_castps_si512(square[i]) ^ _mm512_set1_epi32(MIDDLE));
        return;
    }
    turn_square(square);
    for (ix i = 0; i < LANES && column + i < c->columns; i++)
        _mm512_storeu_ps((char *)c->whole + (column + i) * c->stride + row, square[i]);
}

static void round_some(const Columns *c, ix from, ix to) {
    column_scales(c, from, to);
    for (ix column = from; column < to; column += WIDE) {
        __m512i sums[2] = {_mm512_setzero_si512(), _mm512_setzero_si512()};
        for (ix row = 0; row < c->rows; row += TALL)
            for (int half = 0; half < 2 && column + half * LANES < to; half++)
                round_tile(c, row, column + half * LANES, sums + half);
        for (int half = 0; half < 2 && column + half * LANES < to; half++) {
            const ix at = column + half * LANES;
            _mm512_mask_storeu_epi32(c->excess + at, lanes(to - at), _mm512_slli_epi32(sums[half], 7));
        }
    }
}

void round_columns(const Columns *c, ix threads) {
    const ix lots = (c->columns + WIDE - 1) / WIDE;
    SHARED(lots, threads, {
        const ix end = to * WIDE < c->columns ? to * WIDE : c->columns;
        if (from * WIDE < end) round_some(c, from * WIDE, end);
    })
    if (!c->blocks) return;
    /* blocks are filled up to an even number */
    const ix groups = (c->rows + 3) / 4, done = (c->columns + LANES - 1) / LANES, all = (c->columns + 31) / 32 * 2;
    memset((char *)c->whole + done * groups * 64, 0x80, (size_t)((all - done) * groups * 64));
}
#endif
