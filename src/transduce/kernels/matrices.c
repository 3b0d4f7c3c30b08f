/* Products of two large matrices in bf16, as training makes them, on processors with tiles (AMX).
 *
 * Two by two tiles of y are summed at a time. Of the right matrix, as much is laid out as the second-level cache
 * holds beside the rest; past it come two tiles of rows of the left one at a time, laid out when their turn
 * comes. Sums over more than MOST_DEEP numbers are put together in float32, in y or beside it. Tiles of the
 * right matrix are loaded as a stream, so that those of the left stay in the first-level cache.
 */
#include "kernels.h"

#ifdef TILES
#pragma GCC target("avx512f,avx512bw,avx512dq,avx512vl,avx512vnni,avx512bf16,fma,amx-tile,amx-bf16")
#include "layouts.h"

#include <stdlib.h>

#define MOST_DEEP 640
#define CACHED (1 << 19)       /* numbers of the right matrix; at least MOST_DEEP x WIDE */

static void lay_left(const Matrix *x, ix first, ix most, ix k, ix deep, char *to) {
    if (x->turned)
        lay_pairs(x, first, most, k, deep, to, 1, 1);
    else
        lay_pairs(x, first, most, k, deep, to, 0, 0);
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
        const ix at = (pending->row + pending->done) * p->y_stride + pending->column;
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

/* The sums over so many tiles' depths; meanwhile what is `pending` is brought. */
ALWAYS void add_tiles(const Multiplication *p, float *so_far, const char *left, const char *right,
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

/* How a product is made: in how many parts, how deep and how wide what is laid out of the right matrix is, and room
 * for it and two tiles of rows (`bytes` for each thread), and for sums of parts */
typedef struct {
    ix parts, deep, wide, bytes;
    char *room;
    float *so_far;
} Way;

static Way way_of(const Multiplication *p) {
    const ix parts = (p->k + MOST_DEEP - 1) / MOST_DEEP, deep = up((p->k + parts - 1) / parts, DEEP);
    const ix most = CACHED / deep / WIDE * WIDE, wide = most < up(p->n, WIDE) ? most : up(p->n, WIDE);
    return (Way){(p->k + deep - 1) / deep, deep, wide, 2 * deep * (wide + WIDE), NULL, NULL};
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
                    Pending *next = both + !now;
                    add_tiles(p, way->so_far, left, right + 2 * way->deep * (column - n),
                              up(deep, DEEP) / DEEP, both + now, next);
                    next->row = row, next->column = column, next->done = 0;
                    next->count = bottom - row < WIDE ? bottom - row : WIDE;
                    next->first = part == 0 && !p->add, next->last = part == way->parts - 1;
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
        shape_tiles(ROWS);
        if (by_rows)
            some_sums(p, way, room, from, to, 0, p->n);
        else
            some_sums(p, way, room, 0, p->m, from, to);
        _tile_release();
    }
}

int multiply_tiles(const Multiplication *p, ix threads) {
    Way way = way_of(p);
    const int beside = way.parts > 1 && p->y_kind != FLOAT32;
    way.room = aligned_alloc(LINE, (size_t)(threads * way.bytes));
    way.so_far = beside ? malloc((size_t)(p->m * p->y_stride) * sizeof(float)) : p->y;
    const int failed = !way.room || !way.so_far;
    if (!failed) all_sums(p, &way, threads);
    if (beside) free(way.so_far);
    free(way.room);
    return failed;
}
#elif defined(__x86_64__) && defined(__GNUC__)
int multiply_tiles(const Multiplication *p, ix threads) {
    (void)p, (void)threads;
    return 1;
}
#endif
