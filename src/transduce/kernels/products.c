/* Products whose weights are laid out in the order in which they are read.
 *
 * Up to HIGH rows by two blocks of 16 outputs are summed at a time: each lane is an output, so nothing is
 * added across lanes, and a row's inputs are broadcast from the first-level cache. With few rows reading the
 * weights is the whole cost, so they are read once, in order; with many, two blocks stay at hand for all rows
 * that do. A row's sum does not depend on how many rows there are.
 */
#if defined(__x86_64__) && defined(__GNUC__)
#pragma GCC target("avx512f,avx512bw,avx512dq,avx512vl,avx512vnni,avx512bf16,fma")
#include "kernels.h"
#include "simd.h"
#include "threads.h"

#include <stdlib.h>
#include <string.h>

#define FEW_IN_8_BITS 4 /* rows for which vectors are as fast as tiles; in bf16 there are none */
#define HIGH 12         /* rows summed together: their sums are as many as there are registers for */
#define TOGETHER 256    /* rows that stay in the second-level cache while the weights pass by */
#define AT_HAND (1 << 16) /* bytes of rows on the stack */
#define BLOCK 64        /* bytes of a group of inputs of 16 outputs */
#define SPREAD (1 << 22) /* weights times rows that are worth a second thread */
#define LOT 8            /* pairs of blocks that stay in the second-level cache while many rows pass by */

/* one output block's worth of sums -> y, with scales of the 8-bit form or without */
ALWAYS void finish(const Product *p, __m512 sums, float row_scale, ix row, ix output) {
    __mmask16 mask = lanes(p->outputs - output);
    if (p->scales) sums = _mm512_mul_ps(sums, _mm512_maskz_loadu_ps(mask, p->scales + output));
    __m512 added = p->bias ? _mm512_maskz_loadu_ps(mask, p->bias + output) : _mm512_setzero_ps();
    sums = _mm512_fmadd_ps(sums, _mm512_set1_ps(row_scale), added);
    store(p->y, p->y_kind, row * stride_of(p) + output, mask, sums);
}

static __m512i middle_of(int kind) { return _mm512_set1_epi32(kind == BFLOAT16 ? 0 : MIDDLE); }

