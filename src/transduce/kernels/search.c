/* The whole beam search of one sentence: a step's kernels one after the other, what they lead to,
 * and the next step, without going back to Python in between.
 *
 * It does what search/beam.py does for a batch, and in the same order; the two are tested against
 * each other.
 */
#if defined(__x86_64__) && defined(__GNUC__)
#pragma GCC target("avx512f,avx512bw,avx512dq,avx512vl,avx512vnni,avx512bf16,fma")
#include "kernels.h"
#include "simd.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

typedef struct {
    ix width;
    int kind;
    const void *before; /* the one row of it before the first step, where it is part of the state */
    char *rows;
} Buffer;

typedef struct {
    const Task *task;
    Buffer *buffers;
    char *arena, *moved;
    float *scratch; /* of attend */
    ix beam;        /* hypotheses of this step */
    long long *tokens;
    float *scores, *ending, *norm, *best;
    long long *words;
    float *attention; /* of this step */
} Run;

static ix row_size(const Buffer *buffer) { return buffer->width * (ix)size_of(buffer->kind); }

/* --------------------------------------------------------------------------------- one step */

static void embed(const Run *run, const Buffer *to, const char *table) {
    ix size = row_size(to);
    for (ix k = 0; k < run->beam; k++) memcpy(to->rows + k * size, table + run->tokens[k] * size, (size_t)size);
}

/* rows of one buffer into columns of another of the same kind */
static void put(const Run *run, const Buffer *from, const Buffer *to, ix column) {
    ix size = row_size(from), whole = row_size(to), shift = column * (ix)size_of(to->kind);
    for (ix k = 0; k < run->beam; k++)
        memcpy(to->rows + k * whole + shift, from->rows + k * size, (size_t)size);
}

/* x += the first columns of y */
static void add(const Run *run, const Buffer *x, const Buffer *y) {
    for (ix k = 0; k < run->beam; k++)
        for (ix i = 0; i < x->width; i += LANES) {
            __mmask16 mask = lanes(x->width - i);
            __m512 sum = _mm512_add_ps(load(x->rows, x->kind, k * x->width + i, mask),
                                       load(y->rows, y->kind, k * y->width + i, mask));
            store(x->rows, x->kind, k * x->width + i, mask, sum);
        }
}

static void scale(const Run *run, const Buffer *from, const Buffer *to, ix number) {
    const __m512 by = _mm512_set1_ps(sqrtf((float)number));
    for (ix i = 0; i < run->beam * from->width; i += LANES) {
        __mmask16 mask = lanes(run->beam * from->width - i);
        __m512 x = _mm512_div_ps(load(from->rows, from->kind, i, mask), by);
        store(to->rows, to->kind, i, mask, x);
    }
}

static void perform(const Run *run, const ix *a) {
    const Buffer *x = run->buffers + a[1], *y = run->buffers + (a[0] == EMBED || a[2] < 0 ? 0 : a[2]);
    switch (a[0]) {
        case EMBED: embed(run, x, (const char *)a[2]); return;
        case PUT: put(run, x, y, a[3]); return;
        case PRODUCT:
            product(&(Product){(void *)a[3], (void *)a[4], (void *)a[5], x->rows, y->rows, x->kind,
                               y->kind, run->beam, x->width, y->width},
                    1);
            return;
        case CELL: {
            const Buffer *hidden = run->buffers + a[3], *cell = run->buffers + a[4];
            lstm_cell(x->rows, a[2] < 0 ? NULL : run->buffers[a[2]].rows, x->kind, (float *)cell->rows,
                      (float *)cell->rows, hidden->rows, hidden->kind, run->beam, hidden->width);
            return;
        }
        case ADD: add(run, x, y); return;
        case TANH: bend(x->rows, x->kind, run->beam * x->width); return;
        case SCALE: scale(run, x, y, a[3]); return;
        case ATTEND: {
            ix heads = a[7];
            attend(x->rows, x->kind, (void *)a[3], (int)a[4], (void *)a[5], (int)a[6], NULL, y->rows,
                   y->kind, run->attention, run->scratch, 1, run->beam, heads, x->width / heads,
                   y->width / heads, run->task->sources);
            return;
        }
    }
}

/* the state of new hypothesis k is that of the old one it continues */
static void select_state(Run *run, const long long *parents, ix count) {
    for (ix b = 0; b < run->task->buffer_count; b++) {
        Buffer *buffer = run->buffers + b;
        if (!buffer->before) continue;
        size_t size = (size_t)row_size(buffer);
        for (ix k = 0; k < count; k++) memcpy(run->moved + k * size, buffer->rows + parents[k] * size, size);
        memcpy(buffer->rows, run->moved, count * size);
    }
}

/* ------------------------------------------------------------------- what has come to an end */

/* scores (n,) and where each stood, best first; of equals the older one stays before */
static void enter(float *scores, long long *places, ix n, float score, long long place) {
    if (!(score > scores[n - 1])) return;
    ix i = n - 1;
    for (; i > 0 && scores[i - 1] < score; i--) scores[i] = scores[i - 1], places[i] = places[i - 1];
    scores[i] = score;
    places[i] = place;
}

