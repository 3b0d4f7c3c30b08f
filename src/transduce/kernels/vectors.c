/* Products of two large matrices in bf16, as training makes them, on processors without tiles.
 *
 * Rows of the left matrix are laid out in groups of HIGH, whose sums are kept in registers: pairs of a row are
 * broadcast against 32 columns of the right one, a panel of two tiles. One of the two matrices is laid out as a
 * whole, or as deep as MOST_DEEP, by all threads together; of the other one, each thread lays out a block at a
 * time. Groups pass by as many panels as the second-level cache holds. Sums of parts are put together in float32, in
 * y or beside it.
 *
 * To turn a matrix takes longer than to lay it out as it is. A left one that is turned beside a right one that is
 * not, as where weights get their gradients, is the right one of the same product turned, as it is, too; then
 * the other one, which has fewer numbers there, is turned in its place, and sums are while they are stored.
 */
#include "kernels.h"

#if defined(__x86_64__) && defined(__GNUC__)
#pragma GCC target("avx512f,avx512bw,avx512dq,avx512vl,avx512vnni,avx512bf16,fma")
#include "layouts.h"
#include "threads.h"

#include <stdlib.h>
#include <string.h>
#ifdef _OPENMP
#include <omp.h>
#else
#define omp_get_thread_num() 0
#endif

#define HIGH 12             /* rows summed together */
#define GROUP (HIGH * LINE) /* bytes of these, of a tile's depth */
#define MOST_DEEP 4096
#define AT_A_TIME (1 << 18) /* numbers of a block of rows; at least MOST_DEEP x HIGH */
#define CACHED 196608       /* numbers of panels in the second-level cache; at least MOST_DEEP x WIDE */
#define PANELS 8            /* laid out at a time */
#define MOST_ROWS_AT_A_TIME 480
#define SPARE ((ROWS - HIGH) * LINE) /* bytes behind a group, since tiles are laid out whole */

/* A part of a product, from k on, so `deep`. So many rows or panels are laid out at a time, and groups pass by so many
 * panels `together`. With `by_rows` a block is of rows, and panels are laid out before; else it is the other way.
 * Sums are stored turned if y is. */
typedef struct {
    ix k, deep, rows, panels, together, group, panel; /* the last two: bytes */
    int first, last, by_rows, turned;
    char *whole, *own; /* what is laid out before; for each thread, `room` bytes */
    ix room;
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

/* 16 numbers of a row of y from their sums */
ALWAYS void finish(const Multiplication *p, const Part *part, ix row, ix column, __m512 sum, __mmask16 mask) {
    const ix at = row * p->y_stride + column;
    if (!part->first)
        sum += load(part->so_far, FLOAT32, at, mask);
    else if (p->bias)
        sum += load(p->bias, FLOAT32, column, mask);
    if (part->last)
        store(p->y, p->y_kind, at, mask, sum);
    else
        store(part->so_far, FLOAT32, at, mask, sum);
}

/* a group of rows from `row` on, of which `high` are wanted, by a panel */
static void add_group(const Multiplication *p, const Part *part, const char *left, const char *right, ix row,
                      ix high, ix column) {
    __m512i whole[2][HIGH];
    for (ix i = 0; i < HIGH; i++) whole[0][i] = whole[1][i] = _mm512_setzero_si512();
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
                whole[0][i] = add_products(whole[0][i], one, v, 0);
                whole[1][i] = add_products(whole[1][i], other, v, 0);
            }
        }
    for (int half = 0; half < 2; half++, column += LANES) {
        const ix wide = p->n - column;
        if (wide <= 0) return;
        __m512 sums[LANES];
        for (ix i = 0; i < LANES; i++)
            sums[i] = i < HIGH ? _mm512_castsi512_ps(whole[half][i]) : _mm512_setzero_ps();
        if (part->turned) {
            turn_square(sums);
            for (ix i = 0; i < LANES; i++)
                if (i < wide) finish(p, part, column + i, row, sums[i], lanes(high < HIGH ? high : HIGH));
            continue;
        }
        for (ix i = 0; i < HIGH; i++) /* unrolled, so that sums stay in registers */
            if (i < high) finish(p, part, row + i, column, sums[i], lanes(wide));
    }
}

/* rows `top` to `end` by panels `from` to `to` */
static void add_groups(const Multiplication *p, const Part *part, const char *left, const char *right, ix top,
                       ix end, ix from, ix to) {
    for (ix row = top; row < end; row += HIGH, left += part->group)
        for (ix panel = from; panel < to; panel++)
            add_group(p, part, left, right + (panel - from) * part->panel, row, end - row, panel * WIDE);
}

static void lay_some(const Multiplication *p, const Part *part, ix top, ix end, char *to) {
    (p->left.turned ? turn_rows : lay_rows)(&p->left, top, end, part, to);
}

/* Panels side by side, a tile's depth of all after the other: what is read of a row lies in one page of memory. */
static void lay_panels(const Multiplication *p, const Part *part, ix from, ix to, char *where) {
    const ix each = p->right.turned ? part->deep : DEEP;
    for (ix d = 0; d < part->deep; d += each)
        for (ix panel = from; panel < to; panel++)
            lay_right(&p->right, panel * WIDE, p->n, part->k + d, least(each, part->deep - d),
                      where + (panel - from) * part->panel + d / DEEP * PAIR);
}

