/* The ops of a plan (kernels/plan.py), each for all sentences of a search. */
#if defined(__x86_64__) && defined(__GNUC__)
#pragma GCC target("avx512f,avx512bw,avx512dq,avx512vl,avx512vnni,avx512bf16,fma")
#include "search.h"

#include <math.h>
#include <string.h>

static void embed(const Run *run, const Buffer *to, const char *table) {
    const ix size = row_size(to);
    if (to->of != POSITIONS) {
        for (ix k = 0; k < rows_of(run, to); k++)
            memcpy(to->rows + k * size, table + run->tokens[k] * size, (size_t)size);
        return;
    }
    for (ix i = 0; i < run->count; i++) {
        const long long *source = (const long long *)run->all[i]->source;
        for (ix s = 0; s < run->all[i]->sources; s++)
            memcpy(to->rows + (run->first[i] + s) * size, table + source[s] * size, (size_t)size);
    }
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

/* A layer of the encoder in one direction, of all sentences that are so long; what it says last goes into the
 * columns of `final`. */
static void read_through(const Run *run, const ix *a) {
    const Buffer *x = run->buffers + a[1], *y = run->buffers + a[2], *final = run->buffers + a[5];
    const ix size = a[6], bytes = size * (ix)size_of(y->kind);
    float *cell = run->scratch;
    char *before = (char *)(cell + run->count * size), *gates = before + run->count * bytes;
    memset(cell, 0, (size_t)(run->count * size) * sizeof(float));
    memset(before, 0, (size_t)(run->count * bytes));
    ix active = run->count;
    for (ix i = 0; active; i++) {
        while (active && run->all[active - 1]->sources <= i) active--;
        product(&(Product){(void *)a[7], (void *)a[8], NULL, before, gates, y->kind, y->kind, active, size,
                           4 * size, 0},
                1);
        for (ix n = 0; n < active; n++) {
            const ix t = run->first[n] + (a[9] ? run->all[n]->sources - 1 - i : i);
            char *now = before + n * bytes;
            lstm_cell(gates + 4 * n * bytes, at(x->rows, x->kind, t * x->width + a[3]), NULL, x->kind, cell + n * size,
                      cell + n * size, now, y->kind, 1, size);
            memcpy((void *)at(y->rows, y->kind, t * y->width + a[4]), now, (size_t)bytes);
        }
    }
    for (ix n = 0; n < run->count; n++)
        memcpy((void *)at(final->rows, final->kind, n * final->width + a[4]), before + n * bytes, (size_t)bytes);
}

/* (S, heads x depth) -> (heads, S, depth), or across (heads, depth, S), of each sentence */
static void split(const Run *run, const Buffer *from, const Buffer *to, ix heads, ix across) {
    const ix depth = from->width / heads, size = (ix)size_of(from->kind);
    for (ix i = 0; i < run->count; i++) {
        const ix sources = run->all[i]->sources, begin = run->first[i] * row_size(from);
        for (ix s = 0; s < sources; s++)
            for (ix h = 0; h < heads; h++) {
                const char *head = from->rows + begin + (s * heads + h) * depth * size;
                char *place = to->rows + begin + (across ? h * depth * sources + s : (h * sources + s) * depth) * size;
                if (!across)
                    memcpy(place, head, (size_t)(depth * size));
                else if (from->kind == BFLOAT16)
                    for (ix d = 0; d < depth; d++) memcpy(place + d * sources * 2, head + d * 2, 2);
                else
                    for (ix d = 0; d < depth; d++) memcpy(place + d * sources * 4, head + d * 4, 4);
            }
    }
}

/* each sentence's hypotheses in its own memory; attention (steps, beam, S) of a task */
static void ask(const Run *run, const ix *a, ix t) {
    const Buffer *x = run->buffers + a[1], *y = run->buffers + a[2];
    const Buffer *keys = run->buffers + a[3], *values = run->buffers + a[5];
    const ix heads = a[6];
    for (ix j = 0; j < run->running; j++) {
        const ix i = run->live[j], row = j * run->beam, first = run->first[i];
        const Sentence *sentence = run->all[i];
        attend(x->rows + row * row_size(x), x->kind, keys->rows + first * row_size(keys), (int)a[4],
               values->rows + first * row_size(values), keys->kind, NULL, y->rows + row * row_size(y), y->kind,
               (float *)sentence->attention + t * run->task->beam * sentence->sources, run->scratch, 1, run->beam,
               heads, x->width / heads, y->width / heads, sentence->sources);
    }
}

static void multiply_rows(const Run *run, const ix *a) {
    const Buffer *x = run->buffers + a[1], *y = run->buffers + a[2];
    product(&(Product){(void *)a[3], (void *)a[4], (void *)a[5], x->rows, y->rows, x->kind, y->kind,
                       rows_of(run, x), x->width, y->width, 0},
            1);
}

/* The last product: each sentence's logits among its own words, if it has some, from where all would be. */
void judge(const Run *run, const ix *a) {
    const Buffer *x = run->buffers + a[1], *y = run->buffers + a[2];
    if (!run->all[0]->columns) {
        multiply_rows(run, a);
        return;
    }
    for (ix j = 0; j < run->running; j++) {
        const Sentence *own = run->all[run->live[j]];
        const ix row = j * run->beam;
        product(&(Product){(void *)own->weights, (void *)own->scales, (void *)own->bias, x->rows + row * row_size(x),
                           y->rows + row * row_size(y), x->kind, y->kind, run->beam, x->width, own->columns, 0},
                1);
    }
}

void perform(const Run *run, const ix *a, ix t) {
    const Buffer *x = run->buffers + a[1], *y = run->buffers + (a[0] == EMBED || a[2] < 0 ? 0 : a[2]);
    switch (a[0]) {
        case EMBED: embed(run, x, (const char *)a[2]); return;
        case PUT: put(run, x, y, a[3]); return;
        case PRODUCT: multiply_rows(run, a); return;
        case CELL: {
            const Buffer *hidden = run->buffers + a[3], *cell = run->buffers + a[4];
            const int looked_up = a[2] >= 0 && y->of == TOKENS;
            lstm_cell(x->rows, a[2] < 0 ? NULL : y->rows, looked_up ? run->tokens : NULL, x->kind, (float *)cell->rows,
                      (float *)cell->rows, hidden->rows, hidden->kind, rows_of(run, hidden), hidden->width);
            return;
        }
        case ADD: add(run, x, y); return;
        case TANH: bend(x->rows, x->kind, rows_of(run, x) * x->width); return;
        case SCALE: scale(run, x, y, a[3]); return;
        case ATTEND: ask(run, a, t); return;
        case LSTM: read_through(run, a); return;
        case SPLIT: split(run, x, y, a[3], a[4]); return;
    }
}
#endif