/* the score that an end needs to be among the `beam` best of ends and continuations */
static float bar(const Run *run, const float *values, ix count) {
    float best[2 * MOST_ROWS];
    ix n = 0;
    for (ix i = 0; i < run->beam + count; i++) {
        float value = i < run->beam ? run->ending[i] : values[i - run->beam];
        ix place = n++;
        for (; place > 0 && best[place - 1] < value; place--) best[place] = best[place - 1];
        best[place] = value;
    }
    return best[(n < run->task->beam ? n : run->task->beam) - 1];
}

/* one step; returns whether the sentence is done */
static int advance(Run *run, ix t, ix *finished) {
    const Task *task = run->task;
    const ix wide = task->beam, row = t * wide;
    const Buffer *logits = run->buffers + task->logits;
    run->attention = (float *)task->attention + row * task->sources;
    for (ix i = 0; i < task->op_count; i++) perform(run, (const ix *)task->ops + i * OP_SIZE);
    survey(logits->rows, logits->kind, NULL, 1, run->beam, logits->width, task->first_word, wide, run->norm,
           run->best, run->words);
    float *ends = (float *)task->ends + row;
    for (ix k = 0; k < run->beam; k++) {
        float logit = 0.0f;
        _mm512_mask_storeu_ps(&logit, 1, load(logits->rows, logits->kind, k * logits->width + task->end, 1));
        ends[k] = logit - run->norm[k];
        run->ending[k] = t < task->least ? -__builtin_inff() : run->scores[k] + ends[k];
    }
    float values[MOST_ROWS];
    long long *parents = (long long *)task->parents + row, *tokens = (long long *)task->tokens + row;
    choose(run->scores, run->norm, run->best, run->words, 1, run->beam, wide, wide, values,
           (float *)task->gains + row, parents, tokens);
    const float least = bar(run, values, wide), norm = ((const float *)task->norms)[t];
    for (ix k = 0; k < run->beam; k++) {
        if (!(run->ending[k] > -__builtin_inff())) continue;
        float score = run->ending[k] / norm;
        if (run->ending[k] >= least) {
            enter((float *)task->finished, (long long *)task->finished_at, task->n_best, score, row + k);
            ++*finished;
        } else if (t == task->last)
            enter((float *)task->unfinished, (long long *)task->unfinished_at, task->n_best, score,
                  row + k);
    }
    for (ix k = 0; k < wide; k++) {
        if (task->column_words) tokens[k] = ((const long long *)task->column_words)[tokens[k]];
        run->tokens[k] = tokens[k];
        run->scores[k] = values[k];
    }
    select_state(run, parents, wide);
    run->beam = wide;
    float reachable = values[0] / ((const float *)task->norms)[task->last];
    float worst = ((const float *)task->finished)[task->n_best - 1];
    return t == task->last || *finished >= wide || reachable <= worst;
}

/* ------------------------------------------------------------------------------------ memory */

static size_t padded(size_t bytes) { return (bytes + 63) / 64 * 64; }

static int prepare(Run *run, const Task *task) {
    const ix *given = (const ix *)task->buffers;
    size_t total = 0, largest = 0;
    run->buffers = malloc((size_t)task->buffer_count * sizeof(Buffer));
    if (!run->buffers) return 0;
    ix asked = 0;
    for (ix b = 0; b < task->buffer_count; b++) {
        Buffer *buffer = run->buffers + b;
        *buffer = (Buffer){given[3 * b], (int)given[3 * b + 1], (const void *)given[3 * b + 2], NULL};
        size_t size = padded((size_t)(task->beam * row_size(buffer)));
        total += size;
        largest = size > largest ? size : largest;
        asked = buffer->width > asked ? buffer->width : asked;
    }
    run->arena = aligned_alloc(64, total + largest);
    run->scratch = malloc(8 * (size_t)(task->sources + asked) * sizeof(float));
    if (!run->arena || !run->scratch) return 0;
    run->moved = run->arena + total;
    char *place = run->arena;
    for (ix b = 0; b < task->buffer_count; b++) {
        Buffer *buffer = run->buffers + b;
        buffer->rows = place;
        if (buffer->before) memcpy(place, buffer->before, (size_t)row_size(buffer));
        place += padded((size_t)(task->beam * row_size(buffer)));
    }
    return 1;
}

ix search(const Task *task) {
    float scores[MOST_ROWS] = {0}, ending[MOST_ROWS], norm[MOST_ROWS], best[MOST_ROWS * MOST_ROWS];
    long long tokens[MOST_ROWS] = {task->begin}, words[MOST_ROWS * MOST_ROWS];
    Run run = {.task = task, .beam = 1, .tokens = tokens, .scores = scores, .ending = ending,
               .norm = norm, .best = best, .words = words};
    ix steps = -1, finished = 0;
    if (prepare(&run, task)) {
        steps = 0;
        while (!advance(&run, steps++, &finished)) {}
    }
    free(run.scratch);
    free(run.arena);
    free(run.buffers);
    return steps;
}
#endif
