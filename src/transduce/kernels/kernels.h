/* What the kernels compute; shapes as in Python, every matrix row after row without gaps.
 *
 * `kind` is FLOAT32 or BFLOAT16 (simd.h). Callers have checked shapes, dtypes and contiguity.
 */
#ifndef TRANSDUCE_KERNELS_H
#define TRANSDUCE_KERNELS_H

#include <stddef.h>

#define KERNELS_VERSION 8 /* as in __init__.py; both change with what a kernel takes or does */
#define MOST_ROWS 8      /* of a search in one call */
#define MOST_BEST 64     /* of survey */
#define MOST_BEAM 64     /* of choose */

/* where this compiler can make products by tiles */
#if defined(__x86_64__) && defined(__GNUC__) && __GNUC__ >= 12 && !defined(__clang__) && defined(__linux__)
#define TILES 1
#endif

typedef ptrdiff_t ix;

/* y = x W^T + b. Weights as lay_out lays them out: blocks of 16 outputs, whose inputs follow each other in pairs
 * (bf16) or fours (8 bits, plus 128). Weights in 8 bits have scales, of their outputs or, `times`, of their inputs,
 * and each row of x is rounded to 8 bits by a scale of its own. */
typedef struct {
    const void *weights;
    const float *scales, *bias;
    const void *x;
    void *y;
    int x_kind, y_kind;
    ix rows, inputs, outputs;
    const ix *x_at; /* at which of x's numbers each row begins; NULL: they follow each other */
    const float *times; /* what each number of a row of x is multiplied by before that is rounded; NULL: nothing */
    ix y_stride;        /* how far rows of y are apart; 0: they follow each other */
    /* Of an x whose rows are in 8 bits already, as to_fours makes them: a scale of each, 128 x the sum of each, and how
     * many bytes they are apart; else NULL. */
    const float *x_scales;
    const int *x_excess;
    ix x_stride;
} Product;

static inline int in_8_bits(const Product *p) { return p->scales || p->times || p->x_scales; }
static inline ix stride_of(const Product *p) { return p->y_stride ? p->y_stride : p->outputs; }

/* a row of x and what follows */
static inline const void *row_of(const Product *p, ix row) {
    return (const char *)p->x + (p->x_at ? p->x_at[row] : row * p->inputs) * (p->x_kind ? 2 : 4);
}

/* The product by the faster way: by tiles where this processor multiplies them, except for the fewest rows in
 * 8 bits, whose results are the same. by_tiles returns -1 where it has no room or there are no tiles. */
void product(const Product *p, ix threads);
void by_vectors(const Product *p, ix threads);
int by_tiles(const Product *p, ix threads);
int tiles_supported(void);

/* A row x, times what each number is multiplied by if not NULL -> signed 8-bit fours (stride,), their scale, and
 * 128 x their sum; stride: a multiple of 16, filled up with zeros. */
void to_fours(const void *x, int kind, const float *times, ix inputs, ix stride, signed char *whole, float *scale,
              int *excess);

/* Weights (outputs, inputs) in 8 bits, each row by a scale of its own */
void round_rows(const float *weights, signed char *whole, float *scales, ix outputs, ix inputs, ix threads);

/* Columns of x (rows, columns) in bf16 in 8 bits, each by a scale of its own, up or down by chance, so that on average
 * they are what they were, to 2^-17 of a step: as rows that are `stride` bytes apart, a multiple of 64, filled up with
 * zeros to a multiple of 64, and 128 x the sum of each; or in blocks as those of lay_out, with as much room as there, of what has so many inputs as x has rows. */
typedef struct {
    const void *x;
    signed char *whole;
    float *scales;
    int *excess;
    ix rows, columns, stride, blocks, seed;
} Columns;
void round_columns(const Columns *c, ix threads);

/* Weights (any number, inputs) in bf16 or 8 bits (any other kind) as `product` reads them: the first
 * `outputs`, or the `chosen` if not NULL, filled up to a multiple of 32; with room for 1,024 bytes behind them, which tiles may reach into. */
