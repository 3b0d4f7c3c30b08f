/* The whole beam search of one sentence: the kernels of its source, where it is not given what they make, then
 * a step's one after the other, what they lead to, and the next step, without going back to Python in between.
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
    int kind, of;      /* what there are rows of */
    ix before, column; /* of a state: where it is before the first step */
    char *rows;
} Buffer;

typedef struct {
    const Task *task;
    Buffer *buffers;
    char *arena, *moved;
    float *scratch; /* of attend and read_through: 8 x (positions + the widest buffer) */
    ix beam;        /* hypotheses of this step */
    long long *tokens;
    float *scores, *ending, *norm, *best;
    long long *words;
    float *attention; /* of this step */
} Run;

static ix row_size(const Buffer *buffer) { return buffer->width * (ix)size_of(buffer->kind); }

static ix rows_of(const Run *run, const Buffer *buffer) {
    return buffer->of == SENTENCE ? 1 : buffer->of == POSITIONS ? run->task->sources : run->beam;
}

/* --------------------------------------------------------------------------------- the ops */

static void embed(const Run *run, const Buffer *to, const char *table) {
    const long long *tokens = to->of == POSITIONS ? (const long long *)run->task->source : run->tokens;
    ix size = row_size(to), rows = rows_of(run, to);
    for (ix k = 0; k < rows; k++) memcpy(to->rows + k * size, table + tokens[k] * size, (size_t)size);
}

/* rows of one buffer into columns of another of the same kind */
static void put(const Run *run, const Buffer *from, const Buffer *to, ix column) {
    ix size = row_size(from), whole = row_size(to), shift = column * (ix)size_of(to->kind);
    ix rows = rows_of(run, from);
    for (ix k = 0; k < rows; k++)
        memcpy(to->rows + k * whole + shift, from->rows + k * size, (size_t)size);
}

/* x += the first columns of y */
static void add(const Run *run, const Buffer *x, const Buffer *y) {
    ix rows = rows_of(run, x);
    for (ix k = 0; k < rows; k++)
        for (ix i = 0; i < x->width; i += LANES) {
            __mmask16 mask = lanes(x->width - i);
            __m512 sum = _mm512_add_ps(load(x->rows, x->kind, k * x->width + i, mask),
                                       load(y->rows, y->kind, k * y->width + i, mask));
            store(x->rows, x->kind, k * x->width + i, mask, sum);
        }
}

static void scale(const Run *run, const Buffer *from, const Buffer *to, ix number) {
    const __m512 by = _mm512_set1_ps(sqrtf((float)number));
    ix count = rows_of(run, from) * from->width;
    for (ix i = 0; i < count; i += LANES) {
        __mmask16 mask = lanes(count - i);
        __m512 x = _mm512_div_ps(load(from->rows, from->kind, i, mask), by);
        store(to->rows, to->kind, i, mask, x);
    }
}

/* A layer of the encoder in one direction; what it says last goes into the columns of `final`. */
static void read_through(const Run *run, const ix *a) {
    const Buffer *x = run->buffers + a[1], *y = run->buffers + a[2], *final = run->buffers + a[5];
    const ix size = a[6], sources = run->task->sources;
    float *gates = run->scratch, *cell = gates + 4 * size, *nothing = cell + size;
    memset(cell, 0, 2 * (size_t)size * sizeof(float));
    const void *before = nothing;
    for (ix i = 0; i < sources; i++) {
        const ix t = a[9] ? sources - 1 - i : i;
        void *now = (void *)at(y->rows, y->kind, t * y->width + a[4]);
        product(&(Product){(void *)a[7], (void *)a[8], NULL, before, gates, y->kind, x->kind, 1, size, 4 * size}, 1);
        lstm_cell(gates, at(x->rows, x->kind, t * x->width + a[3]), x->kind, cell, cell, now, y->kind, 1, size);
        before = now;
    }
    memcpy((void *)at(final->rows, final->kind, a[4]), before, (size_t)size * size_of(y->kind));
}

/* (S, heads x depth) -> (heads, S, depth), or across (heads, depth, S) */
static void split(const Run *run, const Buffer *from, const Buffer *to, ix heads, ix across) {
    const ix depth = from->width / heads, sources = run->task->sources;
    const size_t size = (size_t)size_of(from->kind), row = (size_t)depth * size;
    for (ix s = 0; s < sources; s++)
        for (ix h = 0; h < heads; h++) {
            const char *head = from->rows + (size_t)(s * heads + h) * row;
            char *place = to->rows + (across ? (size_t)(h * depth * sources + s) * size : (size_t)(h * sources + s) * row);
            if (!across)
                memcpy(place, head, row);
            else if (from->kind == BFLOAT16)
                for (ix d = 0; d < depth; d++) memcpy(place + d * sources * 2, head + d * 2, 2);
            else
                for (ix d = 0; d < depth; d++) memcpy(place + d * sources * 4, head + d * 4, 4);
        }
}

