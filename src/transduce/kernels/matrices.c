/* Products of two large matrices in bf16, as training makes them.
 *
 * Either may be turned in memory, as weights are going forwards and gradients by positions are where weights
 * get theirs; it is while they are laid out in tiles, 16 rows or columns by 32 numbers, that they are turned.
 * Of the right matrix, as much is laid out as the second-level cache holds beside the rest; past it come two
 * tiles of rows of the left one at a time, laid out when their turn comes. Sums over more than MOST_DEEP numbers
 * are put together in float32, in y or beside it. Edges are filled up with zeros on both sides. Processors with
 * AMX multiply tiles; there those of the right matrix are loaded as a stream, so that those of the left stay in
 * the first-level cache. Others broadcast pairs of the left against 16 columns of the right.
 */
#include "kernels.h"

#if defined(__x86_64__) && defined(__GNUC__)
#pragma GCC target("avx512f,avx512bw,avx512dq,avx512vl,avx512vnni,avx512bf16,fma")
#include "simd.h"
#include "tiles.h"

#include <stdlib.h>
#include <string.h>

#define DEEP 32                /* numbers of a row of a tile */
#define WIDE (2 * ROWS)        /* rows and columns of y at a time: two tiles by two */
#define PAIR (2 * ROWS * LINE) /* bytes of two tiles */
#define MOST_DEEP 640
#define CACHED (1 << 19)       /* numbers of the right matrix; at least MOST_DEEP x WIDE */
#define HIGH 12                /* rows whose sums vectors keep in registers */

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
            x[i] = _mm512_castsi512_ps(_mm512_or_si512(
                _mm512_cvtepu16_epi32(one), _mm512_slli_epi32(_mm512_cvtepu16_epi32(other), 16)));
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

static void lay_left(const Matrix *x, ix first, ix most, ix k, ix deep, char *to) {
    if (x->turned)
        lay_pairs(x, first, most, k, deep, to, 1, 1);
    else
        lay_pairs(x, first, most, k, deep, to, 0, 0);
}

static void lay_right(const Matrix *x, ix first, ix most, ix k, ix deep, char *to) {
    if (x->turned)
        lay_pairs(x, first, most, k, deep, to, 0, 1);
    else
        lay_pairs(x, first, most, k, deep, to, 1, 0);
}

/* Sums for y from `row` and `column` on, of which `count` rows are wanted and `done` are there. They are
 * brought there while the next sums are made: the processor does both at a time. Unless they are of the
 * `first` part, what there is so far is added; unless of the `last`, they go with that. */
typedef struct {
    _Alignas(LINE) float sums[WIDE][WIDE];
    ix row, column, count, done;
    int first, last;
} Pending;

ALWAYS void bring(const Multiplication *p, float *so_far, Pending *pending, ix rows) {
    const ix left = p->n - pending->column, end = pending->done + rows;
    const __mmask16 masks[2] = {lanes(left), left > LANES ? lanes(left - LANES) : 0};
    for (; pending->done < end && pending->done < pending->count; pending->done++) {
        const ix at = (pending->row + pending->done) * p->n + pending->column;
        const float *sums = pending->sums[pending->done];
        __m512 low = _mm512_load_ps(sums), high = _mm512_load_ps(sums + LANES);
        if (pending->first && p->bias) {
            low += load(p->bias, FLOAT32, pending->column, masks[0]);
            high += load(p->bias, FLOAT32, pending->column + LANES, masks[1]);
        }
        if (!pending->first) {
            low += load(so_far, FLOAT32, at, masks[0]);
            high += load(so_far, FLOAT32, at + LANES, masks[1]);
        }
        if (pending->last)
            store_two(p->y, p->y_kind, at, left, low, high);
        else
            store_two(so_far, FLOAT32, at, left, low, high);
    }
}

