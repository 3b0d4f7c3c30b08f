/* Products on processors that multiply tiles of 16 rows by 64 bytes (AMX).
 *
 * Weights are laid out as for vectors, since that is how a tile of weights is read, too: a line of 64
 * bytes is one group of inputs (a pair in bf16, a four in 8 bits) of 16 outputs. Two tiles of rows by two
 * tiles of outputs are summed at a time: four products for four tiles that are read. A row's sum does
 * not depend on how many rows there are. Inputs that do not fill a line are zeros in x, which the
 * weights read against them (those of the next block) do not change, unless these are infinite. Rows are
 * loaded as a stream, so that the weights of two blocks stay in the first-level cache.
 */
#include "kernels.h"

#ifdef TILES
#pragma GCC target("avx512f,avx512bw,avx512dq,avx512vl,avx512vnni,avx512bf16,fma,amx-tile,amx-bf16,amx-int8")
#include "simd.h"
#include "tiles.h"

#include <cpuid.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

#define TOGETHER 256 /* rows that stay in the second-level cache while the weights pass by */
#define ASK_PERMISSION 0x1023 /* of arch_prctl: Linux saves tiles only for who has asked */
#define TILE_DATA 18

static int asked = -1;

static int ask(void) {
    unsigned a, b, c, d;
    const char *wish = getenv("TRANSDUCE_TILES");
    if (wish && !strcmp(wish, "0")) return 0;
    if (!__get_cpuid_count(7, 0, &a, &b, &c, &d)) return 0;
    const int there = (d >> 22 & 1) && (d >> 24 & 1) && (d >> 25 & 1); /* bf16, tile, int8 */
    return there && syscall(SYS_arch_prctl, ASK_PERMISSION, TILE_DATA) == 0;
}

int tiles_supported(void) {
    if (asked < 0) asked = ask();
    return asked;
}

/* tiles 0 to 3: sums; 4, 5: rows of x; 6, 7: weights */
#define ADD(sum, row, weight)                  \
    if (eight_bits)                            \
        _tile_dpbsud(sum, row, weight);        \
    else                                       \
        _tile_dpbf16ps(sum, row, weight)

/* Rows of x in the order in which tiles read them, in bf16 or 8 bits, filled up with zeros. */
typedef struct {
    char *tiles;
    ix across; /* bytes of a row of tiles */
    float *scale;
    int32_t *excess;
} Rows;

/* Sums of `count` rows from `first` on by two blocks of outputs from n on, of which `done` rows are in y. They
 * are brought there while the next sums are made: the processor does both at a time. */
typedef struct {
    _Alignas(LINE) float sums[2 * ROWS][2 * LANES];
    ix first, count, n, done;
} Pending;

/* 16 numbers from their sums */
ALWAYS __m512 from_sums(const Product *p, const Rows *x, __m512 sum, ix row, ix output, __mmask16 mask,
                        const int eight_bits) {
    const __m512 added = p->bias ? _mm512_maskz_loadu_ps(mask, p->bias + output) : _mm512_setzero_ps();
    if (!eight_bits) return _mm512_add_ps(sum, added);
    /* in the order of by_vectors, to the bit */
    const __m512i excess = _mm512_set1_epi32(x->excess[row]);
    sum = _mm512_cvtepi32_ps(_mm512_sub_epi32(_mm512_castps_si512(sum), excess));
    if (p->scales) sum = _mm512_mul_ps(sum, _mm512_maskz_loadu_ps(mask, p->scales + output));
    return _mm512_fmadd_ps(sum, _mm512_set1_ps(x->scale[row]), added);
}

ALWAYS void bring(const Product *p, const Rows *x, Pending *pending, ix rows, const int eight_bits) {
    const ix n = pending->n, left = p->outputs - n, end = pending->done + rows;
    const __mmask16 masks[2] = {lanes(left), left > LANES ? lanes(left - LANES) : 0};
    for (; pending->done < end && pending->done < pending->count; pending->done++) {
        const ix r = pending->first + pending->done, at = r * stride_of(p) + n;
        const float *sums = pending->sums[pending->done];
        __m512 low = _mm512_load_ps(sums), high = _mm512_load_ps(sums + LANES);
        low = from_sums(p, x, low, r, n, masks[0], eight_bits);
        high = from_sums(p, x, high, r, n + LANES, masks[1], eight_bits);
        store_two(p->y, p->y_kind, at, left, low, high);
    }
}

/* Sums of `tall` (1, 2) tiles of rows by two of outputs, over so many lines of a block; meanwhile what is
 * `pending` is brought to y. */
ALWAYS void add_tiles(const Product *p, const Rows *x, const char *rows, const char *weights, ix lines,
                      Pending *pending, Pending *next, const int tall, const int eight_bits) {
    const ix block = lines * LINE, steps = (lines + ROWS - 1) / ROWS;
    const ix each = (2 * ROWS + steps - 1) / steps;
    _tile_zero(0);
    _tile_zero(1);
    if (tall == 2) {
        _tile_zero(2);
        _tile_zero(3);
    }
    for (ix k = 0; k < steps * ROWS * LINE; k += ROWS * LINE) {
        _tile_stream_loadd(4, rows + k, LINE);
        _tile_loadd(6, weights + k, LINE);
        _tile_loadd(7, weights + block + k, LINE);
        ADD(0, 4, 6);
        ADD(1, 4, 7);
        if (tall == 2) {
            _tile_stream_loadd(5, rows + x->across + k, LINE);
            ADD(2, 5, 6);
            ADD(3, 5, 7);
        }
        bring(p, x, pending, each, eight_bits);
    }
    char *sums = (char *)next->sums;
    _tile_stored(0, sums, 2 * LINE);
    _tile_stored(1, sums + LINE, 2 * LINE);
    if (tall == 2) {
        _tile_stored(2, sums + 2 * ROWS * LINE, 2 * LINE);
        _tile_stored(3, sums + 2 * ROWS * LINE + LINE, 2 * LINE);
    }
}

