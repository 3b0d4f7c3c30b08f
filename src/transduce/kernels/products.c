/* Products, most of them of few rows: reading the weights is the whole cost, so they are read once, in order.
 *
 * Two blocks of 16 outputs are summed at a time for all rows: each lane is an output, so nothing is
 * added across lanes, and a row's inputs are broadcast from the first-level cache.
 */
#if defined(__x86_64__) && defined(__GNUC__)
#pragma GCC target("avx512f,avx512bw,avx512dq,avx512vl,avx512vnni,avx512bf16,fma")
#include "kernels.h"
#include "simd.h"

#include <math.h>
#include <string.h>

#define FEW_IN_8_BITS 4 /* rows for which vectors are as fast as tiles; in bf16 there are none */

#define ALWAYS static inline __attribute__((always_inline))

/* one output block's worth of sums -> y, with scales of the 8-bit form or without */
ALWAYS void finish(__m512 sums, float row_scale, const float *scales, const float *bias, void *y,
                   int kind, ix row, ix output, ix outputs) {
    __mmask16 mask = lanes(outputs - output);
    if (scales) sums = _mm512_mul_ps(sums, _mm512_maskz_loadu_ps(mask, scales + output));
    __m512 added = bias ? _mm512_maskz_loadu_ps(mask, bias + output) : _mm512_setzero_ps();
    sums = _mm512_fmadd_ps(sums, _mm512_set1_ps(row_scale), added);
    store(y, kind, row * outputs + output, mask, sums);
}

void lay_out(const void *weights, int kind, const long long *chosen, void *blocks, ix outputs, ix inputs) {
    const ix row = inputs * (kind == BFLOAT16 ? 2 : 1), groups = (row + 3) / 4;
    /* 128 more is another sign bit */
    const __m512i middle = _mm512_set1_epi32(kind == BFLOAT16 ? 0 : (int)0x80808080u);
    for (ix n = 0; n < (outputs + 31) / 32 * 32; n += LANES) {
        const char *from[LANES];
        for (ix i = 0; i < LANES; i++)
            from[i] = n + i < outputs ? (const char *)weights + (chosen ? chosen[n + i] : n + i) * row : NULL;
        for (ix g = 0; g < groups; g += LANES) {
            const ix left = row - g * 4;
            const __mmask64 mask = left >= 64 ? ~0ull : (1ull << left) - 1;
            __m512 square[LANES];
            for (ix i = 0; i < LANES; i++) {
                __m512i line = _mm512_setzero_si512();
                if (from[i]) line = _mm512_maskz_loadu_epi8(mask, from[i] + g * 4);
                square[i] = _mm512_castsi512_ps(_mm512_xor_si512(line, middle));
            }
            turn_square(square);
            float *to = (float *)blocks + n * groups + g * LANES;
            for (ix i = 0; i < LANES && g + i < groups; i++) _mm512_storeu_ps(to + i * LANES, square[i]);
        }
    }
}

/* ---------------------------------------------------------------------------------- 8 bits */

/* the scale by which a row's numbers are at most 127 */
static float scale_of(const void *x, int kind, ix inputs) {
    __m512 most = _mm512_setzero_ps();
    for (ix i = 0; i < inputs; i += LANES)
        most = _mm512_max_ps(most, _mm512_abs_ps(load(x, kind, i, lanes(inputs - i))));
    float largest = _mm512_reduce_max_ps(most);
    return (largest > 1e-8f ? largest : 1e-8f) / 127.0f;
}

void to_fours(const void *x, int kind, ix rows, ix inputs, ix stride, int8_t *whole,
                     float *scale, int32_t *excess) {
    for (ix r = 0; r < rows; r++) {
        scale[r] = scale_of(at(x, kind, r * inputs), kind, inputs);
        __m512 inverse = _mm512_set1_ps(1.0f / scale[r]);
        __m512i sum = _mm512_setzero_si512();
        for (ix i = 0; i < stride; i += LANES) {
            ix left = inputs - i;
            __m512 v = load(x, kind, r * inputs + i, left > 0 ? lanes(left) : 0);
            __m512i q = _mm512_cvtps_epi32(_mm512_mul_ps(v, inverse));
            sum = _mm512_add_epi32(sum, q);
            _mm_storeu_si128((__m128i *)(whole + r * stride + i), _mm512_cvtsepi32_epi8(q));
        }
        excess[r] = 128 * _mm512_reduce_add_epi32(sum);
    }
}