#ifdef TILES
#pragma GCC push_options
#pragma GCC target("amx-tile,amx-bf16")
/* The sums over so many tiles' depths; meanwhile what is `pending` is brought. */
static void add_tiles(const Multiplication *p, float *so_far, const char *left, const char *right,
                      ix steps, Pending *pending, Pending *next) {
    const ix each = (WIDE + steps - 1) / steps;
    _tile_zero(0);
    _tile_zero(1);
    _tile_zero(2);
    _tile_zero(3);
    for (ix k = 0; k < steps * PAIR; k += PAIR) {
        _tile_loadd(4, left + k, LINE);
        _tile_stream_loadd(6, right + k, LINE);
        _tile_dpbf16ps(0, 4, 6);
        _tile_stream_loadd(7, right + k + ROWS * LINE, LINE);
        _tile_dpbf16ps(1, 4, 7);
        _tile_loadd(5, left + k + ROWS * LINE, LINE);
        _tile_dpbf16ps(2, 5, 6);
        _tile_dpbf16ps(3, 5, 7);
        bring(p, so_far, pending, each);
    }
    char *sums = (char *)next->sums;
    _tile_stored(0, sums, 2 * LINE);
    _tile_stored(1, sums + LINE, 2 * LINE);
    _tile_stored(2, sums + ROWS * 2 * LINE, 2 * LINE);
    _tile_stored(3, sums + ROWS * 2 * LINE + LINE, 2 * LINE);
}

static void shape(void) { shape_tiles(ROWS); }
static void release(void) { _tile_release(); }
#pragma GCC pop_options
#else
static void add_tiles(const Multiplication *p, float *so_far, const char *left, const char *right,
                      ix steps, Pending *pending, Pending *next) {
    (void)p, (void)so_far, (void)left, (void)right, (void)steps, (void)pending, (void)next;
}
static void shape(void) {}
static void release(void) {}
#endif

/* `high` rows by 32 columns, over so many tiles' depths */
ALWAYS void add_rows(const char *left, const char *right, ix steps, float (*to)[WIDE], const ix high) {
    __m512 sums[HIGH][2];
    for (ix i = 0; i < high; i++) sums[i][0] = sums[i][1] = _mm512_setzero_ps();
    for (ix step = 0; step < steps; step++, left += PAIR, right += PAIR)
        for (ix k = 0; k < ROWS; k++) {
            const __m512bh low = (__m512bh)_mm512_load_si512(right + k * LINE);
            const __m512bh up = (__m512bh)_mm512_load_si512(right + (ROWS + k) * LINE);
            for (ix i = 0; i < high; i++) {
                int32_t pair;
                memcpy(&pair, left + i * LINE + k * 4, 4);
                const __m512bh v = (__m512bh)_mm512_set1_epi32(pair);
                sums[i][0] = _mm512_dpbf16_ps(sums[i][0], low, v);
                sums[i][1] = _mm512_dpbf16_ps(sums[i][1], up, v);
            }
        }
    for (ix i = 0; i < high; i++) {
        _mm512_store_ps(to[i], sums[i][0]);
        _mm512_store_ps(to[i] + LANES, sums[i][1]);
    }
}

/* As add_tiles, of the rows that are wanted or a few more; nothing is won by waiting with what is brought. */
static void add_vectors(const char *left, const char *right, ix steps, Pending *next) {
    ix row = 0;
    for (; row + HIGH <= next->count; row += HIGH)
        add_rows(left + row * LINE, right, steps, next->sums + row, HIGH);
    for (; row + 8 <= next->count; row += 8)
        add_rows(left + row * LINE, right, steps, next->sums + row, 8);
    for (; row < next->count; row += 4)
        add_rows(left + row * LINE, right, steps, next->sums + row, 4);
}

static ix up(ix count, ix multiple) { return (count + multiple - 1) / multiple * multiple; }

/* How a product is made: in how many parts, how deep and how wide what is laid out of the right matrix is, and room
 * for it and two tiles of rows (`bytes` for each thread), and for sums of parts */
