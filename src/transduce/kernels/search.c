/* The whole beam search of some sentences: the kernels of their sources, where it is not given what they make, then
 * a step's one after the other, what they lead to, and the next step, without going back to Python in between.
 *
 * It does what search/beam.py does for a batch, and in the same order; the two are tested against
 * each other. Hypotheses of all sentences that still run follow each other; who is done leaves at once. Threads
 * take sentences of their own.
 */
#if defined(__x86_64__) && defined(__GNUC__)
#pragma GCC target("avx512f,avx512bw,avx512dq,avx512vl,avx512vnni,avx512bf16,fma")
#include "search.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

/* --------------------------------------------------------------------------------- the state */

/* the one hypothesis of each sentence before the first step */
static void begin_state(Run *run) {
    for (ix b = 0; b < run->task->buffer_count; b++) {
        const Buffer *state = run->buffers + b, *before = run->buffers + state->before;
        if (state->of != STATES) continue;
        if (state->before < 0) {
            memset(state->rows, 0, (size_t)(run->count * row_size(state)));
            continue;
        }
        for (ix n = 0; n < run->count; n++)
            for (ix i = 0; i < state->width; i += LANES) {
                const __mmask16 mask = lanes(state->width - i);
                const ix from = n * before->width + state->column + i;
                store(state->rows, state->kind, n * state->width + i, mask, load(before->rows, before->kind, from, mask));
            }
    }
}