void lay_out(const void *weights, int kind, const long long *chosen, void *blocks, ix outputs, ix inputs,
             ix threads) {
    const ix row = inputs * (kind == BFLOAT16 ? 2 : 1), groups = (row + 3) / 4;
    const __m512i middle = middle_of(kind);
    _Pragma("omp parallel for num_threads((int)threads) schedule(static) if (threads > 1)")
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

/* 16 numbers of each of `count` rows that are so many bytes apart, as pairs or fours */
ALWAYS __m512i side_by_side(const char *from, ix stride, ix count, __mmask16 mask, const int kind) {
    __m512i line = _mm512_setzero_si512();
    for (int i = 0; i < (kind == BFLOAT16 ? 2 : 4) && i < count; i++, from += stride) {
        if (kind == BFLOAT16)
            line |= _mm512_slli_epi32(_mm512_cvtepu16_epi32(_mm256_maskz_loadu_epi16(mask, from)), 16 * i);
        else
            line |= _mm512_slli_epi32(_mm512_cvtepu8_epi32(_mm_maskz_loadu_epi8(mask, from)), 8 * i);
    }
    return line;
}

ALWAYS void turned_blocks(const char *weights, char *blocks, ix n, ix outputs, ix inputs, const int kind) {
    const ix bytes = kind == BFLOAT16 ? 2 : 1, each = 4 / bytes, lines = (inputs + each - 1) / each;
    const __m512i middle = middle_of(kind);
    for (ix line = 0; line < lines; line++)
        for (ix block = n; block < n + 4 * LANES && block < (outputs + 31) / 32 * 32; block += LANES) {
            const __mmask16 mask = block < outputs ? lanes(outputs - block) : 0;
            const char *from = weights + (each * line * outputs + block) * bytes;
            const __m512i found = side_by_side(from, outputs * bytes, inputs - each * line, mask, kind);
            _mm512_storeu_si512(blocks + (block * lines + line * LANES) * 4, _mm512_xor_si512(found, middle));
        }
}

void lay_out_turned(const void *weights, int kind, void *blocks, ix outputs, ix inputs, ix threads) {
    _Pragma("omp parallel for num_threads((int)threads) schedule(static) if (threads > 1)")
    for (ix n = 0; n < outputs; n += 4 * LANES) { /* what a line of the cache holds of the weights */
        if (kind == BFLOAT16)
            turned_blocks(weights, blocks, n, outputs, inputs, BFLOAT16);
        else
            turned_blocks(weights, blocks, n, outputs, inputs, -1);
    }
}

/* ------------------------------------------------------------------------------------ sums */

/* Rows of x as they are multiplied: in bf16, or in 8 bits with a scale and an excess (to_fours) each; `stride`
 * bytes lie between them, filled up with zeros. */
typedef struct {
    char *numbers;
    ix stride, groups;
    float *scale;
    int32_t *excess;
} Rows;

/* As rounded before: nothing is left to prepare. */
static Rows as_they_are(const Product *p) {
    return (Rows){(char *)p->x, p->x_stride, (p->inputs + 3) / 4, (float *)p->x_scales, (int32_t *)p->x_excess};
}

/* `high` rows from r on by two blocks of outputs from n on; `ahead`: the next two are asked for */
ALWAYS void sum_some(const Product *p, const Rows *x, ix r, ix n, const ix high, const int ahead,
                     const int eight_bits) {
    const char *first = (const char *)p->weights + n / LANES * x->groups * BLOCK;
    const char *second = first + x->groups * BLOCK, *row = x->numbers + r * x->stride;
    __m512i sums[HIGH][2];
    for (ix i = 0; i < high; i++) sums[i][0] = sums[i][1] = _mm512_setzero_si512();
    for (ix g = 0; g < x->groups; g++) {
        const __m512i w0 = _mm512_loadu_si512(first + g * BLOCK);
        const __m512i w1 = _mm512_loadu_si512(second + g * BLOCK);
        if (ahead) {
            _mm_prefetch(second + (g + x->groups) * BLOCK, _MM_HINT_T0);
            _mm_prefetch(second + (g + 2 * x->groups) * BLOCK, _MM_HINT_T0);
        }
        for (ix i = 0; i < high; i++) {
            int32_t group;
            memcpy(&group, row + i * x->stride + g * 4, 4);
            const __m512i v = _mm512_set1_epi32(group);
            sums[i][0] = add_products(sums[i][0], w0, v, eight_bits);
            sums[i][1] = add_products(sums[i][1], w1, v, eight_bits);
        }
    }
    for (ix i = 0; i < high; i++)
        for (int half = 0; half < 2; half++) {
            const ix output = n + half * LANES;
            if (output >= p->outputs) continue;
            __m512 sum = _mm512_castsi512_ps(sums[i][half]);
            if (eight_bits) {
                const __m512i excess = _mm512_set1_epi32(x->excess[r + i]);
                sum = _mm512_cvtepi32_ps(_mm512_sub_epi32(sums[i][half], excess));
            }
            finish(p, sum, eight_bits ? x->scale[r + i] : 1.0f, r + i, output);
        }
}

/* A number of rows known when compiling keeps the sums in registers. */
#define ROWS(count)                                                \
    case count:                                                    \
        sum_some(p, x, r, n, count, ahead, eight_bits);            \
        return

ALWAYS void sum_rows(const Product *p, const Rows *x, ix r, ix n, ix high, int ahead, const int eight_bits) {
    switch (high) {
        ROWS(1);
        ROWS(2);
        ROWS(3);
        ROWS(4);
        ROWS(5);
        ROWS(6);
        ROWS(7);
        ROWS(8);
        ROWS(9);
        ROWS(10);
        ROWS(11);
        ROWS(12);
    }
}

/* outputs of `first` to `last` pairs of blocks, of all rows */
ALWAYS void some_outputs(const Product *p, const Rows *x, ix first, ix last, const int eight_bits) {
    for (ix from = 0; from < p->rows; from += TOGETHER) {
        const ix to = from + TOGETHER < p->rows ? from + TOGETHER : p->rows;
        const ix parts = (to - from + HIGH - 1) / HIGH; /* of about the same height */
        for (ix n = first; n < last; n++)
            for (ix part = 0; part < parts; part++) {
                const ix r = from + (to - from) * part / parts, end = from + (to - from) * (part + 1) / parts;
                sum_rows(p, x, r, n * 2 * LANES, end - r, part == parts - 1, eight_bits);
            }
    }
}

static void some_in_8_bits(const Product *p, const Rows *x, ix first, ix last) {
    some_outputs(p, x, first, last, 1);
}

static void some_in_bf16(const Product *p, const Rows *x, ix first, ix last) {
    some_outputs(p, x, first, last, 0);
}

static void prepare(const Product *p, const Rows *x, ix from, ix to) {
    if (p->x_scales) return;
    if (in_8_bits(p)) {
        for (ix r = from; r < to; r++)
            to_fours(row_of(p, r), p->x_kind, p->times, p->inputs, x->stride, (int8_t *)x->numbers + r * x->stride,
                     x->scale + r, x->excess + r);
        return;
    }
    for (ix r = from; r < to; r++)
        for (ix i = 0; i < x->stride / 2; i += LANES) {
            const ix left = p->inputs - i;
            const __m512 v = load(row_of(p, r), p->x_kind, i, left > 0 ? lanes(left) : 0);
            store(x->numbers + r * x->stride, BFLOAT16, i, 0xFFFF, v);
        }
}

void by_vectors(const Product *p, ix threads) {
    _Alignas(64) char here[AT_HAND];
    const ix bytes = p->inputs * (in_8_bits(p) ? 1 : 2);
    /* an odd number of lines of the cache, so that rows are in different sets of it */
    const ix stride = ((bytes + 63) / 64 | 1) * 64, whole = p->x_scales ? 0 : p->rows * (stride + 8);
    char *room = whole <= AT_HAND ? here : aligned_alloc(64, (size_t)((whole + 63) / 64 * 64));
    if (!room && p->rows > 1) { /* some after the others need less */
        const ix some = p->rows / 2;
        Product low = *p, high = *p;
        low.rows = some, high.rows = p->rows - some;
        if (p->x_at)
            high.x_at = p->x_at + some;
        else
            high.x = row_of(p, some);
        high.y = (void *)at(p->y, p->y_kind, some * stride_of(p));
        by_vectors(&low, threads);
        by_vectors(&high, threads);
        return;
    }
    Rows x = {room, stride, (bytes + 3) / 4, (float *)(room + p->rows * stride), NULL};
    x.excess = (int32_t *)(x.scale + p->rows);
    if (p->x_scales) x = as_they_are(p);
    const ix blocks = (p->outputs + 2 * LANES - 1) / (2 * LANES);
    if (p->rows * p->inputs * p->outputs < SPREAD) threads = 1;
    void (*some)(const Product *, const Rows *, ix, ix) = in_8_bits(p) ? some_in_8_bits : some_in_bf16;
    ix taken = 0;
    _Pragma("omp parallel num_threads((int)threads) if (threads > 1)")
    {
        _Pragma("omp for schedule(static, 1)")
        for (ix part = 0; part < threads; part++)
            prepare(p, &x, p->rows * part / threads, p->rows * (part + 1) / threads);
        if (p->rows > TOGETHER) {
            ix from, count;
            while ((count = next_of(&taken, blocks, 1, LOT, threads, &from))) some(p, &x, from, from + count);
        } else { /* the same weights for the same thread every time, which may still have them in its cache */
            _Pragma("omp for schedule(static, 1)")
            for (ix part = 0; part < threads; part++)
                some(p, &x, blocks * part / threads, blocks * (part + 1) / threads);
        }
    }
    if (room != here) free(room);
}

void product(const Product *p, ix threads) {
    if (p->rows > (in_8_bits(p) ? FEW_IN_8_BITS : 0) && tiles_supported() && by_tiles(p, threads) == 0) return;
    by_vectors(p, threads);
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
        lstm_cell(gates, given, NULL, kind, cell, cell, now, kind, sentences, size);
    }
}
#endif