void lay_out(const void *weights, int kind, const long long *chosen, void *blocks, ix outputs, ix inputs, ix threads);

/* The same of weights (inputs, outputs) */
void lay_out_turned(const void *weights, int kind, void *blocks, ix outputs, ix inputs, ix threads);

/* An LSTM's cell from its gates (rows, 4 x size): input, forget, twice the cell's, output. `given`
 * is added to them, if not NULL; with `tokens`, of it the row of each token. */
void lstm_cell(const void *gates, const void *given, const long long *tokens, int kind, const float *before,
               float *cell, void *hidden, int hidden_kind, ix rows, ix size);

/* x (count,), replaced by its hyperbolic tangents */
void bend(void *x, int kind, ix count);

/* A whole LSTM layer, positions first: what the inputs say to the gates (T, N, 4 x size), with hidden
 * (T + 1, N, size), of which the first is given, and cell (N, size) before and after. `weights` are
 * those of the hidden state, for `product`; gates: room for (N, 4 x size). */
void lstm_sequence(const void *weights, const float *scales, const void *inputs, int kind,
                   void *hidden, float *cell, void *gates, ix sentences, ix positions, ix size,
                   ix threads);

/* Of every row of logits (rows, vocabulary): the logarithm of the sum of exponentials, and the `count`
 * best words from `first` on, best first, of equals the first; only of words that are `allowed` (rows /
 * beam, vocabulary), where that is not 0, if it is not NULL. */
void survey(const void *logits, int kind, const unsigned char *allowed, ix beam, ix rows, ix vocabulary, ix first, ix count, float *norm,
            float *values, long long *words);

/* What survey_ruled looks at, and where what it finds goes. Numbers are sizes, or addresses of what is
 * named in brackets. */
typedef struct {
    ix logits, kind, rows, vocabulary; /* [(rows, vocabulary)] of this kind */
    ix first_word, count;              /* as `first` and `count` of survey */
    ix forbidden, each;                /* [(rows, each) long long]: words that may not follow */
    ix sources, beam, extends;         /* positions S, or 0 where nothing is copied; rows of a sentence;
                                          whether columns V to V + S are words, too */
    ix gate, attention;                /* [(rows,), (rows, S) float]: logits of generating */
    ix columns, first;                 /* [(rows / beam, S) long long]: see model/state.py, Copies */
    ix norm, values, words;            /* as of survey */
} Ruled;

/* Like survey, of words that are generated or copied (model/copying.py), without those that are
 * forbidden, whose probability is nobody's. scratch: vocabulary + 2 x sources floats. */
void survey_ruled(const Ruled *ruled, float *scratch);

/* The share (B, C) that was copied of the probability e^gain of words (B, C) after hypotheses
 * `parents`; attention (B, K, S), gate (B, K), columns (B, S) as of survey_ruled. */
void copied_share(const float *attention, const float *gate, const long long *columns,
                  const long long *parents, const long long *words, const float *gains, float *share,
                  ix sentences, ix beam, ix count, ix sources);

/* The `count` best of scores (B, K) + words' log-probabilities, from what survey found of the K x C
 * best words: new scores (B, count), log-probabilities, parents, words; best first. */
void choose(const float *scores, const float *norm, const float *best, const long long *best_words,
            ix sentences, ix beam, ix each, ix count, float *values, float *gains,
            long long *parents, long long *words);

/* Attention of K queries of each of B sentences, H heads. queries (B, K, H x width), keys
 * (B, H, width, S), or (B, S, width) of a single head if not `across`; values (B, H, S, depth);
 * penalty (B, S) or NULL -> context (B, K, H x depth), weights (B, K, S), the mean over heads.
 * scratch: 8 x (S + H x width) floats. */
void attend(const void *queries, int kind, const void *keys, int across, const void *values,
            int memory_kind, const float *penalty, void *context, int context_kind, float *weights, float *scratch,
            ix sentences, ix beam, ix heads, ix width, ix depth, ix sources);

