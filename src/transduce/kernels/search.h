/* A search that is under way, for its ops (ops.c) and for what they lead to (search.c). */
#ifndef TRANSDUCE_SEARCH_H
#define TRANSDUCE_SEARCH_H

#include "kernels.h"
#include "simd.h"

typedef struct {
    ix width;
    int kind, of;      /* what there are rows of */
    ix before, column; /* of a state: where it is before the first step */
    char *rows, *other; /* of a state: room for that of the next step */
} Buffer;

typedef struct {
    const Task *task;
    Sentence **all; /* of this run, the longest first */
    ix count, *first; /* where the positions of each are; the last: how many there are */
    ix *live, running, *finished; /* who still runs; how many hypotheses of each have finished */
    ix beam; /* hypotheses of a sentence in this step */
    Buffer *buffers;
    char *arena;
    float *scratch; /* of attend and read_through */
    /* by hypothesis, `next` being those of the next step and `rows` those that they continue */
    long long *tokens, *next_tokens, *rows, *words;
    float *scores, *next_scores, *norm, *best;
} Run;

static inline ix row_size(const Buffer *buffer) { return buffer->width * (ix)size_of(buffer->kind); }

static inline ix rows_of(const Run *run, const Buffer *buffer) {
    if (buffer->of == POSITIONS) return run->first[run->count];
    return buffer->of == SENTENCE ? run->count : run->running * run->beam;
}

/* What an op does in step t; and the last one. */
void perform(const Run *run, const ix *op, ix t);
void judge(const Run *run, const ix *op);

#endif
