/* Training's passes between products, and whole layers of both: what a recurrent layer and dropout do to each number.
 *
 * Each reads and writes every number once, where torch has a pass for each operation and each dtype.
 * Rows are shared out to `threads`; with OpenMP these are torch's own, which wait meanwhile.
 */
#if defined(__x86_64__) && defined(__GNUC__)
#pragma GCC target("avx512f,avx512bw,avx512dq,avx512vl,avx512vnni,avx512bf16,fma")
#include "kernels.h"
#include "random.h"
#include "simd.h"
#include "threads.h"

#include <string.h>

#define ONE _mm512_set1_ps(1.0f)

/* ------------------------------------------------------------------------------ recurrent layer */

/* numbers of kind BFLOAT16 from this one on */
static void *half(const void *numbers, ix index) { return (void *)at(numbers, BFLOAT16, index); }

/* A sentence's step. Gates, input, forget, cell and output, hold what the input says and are replaced by what they
 * become once `said` (what the hidden state says, if not NULL) is added; `next` is the state before the next step. */
static void lstm_forward(void *gates, const void *said, float *cell, void *hidden, void *next, ix size) {
    for (ix i = 0; i < size; i += LANES) {
        const __mmask16 mask = lanes(size - i);
        __m512 x[4];
        for (int gate = 0; gate < 4; gate++) {
            const ix at = gate * size + i;
            x[gate] = load(gates, BFLOAT16, at, mask);
            if (said) x[gate] += load(said, BFLOAT16, at, mask);
            x[gate] = gate == 2 ? hyperbolic_tangent(x[gate]) : sigmoid(x[gate]);
            store(gates, BFLOAT16, at, mask, x[gate]);
        }
        const __m512 c = x[1] * load(cell, FLOAT32, i, mask) + x[0] * x[2];
        const __m512 h = x[3] * hyperbolic_tangent(c);
        store(cell, FLOAT32, size + i, mask, c);
        store(hidden, BFLOAT16, i, mask, h);
        if (next) store(next, BFLOAT16, i, mask, h);
    }
}

/* The other way, from the gradients by the output and, from the step after, by the hidden state (both bf16) and the
 * cell (replaced by that for the step before): by the gates (bf16), and added to sums (4 x size). */
static void lstm_backward(const void *gates, const float *cell, const void *output, const void *recurrent,
                          float *grad_cell, void *grad_gates, float *sums, ix size) {
    for (ix i = 0; i < size; i += LANES) {
        const __mmask16 mask = lanes(size - i);
        __m512 x[4];
        for (int gate = 0; gate < 4; gate++) x[gate] = load(gates, BFLOAT16, gate * size + i, mask);
        const __m512 h = load(output, BFLOAT16, i, mask) + load(recurrent, BFLOAT16, i, mask);
        const __m512 bent = hyperbolic_tangent(load(cell, FLOAT32, size + i, mask));
        const __m512 c = load(grad_cell, FLOAT32, i, mask) + h * x[3] * (ONE - bent * bent);
        const __m512 given[4] = {
            c * x[2] * x[0] * (ONE - x[0]),
            c * load(cell, FLOAT32, i, mask) * x[1] * (ONE - x[1]),
            c * x[0] * (ONE - x[2] * x[2]),
            h * bent * x[3] * (ONE - x[3]),
        };
        store(grad_cell, FLOAT32, i, mask, c * x[1]);
        for (int gate = 0; gate < 4; gate++) {
            const ix column = gate * size + i;
            store(grad_gates, BFLOAT16, column, mask, given[gate]);
            store(sums, FLOAT32, column, mask, load(sums, FLOAT32, column, mask) + given[gate]);
        }
    }
}

/* where a sentence is at its step t, among all positions of all */
static ix place(const Layer *l, ix row, ix t) {
    const ix length = l->lengths ? l->lengths[row] : 0;
    return row * l->positions + (t < length ? length - 1 - t : t);
}

/* the places of some sentences at a step, each with so many numbers, as a product asks for them */
static const ix *places(const Layer *l, ix from, ix to, ix t, ix numbers) {
    for (ix r = from; r < to; r++) l->places[r] = place(l, r, t) * numbers;
    return l->places + from;
}

/* Sentences do not wait for each other: each thread takes some of them through all positions. */
void lstm_layer(const Layer *l, ix threads) {
    const ix size = l->size;
    SHARED(l->rows, threads, {
        for (ix t = 0; t < l->positions; t++) {
            void *said = t || l->begun ? half(l->room, from * 4 * size) : NULL;
            if (said) {
                const Product p = {.weights = l->weights, .scales = l->scales, .x = l->before,
                                   .x_at = places(l, from, to, t, size), .y = said, .x_kind = BFLOAT16, .y_kind = BFLOAT16,
                                   .rows = to - from, .inputs = size, .outputs = 4 * size};
                product(&p, 1);
            }
            for (ix r = from; r < to; r++) {
                const ix now = place(l, r, t) * size, cell = (r * (l->positions + 1) + t) * size;
                lstm_forward(half(l->gates, 4 * now), said ? half(said, (r - from) * 4 * size) : NULL, l->cells + cell,
                             half(l->hidden, now),
                             t + 1 < l->positions ? half(l->before, place(l, r, t + 1) * size) : NULL, size);
            }
        }
    })
}