/* What follows is for training (training.c, losses.c, entries.c), on `threads` threads; what they add up has a row for each.
 *
 * An LSTM layer at all positions in turn, with the products between them, whose weights are laid out for
 * `product`: those of the hidden state, and going back the same with inputs and outputs exchanged; in 8 bits if they have scales,
 * of a row of the former. By sentence:
 * gates, grad_gates (N, T, 4 x size), the hidden state before each position and the one after it, `before` and
 * `hidden`, and the gradient by the latter, `outputs` (N, T, size), all in bf16; cells (N, T + 1, size), in the order
 * of steps. room: (N, 4 x size) in bf16; recurrent: (N, size), zeros at first. Unless it has `begun` with a state that
 * was given, the first hidden state is zeros and nobody asks for its gradient. With the `lengths` of sentences, each
 * is read from its end: the first step is at its last position; what is behind it comes last, as it is. places: room
 * for (N,). */
typedef struct {
    const void *weights;
    const float *scales;
    void *gates, *before, *hidden, *room;
    float *cells;
    ix positions, rows, size, begun;
    const long long *lengths;
    ix *places;
} Layer;
typedef struct {
    const void *outputs;
    void *recurrent, *grad_gates;
    float *grad_cell, *grad_bias;
} Gradients;
void lstm_layer(const Layer *layer, ix threads);
void lstm_layer_backward(const Layer *layer, const Gradients *gradients, ix threads);

/* Label-smoothed cross-entropy of logits (rows, vocabulary), whose rows are `stride` numbers apart. The logits
 * become the gradient by themselves, whose sum over rows is added to grad_bias (threads, vocabulary); losses
 * (rows, 2): negative log-likelihood, and what was trained on; room: (threads, vocabulary). */
void cross_entropy(void *logits, int kind, ix stride, const long long *targets, const float *smoothing,
                   float *losses, float *grad_bias, float *room, ix rows, ix vocabulary, ix threads);

/* Some entries of a matrix (rows, vocabulary), of which all others are zero: so many of each row, the columns they are
 * in and what they are; words, values: (rows, width). */
typedef struct {
    int *words, *counts;
    float *values;
    ix rows, width, vocabulary;
} Entries;

/* The losses of cross_entropy, with entries in place of the gradient, whose expected value it is but for the
 * - smoothing / vocabulary that all have: a probability from the threshold on is an entry as it is, one below is drawn
 * with probability / threshold as its chance, to be an entry as large as the threshold; the target's last. options:
 * smoothing, threshold; drawn: (rows, 16), by chance. Rows have 1 / threshold + 17 entries at most, and a width of at
 * least 1 / threshold + 48, since 16 are written at a time. */
void sampled_entropy(const void *logits, int kind, ix stride, const long long *targets, const float *options,
                     const unsigned *drawn, float *losses, float *room, const Entries *entries, ix threads);

/* scale (x - share) table, where x are the entries with all zeros between them and table (height, width) is in bf16:
 * of x as it is, y (rows, width) in bf16, or turned, y (vocabulary, width) and the sums of each column of x - share,
 * times the scale, both in float32. Both return 1 if there is no memory. */
typedef struct {
    const void *table;
    ix height, width;
    float share, scale;
} Sums;
int sum_by_rows(const Entries *entries, const Sums *s, void *y, ix threads);
int sum_by_words(const Entries *entries, const Sums *s, float *y, float *sums, ix threads);

/* y (m, n) = left (m, k) right (k, n) + bias (n,), if not NULL; both in bf16; k is at least 1. Of a matrix that is
 * `turned`, rows and columns are exchanged in memory, where a row begins `stride` numbers after the one before.
 * With `add`, for y in float32 and no bias, it is added to what is in y. Returns 1 if there is no memory. */
typedef struct {
    const void *numbers;
    ix stride;
    int turned;
} Matrix;
typedef struct {
    Matrix left, right;
    const float *bias;
    void *y;
    ix y_stride;
    int y_kind, add;
    ix m, n, k;
} Multiplication;
int multiply(const Multiplication *p, ix threads);
int multiply_tiles(const Multiplication *p, ix threads);
int multiply_vectors(const Multiplication *p, ix threads);