typedef struct {
    ix parts, deep, wide, bytes;
    int tiles;
    char *room;
    float *so_far;
} Way;

static Way way_of(const Multiplication *p) {
    const ix parts = (p->k + MOST_DEEP - 1) / MOST_DEEP, deep = up((p->k + parts - 1) / parts, DEEP);
    const int tiles = tiles_supported();
    const ix most = (tiles ? CACHED : CACHED / 2) / deep / WIDE * WIDE;
    const ix wide = most < up(p->n, WIDE) ? most : up(p->n, WIDE);
    return (Way){(p->k + deep - 1) / deep, deep, wide, 2 * deep * (wide + WIDE), tiles, NULL, NULL};
}

/* the sums of `next`, from what is laid out; what is `pending` is brought */
static void add(const Multiplication *p, const Way *way, const char *left, const char *right, ix steps,
                Pending *pending, Pending *next) {
    if (way->tiles) {
        add_tiles(p, way->so_far, left, right, steps, pending, next);
        return;
    }
    bring(p, way->so_far, pending, WIDE);
    add_vectors(left, right, steps, next);
}

/* y from row `top` to `bottom` and from column `from` to `to` */
static void some_sums(const Multiplication *p, const Way *way, char *room, ix top, ix bottom, ix from, ix to) {
    Pending both[2] = {{.count = 0}, {.count = 0}};
    char *left = room, *right = room + 2 * way->deep * WIDE;
    int now = 0;
    for (ix n = from; n < to; n += way->wide)
        for (ix part = 0; part < way->parts; part++) {
            const ix end = n + way->wide < to ? n + way->wide : to, k = part * way->deep;
            const ix deep = k + way->deep < p->k ? way->deep : p->k - k;
            for (ix column = n; column < end; column += WIDE)
                lay_right(&p->right, column, p->n, k, deep, right + 2 * way->deep * (column - n));
            for (ix row = top; row < bottom; row += WIDE) {
                lay_left(&p->left, row, p->m, k, deep, left);
                for (ix column = n; column < end; column += WIDE, now ^= 1) {
                    const char *across = right + 2 * way->deep * (column - n);
                    Pending *next = both + !now;
                    next->row = row, next->column = column, next->done = 0;
                    next->count = bottom - row < WIDE ? bottom - row : WIDE;
                    next->first = part == 0, next->last = part == way->parts - 1;
                    add(p, way, left, across, up(deep, DEEP) / DEEP, both + now, next);
                }
            }
        }
    bring(p, way->so_far, both + now, WIDE);
}

static void all_sums(const Multiplication *p, const Way *way, ix threads) {
    const int by_rows = p->m >= p->n; /* shared out; the other matrix is laid out by each thread */
    const ix shared = by_rows ? p->m : p->n, blocks = up(shared, WIDE) / WIDE;
    _Pragma("omp parallel for num_threads((int)threads) schedule(static, 1) if (threads > 1)")
    for (ix share = 0; share < threads; share++) {
        const ix from = blocks * share / threads * WIDE, end = blocks * (share + 1) / threads * WIDE;
        const ix to = end < shared ? end : shared;
        char *room = way->room + share * way->bytes;
        if (way->tiles) shape();
        if (by_rows)
            some_sums(p, way, room, from, to, 0, p->n);
        else
            some_sums(p, way, room, 0, p->m, from, to);
        if (way->tiles) release();
    }
}

int multiply(const Multiplication *p, ix threads) {
    Way way = way_of(p);
    const int beside = way.parts > 1 && p->y_kind != FLOAT32;
    way.room = aligned_alloc(LINE, (size_t)(threads * way.bytes));
    way.so_far = beside ? malloc((size_t)(p->m * p->n) * sizeof(float)) : p->y;
    const int failed = !way.room || !way.so_far;
    if (!failed) all_sums(p, &way, threads);
    if (beside) free(way.so_far);
    free(way.room);
    return failed;
}
#endif