/* outputs of `first` to `last` pairs of blocks, of all rows */
ALWAYS void some_outputs(const Product *p, const Rows *x, ix first, ix last, const int eight_bits) {
    Pending both[2] = {{.count = 0}, {.count = 0}};
    const ix lines = (p->inputs * (eight_bits ? 1 : 2) + 3) / 4;
    int now = 0;
    for (ix from = 0; from < p->rows; from += TOGETHER) {
        const ix to = from + TOGETHER < p->rows ? from + TOGETHER : p->rows;
        for (ix n = first; n < last; n++)
            for (ix r = from; r < to; r += 2 * ROWS, now ^= 1) {
                const char *rows = x->tiles + r / ROWS * x->across;
                const char *weights = (const char *)p->weights + n * 2 * lines * LINE;
                const ix count = to - r < 2 * ROWS ? to - r : 2 * ROWS;
                Pending *pending = both + now, *next = both + !now;
                if (count > ROWS)
                    add_tiles(p, x, rows, weights, lines, pending, next, 2, eight_bits);
                else
                    add_tiles(p, x, rows, weights, lines, pending, next, 1, eight_bits);
                next->first = r, next->count = count, next->n = n * 2 * LANES, next->done = 0;
            }
    }
    bring(p, x, both + now, 2 * ROWS, eight_bits);
}

static void prepare(const Product *p, const Rows *x, ix whole, ix height) {
    const ix stride = x->across / ROWS;
    const ix bytes = p->inputs * (in_8_bits(p) ? 1 : 2);
    int8_t *fours = in_8_bits(p) ? (int8_t *)(x->excess + whole) : NULL;
    for (ix r = 0; r < (height < ROWS ? height : whole); r++) { /* a low tile's other rows are not read */
        char *to = x->tiles + r / ROWS * x->across + r % ROWS * LINE;
        const int there = r < p->rows;
        const void *row = there && !p->x_scales ? row_of(p, r) : p->x;
        if (there && p->x_scales) {
            fours = (int8_t *)p->x + r * p->x_stride;
            x->scale[r] = p->x_scales[r], x->excess[r] = p->x_excess[r];
        } else if (there && fours)
            to_fours(row, p->x_kind, p->times, p->inputs, stride, fours, x->scale + r, x->excess + r);
        for (ix i = 0; i < stride; i += LINE) {
            char *line = to + i * ROWS;
            const ix left = there ? bytes - i : 0; /* of the row's bytes */
            if (fours || p->x_kind == BFLOAT16) {
                const char *from = fours ? (const char *)fours : row;
                const __mmask64 mask = left >= LINE ? ~0ull : left > 0 ? (1ull << left) - 1 : 0;
                _mm512_store_si512(line, _mm512_maskz_loadu_epi8(mask, from + i));
                continue;
            }
            for (ix half = 0; half < 2; half++) {
                const ix column = i / 2 + half * LANES, wide = there ? p->inputs - column : 0;
                const __m512 v = load(row, FLOAT32, column, wide > 0 ? lanes(wide) : 0);
                store(line, BFLOAT16, half * LANES, 0xFFFF, v);
            }
        }
    }
}

int by_tiles(const Product *p, ix threads) {
    const ix bytes = p->inputs * (in_8_bits(p) ? 1 : 2), stride = (bytes + LINE - 1) / LINE * LINE;
    const ix whole = (p->rows + ROWS - 1) / ROWS * ROWS, height = p->rows < ROWS ? p->rows : ROWS;
    Rows x = {aligned_alloc(LINE, (size_t)(whole * (stride + LINE) + stride)), stride * ROWS, NULL, NULL};
    if (!x.tiles) return -1;
    x.scale = (float *)(x.tiles + whole * stride);
    x.excess = (int32_t *)(x.scale + whole);
    prepare(p, &x, whole, height);
    const ix blocks = (p->outputs + 2 * LANES - 1) / (2 * LANES);
    if (threads > blocks) threads = blocks;
    _Pragma("omp parallel for num_threads((int)threads) schedule(static, 1) if (threads > 1)")
    for (ix part = 0; part < threads; part++) {
        const ix from = blocks * part / threads, to = blocks * (part + 1) / threads;
        shape_tiles(height);
        if (in_8_bits(p))
            some_outputs(p, &x, from, to, 1);
        else
            some_outputs(p, &x, from, to, 0);
        _tile_release();
    }
    free(x.tiles);
    return 0;
}
#elif defined(__x86_64__) && defined(__GNUC__)
int tiles_supported(void) { return 0; }

int by_tiles(const Product *product, ix threads) {
    (void)product, (void)threads;
    return -1;
}
#endif
