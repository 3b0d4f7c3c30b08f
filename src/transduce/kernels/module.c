/* The kernels as functions of Python. Arguments are whole numbers: addresses, kinds, sizes; what
 * they mean and that they fit is for __init__.py to see to. */
#ifndef Py_LIMITED_API
#define Py_LIMITED_API 0x030A0000
#endif
#define PY_SSIZE_T_CLEAN
#include <Python.h>

#include "kernels.h"

#include <stdlib.h>

#if defined(__x86_64__) && defined(__GNUC__)
#define VECTORS 1
#endif

#define MOST_ARGUMENTS 20

/* all arguments as numbers; 0 and a Python error if there are not `wanted` of them */
static int read_numbers(PyObject *const *arguments, Py_ssize_t count, Py_ssize_t wanted, ix *numbers) {
    if (count != wanted) {
        PyErr_Format(PyExc_TypeError, "%zd arguments, not %zd", count, wanted);
        return 0;
    }
    for (Py_ssize_t i = 0; i < count; i++) {
        numbers[i] = PyLong_AsSsize_t(arguments[i]);
        if (numbers[i] == -1 && PyErr_Occurred()) return 0;
    }
    return 1;
}

static PyObject *supported(PyObject *self, PyObject *unused) {
    (void)self, (void)unused;
#ifdef VECTORS
    __builtin_cpu_init();
    return PyBool_FromLong(
        __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
        __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl") &&
        __builtin_cpu_supports("avx512vnni") && __builtin_cpu_supports("avx512bf16"));
#else
    return PyBool_FromLong(0);
#endif
}

#ifdef VECTORS
#define P(i) ((void *)a[i])

/* py_NAME(numbers a): the body, without the lock that lets one thread run Python, after `check`,
 * which is NULL or what is wrong with the numbers. It returns whether there was no memory. */
#define FALLIBLE(name, wanted, check, call)                                                  \
    static PyObject *py_##name(PyObject *self, PyObject *const *given, Py_ssize_t count) {   \
        (void)self;                                                                          \
        ix a[MOST_ARGUMENTS];                                                                \
        int failed;                                                                          \
        if (!read_numbers(given, count, wanted, a)) return NULL;                             \
        const char *wrong = check;                                                           \
        if (wrong) {                                                                         \
            PyErr_SetString(PyExc_ValueError, wrong);                                        \
            return NULL;                                                                     \
        }                                                                                    \
        Py_BEGIN_ALLOW_THREADS;                                                              \
        failed = call;                                                                       \
        Py_END_ALLOW_THREADS;                                                                \
        if (failed) return PyErr_NoMemory();                                                 \
        Py_RETURN_NONE;                                                                      \
    }

/* the same of a body that needs none */
#define KERNEL(name, wanted, check, call) FALLIBLE(name, wanted, check, ((call), 0))

#define AT_MOST(number, bound, message) ((number) > (bound) ? (message) : NULL)

static void py_product_of(const ix *a) {
    const Product p = {P(0), P(1), P(2), P(3), P(5), (int)a[4], (int)a[6], a[7], a[8], a[9], NULL, P(10), a[11]};
    product(&p, a[12]);
}

/* of two matrices whose columns were rounded: the first's as rows, the second's in blocks */
static void py_product_of_columns_of(const ix *a) {
    const Product p = {.weights = P(0), .scales = P(1), .x = P(2), .x_scales = P(3), .x_excess = P(4), .x_stride = a[5],
                       .y = P(6), .rows = a[7], .inputs = a[8], .outputs = a[9]};
    product(&p, a[10]);
}

static void py_round_columns_of(const ix *a) {
    const Columns columns = {P(0), P(1), P(2), P(3), a[4], a[5], a[6], a[7], a[8]};
    round_columns(&columns, a[9]);
}

KERNEL(product, 13, NULL, py_product_of(a))
KERNEL(product_of_columns, 11, NULL, py_product_of_columns_of(a))
KERNEL(round_columns, 10, NULL, py_round_columns_of(a))
KERNEL(round_rows, 6, NULL, round_rows(P(0), P(1), P(2), a[3], a[4], a[5]))
KERNEL(lay_out, 7, NULL, lay_out(P(0), (int)a[1], P(2), P(3), a[4], a[5], a[6]))
KERNEL(lay_out_turned, 6, NULL, lay_out_turned(P(0), (int)a[1], P(2), a[3], a[4], a[5]))
KERNEL(lstm_cell, 9, NULL,
       lstm_cell(P(0), P(1), NULL, (int)a[2], P(3), P(4), P(5), (int)a[6], a[7], a[8]))
KERNEL(lstm_sequence, 11, NULL,
       lstm_sequence(P(0), P(1), P(2), (int)a[3], P(4), P(5), P(6), a[7], a[8], a[9], a[10]))
