/* Products of two large matrices in bf16, as training makes them, on processors without tiles.
 *
 * The right matrix is laid out as a whole, or as deep as MOST_DEEP, in columns by two tiles, by all threads
 * together. Of the left one, a thread lays out some rows at a time, in groups of HIGH whose sums are kept in
 * registers: pairs of a row are broadcast against 32 columns. Groups pass by as many columns as the second-level
 * cache holds. Sums of parts are put together in float32, in y or beside it.
 */
#include "kernels.h"

#if defined(__x86_64__) && defined(__GNUC__)
#pragma GCC target("avx512f,avx512bw,avx512dq,avx512vl,avx512vnni,avx512bf16,fma")
#include "layouts.h"

#include <stdlib.h>
#include <string.h>
#ifdef _OPENMP
#include <omp.h>
#else
#define omp_get_thread_num() 0
#endif

#define HIGH 12             /* rows summed together */
#define GROUP (HIGH * LINE) /* bytes of these, of a tile's depth */
#define MOST_DEEP 2560
#define AT_A_TIME (1 << 18) /* numbers of the left matrix that a thread lays out; at least MOST_DEEP x HIGH */
#define CACHED 196608       /* numbers of the right one in the second-level cache; at least MOST_DEEP x WIDE */
#define TURNS 4             /* blocks of rows for each thread, so that who is late has fewer */
#define SPARE ((ROWS - HIGH) * LINE) /* bytes behind a group, since tiles are laid out whole */
#define MOST_ROWS_AT_A_TIME 480

/* A part of a product, from k on, so `deep`, in so many blocks of rows by shares of the columns, of which so many
 * panels stay in the second-level cache `together` while rows pass by. */
typedef struct {
    ix k, deep, rows, blocks, shares, together;
    int first, last;
    char *right, *left; /* what is laid out; of the left, `room` bytes for each thread, `group` for a group */
    ix room, group;
    float *so_far;
} Part;

/* Rows `top` to `end` of the left matrix, tile by tile, as they lie in memory */
static void lay_rows(const Matrix *x, ix top, ix end, const Part *part, char *to) {
    for (ix row = top; row < end; row += HIGH, to += part->group)
        for (ix d = 0; d < part->deep; d += DEEP) {
            const ix left = part->deep - d;
            const __mmask32 mask = left >= DEEP ? ~0u : (1u << left) - 1;
            const uint16_t *from = (const uint16_t *)x->numbers + row * x->stride + part->k + d;
            for (ix i = 0; i < HIGH && row + i < end; i++)
                _mm512_store_si512(to + d / DEEP * GROUP + i * LINE,
                                   _mm512_maskz_loadu_epi16(mask, from + i * x->stride));
        }
}

/* The same of one that is turned. What makes a tile's depth is first brought together, since what lies a power of
 * two apart in memory is in one set of the cache. Tiles are of 16 rows: what is too much is overwritten by the
 * next, or behind the group. */
static void turn_rows(const Matrix *x, ix top, ix end, const Part *part, char *to) {
    uint16_t stage[DEEP][MOST_ROWS_AT_A_TIME + 3 * LANES];
    for (ix d = 0; d < part->deep; d += DEEP, to += GROUP) {
        for (ix k = 0; k < DEEP; k++) {
            const uint16_t *from = (const uint16_t *)x->numbers + (part->k + d + k) * x->stride;
            for (ix row = top; row < end + ROWS; row += 2 * LANES) {
                const ix left = d + k < part->deep ? end - row : 0;
                const __mmask32 mask = left >= DEEP ? ~0u : left > 0 ? (1u << left) - 1 : 0;
                _mm512_storeu_si512(stage[k] + row - top, _mm512_maskz_loadu_epi16(mask, from + row));
            }
        }
        for (ix row = top; row < end; row += HIGH)
            turn_tile(stage[0] + row - top, sizeof stage[0] / 2, to + (row - top) / HIGH * part->group);
    }
}

/* in assembly, as in products.c */
ALWAYS __m512 add_pairs(__m512 sum, __m512i right, __m512i pair) {
    __asm__("vdpbf16ps %2, %1, %0" : "+v"(sum) : "v"(right), "v"(pair));
    return sum;
}

/* 16 numbers of y from their sums */
ALWAYS void finish(const Multiplication *p, const Part *part, ix row, ix column, __m512 sum) {
    const ix at = row * p->y_stride + column;
    const __mmask16 mask = lanes(p->n - column);
    if (!part->first)
        sum += load(part->so_far, FLOAT32, at, mask);
    else if (p->bias)
        sum += load(p->bias, FLOAT32, column, mask);
    if (part->last)
        store(p->y, p->y_kind, at, mask, sum);
    else
        store(part->so_far, FLOAT32, at, mask, sum);
}

