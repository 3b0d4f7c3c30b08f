/* How kernels share their work out to threads. */
#ifndef TRANSDUCE_THREADS_H
#define TRANSDUCE_THREADS_H

#include "kernels.h"

/* The rest for `from` <= r < `to` of each thread's share of the rows, `part` being its number */
#define SHARED(rows, threads, ...)                                                          \
    _Pragma("omp parallel for num_threads((int)threads) schedule(static, 1)")               \
    for (ix part = 0; part < threads; part++) {                                             \
        const ix from = rows * part / threads, to = rows * (part + 1) / threads;            \
        __VA_ARGS__                                                                               \
    }

static inline ix least(ix one, ix other) { return one < other ? one : other; }

#define TURNS 2 /* of what is left a thread takes the part that this many for each would have */

/* The next of `count` that nobody has taken, in ever smaller lots, so that all end together, of at least and at most so
 * many; returns how many, `from` on. */
static inline ix next_of(ix *taken, ix count, ix fewest, ix most, ix threads, ix *from) {
    ix some;
    *from = __atomic_load_n(taken, __ATOMIC_RELAXED);
    do {
        if (*from >= count) return 0;
        const ix share = threads > 1 ? (count - *from) / (TURNS * threads) : most;
        some = least(least(share > fewest ? share : fewest, most), count - *from);
    } while (!__atomic_compare_exchange_n(taken, from, *from + some, 0, __ATOMIC_RELAXED, __ATOMIC_RELAXED));
    return some;
}

#endif