KERNEL(bend, 3, NULL, bend(P(0), (int)a[1], a[2]))
KERNEL(survey, 11, NULL,
       survey(P(0), (int)a[1], P(2), a[3], a[4], a[5], a[6], a[7], P(8), P(9), P(10)))
KERNEL(choose, 12,
       a[5] > MOST_BEAM ? "too wide a beam"
                        : AT_MOST(a[7], a[5] * a[6], "more asked for than there are"),
       choose(P(0), P(1), P(2), P(3), a[4], a[5], a[6], a[7], P(8), P(9), P(10), P(11)))

KERNEL(copied_share, 11, NULL,
       copied_share(P(0), P(1), P(2), P(3), P(4), P(5), P(6), a[7], a[8], a[9], a[10]))

static PyObject *py_survey_ruled(PyObject *self, PyObject *const *arguments, Py_ssize_t count) {
    (void)self;
    ix a[MOST_ARGUMENTS];
    if (!read_numbers(arguments, count, 1, a)) return NULL;
    const Ruled *ruled = P(0);
    float *scratch = malloc((size_t)(ruled->vocabulary + 2 * ruled->sources) * sizeof(float));
    if (!scratch) return PyErr_NoMemory();
    Py_BEGIN_ALLOW_THREADS;
    survey_ruled(ruled, scratch);
    Py_END_ALLOW_THREADS;
    free(scratch);
    Py_RETURN_NONE;
}

static Layer layer_of(const ix *a) {
    return (Layer){P(0), P(1), P(2), P(3), P(4), P(5), P(6), a[7], a[8], a[9], a[10], P(11), P(12)};
}

static void py_lstm_layer_of(const ix *a) {
    const Layer layer = layer_of(a);
    lstm_layer(&layer, a[13]);
}

static void py_lstm_layer_backward_of(const ix *a) {
    const Layer layer = layer_of(a);
    const Gradients gradients = {P(13), P(14), P(15), P(16), P(17)};
    lstm_layer_backward(&layer, &gradients, a[18]);
}

KERNEL(lstm_layer, 14, NULL, py_lstm_layer_of(a))
KERNEL(lstm_layer_backward, 19, NULL, py_lstm_layer_backward_of(a))
KERNEL(cross_entropy, 11, NULL,
       cross_entropy(P(0), (int)a[1], a[2], P(3), P(4), P(5), P(6), P(7), a[8], a[9], a[10]))
static Entries entries_of(const ix *a) { return (Entries){P(0), P(1), P(2), a[3], a[4], a[5]}; }

static Sums sums_of(const ix *a) {
    const float *numbers = P(3);
    return (Sums){P(0), a[1], a[2], numbers[0], numbers[1]};
}

static void py_sampled_entropy_of(const ix *a) {
    const Entries entries = entries_of(a);
    sampled_entropy(P(6), (int)a[7], a[8], P(9), P(10), P(11), P(12), P(13), &entries, a[14]);
}

static int py_sum_by_rows_of(const ix *a) {
    const Entries entries = entries_of(a);
    const Sums sums = sums_of(a + 6);
    return sum_by_rows(&entries, &sums, P(10), a[11]);
}

static int py_sum_by_words_of(const ix *a) {
    const Entries entries = entries_of(a);
    const Sums sums = sums_of(a + 6);
    return sum_by_words(&entries, &sums, P(10), P(11), a[12]);
}

KERNEL(sampled_entropy, 15, NULL, py_sampled_entropy_of(a))
FALLIBLE(sum_by_rows, 12, NULL, py_sum_by_rows_of(a))
FALLIBLE(sum_by_words, 13, NULL, py_sum_by_words_of(a))
KERNEL(look_up, 6, NULL, look_up(P(0), P(1), P(2), a[3], a[4], a[5]))
KERNEL(add_by_index, 8, NULL,
       add_by_index(P(0), (int)a[1], P(2), P(3), a[4], a[5], a[6], a[7]))
KERNEL(squares, 4, NULL, squares(P(0), P(1), a[2], a[3]))
KERNEL(draw, 4, NULL, draw(P(0), a[1], a[2], a[3]))
KERNEL(drop, 8, NULL, drop(P(0), (int)a[1], P(2), a[3], P(4), P(5), a[6], a[7]))

static PyObject *py_attend(PyObject *self, PyObject *const *arguments, Py_ssize_t count) {
    (void)self;
    ix a[MOST_ARGUMENTS];
    if (!read_numbers(arguments, count, 16, a)) return NULL;
    ix heads = a[12], width = a[13], sources = a[15];
    float *scratch = malloc(8 * (size_t)(sources + heads * width) * sizeof(float));
    if (!scratch) return PyErr_NoMemory();
    Py_BEGIN_ALLOW_THREADS;
    attend(P(0), (int)a[1], P(2), (int)a[3], P(4), (int)a[5], P(6), P(7), (int)a[8], P(9), scratch,
           a[10], a[11], heads, width, a[14], sources);
    Py_END_ALLOW_THREADS;
    free(scratch);
    Py_RETURN_NONE;
}

