"""Resampled corpora as weights over sentences: the common ground of intervals and tests."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from transduce.evaluation.sacre import Array

CHUNK = 2_000_000  # weights held at a time, so that memory stays flat on large test sets


def bootstrap_weights(n: int, samples: int, seed: int) -> Iterator[Array]:
    """How often each of `n` sentences is drawn in each resample, (R, n) chunk by chunk.

    The draws are those of sacreBLEU for the same seed. Efron and Tibshirani 1993; for BLEU Koehn
    2004 (W04-3250).
    """
    random = np.random.default_rng(seed)
    for rows in _chunks(n, samples):
        draws = random.integers(n, size=(rows, n))
        draws += np.arange(rows)[:, None] * n
        counts = np.bincount(draws.ravel(), minlength=rows * n)
        yield counts.reshape(rows, n).astype(np.float64)


def swap_masks(n: int, samples: int, seed: int) -> Iterator[Array]:
    """For each trial a coin for each of `n` sentences, 0 or 1: (R, n) chunk by chunk."""
    random = np.random.default_rng(seed)
    for rows in _chunks(n, samples):
        yield random.integers(2, size=(rows, n)).astype(np.float64)


def interval(values: Array, level: float = 0.95) -> tuple[float, float]:
    """The percentile interval of resampled scores."""
    tail = (1.0 - level) / 2.0
    low, high = np.quantile(values, [tail, 1.0 - tail])
    return float(low), float(high)


def _chunks(n: int, samples: int) -> Iterator[int]:
    rows = max(1, CHUNK // n)
    for start in range(0, samples, rows):
        yield min(rows, samples - start)
