/* Tiles of 16 rows by 64 bytes (AMX), eight of them, for what multiplies them.
 *
 * What multiplies them is called on no processors but those that have them (`tiles_supported`); how numbers lie
 * in them is a good order for vectors, too.
 */
#ifndef TRANSDUCE_TILES_H
#define TRANSDUCE_TILES_H

#include "kernels.h"

#include "simd.h"

#define ROWS 16 /* of a tile */
#define LINE 64 /* bytes of a row of a tile */

typedef struct {
    uint8_t palette, start_row, reserved[14];
    uint16_t bytes[16];
    uint8_t rows[16];
} Shapes;

#ifdef TILES
#pragma GCC push_options
#pragma GCC target("amx-tile")
/* Tiles of 16 rows; the first ones of sums and rows of x have `height`, and their products take less time. */
ALWAYS void shape_tiles(ix height) {
    Shapes shapes = {.palette = 1};
    for (int i = 0; i < 8; i++) shapes.bytes[i] = LINE, shapes.rows[i] = ROWS;
    shapes.rows[0] = shapes.rows[1] = shapes.rows[4] = (uint8_t)height;
    /* GCC's intrinsic says that it reads 8 bytes, and nothing of memory is said to tiles that are loaded:
     * without this, what was written to them before may never be. */
    __asm__ volatile("" : : "r"(&shapes) : "memory");
    _tile_loadconfig(&shapes);
}
#pragma GCC pop_options
#endif

/* Two times 16 numbers side by side, of which there are `left`; in bf16 they fill a line of the cache. */
ALWAYS void store_two(void *to, int kind, ix index, ix left, __m512 low, __m512 high) {
    if (kind == BFLOAT16 && left >= 2 * LANES) {
        _mm512_storeu_si512((uint16_t *)to + index, (__m512i)_mm512_cvtne2ps_pbh(high, low));
        return;
    }
    store(to, kind, index, lanes(left), low);
    if (left > LANES) store(to, kind, index + LANES, lanes(left - LANES), high);
}

#endif