/* a group of rows from `row` on, of which `high` are wanted, by 32 columns */
static void add_group(const Multiplication *p, const Part *part, const char *left, const char *right, ix row,
                      ix high, ix column) {
    __m512 sums[HIGH][2];
    for (ix i = 0; i < HIGH; i++) sums[i][0] = sums[i][1] = _mm512_setzero_ps();
    for (ix d = 0; d < part->deep; d += DEEP, left += GROUP, right += PAIR)
        for (ix k = 0; k < ROWS; k++) {
            const __m512i one = _mm512_load_si512(right + k * LINE);
            const __m512i other = _mm512_load_si512(right + (ROWS + k) * LINE);
            _mm_prefetch(right + PAIR + k * LINE, _MM_HINT_T0);
            _mm_prefetch(right + PAIR + (ROWS + k) * LINE, _MM_HINT_T0);
            for (ix i = 0; i < HIGH; i++) {
                int32_t pair;
                memcpy(&pair, left + i * LINE + k * 4, 4);
                const __m512i v = _mm512_set1_epi32(pair);
                sums[i][0] = add_pairs(sums[i][0], one, v);
                sums[i][1] = add_pairs(sums[i][1], other, v);
            }
        }
    for (ix i = 0; i < HIGH; i++) { /* unrolled, so that sums stay in registers */
        if (i >= high) continue;
        finish(p, part, row + i, column, sums[i][0]);
        if (column + LANES < p->n) finish(p, part, row + i, column + LANES, sums[i][1]);
    }
}

/* a block of rows by a share of the columns */
static void some_sums(const Multiplication *p, const Part *part, ix block, ix share) {
    const ix top = block * part->rows, end = top + part->rows < p->m ? top + part->rows : p->m;
    const ix deep = up(part->deep, DEEP), panels = up(p->n, WIDE) / WIDE;
    char *left = part->left + omp_get_thread_num() * part->room;
    (p->left.turned ? turn_rows : lay_rows)(&p->left, top, end, part, left);
    const ix last = panels * (share + 1) / part->shares;
    for (ix from = panels * share / part->shares; from < last; from += part->together) {
        const ix to = from + part->together < last ? from + part->together : last;
        for (ix row = top; row < end; row += HIGH)
            for (ix panel = from; panel < to; panel++)
                add_group(p, part, left + (row - top) / HIGH * part->group, part->right + panel * WIDE * 2 * deep, row,
                          end - row, panel * WIDE);
    }
}

static void add_part(const Multiplication *p, const Part *part, ix threads) {
    const ix deep = up(part->deep, DEEP), panels = up(p->n, WIDE) / WIDE, jobs = part->blocks * part->shares;
    _Pragma("omp parallel num_threads((int)threads) if (threads > 1)")
    {
        _Pragma("omp for schedule(static)")
        for (ix panel = 0; panel < panels; panel++)
            lay_right(&p->right, panel * WIDE, p->n, part->k, part->deep, part->right + panel * WIDE * 2 * deep);
        _Pragma("omp for schedule(dynamic, 1)")
        for (ix job = 0; job < jobs; job++) some_sums(p, part, job / part->shares, job % part->shares);
    }
}

/* Memory that is kept for the next product, as large as the largest that there was: a training makes the same
 * products again and again, and looking for so much takes longer than laying it out. */
typedef struct {
    void *bytes;
    ix count;
} Kept;

static void *take(Kept *kept, ix bytes) {
    if (bytes > kept->count) {
        free(kept->bytes);
        kept->bytes = aligned_alloc(LINE, (size_t)up(bytes, LINE));
        kept->count = kept->bytes ? bytes : 0;
    }
    return kept->bytes;
}

int multiply_vectors(const Multiplication *p, ix threads) {
    static _Thread_local Kept for_right, for_left, for_sums;
    const ix parts = (p->k + MOST_DEEP - 1) / MOST_DEEP, deep = up((p->k + parts - 1) / parts, DEEP);
    const ix fit = AT_A_TIME / deep / HIGH * HIGH, groups = (p->m + HIGH - 1) / HIGH;
    const ix most = fit < MOST_ROWS_AT_A_TIME ? fit : MOST_ROWS_AT_A_TIME;
    ix blocks = up((p->m + most - 1) / most, threads);
    if (threads > 1 && blocks < TURNS * threads) blocks = TURNS * threads;
    const ix rows = (groups + blocks - 1) / blocks * HIGH;
    blocks = (p->m + rows - 1) / rows;
    const int beside = parts > 1 && p->y_kind != FLOAT32;
    Part part = {.rows = rows, .blocks = blocks, .shares = blocks < threads ? threads : 1,
                 .together = CACHED / deep / WIDE};
    part.group = HIGH * 2 * deep + SPARE;
    part.room = rows / HIGH * part.group;
    part.right = take(&for_right, up(p->n, WIDE) * 2 * deep);
    part.left = take(&for_left, threads * part.room);
    part.so_far = beside ? take(&for_sums, p->m * p->y_stride * (ix)sizeof(float)) : p->y;
    const int failed = !part.right || !part.left || !part.so_far;
    for (part.k = 0; part.k < p->k && !failed; part.k += deep) {
        part.deep = deep < p->k - part.k ? deep : p->k - part.k;
        part.first = part.k == 0, part.last = part.k + part.deep == p->k;
        add_part(p, &part, threads);
    }
    return failed;
}

int multiply(const Multiplication *p, ix threads) {
    return tiles_supported() ? multiply_tiles(p, threads) : multiply_vectors(p, threads);
}
#endif