void lstm_layer_backward(const Layer *l, const Gradients *g, ix threads) {
    const ix size = l->size;
    SHARED(l->rows, threads, {
        for (ix t = l->positions - 1; t >= 0; t--) {
            for (ix r = from; r < to; r++) {
                const ix now = place(l, r, t) * size, cell = (r * (l->positions + 1) + t) * size;
                lstm_backward(half(l->gates, 4 * now), l->cells + cell, half(g->outputs, now),
                              half(g->recurrent, r * size), g->grad_cell + r * size, half(g->grad_gates, 4 * now),
                              g->grad_bias + part * 4 * size, size);
            }
            if (!t && !l->begun) break;
            const Product p = {.weights = l->weights, .times = l->scales, .x = g->grad_gates,
                               .x_at = places(l, from, to, t, 4 * size), .y = half(g->recurrent, from * size), .x_kind = BFLOAT16, .y_kind = BFLOAT16,
                               .rows = to - from, .inputs = 4 * size, .outputs = size};
            product(&p, 1);
        }
    })
}

/* -------------------------------------------------------------------------------------- smaller */

void look_up(const float *table, const long long *index, void *y, ix count, ix size, ix threads) {
    SHARED(count, threads, {
        for (ix r = from; r < to; r++)
            for (ix i = 0; i < size; i += LANES) {
                const __mmask16 mask = lanes(size - i);
                store(y, BFLOAT16, r * size + i, mask, load(table, FLOAT32, index[r] * size + i, mask));
            }
    })
}

void add_by_index(const void *x, int kind, const long long *index, float *y, ix count, ix size, ix rows,
                  ix threads) {
    SHARED(rows, threads, { /* every thread looks for what is its own */
        memset(y + from * size, 0, (size_t)((to - from) * size) * sizeof(float));
        for (ix r = 0; r < count; r++) {
            if (index[r] < from || index[r] >= to) continue;
            float *sum = y + index[r] * size;
            for (ix i = 0; i < size; i += LANES) {
                const __mmask16 mask = lanes(size - i);
                store(sum, FLOAT32, i, mask, load(sum, FLOAT32, i, mask) + load(x, kind, r * size + i, mask));
            }
        }
    })
}

/* Few are added up in float32, so that many are as exact as in double. */
#define FEW_SQUARES (256 * LANES)

void squares(const float *x, double *sums, ix count, ix threads) {
    const ix blocks = (count + FEW_SQUARES - 1) / FEW_SQUARES;
    SHARED(blocks, threads, {
        double sum = 0.0;
        for (ix block = from; block < to; block++) {
            const ix first = block * FEW_SQUARES;
            const ix end = first + FEW_SQUARES < count ? first + FEW_SQUARES : count;
            __m512 few = _mm512_setzero_ps();
            for (ix i = first; i < end; i += LANES) {
                const __m512 some = load(x, FLOAT32, i, lanes(end - i));
                few = _mm512_fmadd_ps(some, some, few);
            }
            sum += (double)_mm512_reduce_add_ps(few);
        }
        sums[part] = sum;
    })
}

void draw(void *bytes, ix seed, ix count, ix threads) {
    const ix blocks = (count + 63) / 64;
    SHARED(blocks, threads, {
        for (ix block = from; block < to; block++) {
            const ix left = count - block * 64;
            const __mmask64 mask = left >= 64 ? ~0ull : (1ull << left) - 1;
            _mm512_mask_storeu_epi8((char *)bytes + block * 64, mask, block_of(seed, block));
        }
    })
}

void drop(const void *x, int kind, const unsigned char *bytes, ix threshold, const float *scale,
          void *y, ix count, ix threads) {
    const __m512 kept = _mm512_set1_ps(*scale);
    const __m128i bound = _mm_set1_epi8((char)threshold);
    const ix blocks = (count + LANES - 1) / LANES;
    SHARED(blocks, threads, {
        for (ix i = from * LANES; i < to * LANES; i += LANES) {
            const __mmask16 mask = lanes(count - i);
            const __m128i drawn = _mm_maskz_loadu_epi8(mask, bytes + i);
            const __mmask16 real = _mm_mask_cmpge_epu8_mask(mask, drawn, bound);
            store(y, kind, i, mask, _mm512_maskz_mul_ps(real, load(x, kind, i, real), kept));
        }
    })
}
#endif
