"""A model's work on a sentence as a list of kernels, and the beam search that performs it.

A step of a few sentences takes less time than Python needs to call it. A model that can, writes
down what it would call, for the source once and for each step; `Plan.search` then goes through all
of it for any number of sentences in one call.
"""

from __future__ import annotations

import copy
import enum
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from transduce.kernels import BLOCK, FEW, KINDS, Blocked, available, search
from transduce.kernels.walks import Room, Walk

# Codes and sizes of kernels.h.
_EMBED, _PUT, _PRODUCT, _CELL, _ADD, _TANH, _SCALE, _ATTEND, _LSTM, _SPLIT = range(10)
_OP_SIZE = 10


class Rows(enum.IntEnum):
    """What a buffer has rows of: the live hypotheses, also of what these take on from the ones they
    continue; the positions of the sources; one for each sentence; all tokens, of which hypotheses
    have their last one's."""

    HYPOTHESES = 0
    STATES = 1
    POSITIONS = 2
    SENTENCE = 3
    TOKENS = 4


def fits(beam: int) -> bool:
    """Whether there are kernels here for the search with so wide a beam."""
    return available() and beam <= FEW


@dataclass(frozen=True)
class Ends:
    """When each of B targets may end, by the number of its tokens: least, last; norms (max last +
    1,) float32 is what a score is divided by. begin, end, first_word: BOS, EOS, the first token
    that is a word."""

    least: Sequence[int]
    last: Sequence[int]
    norms: np.ndarray
    begin: int
    end: int
    first_word: int