/* the state of each new hypothesis is that of the old one it continues */
static void select_state(Run *run) {
    for (ix b = 0; b < run->task->buffer_count; b++) {
        Buffer *buffer = run->buffers + b;
        if (buffer->of != STATES) continue;
        const ix size = row_size(buffer);
        for (ix k = 0; k < run->running * run->beam; k++)
            memcpy(buffer->other + k * size, buffer->rows + run->rows[k] * size, (size_t)size);
        char *old = buffer->rows;
        buffer->rows = buffer->other;
        buffer->other = old;
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

/* the score that an end needs to be among the `wide` best of `beam` ends and as many continuations */
static float bar(const float *ending, const float *values, ix beam, ix wide) {
    float best[2 * MOST_ROWS];
    ix n = 0;
    for (ix i = 0; i < beam + wide; i++) {
        float value = i < beam ? ending[i] : values[i - beam];
        ix place = n++;
        for (; place > 0 && best[place - 1] < value; place--) best[place] = best[place - 1];
        best[place] = value;
    }
    return best[(n < wide ? n : wide) - 1];
}

/* What the step leads to for running sentence j, which goes on as running sentence `slot`; returns whether it is done. */
static int conclude(Run *run, ix j, ix slot, ix t) {
    const Task *task = run->task;
    const Buffer *logits = run->buffers + task->logits;
    Sentence *s = run->all[run->live[j]];
    const ix wide = task->beam, beam = run->beam, row = j * beam, at_step = t * wide;
    const ix columns = s->columns ? s->columns : logits->width;
    const char *own = logits->rows + row * row_size(logits);
    const float *scores = run->scores + row;
    survey(own, logits->kind, NULL, 1, beam, columns, task->first_word, wide, run->norm, run->best, run->words);
    float ending[MOST_ROWS], values[MOST_ROWS], *ends = (float *)s->ends + at_step;
    for (ix k = 0; k < beam; k++) {
        const __m512 logit = load(own, logits->kind, k * columns + task->end, 1);
        ends[k] = _mm512_cvtss_f32(logit) - run->norm[k];
        ending[k] = t < s->least ? -__builtin_inff() : scores[k] + ends[k];
    }
    long long *parents = (long long *)s->parents + at_step, *tokens = (long long *)s->tokens + at_step;
    choose(scores, run->norm, run->best, run->words, 1, beam, wide, wide, values, (float *)s->gains + at_step,
           parents, tokens);
    const float least = bar(ending, values, beam, wide), norm = ((const float *)task->norms)[t];
    ix *finished = run->finished + run->live[j];
    for (ix k = 0; k < beam; k++) {
        if (!(ending[k] > -__builtin_inff())) continue;
        float score = ending[k] / norm;
        if (ending[k] >= least) {
            enter((float *)s->finished, (long long *)s->finished_at, task->n_best, score, at_step + k);
            ++*finished;
        } else if (t == s->last)
            enter((float *)s->unfinished, (long long *)s->unfinished_at, task->n_best, score, at_step + k);
    }
    for (ix k = 0; k < wide; k++) {
        if (s->column_words) tokens[k] = ((const long long *)s->column_words)[tokens[k]];
        run->next_tokens[slot * wide + k] = tokens[k];
        run->next_scores[slot * wide + k] = values[k];
        run->rows[slot * wide + k] = row + parents[k];
    }
    s->steps = t + 1;
    const float reachable = values[0] / ((const float *)task->norms)[s->last];
    const float worst = ((const float *)s->finished)[task->n_best - 1];
    return t == s->last || *finished >= wide || reachable <= worst;
}

/* one step of the search */
static void advance(Run *run, ix t) {
    const Task *task = run->task;
    for (ix i = task->first_ops; i < task->op_count - 1; i++) perform(run, (const ix *)task->ops + i * OP_SIZE, t);
    judge(run, (const ix *)task->ops + (task->op_count - 1) * OP_SIZE);
    ix kept = 0;
    for (ix j = 0; j < run->running; j++)
        if (!conclude(run, j, kept, t)) run->live[kept++] = run->live[j];
    run->running = kept;
    run->beam = task->beam;
    long long *tokens = run->tokens;
    float *scores = run->scores;
    run->tokens = run->next_tokens, run->next_tokens = tokens;
    run->scores = run->next_scores, run->next_scores = scores;
    select_state(run);
}

/* ------------------------------------------------------------------------------------ memory */

/* Something after the other: how much there is so far, and where it begins, once that is known. */
typedef struct {
    char *base;
    size_t count;
} Arena;

static void *take(Arena *arena, ix bytes) {
    char *place = arena->base ? arena->base + arena->count : NULL;
    arena->count += (size_t)(bytes + 63) / 64 * 64;
    return place;
}

static void lay_out_run(Run *run, Arena *arena) {
    const Task *task = run->task;
    const ix *given = (const ix *)task->buffers, rows = run->count * task->beam, words = task->beam * task->beam;
    ix widest = 0, longest = 0, scratch = 0;
    run->first = take(arena, (run->count + 1) * (ix)sizeof(ix));
    run->live = take(arena, run->count * (ix)sizeof(ix));
    run->finished = take(arena, run->count * (ix)sizeof(ix));
    run->buffers = take(arena, task->buffer_count * (ix)sizeof(Buffer));
    ix positions = 0;
    for (ix n = 0; n < run->count; n++) {
        const ix sources = run->all[n]->sources;
        if (run->first) run->first[n] = positions, run->live[n] = n, run->finished[n] = 0;
        positions += sources;
        longest = sources > longest ? sources : longest;
    }
    if (run->first) run->first[run->count] = positions;
    for (ix b = 0; b < task->buffer_count; b++, given += BUFFER_SIZE) {
        Buffer buffer = {given[0], (int)given[1], (int)given[2], given[4], given[5], (char *)given[3], NULL};
        const ix high = buffer.of == SENTENCE ? run->count : buffer.of == POSITIONS ? positions : rows;
        widest = buffer.width > widest ? buffer.width : widest;
        if (!buffer.rows) buffer.rows = take(arena, high * row_size(&buffer));
        if (buffer.of == STATES) buffer.other = take(arena, high * row_size(&buffer));
        if (run->buffers) run->buffers[b] = buffer;
    }
    for (ix i = 0; i < task->first_ops; i++) {
        const ix *op = (const ix *)task->ops + i * OP_SIZE;
        if (op[0] == LSTM && op[6] > scratch) scratch = op[6];
    }
    scratch *= 6 * run->count; /* of read_through: cells, hidden states and gates */
    if (scratch < 8 * (longest + widest)) scratch = 8 * (longest + widest);
    run->scratch = take(arena, scratch * (ix)sizeof(float));
    run->tokens = take(arena, rows * (ix)sizeof(long long));
    run->next_tokens = take(arena, rows * (ix)sizeof(long long));
    run->rows = take(arena, rows * (ix)sizeof(long long));
    run->words = take(arena, words * (ix)sizeof(long long));
    run->scores = take(arena, rows * (ix)sizeof(float));
    run->next_scores = take(arena, rows * (ix)sizeof(float));
    run->norm = take(arena, task->beam * (ix)sizeof(float));
    run->best = take(arena, words * (ix)sizeof(float));
}

/* some sentences from their first step to their last; returns 1 if there is no memory */
static int search_some(const Task *task, Sentence **all, ix count) {
    Run run = {.task = task, .all = all, .count = count};
    Arena arena = {NULL, 0};
    lay_out_run(&run, &arena);
    arena.base = aligned_alloc(64, arena.count);
    if (!arena.base) return 1;
    arena.count = 0;
    lay_out_run(&run, &arena);
    run.running = count, run.beam = 1;
    for (ix n = 0; n < count; n++) run.tokens[n] = task->begin, run.scores[n] = 0.0f;
    for (ix i = 0; i < task->first_ops; i++) perform(&run, (const ix *)task->ops + i * OP_SIZE, 0);
    begin_state(&run);
    for (ix t = 0; run.running; t++) advance(&run, t);
    free(arena.base);
    return 0;
}

int search(const Task *task, ix threads) {
    Sentence *sentences = (Sentence *)task->sentences;
    Sentence **all = malloc((size_t)task->count * sizeof(Sentence *));
    int failed = !all;
    if (failed) return 1;
    if (threads > task->count) threads = task->count;
    ix place = 0; /* every thread has as many of each length */
    for (ix part = 0; part < threads; part++)
        for (ix n = part; n < task->count; n += threads) all[place++] = sentences + n;
    _Pragma("omp parallel for num_threads((int)threads) schedule(static, 1) reduction(| : failed) if (threads > 1)")
    for (ix part = 0; part < threads; part++) {
        const ix more = task->count % threads, each = task->count / threads;
        const ix from = part * each + (part < more ? part : more);
        failed |= search_some(task, all + from, each + (part < more));
    }
    free(all);
    return failed;
}
#endif