void quantize(const void *x, int kind, uint8_t *whole, float *scale, ix rows, ix inputs) {
    const __m512i middle = _mm512_set1_epi32(128);
    for (ix r = 0; r < rows; r++) {
        scale[r] = scale_of(at(x, kind, r * inputs), kind, inputs);
        __m512 inverse = _mm512_set1_ps(1.0f / scale[r]);
        for (ix i = 0; i < inputs; i += LANES) {
            __mmask16 mask = lanes(inputs - i);
            __m512 v = _mm512_mul_ps(load(x, kind, r * inputs + i, mask), inverse);
            __m512i q = _mm512_add_epi32(_mm512_cvtps_epi32(v), middle);
            _mm_mask_storeu_epi8(whole + r * inputs + i, mask, _mm512_cvtusepi32_epi8(q));
        }
    }
}

void rescale(const float *product, const float *scale, const float *bias, void *y, int kind, ix rows,
             ix outputs) {
    for (ix r = 0; r < rows; r++)
        for (ix n = 0; n < outputs; n += LANES) {
            __m512 sums = _mm512_maskz_loadu_ps(lanes(outputs - n), product + r * outputs + n);
            finish(sums, scale[r], NULL, bias, y, kind, r, n, outputs);
        }
}

ALWAYS void sum_int8(const uint8_t *weights, const int8_t *x, ix stride, ix fours, const ix rows,
                     __m512i sums[2][MOST_ROWS]) {
    const uint8_t *second = weights + fours * 64;
    for (ix r = 0; r < rows; r++) sums[0][r] = sums[1][r] = _mm512_setzero_si512();
    for (ix k = 0; k < fours; k++) {
        __m512i w0 = _mm512_loadu_si512(weights + k * 64);
        __m512i w1 = _mm512_loadu_si512(second + k * 64);
        _mm_prefetch((const char *)(second + (k + fours) * 64), _MM_HINT_T0);
        _mm_prefetch((const char *)(second + (k + 2 * fours) * 64), _MM_HINT_T0);
        for (ix r = 0; r < rows; r++) {
            int32_t four;
            memcpy(&four, x + r * stride + k * 4, 4);
            __m512i v = _mm512_set1_epi32(four);
            sums[0][r] = _mm512_dpbusd_epi32(sums[0][r], w0, v);
            sums[1][r] = _mm512_dpbusd_epi32(sums[1][r], w1, v);
        }
    }
}

ALWAYS void rows_int8(const uint8_t *weights, const float *scales, const float *bias, const void *x,
                      int x_kind, void *y, int y_kind, const ix rows, ix inputs, ix outputs) {
    ix fours = (inputs + 3) / 4, stride = (fours * 4 + LANES - 1) / LANES * LANES;
    int8_t whole[MOST_ROWS * (MOST_INPUTS + LANES)];
    float scale[MOST_ROWS];
    int32_t excess[MOST_ROWS];
    to_fours(x, x_kind, rows, inputs, stride, whole, scale, excess);
    for (ix n = 0; n < outputs; n += 2 * LANES) {
        __m512i sums[2][MOST_ROWS];
        sum_int8(weights + n * fours * 4, whole, stride, fours, rows, sums);
        for (ix r = 0; r < rows; r++)
            for (int half = 0; half < 2; half++) {
                if (n + half * LANES >= outputs) continue;
                __m512i s = _mm512_sub_epi32(sums[half][r], _mm512_set1_epi32(excess[r]));
                finish(_mm512_cvtepi32_ps(s), scale[r], scales, bias, y, y_kind, r,
                       n + half * LANES, outputs);
            }
    }
}

/* ------------------------------------------------------------------------------------ bf16 */