/* groups of rows, laid out here, by all panels */
static void some_rows(const Multiplication *p, const Part *part, ix from, ix to, ix panels) {
    char *own = part->own + omp_get_thread_num() * part->room;
    const ix top = from * HIGH, end = least(to * HIGH, p->m);
    lay_some(p, part, top, end, own);
    for (ix panel = 0; panel < panels; panel += part->together)
        add_groups(p, part, own, part->whole + panel * part->panel, top, end, panel,
                   least(panel + part->together, panels));
}

/* some panels, laid out here, by all rows */
static void some_panels(const Multiplication *p, const Part *part, ix first, ix last) {
    char *own = part->own + omp_get_thread_num() * part->room;
    lay_panels(p, part, first, last, own);
    for (ix from = first; from < last; from += part->together)
        add_groups(p, part, part->whole, own + (from - first) * part->panel, 0, p->m, from,
                   least(from + part->together, last));
}

static void add_part(const Multiplication *p, const Part *part, ix threads) {
    const ix panels = up(p->n, WIDE) / WIDE, blocks = (p->m + part->rows - 1) / part->rows;
    const ix lots = (panels + part->panels - 1) / part->panels, groups = (p->m + HIGH - 1) / HIGH;
    ix taken = 0;
    _Pragma("omp parallel num_threads((int)threads) if (threads > 1)")
    {
        if (part->by_rows) {
            _Pragma("omp for schedule(static)")
            for (ix lot = 0; lot < lots; lot++)
                lay_panels(p, part, lot * part->panels, least((lot + 1) * part->panels, panels),
                           part->whole + lot * part->panels * part->panel);
            ix from, some;
            while ((some = next_of(&taken, groups, 1, part->rows / HIGH, threads, &from)))
                some_rows(p, part, from, from + some, panels);
        } else {
            _Pragma("omp for schedule(static)")
            for (ix block = 0; block < blocks; block++)
                lay_some(p, part, block * part->rows, least((block + 1) * part->rows, p->m),
                         part->whole + block * part->rows / HIGH * part->group);
            ix from, some;
            while ((some = next_of(&taken, panels, part->together, part->panels, threads, &from)))
                some_panels(p, part, from, from + some);
        }
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

/* y = left right, turned if so */
static int multiply_as(const Multiplication *p, int turned, ix threads) {
    static _Thread_local Kept for_whole, for_own, for_sums;
    const ix parts = (p->k + MOST_DEEP - 1) / MOST_DEEP, deep = up((p->k + parts - 1) / parts, DEEP);
    const ix groups = (p->m + HIGH - 1) / HIGH, panels = up(p->n, WIDE) / WIDE;
    Part part = {.by_rows = p->m >= p->n, .turned = turned, .group = HIGH * 2 * deep + SPARE, .panel = WIDE * 2 * deep};
    const ix most = least(AT_A_TIME / deep, MOST_ROWS_AT_A_TIME) / HIGH, turns = threads > 1 ? TURNS * threads : 1;
    part.rows = HIGH * least(most, (groups + turns - 1) / turns);
    part.together = CACHED / deep / WIDE;
    part.panels = least(least(PANELS, 2 * part.together), (panels + turns - 1) / turns);
    part.room = part.by_rows ? part.rows / HIGH * part.group : part.panels * part.panel;
    part.whole = take(&for_whole, part.by_rows ? panels * part.panel : groups * part.group);
    part.own = take(&for_own, threads * part.room);
    const int beside = parts > 1 && p->y_kind != FLOAT32;
    part.so_far = beside ? take(&for_sums, (turned ? p->n : p->m) * p->y_stride * (ix)sizeof(float)) : p->y;
    const int failed = !part.whole || !part.own || !part.so_far;
    for (part.k = 0; part.k < p->k && !failed; part.k += deep) {
        part.deep = least(deep, p->k - part.k);
        part.first = part.k == 0 && !p->add, part.last = part.k + part.deep == p->k;
        add_part(p, &part, threads);
    }
    return failed;
}

int multiply_vectors(const Multiplication *p, ix threads) {
    if (!p->left.turned || p->right.turned || p->bias) return multiply_as(p, 0, threads);
    Multiplication other = *p;
    other.left = p->right, other.right = p->left;
    other.left.turned = 1, other.right.turned = 0;
    other.m = p->n, other.n = p->m;
    return multiply_as(&other, 1, threads);
}

int multiply(const Multiplication *p, ix threads) {
    return tiles_supported() ? multiply_tiles(p, threads) : multiply_vectors(p, threads);
}

/* Of this many products, each of which is small: threads take some of them. */
int multiply_many(const Multiplication *first, const ix *steps, ix count, ix threads) {
    int failed = 0;
    _Pragma("omp parallel for num_threads((int)threads) schedule(static) reduction(| : failed) if (threads > 1)")
    for (ix i = 0; i < count; i++) {
        Multiplication p = *first;
        p.left.numbers = at(p.left.numbers, BFLOAT16, i * steps[0]);
        p.right.numbers = at(p.right.numbers, BFLOAT16, i * steps[1]);
        p.y = (void *)at(p.y, p.y_kind, i * steps[2]);
        failed |= multiply_vectors(&p, 1);
    }
    return failed;
}
#endif