static void perform(const Run *run, const ix *a) {
    const Buffer *x = run->buffers + a[1], *y = run->buffers + (a[0] == EMBED || a[2] < 0 ? 0 : a[2]);
    switch (a[0]) {
        case EMBED: embed(run, x, (const char *)a[2]); return;
        case PUT: put(run, x, y, a[3]); return;
        case PRODUCT:
            product(&(Product){(void *)a[3], (void *)a[4], (void *)a[5], x->rows, y->rows, x->kind,
                               y->kind, rows_of(run, x), x->width, y->width},
                    1);
            return;
        case CELL: {
            const Buffer *hidden = run->buffers + a[3], *cell = run->buffers + a[4];
            lstm_cell(x->rows, a[2] < 0 ? NULL : run->buffers[a[2]].rows, x->kind, (float *)cell->rows,
                      (float *)cell->rows, hidden->rows, hidden->kind, run->beam, hidden->width);
            return;
        }
        case ADD: add(run, x, y); return;
        case TANH: bend(x->rows, x->kind, rows_of(run, x) * x->width); return;
        case SCALE: scale(run, x, y, a[3]); return;
        case ATTEND: {
            const Buffer *keys = run->buffers + a[3], *values = run->buffers + a[5];
            const ix heads = a[6];
            attend(x->rows, x->kind, keys->rows, (int)a[4], values->rows, keys->kind, NULL, y->rows, y->kind,
                   run->attention, run->scratch, 1, run->beam, heads, x->width / heads, y->width / heads,
                   run->task->sources);
            return;
        }
        case LSTM: read_through(run, a); return;
        case SPLIT: split(run, x, y, a[3], a[4]); return;
    }
}

/* --------------------------------------------------------------------------------- the state */

/* the one hypothesis before the first step */
static void begin_state(Run *run) {
    for (ix b = 0; b < run->task->buffer_count; b++) {
        const Buffer *state = run->buffers + b, *before = run->buffers + state->before;
        if (state->of != STATES) continue;
        if (state->before < 0) {
            memset(state->rows, 0, (size_t)row_size(state));
            continue;
        }
        for (ix i = 0; i < state->width; i += LANES) {
            const __mmask16 mask = lanes(state->width - i);
            store(state->rows, state->kind, i, mask, load(before->rows, before->kind, state->column + i, mask));
        }
    }
}

/* the state of new hypothesis k is that of the old one it continues */
static void select_state(Run *run, const long long *parents, ix count) {
    for (ix b = 0; b < run->task->buffer_count; b++) {
        Buffer *buffer = run->buffers + b;
        if (buffer->of != STATES) continue;
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

/* one step of the search; returns whether the sentence is done */
static int advance(Run *run, ix t, ix *finished) {
    const Task *task = run->task;
    const ix wide = task->beam, row = t * wide;
    const Buffer *logits = run->buffers + task->logits;
    run->attention = (float *)task->attention + row * task->sources;
    for (ix i = task->first_ops; i < task->op_count; i++) perform(run, (const ix *)task->ops + i * OP_SIZE);
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

static size_t room_of(const Task *task, const Buffer *buffer) {
    const ix rows = buffer->of == SENTENCE ? 1 : buffer->of == POSITIONS ? task->sources : task->beam;
    return (size_t)(rows * row_size(buffer) + 63) / 64 * 64;
}

static int prepare(Run *run, const Task *task) {
    const ix *given = (const ix *)task->buffers;
    size_t total = 0, largest = 0;
    run->buffers = malloc((size_t)task->buffer_count * sizeof(Buffer));
    if (!run->buffers) return 0;
    ix asked = 0;
    for (ix b = 0; b < task->buffer_count; b++, given += BUFFER_SIZE) {
        Buffer *buffer = run->buffers + b;
        *buffer = (Buffer){given[0], (int)given[1], (int)given[2], given[4], given[5], (char *)given[3]};
        asked = buffer->width > asked ? buffer->width : asked;
        if (buffer->rows) continue;
        size_t size = room_of(task, buffer);
        total += size;
        largest = size > largest ? size : largest;
    }
    run->arena = aligned_alloc(64, total + largest);
    run->scratch = malloc(8 * (size_t)(task->sources + asked) * sizeof(float));
    if (!run->arena || !run->scratch) return 0;
    char *place = run->arena;
    for (ix b = 0; b < task->buffer_count; b++) {
        Buffer *buffer = run->buffers + b;
        if (buffer->rows) continue;
        buffer->rows = place;
        place += room_of(task, buffer);
    }
    run->moved = place;
    return 1;
}

ix search(const Task *task) {
    float scores[MOST_ROWS] = {0}, ending[MOST_ROWS], norm[MOST_ROWS], best[MOST_ROWS * MOST_ROWS];
    long long tokens[MOST_ROWS] = {task->begin}, words[MOST_ROWS * MOST_ROWS];
    Run run = {.task = task, .beam = 1, .tokens = tokens, .scores = scores, .ending = ending,
               .norm = norm, .best = best, .words = words};
    ix steps = -1, finished = 0;
    if (prepare(&run, task)) {
        for (ix i = 0; i < task->first_ops; i++) perform(&run, (const ix *)task->ops + i * OP_SIZE);
        begin_state(&run);
        steps = 0;
        while (!advance(&run, steps++, &finished)) {}
    }
    free(run.scratch);
    free(run.arena);
    free(run.buffers);
    return steps;
}
#endif
