"""What the steps of a search leave behind, and the room that it is left in."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np


class Walk(NamedTuple):
    """T steps of a sentence's search. tokens, parents (T, K) int64, gains, ends (T, K) float32,
    attention (T, K, S) float32: as `search.history.Record`; the first step has one hypothesis to
    continue. finished, unfinished (n,): normalised scores, best first, -inf where there is none;
    *_at (n,) int64: step x K + slot of each."""

    tokens: np.ndarray
    parents: np.ndarray
    gains: np.ndarray
    ends: np.ndarray
    attention: np.ndarray
    finished: np.ndarray
    unfinished: np.ndarray
    finished_at: np.ndarray
    unfinished_at: np.ndarray


class Room:
    """Room for the walks of B sentences: of each field one array, a sentence's after the other's.

    steps (B,) int64: the most of each; sources (B,) int64: positions of each memory.
    """

    def __init__(self, steps: np.ndarray, sources: np.ndarray, beam: int, n_best: int) -> None:
        self._beam, self._sources = beam, sources.tolist()
        numbers = steps * beam
        ends, attended = np.cumsum(numbers), np.cumsum(numbers * sources)
        self._begin = np.stack([ends - numbers, attended - numbers * sources])
        self._ints = np.empty((2, ends[-1]), np.int64)
        self._floats = np.empty((2, ends[-1]), np.float32)
        self._attention = np.empty(attended[-1], np.float32)
        self._best = np.full((2, len(steps), n_best), -np.inf, np.float32)
        self._best_at = np.zeros((2, len(steps), n_best), np.int64)

    def addresses(self) -> np.ndarray:
        """Where the fields of each walk begin (B, 9), in the order of `Walk`."""
        begin, attended = self._begin
        whole, parts = (*self._ints, *self._floats), (*self._best, *self._best_at)
        found = np.empty((len(begin), 9), np.int64)
        for column, x in enumerate(whole):
            found[:, column] = x.ctypes.data + begin * x.itemsize
        found[:, 4] = self._attention.ctypes.data + attended * 4
        for column, x in enumerate(parts, start=5):
            found[:, column] = x.ctypes.data + np.arange(len(x)) * x.strides[0]
        return found

    def walks(self, steps: list[int]) -> Iterator[Walk]:
        """What went through it, in so many steps of each sentence."""
        each = zip(steps, self._sources, *self._begin.tolist(), strict=True)
        for i, (count, sources, begin, attended) in enumerate(each):
            numbers, shape = count * self._beam, (count, self._beam)
            tokens, parents = self._ints[:, begin : begin + numbers].reshape(2, *shape)
            gains, ends = self._floats[:, begin : begin + numbers].reshape(2, *shape)
            attention = self._attention[attended : attended + numbers * sources]
            best, best_at = self._best[:, i], self._best_at[:, i]
            yield Walk(
                tokens, parents, gains, ends, attention.reshape(*shape, sources), *best, *best_at
            )