ALWAYS void sum_bf16(const uint16_t *weights, const uint16_t *x, ix stride, ix pairs, const ix rows,
                     __m512 sums[2][MOST_ROWS]) {
    const uint16_t *second = weights + pairs * 32;
    for (ix r = 0; r < rows; r++) sums[0][r] = sums[1][r] = _mm512_setzero_ps();
    for (ix k = 0; k < pairs; k++) {
        __m512bh w0 = (__m512bh)_mm512_loadu_si512(weights + k * 32);
        __m512bh w1 = (__m512bh)_mm512_loadu_si512(second + k * 32);
        _mm_prefetch((const char *)(second + (k + pairs) * 32), _MM_HINT_T0);
        _mm_prefetch((const char *)(second + (k + 2 * pairs) * 32), _MM_HINT_T0);
        for (ix r = 0; r < rows; r++) {
            int32_t pair;
            memcpy(&pair, x + r * stride + k * 2, 4);
            __m512bh v = (__m512bh)_mm512_set1_epi32(pair);
            sums[0][r] = _mm512_dpbf16_ps(sums[0][r], w0, v);
            sums[1][r] = _mm512_dpbf16_ps(sums[1][r], w1, v);
        }
    }
}

ALWAYS void rows_bf16(const uint16_t *weights, const float *bias, const void *x, int x_kind, void *y,
                      int y_kind, const ix rows, ix inputs, ix outputs) {
    ix pairs = (inputs + 1) / 2, stride = (pairs * 2 + LANES - 1) / LANES * LANES;
    uint16_t rounded[MOST_ROWS * (MOST_INPUTS + LANES)];
    for (ix r = 0; r < rows; r++)
        for (ix i = 0; i < stride; i += LANES) {
            ix left = inputs - i;
            __m512 v = load(x, x_kind, r * inputs + i, left > 0 ? lanes(left) : 0);
            store(rounded, BFLOAT16, r * stride + i, 0xFFFF, v);
        }
    for (ix n = 0; n < outputs; n += 2 * LANES) {
        __m512 sums[2][MOST_ROWS];
        sum_bf16(weights + n * pairs * 2, rounded, stride, pairs, rows, sums);
        for (ix r = 0; r < rows; r++)
            for (int half = 0; half < 2; half++)
                if (n + half * LANES < outputs)
                    finish(sums[half][r], 1.0f, NULL, bias, y, y_kind, r, n + half * LANES, outputs);
    }
}

/* A number of rows known when compiling keeps the sums in registers. */
#define ROWS(count)                                                                              \
    case count:                                                                                  \
        if (scales)                                                                              \
            rows_int8(weights, scales, bias, x, x_kind, y, y_kind, count, inputs, outputs);      \
        else                                                                                     \
            rows_bf16(weights, bias, x, x_kind, y, y_kind, count, inputs, outputs);              \
        return

static void together(const void *weights, const float *scales, const float *bias, const void *x,
                     int x_kind, void *y, int y_kind, ix rows, ix inputs, ix outputs) {
    switch (rows) {
        ROWS(1);
        ROWS(2);
        ROWS(3);
        ROWS(4);
        ROWS(5);
        ROWS(6);
        ROWS(7);
        ROWS(8);
    }
}

void few_rows(const void *weights, const float *scales, const float *bias, const void *x, int x_kind,
              void *y, int y_kind, ix rows, ix inputs, ix outputs) {
    for (ix r = 0; r < rows; r += MOST_ROWS) {
        ix count = rows - r < MOST_ROWS ? rows - r : MOST_ROWS;
        together(weights, scales, bias, at(x, x_kind, r * inputs), x_kind,
                 (void *)at(y, y_kind, r * outputs), y_kind, count, inputs, outputs);
    }
}

void product(const Product *p, ix threads) {
    if (p->rows > (p->scales ? FEW_IN_8_BITS : 0) && tiles_supported() && many_rows(p, threads) == 0) return;
    few_rows(p->weights, p->scales, p->bias, p->x, p->x_kind, p->y, p->y_kind, p->rows, p->inputs,
             p->outputs);
}

void lstm_sequence(const void *weights, const float *scales, const void *inputs, int kind,
                   void *hidden, float *cell, void *gates, ix sentences, ix positions, ix size,
                   ix threads) {
    const ix row = sentences * size;
    for (ix t = 0; t < positions; t++) {
        const void *given = at(inputs, kind, t * 4 * row), *before = at(hidden, kind, t * row);
        void *now = (void *)at(hidden, kind, (t + 1) * row);
        const Product p = {weights, scales, NULL, before, gates, kind, kind, sentences, size, 4 * size};
        product(&p, threads);
        lstm_cell(gates, given, kind, cell, cell, now, kind, sentences, size);
    }
}
#endif
