/* Matrices laid out in tiles, 16 rows or columns by 32 numbers in bf16, for products of large ones.
 *
 * A matrix may be turned in memory, as weights are going forwards and gradients by positions are where weights
 * get theirs; it is while it is laid out that it is turned. Edges are filled up with zeros.
 */
#ifndef TRANSDUCE_LAYOUTS_H
#define TRANSDUCE_LAYOUTS_H

#include "kernels.h"
#include "simd.h"
#include "tiles.h"

#define DEEP 32                /* numbers of a row of a tile */
#define WIDE (2 * ROWS)        /* columns of y at a time: two tiles */
#define PAIR (2 * ROWS * LINE) /* bytes of two tiles */

static inline ix up(ix count, ix multiple) { return (count + multiple - 1) / multiple * multiple; }

/* 32 rows of 16 numbers: columns become lines. In each quarter of a register are 8 numbers of one row, and
 * what is exchanged is within a quarter. */
ALWAYS void turn_tile(const uint16_t *from, ix stride, char *to) {
    for (int side = 0; side < 2; side++, from += 8, to += 8 * LINE) {
        __m512i x[8], y[8];
        for (int i = 0; i < 8; i++) {
            const uint16_t *row = from + i * stride;
            x[i] = _mm512_castsi128_si512(_mm_loadu_si128((const void *)row));
#define QUARTER(number, mask)                                                            \
    x[i] = _mm512_mask_broadcast_i32x4(x[i], mask,                                       \
                                       _mm_loadu_si128((const void *)(row + number * 8 * stride)))
            QUARTER(1, 0x00F0);
            QUARTER(2, 0x0F00);
            QUARTER(3, 0xF000);
#undef QUARTER
            if (!side) /* for the tiles beside these, which come next */
                for (int quarter = 0; quarter < 4; quarter++)
                    _mm_prefetch((const char *)(row + quarter * 8 * stride + WIDE), _MM_HINT_T1);
        }
        for (int i = 0; i < 8; i += 2) {
            y[i] = _mm512_unpacklo_epi16(x[i], x[i + 1]);
            y[i + 1] = _mm512_unpackhi_epi16(x[i], x[i + 1]);
        }
        for (int i = 0; i < 8; i += 4)
            for (int half = 0; half < 2; half++) {
                x[i + 2 * half] = _mm512_unpacklo_epi32(y[i + half], y[i + half + 2]);
                x[i + 2 * half + 1] = _mm512_unpackhi_epi32(y[i + half], y[i + half + 2]);
            }
        for (int i = 0; i < 4; i++) {
            _mm512_store_si512(to + 2 * i * LINE, _mm512_unpacklo_epi64(x[i], x[i + 4]));
            _mm512_store_si512(to + (2 * i + 1) * LINE, _mm512_unpackhi_epi64(x[i], x[i + 4]));
        }
    }
}

/* A tile from what is in memory so many rows by so many columns, the rest zeros: 16 rows of 32, or, in
 * `pairs`, 32 rows of 16, of which two make a line, number by number. `turn` exchanges lines and pairs. */
ALWAYS void lay_tile(const uint16_t *from, ix stride, ix rows, ix columns, char *to, const int pairs,
                     const int turn) {
    __m512 x[LANES];
    for (int i = 0; i < LANES; i++) {
        if (pairs) {
            const __mmask16 mask = columns > 0 ? lanes(columns) : 0;
            const uint16_t *row = from + 2 * i * stride;
            const __m256i one = _mm256_maskz_loadu_epi16(2 * i < rows ? mask : 0, row);
            const __m256i other = _mm256_maskz_loadu_epi16(2 * i + 1 < rows ? mask : 0, row + stride);
            x[i] = _mm512_castsi512_ps(pairs_of(one, other));
            if (!turn) { /* of the tile that is next; as a rule every row lies in a page of its own */
                _mm_prefetch((const char *)(row + DEEP * stride), _MM_HINT_T0);
                _mm_prefetch((const char *)(row + (DEEP + 1) * stride), _MM_HINT_T0);
            }
        } else {
            const ix left = i < rows ? columns : 0;
            const __mmask32 mask = left >= DEEP ? ~0u : left > 0 ? (1u << left) - 1 : 0;
            x[i] = _mm512_castsi512_ps(_mm512_maskz_loadu_epi16(mask, from + i * stride));
        }
    }
    if (turn) turn_square(x);
    for (int i = 0; i < LANES; i++) _mm512_store_ps(to + i * LINE, x[i]);
}

/* Pairs of tiles of `deep` numbers from k on: of 32 rows of the left matrix, or columns of the right one, from
 * `first` on, of which it has `most`. In memory these lie one after the other, or, in `pairs`, side by side. */
ALWAYS void lay_pairs(const Matrix *x, ix first, ix most, ix k, ix deep, char *to, const int pairs,
                      const int turn) {
    for (ix d = k; d < k + deep; d += DEEP)
        for (ix at = first; at < first + WIDE; at += ROWS, to += ROWS * LINE) {
            const uint16_t *from = (const uint16_t *)x->numbers + (pairs ? d * x->stride + at : at * x->stride + d);
            const ix left = k + deep - d, wide = most - at;
            if (!pairs)
                lay_tile(from, x->stride, wide, left, to, 0, turn);
            else if (turn && left >= DEEP && wide >= ROWS)
                turn_tile(from, x->stride, to);
            else
                lay_tile(from, x->stride, left, wide, to, 1, turn);
        }
}

static inline void lay_right(const Matrix *x, ix first, ix most, ix k, ix deep, char *to) {
    if (x->turned)
        lay_pairs(x, first, most, k, deep, to, 0, 1);
    else
        lay_pairs(x, first, most, k, deep, to, 1, 0);
}

#endif
