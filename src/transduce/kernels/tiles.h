/* Tiles of 16 rows by 64 bytes (AMX), eight of them, for what multiplies them.
 *
 * Everything that includes this is compiled for processors that have them, and called on no others
 * (`tiles_supported`).
 */
#ifndef TRANSDUCE_TILES_H
#define TRANSDUCE_TILES_H

#include "kernels.h"

#include <immintrin.h>
#include <stdint.h>

#define ALWAYS static inline __attribute__((always_inline))
#define ROWS 16 /* of a tile */
#define LINE 64 /* bytes of a row of a tile */

typedef struct {
    uint8_t palette, start_row, reserved[14];
    uint16_t bytes[16];
    uint8_t rows[16];
} Shapes;

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

#endif
