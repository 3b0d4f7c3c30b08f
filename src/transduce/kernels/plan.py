"""A decoder's step as a list of kernels, and the beam search of one sentence that performs it.

For a single sentence a step's products take less time than Python needs to call them. A model that
can, writes down what it would call; `Plan.search` then goes through all steps in one call.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from transduce.kernels import FEW, KINDS, Blocked, available, search

_EMBED, _PUT, _PRODUCT, _CELL, _ADD, _TANH, _SCALE, _ATTEND = range(8)
_OP_SIZE = 8


def fits(beam: int) -> bool:
    """Whether there are kernels here for the search with so wide a beam."""
    return available() and beam <= FEW


@dataclass(frozen=True)
class Ends:
    """When a target may end, by the number of its tokens: least, last; norms (last + 1,) float32
    is what its score is divided by. begin, end, first_word: BOS, EOS, the first token that is a
    word."""

    least: int
    last: int
    norms: np.ndarray
    begin: int
    end: int
    first_word: int


@dataclass(frozen=True)
class Walk:
    """T steps of a search. tokens, parents (T, K) int64, gains, ends (T, K) float32, attention
    (T, K, S) float32: as `search.history.Record`; the first step has one hypothesis to continue.
    finished, unfinished (n,): normalised scores, best first, -inf where there is none; *_at (n,)
    int64: step x K + slot of each."""

    tokens: np.ndarray
    parents: np.ndarray
    gains: np.ndarray
    ends: np.ndarray
    attention: np.ndarray
    finished: np.ndarray
    finished_at: np.ndarray
    unfinished: np.ndarray
    unfinished_at: np.ndarray


class Plan:
    """Ops on buffers, each with a row for every hypothesis; built for one sentence."""

    def __init__(self, sources: int) -> None:
        self.sources = sources
        self._ops: list[tuple[int, ...]] = []
        self._buffers: list[tuple[int, int, int]] = []
        self._held: list[Tensor | Blocked] = []  # whose addresses are noted
        self._words: Tensor | None = None

    def buffer(self, width: int, dtype: torch.dtype) -> int:
        """Room for (K, width); its number."""
        self._buffers.append((width, KINDS[dtype], 0))
        return len(self._buffers) - 1

    def state(self, before: Tensor, dtype: torch.dtype) -> int:
        """Like `buffer`, for what a hypothesis takes on from the one it continues. before (1, D):
        what it is at first."""
        before = before.to(dtype).contiguous()
        self._held.append(before)
        self._buffers.append((before.shape[-1], KINDS[dtype], before.data_ptr()))
        return len(self._buffers) - 1

    def width(self, buffer: int) -> int:
        return self._buffers[buffer][0]

    @property
    def columns(self) -> int:
        """How many logits a hypothesis has, once everything is written down."""
        return self.width(self._ops[-1][2])

    # ---------------------------------------------------------------------------------- the ops

    def embed(self, table: Tensor) -> int:
        """Each hypothesis' last token's row of the table (V, D)."""
        self._held.append(table)
        to = self.buffer(table.shape[1], table.dtype)
        self._ops.append((_EMBED, to, table.data_ptr()))
        return to

    def beside(self, parts: list[int], dtype: torch.dtype) -> int:
        """Buffers of one dtype side by side."""
        if len(parts) == 1:
            return parts[0]
        whole = self.buffer(sum(map(self.width, parts)), dtype)
        column = 0
        for part in parts:
            self.put(part, whole, column)
            column += self.width(part)
        return whole

    def put(self, part: int, whole: int, column: int = 0) -> None:
        """One buffer into the columns of another."""
        self._ops.append((_PUT, part, whole, column))

    def product(self, weights: Blocked, x: int, dtype: torch.dtype) -> int:
        """x W^T + b, of `dtype`."""
        self._held.append(weights)
        y = self.buffer(weights.outputs, dtype)
        self._ops.append((_PRODUCT, x, y, *weights.addresses))
        return y

    def lstm_cell(self, gates: int, given: int | None, hidden: int, cell: int) -> None:
        """Replace hidden and cell by those after the step; see `kernels.lstm_cell`."""
        self._ops.append((_CELL, gates, -1 if given is None else given, hidden, cell))

    def add(self, x: int, y: int) -> None:
        """Add the first columns of y to x."""
        self._ops.append((_ADD, x, y))

    def tanh(self, x: int) -> None:
        self._ops.append((_TANH, x))

    def scaled(self, x: int, number: int, dtype: torch.dtype) -> int:
        """x / sqrt(number)."""
        y = self.buffer(self.width(x), dtype)
        self._ops.append((_SCALE, x, y, number))
        return y

    def attend(self, queries: int, keys: Tensor, values: Tensor, dtype: torch.dtype) -> int:
        """The context of the queries, (K, H x C); see `kernels.attend`, B = 1. The weights become
        the step's attention."""
        keys, values = keys.contiguous(), values.contiguous()
        self._held += [keys, values]
        across = keys.dim() == 4
        heads = keys.shape[1] if across else 1
        context = self.buffer(heads * values.shape[-1], dtype)
        kind = KINDS[keys.dtype]
        self._ops.append(
            (_ATTEND, queries, context, keys.data_ptr(), across, values.data_ptr(), kind, heads)
        )
        return context

    def words(self, tokens: Tensor | None) -> None:
        """The tokens (U,) int64 that the columns of the logits stand for; None: all, in order."""
        self._words = tokens

    # -------------------------------------------------------------------------------- the search

    def search(self, beam: int, n_best: int, ends: Ends) -> Walk:
        """Search to the end; the last op has left the logits, of at least `beam` words."""
        steps, infinity = ends.last + 1, -np.inf
        walk = Walk(
            tokens=np.empty((steps, beam), np.int64),
            parents=np.empty((steps, beam), np.int64),
            gains=np.empty((steps, beam), np.float32),
            ends=np.empty((steps, beam), np.float32),
            attention=np.empty((steps, beam, self.sources), np.float32),
            finished=np.full(n_best, infinity, np.float32),
            finished_at=np.zeros(n_best, np.int64),
            unfinished=np.full(n_best, infinity, np.float32),
            unfinished_at=np.zeros(n_best, np.int64),
        )
        ops = np.zeros((len(self._ops), _OP_SIZE), np.int64)
        for row, op in zip(ops, self._ops, strict=True):
            row[: len(op)] = op
        buffers = np.array(self._buffers, np.int64)
        norms = np.ascontiguousarray(ends.norms, np.float32)
        # In the order of the fields of Task in kernels.h.
        task = np.array(
            [
                ops.ctypes.data, len(ops), buffers.ctypes.data, len(buffers), self._ops[-1][2],
                beam, n_best, ends.least, ends.last, ends.begin, ends.end, ends.first_word,
                0 if self._words is None else self._words.data_ptr(), self.sources,
                norms.ctypes.data, walk.tokens.ctypes.data, walk.parents.ctypes.data,
                walk.gains.ctypes.data, walk.ends.ctypes.data, walk.attention.ctypes.data,
                walk.finished.ctypes.data, walk.unfinished.ctypes.data,
                walk.finished_at.ctypes.data, walk.unfinished_at.ctypes.data,
            ],
            np.int64,
        )  # fmt: skip
        taken = search(task.ctypes.data)
        by_step = ("tokens", "parents", "gains", "ends", "attention")
        return replace(walk, **{name: getattr(walk, name)[:taken] for name in by_step})