/* So many small products, the first of which is given; steps: from one left matrix, right one and y to the next. */
int multiply_many(const Multiplication *first, const ix *steps, ix count, ix threads);

/* y (count, size) in bf16: the rows of a table that have each index. */
void look_up(const float *table, const long long *index, void *y, ix count, ix size, ix threads);

/* y (rows, size): sums of the rows of x (count, size) that have each index. */
void add_by_index(const void *x, int kind, const long long *index, float *y, ix count, ix size, ix rows,
                  ix threads);

/* The sum of x's squares, in a part for each thread. */
void squares(const float *x, double *sums, ix count, ix threads);

/* Bytes by chance, which seed and place alone decide. */
void draw(void *bytes, ix seed, ix count, ix threads);

/* y = scale x, but 0 where the byte is below the threshold. */
void drop(const void *x, int kind, const unsigned char *bytes, ix threshold, const float *scale,
          void *y, ix count, ix threads);

/* What search does, in order: a code and what it concerns, filled up to OP_SIZE numbers. x, y, … are numbers of
 * buffers; a buffer has a row for everything of what it is about, and so has what comes of it. */
enum {
    EMBED,   /* x, table: its row of each hypothesis' last token, or of each position's */
    PUT,     /* x, y, column: x into the columns of y from there on, both of one kind */
    PRODUCT, /* x, y, weights, scales, bias: y of x, as product */
    CELL,    /* gates, given or -1, hidden, cell: the last two are replaced; only here are rows of tokens given */
    ADD,     /* x, y: the first columns of y to x */
    TANH,    /* x */
    SCALE,   /* x, y, n: x / sqrt(n) into y */
    ATTEND,  /* queries, context, keys, across, values, heads: see attend */
    LSTM,    /* x, y, column, column, final, size, weights, scales, backwards: lstm_sequence over the positions, from
                what columns of x say to the gates; those of y are also those of `final`, the last state */
    SPLIT    /* x, y, heads, across: the positions' heads one after the other, (S, width) or across each */
};
#define OP_SIZE 10

/* What a buffer has rows of: hypotheses, also what they take on from those they continue; positions of the
 * source; the sentence; tokens, of which hypotheses have their last one's. */
enum { HYPOTHESES, STATES, POSITIONS, SENTENCE, TOKENS };
#define BUFFER_SIZE 6

/* A sentence of a search. Numbers are sizes, or addresses of what is named in brackets. */
typedef struct {
    ix least, last;         /* the first step that may end, and the one that must */
    ix sources, source;     /* positions of the memory; [long long: their tokens], where EMBED asks */
    ix columns;             /* how many words it may choose among, 0: all; of these: */
    ix weights, scales, bias; /* of the last product for them, in place of those of the op */
    ix column_words;        /* [long long: the token of each column], or 0: these are tokens */
    /* what comes out; of each step as in search/history.py, (last + 1, beam) */
    ix tokens, parents;           /* [long long] */
    ix gains, ends, attention;    /* [float]; attention (last + 1, beam, sources) */
    ix finished, unfinished;      /* [n_best floats], -inf at first: normalised scores, best first */
    ix finished_at, unfinished_at; /* [n_best long long]: step x beam + slot */
    ix steps;                     /* how many it took */
} Sentence;

/* The beam search of some sentences, the longest first. */
typedef struct {
    ix ops, first_ops, op_count; /* [(n, OP_SIZE) ix]: the first are performed once, the others in each step */
    ix buffers, buffer_count; /* [(n, BUFFER_SIZE) ix: width, kind, of what, address of rows that are given or 0,
                                 and where a state is at first: buffer of the sentence or -1, column] */
    ix logits;                /* the buffer that the last op, a product, leaves them in */
    ix beam, n_best;          /* at most MOST_ROWS */
    ix begin, end, first_word; /* tokens; columns from first_word on are words */
    ix norms;                 /* [floats] that the score of a target ending at a step is divided by */
    ix sentences, count;      /* [Sentence] */
} Task;

/* Returns 1 if there is no memory. */
int search(const Task *task, ix threads);

#endif
