"""Which hypotheses have come to an end, and whether a sentence needs more."""

from __future__ import annotations

import math
from dataclasses import dataclass, fields, replace

import numpy as np

from transduce.hypotheses.assembling import Chosen, choose

Array = np.ndarray


def best_of(values: Array, count: int) -> Array:
    """Where the `count` highest of each row are, best first; values (B, N) -> (B, count) int64."""
    return np.argsort(-values, axis=1, kind="stable")[:, :count]


@dataclass
class Tables:
    """The n best ended hypotheses of each of B sentences.

    finished, unfinished: (B, n) normalised scores, best first, -inf where there is none: those
    that chose the end, and those cut off at the longest target. finished_at, unfinished_at: (B, n)
    where each stood: step * beam + slot. count: (B,) finished so far, n or more. done: (B,).
    """

    finished: Array
    finished_at: Array
    unfinished: Array
    unfinished_at: Array
    count: Array
    done: Array
    beam: int

    @classmethod
    def empty(cls, batch: int, n_best: int, beam: int) -> Tables:
        nothing = np.full((batch, n_best), -math.inf, dtype=np.float32)
        nowhere = np.zeros((batch, n_best), dtype=np.int64)
        count = np.zeros(batch, dtype=np.int64)
        done = np.zeros(batch, dtype=bool)
        return cls(nothing, nowhere, nothing.copy(), nowhere.copy(), count, done, beam)

    def finish(self, scores: Array, ends: Array, t: int) -> None:
        """Enter the hypotheses of step t that chose the end; scores normalised, both (B, K)."""
        new = np.where(ends & ~self.done[:, None], scores, -math.inf).astype(np.float32)
        self.count = self.count + (new > -math.inf).sum(axis=1)
        self.finished, self.finished_at = self._merge(self.finished, self.finished_at, new, t)

    def close(self, scores: Array, ends: Array, rows: Array, t: int) -> None:
        """Enter all others of the sentences `rows` (B,) boolean, which may not go on."""
        closing = (rows & ~self.done)[:, None] & ~ends
        new = np.where(closing, scores, -math.inf).astype(np.float32)
        self.unfinished, self.unfinished_at = self._merge(
            self.unfinished, self.unfinished_at, new, t
        )

    def settle(self, best_live: Array, at_end: Array) -> None:
        """Decide which sentences are done.

        best_live: (B,) the highest score that any live hypothesis can still reach. at_end: (B,)
        boolean, at the longest target.
        """
        beaten = best_live <= self.finished[:, -1]
        self.done = self.done | beaten | at_end | (self.count >= self.beam)

    def _merge(self, old: Array, old_at: Array, new: Array, t: int) -> tuple[Array, Array]:
        at = np.arange(t * self.beam, t * self.beam + new.shape[1])
        both = np.concatenate([old, new], axis=1)
        both_at = np.concatenate([old_at, np.broadcast_to(at, new.shape)], axis=1)
        picked = best_of(both, old.shape[1])
        return np.take_along_axis(both, picked, 1), np.take_along_axis(both_at, picked, 1)

    # --------------------------------------------------------------- sentences leave the batch

    def keep(self, rows: Array) -> Tables:
        """Only the sentences `rows` (B',) int64."""
        return replace(self, **{name: getattr(self, name)[rows] for name in _ARRAYS})

    def put(self, rows: Array, tables: Tables) -> None:
        """Take over what `tables` says of the sentences `rows` (B',) int64."""
        for name in _ARRAYS:
            getattr(self, name)[rows] = getattr(tables, name)

    def chosen(self) -> Chosen:
        """The n best of each sentence, finished before unfinished; always at least one."""
        return choose(
            self.finished, self.finished_at, self.unfinished, self.unfinished_at, self.beam
        )


_ARRAYS = [field.name for field in fields(Tables) if field.name != "beam"]