@dataclass(frozen=True)
class Lists:
    """The words that each of B sentences chooses among, one sentence's after the other's.

    words (N,) int64: their tokens; count (B,) int64: how many are whose; start (B,) int64: where
    they begin, at a multiple of what is summed together. product: the output layer's for all N.
    """

    words: Tensor
    count: np.ndarray
    start: np.ndarray
    product: Blocked

    @classmethod
    def of(cls, members: np.ndarray, part: Callable[[Tensor], Blocked]) -> Lists:
        """members (B, V) boolean: which words are whose; part: the product for words (N,)."""
        if len(members) == 1:
            tokens = torch.from_numpy(members[0].nonzero()[0])
            return cls(tokens, np.array([len(tokens)]), np.zeros(1, np.int64), part(tokens))
        found = np.flatnonzero(members)
        sentence, word = np.divmod(found, members.shape[1])
        count = np.bincount(sentence, minlength=len(members))
        room = -(-count // BLOCK) * BLOCK
        start = np.cumsum(room) - room
        words = np.zeros(int(room.sum()), np.int64)
        words[np.arange(len(word)) + (start - np.cumsum(count) + count)[sentence]] = word
        tokens = torch.from_numpy(words)
        return cls(tokens, count, start, part(tokens))

    def addresses(self) -> np.ndarray:
        """(B, 5): count, weights, scales, bias and tokens of each sentence."""
        found = np.empty((len(self.count), 5), np.int64)
        found[:, 0] = self.count
        sizes = self.product.width, 4, 4
        numbers = [*zip(self.product.addresses, sizes, strict=True), (self.words.data_ptr(), 8)]
        for column, (address, size) in enumerate(numbers, start=1):
            found[:, column] = address + size * self.start if address else 0
        return found


class Plan:
    """Ops on buffers: those before `begin_steps` for the sentence, the others for each step.

    What does not change with the sentence is written down once. What comes of a buffer has rows of
    the same things.
    """

    def __init__(self) -> None:
        self._ops: list[tuple[int, ...]] = []
        self._buffers: list[tuple[int, ...]] = []
        self._held: list[Tensor | Blocked] = []  # whose addresses are noted
        self._first = 0  # ops that are performed once
        self._words: Tensor | None = None
        self._lists: Lists | None = None
        self._tables: tuple[np.ndarray, np.ndarray] | None = None

    # ------------------------------------------------------------------------------ the buffers

    def buffer(self, width: int, dtype: torch.dtype, rows: Rows = Rows.HYPOTHESES) -> int:
        """Room for rows of this width; its number."""
        return self._buffer(width, dtype, rows)

    def given(self, tensor: Tensor, width: int, rows: Rows) -> int:
        """What is made outside, (positions, width) or (1, width) of the sentence."""
        tensor = tensor.contiguous()
        self._held.append(tensor)
        return self._buffer(width, tensor.dtype, rows, tensor.data_ptr())

    def looked_up(self, table: Tensor) -> int:
        """As `embed`, but where they are, for `lstm_cell` alone."""
        return self.given(table, table.shape[1], Rows.TOKENS)

    def state(self, width: int, dtype: torch.dtype, before: tuple[int, int] | None = None) -> int:
        """Like `buffer`, for what a hypothesis takes on from the one it continues. before: where it
        is at first, from which column of a sentence's buffer on; zeros if None."""
        return self._buffer(width, dtype, Rows.STATES, 0, *(before or (-1, 0)))

    def _buffer(
        self,
        width: int,
        dtype: torch.dtype,
        rows: Rows,
        at: int = 0,
        before: int = -1,
        column: int = 0,
    ) -> int:
        self._buffers.append((width, KINDS[dtype], rows, at, before, column))
        return len(self._buffers) - 1

    def like(self, buffer: int, width: int, dtype: torch.dtype) -> int:
        """Room for as many rows of another width."""
        rows = Rows(self._buffers[buffer][2])
        return self._buffer(width, dtype, Rows.HYPOTHESES if rows == Rows.STATES else rows)

    def width(self, buffer: int) -> int:
        return self._buffers[buffer][0]

    @property
    def columns(self) -> int:
        """Among how many words a hypothesis chooses at least, once everything is written down."""
        if self._lists is not None:
            return int(self._lists.count.min())
        return int(self.tables()[1][self._ops[-1][2], 0])

    # ---------------------------------------------------------------------------------- the ops

    def embed(self, table: Tensor, rows: Rows = Rows.HYPOTHESES) -> int:
        """The row of the table (V, D) of each hypothesis' last token, or of each position's."""
        self._held.append(table)
        to = self.buffer(table.shape[1], table.dtype, rows)
        self._ops.append((_EMBED, to, table.data_ptr()))
        return to

    def lstm(
        self,
        weights: Blocked,
        size: int,
        said: tuple[int, int],
        to: tuple[int, int],
        final: int,
        backwards: bool,
    ) -> None:
        """A layer over the positions, see `kernels.lstm_sequence`. said, to: buffer and column of
        what the input says to the gates, and of the outputs; those of the outputs are also where
        the last ones are in the sentence's buffer `final`."""
        self._held.append(weights)
        (x, column), (y, place) = said, to
        addresses = weights.addresses[:2]
        self._ops.append((_LSTM, x, y, column, place, final, size, *addresses, int(backwards)))

    def split(self, x: int, heads: int, dtype: torch.dtype, *, across: bool) -> int:
        """Positions' heads side by side -> one after the other, as `kernels.attend` reads values of
        several heads, and, `across`, keys."""
        y = self.like(x, self.width(x), dtype)
        self._ops.append((_SPLIT, x, y, heads, int(across)))
        return y

    def begin_steps(self) -> None:
        """What follows is done in each step."""
        self._first = len(self._ops)

    def beside(self, parts: list[int], dtype: torch.dtype) -> int:
        """Buffers of one dtype side by side."""
        if len(parts) == 1:
            return parts[0]
        whole = self.like(parts[0], sum(map(self.width, parts)), dtype)
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
        y = self.like(x, weights.outputs, dtype)
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
        y = self.like(x, self.width(x), dtype)
        self._ops.append((_SCALE, x, y, number))
        return y

    def attend(
        self, queries: int, keys: int, values: int, heads: int, across: bool, dtype: torch.dtype
    ) -> int:
        """The context of the queries, (K, H x C), of the positions' keys and values; see
        `kernels.attend`, B = 1. The weights become the step's attention."""
        context = self.buffer(self.width(values), dtype)
        self._ops.append((_ATTEND, queries, context, keys, int(across), values, heads))
        return context

    def words(self, tokens: Tensor | None) -> None:
        """The tokens (U,) int64 that the columns of the logits stand for; None: all, in order."""
        self._words = tokens

    def among(self, lists: Lists) -> Plan:
        """The same, with logits for each sentence's own words only."""
        some = copy.copy(self)
        ops, buffers = (table.copy() for table in self.tables())
        buffers[self._ops[-1][2], 0] = lists.count.max()
        some._tables, some._lists = (ops, buffers), lists
        return some

    def tables(self) -> tuple[np.ndarray, np.ndarray]:
        """Ops and buffers as numbers, once everything is written down."""
        if self._tables is None:
            ops = np.zeros((len(self._ops), _OP_SIZE), np.int64)
            for row, op in zip(ops, self._ops, strict=True):
                row[: len(op)] = op
            self._tables = ops, np.array(self._buffers, np.int64)
        return self._tables

    # -------------------------------------------------------------------------------- the search

    def search(
        self,
        beam: int,
        n_best: int,
        ends: Ends,
        sources: Sequence[int],
        source: Tensor | None = None,
    ) -> list[Walk]:
        """Search B sentences to the end, the longest of which come first; there are at least `beam`
        words for each.

        sources: positions of each memory; source (B, S) int64: their tokens, if a plan asks for
        them.
        """
        positions = np.array(sources, np.int64)
        room = Room(np.array(ends.last, np.int64) + 1, positions, beam, n_best)
        ops, buffers = self.tables()
        norms = np.ascontiguousarray(ends.norms, np.float32)
        # In the order of the fields of Sentence and Task in kernels.h.
        sentences = np.zeros((len(positions), 19), np.int64)
        sentences[:, 0], sentences[:, 1], sentences[:, 2] = ends.least, ends.last, positions
        if source is not None:
            sentences[:, 3] = source.data_ptr() + np.arange(len(positions)) * source.stride(0) * 8
        if self._lists is not None:
            sentences[:, 4:9] = self._lists.addresses()
        elif self._words is not None:
            sentences[:, 8] = self._words.data_ptr()
        sentences[:, 9:18] = room.addresses()
        task = np.array(
            [
                ops.ctypes.data, self._first, len(ops), buffers.ctypes.data, len(buffers),
                self._ops[-1][2], beam, n_best, ends.begin, ends.end, ends.first_word,
                norms.ctypes.data, sentences.ctypes.data, len(sentences),
            ],
            np.int64,
        )  # fmt: skip
        search(task.ctypes.data)
        return list(room.walks(sentences[:, 18].tolist()))
