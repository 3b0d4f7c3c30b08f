/* How the kernels of training share their rows out to threads. */
#ifndef TRANSDUCE_THREADS_H
#define TRANSDUCE_THREADS_H

/* The rest for `from` <= r < `to` of each thread's share of the rows, `part` being its number */
#define SHARED(rows, threads, ...)                                                          \
    _Pragma("omp parallel for num_threads((int)threads) schedule(static, 1)")               \
    for (ix part = 0; part < threads; part++) {                                             \
        const ix from = rows * part / threads, to = rows * (part + 1) / threads;            \
        __VA_ARGS__                                                                               \
    }

#endif