static const char *too_wide(const Task *task) {
    return AT_MOST(task->beam > task->n_best ? task->beam : task->n_best, MOST_ROWS, "too wide a beam");
}

FALLIBLE(search, 2, too_wide(P(0)), search(P(0), a[1]))

static Multiplication multiplication_of(const ix *a) {
    return (Multiplication){{P(0), a[1], (int)a[2]}, {P(3), a[4], (int)a[5]}, P(6), P(7), a[8], (int)a[9], (int)a[10],
                            a[11], a[12], a[13]};
}

static int py_multiply_of(const ix *a) {
    const Multiplication p = multiplication_of(a);
    return multiply(&p, a[14]);
}

/* the same, then the steps and how many */
static int py_multiply_many_of(const ix *a) {
    const Multiplication p = multiplication_of(a);
    return multiply_many(&p, a + 15, a[18], a[14]);
}

FALLIBLE(multiply, 15, NULL, py_multiply_of(a))
FALLIBLE(multiply_many, 19, NULL, py_multiply_many_of(a))

#define FAST(function) ((PyCFunction)(void (*)(void))function)
#endif

static PyMethodDef methods[] = {
    {"supported", supported, METH_NOARGS, "Whether this processor can run the others."},
#ifdef VECTORS
    {"product", FAST(py_product), METH_FASTCALL, "See kernels.h."},
    {"lay_out", FAST(py_lay_out), METH_FASTCALL, "See kernels.h."},
    {"lay_out_turned", FAST(py_lay_out_turned), METH_FASTCALL, "See kernels.h."},
    {"product_of_columns", FAST(py_product_of_columns), METH_FASTCALL, "See kernels.h."},
    {"round_columns", FAST(py_round_columns), METH_FASTCALL, "See kernels.h."},
    {"round_rows", FAST(py_round_rows), METH_FASTCALL, "See kernels.h."},
    {"lstm_cell", FAST(py_lstm_cell), METH_FASTCALL, "See kernels.h."},
    {"bend", FAST(py_bend), METH_FASTCALL, "See kernels.h."},
    {"survey", FAST(py_survey), METH_FASTCALL, "See kernels.h."},
    {"lstm_sequence", FAST(py_lstm_sequence), METH_FASTCALL, "See kernels.h."},
    {"choose", FAST(py_choose), METH_FASTCALL, "See kernels.h."},
    {"survey_ruled", FAST(py_survey_ruled), METH_FASTCALL, "See kernels.h."},
    {"copied_share", FAST(py_copied_share), METH_FASTCALL, "See kernels.h."},
    {"attend", FAST(py_attend), METH_FASTCALL, "See kernels.h."},
    {"lstm_layer", FAST(py_lstm_layer), METH_FASTCALL, "See kernels.h."},
    {"lstm_layer_backward", FAST(py_lstm_layer_backward), METH_FASTCALL, "See kernels.h."},
    {"cross_entropy", FAST(py_cross_entropy), METH_FASTCALL, "See kernels.h."},
    {"sampled_entropy", FAST(py_sampled_entropy), METH_FASTCALL, "See kernels.h."},
    {"sum_by_rows", FAST(py_sum_by_rows), METH_FASTCALL, "See kernels.h."},
    {"sum_by_words", FAST(py_sum_by_words), METH_FASTCALL, "See kernels.h."},
    {"look_up", FAST(py_look_up), METH_FASTCALL, "See kernels.h."},
    {"add_by_index", FAST(py_add_by_index), METH_FASTCALL, "See kernels.h."},
    {"squares", FAST(py_squares), METH_FASTCALL, "See kernels.h."},
    {"draw", FAST(py_draw), METH_FASTCALL, "See kernels.h."},
    {"drop", FAST(py_drop), METH_FASTCALL, "See kernels.h."},
    {"multiply", FAST(py_multiply), METH_FASTCALL, "See kernels.h."},
    {"multiply_many", FAST(py_multiply_many), METH_FASTCALL, "See kernels.h."},
    {"search", FAST(py_search), METH_FASTCALL, "See kernels.h."},
#endif
    {NULL, NULL, 0, NULL},
};

static struct PyModuleDef definition = {
    PyModuleDef_HEAD_INIT, "_kernels", "Kernels of decoding and training.", -1, methods, NULL, NULL, NULL, NULL,
};

PyMODINIT_FUNC PyInit__kernels(void) {
    PyObject *module = PyModule_Create(&definition);
    if (module && PyModule_AddIntConstant(module, "VERSION", KERNELS_VERSION) < 0) {
        Py_DECREF(module);
        return NULL;
    }
    return module;
}
