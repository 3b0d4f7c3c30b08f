"""What travels between encoder, decoder and search.

Search knows nothing of an architecture but these types: a `Memory` that can drop finished
sentences (`keep`) and take in new ones (`join`), and a `State` that can also reorder its
hypotheses (`select`).
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from transduce import kernels
from transduce.kernels import choosing
from transduce.model.pointer import mixed, shares, without


@dataclass(frozen=True)
class Copies:
    """As what each source position is copied, both (B, S) int64.

    columns: the column of its word among a step's logits, negative where nothing can be copied.
    first: the first position that holds the same word. extended: False where it is known that all
    columns are the vocabulary's.
    """

    columns: Tensor
    first: Tensor
    extended: bool = True

    @property
    def real(self) -> Tensor:
        """(B, S) boolean: what can be copied."""
        return self.columns >= 0

    def keep(self, rows: Tensor) -> Copies:
        return Copies(self.columns[rows], self.first[rows], self.extended)

    def join(self, other: Copies, width: int) -> Copies:
        """The sentences of another after one's own, S cut or padded to `width`."""
        return Copies(
            join_rows([self.columns, other.columns], 1, width, -1),
            join_rows([self.first, other.first], 1, width),
            self.extended or other.extended,
        )


@dataclass(frozen=True)
class Memory:
    """What the encoder leaves for the decoder.

    values: (B, S, D), one vector per source position, zero at padding.
    mask: (B, S) boolean, True at real positions.
    final: (L, B, D), each recurrent layer's output at its last real position (both directions
        side by side), or None for encoders without recurrence.
    cell: (L, B, D), the same for the cells of an LSTM, where the decoder asked for them.
    copies: where the model copies, as what.
    """

    values: Tensor
    mask: Tensor
    final: Tensor | None = None
    cell: Tensor | None = None
    copies: Copies | None = None

    def keep(self, rows: Tensor) -> Memory:
        """The memory of the sentences `rows` (B',) int64 only."""
        return Memory(
            self.values[rows],
            self.mask[rows],
            None if self.final is None else self.final[:, rows],
            None if self.cell is None else self.cell[:, rows],
            None if self.copies is None else self.copies.keep(rows),
        )

    def join(self, other: Memory, width: int) -> Memory:
        """The sentences of another after one's own, both with S cut or padded to `width`."""
        copies = None
        if self.copies is not None and other.copies is not None:
            copies = self.copies.join(other.copies, width)
        return Memory(
            join_rows([self.values, other.values], 1, width),
            join_rows([self.mask, other.mask], 1, width),
            _beside(self.final, other.final),
            _beside(self.cell, other.cell),
            copies,
        )


def join_rows(parts: list[Tensor], dim: int, width: int, fill: float = 0) -> Tensor:
    """One after the other along the first dimension, each cut or padded to `width` along `dim`.

    >>> join_rows([torch.ones(1, 1), torch.ones(1, 3)], 1, 2).tolist()
    [[1.0, 0.0], [1.0, 1.0]]
    """
    shape = list(parts[0].shape)
    shape[0], shape[dim] = sum(len(part) for part in parts), width
    joined = parts[0].new_empty(shape)
    start = 0
    for part in parts:
        own = min(width, part.shape[dim])
        place = joined[start : start + len(part)]
        place.narrow(dim, 0, own).copy_(part.narrow(dim, 0, own))
        if own < width:
            place.narrow(dim, own, width - own).fill_(fill)
        start += len(part)
    return joined


def _beside(one: Tensor | None, other: Tensor | None) -> Tensor | None:
    return None if one is None or other is None else torch.cat([one, other], dim=1)


class State(ABC):
    """What a decoder carries from one target position to the next, for (B, K) hypotheses."""

    @abstractmethod
    def select(self, hypotheses: Tensor) -> State:
        """Reorder: new hypothesis k of sentence b continues old hypothesis `hypotheses[b, k]`.

        hypotheses: (B, K') int64, values below the present K. K' may differ from K.
        """

    @abstractmethod
    def keep(self, rows: Tensor) -> State:
        """Drop all sentences but `rows` (B',) int64."""

    @abstractmethod
    def join(self, other: Any, width: int) -> State:
        """The sentences of another, of equal K, after one's own; S is cut or padded to `width`,
        which is as long as the longest source of both or longer."""


@dataclass(frozen=True)
class Copied:
    """What a step copies. weights (B, K, S): how much from each position; columns (B, S)."""

    weights: Tensor
    columns: Tensor

    def share(self, parents: Tensor, tokens: Tensor, gains: Tensor) -> Tensor:
        """The copied share (B, K') of the probability of tokens after hypotheses `parents`.

        parents, tokens, gains: (B, K'), the last the tokens' log-probabilities.
        """
        index = parents.unsqueeze(2).expand(-1, -1, self.weights.shape[2])
        here = self.columns.unsqueeze(1) == tokens.unsqueeze(2)
        copied = (self.weights.gather(1, index) * here).sum(dim=2)
        return (copied / gains.exp()).nan_to_num_(0.0).clamp_(0.0, 1.0)


@dataclass(frozen=True)
class Pointer:
    """How a step's words are generated or copied. gate (B, K): the logit of generating, float32;
    attention (B, K, S)."""

    gate: Tensor
    attention: Tensor
    copies: Copies

    @property
    def weights(self) -> Tensor:
        """How much is copied from each position, (B, K, S)."""
        return shares(self.gate, self.attention, self.copies.real)[0]

    @property
    def columns(self) -> Tensor:
        return self.copies.columns

    def mixed(self, logits: Tensor) -> Tensor:
        """The whole distribution of what logits (B, K, V) generate; see `pointer.mixed`."""
        copies = self.copies
        return mixed(
            logits, self.gate, self.attention, copies.columns, copies.first, copies.extended
        )

    def share(self, parents: Tensor, tokens: Tensor, gains: Tensor) -> Tensor:
        """As `Copied.share`."""
        if kernels.takes(self.attention):
            return choosing.copied_share(
                self.attention, self.gate, self.columns, parents, tokens, gains
            )
        return Copied(self.weights, self.columns).share(parents, tokens, gains)


@dataclass(frozen=True)
class Draft:
    """What a step's logits are made of, for searches that find the best words without them.

    own: (B, K, V) the output layer's. pointer: what else is copied. forbidden: (B, K, N) int64,
    columns that must not come next, PAD where there is none. allowed: (B, V) boolean, the words
    that there are for a sentence, or None if all are.
    """

    own: Tensor
    pointer: Pointer | None = None
    forbidden: Tensor | None = None
    allowed: Tensor | None = None

    def of_all(self) -> Draft:
        """The same with -inf for words that there are not."""
        if self.allowed is None:
            return self
        own = self.own.masked_fill(~self.allowed.unsqueeze(1), -math.inf)
        return replace(self, own=own, allowed=None)

    def logits(self) -> Tensor:
        """(B, K, V + E), written down."""
        if self.allowed is not None:
            return self.of_all().logits()
        whole = self.own if self.pointer is None else self.pointer.mixed(self.own)
        return whole if self.forbidden is None else without(whole, self.forbidden)


@dataclass(frozen=True)
class Step:
    """One target position, decoded.

    logits: (B, K, V) of any floating dtype, log-probabilities but for a constant in each row:
    search normalises them while it looks for the best. attention: (B, K, S), rows sum to 1 over
    real source positions, or None where the model has no attention. words: (V,) int64, the token
    that each column of the logits stands for where these are not all tokens in order; ascending,
    and with PAD, BOS, EOS and UNK among them. copied: what of them is copied, and from where; some
    logits may be -inf then. made: the logits, or what they are made of when somebody asks.
    """

    made: Tensor | Draft
    state: State
    attention: Tensor | None
    words: Tensor | None = None
    copied: Copied | Pointer | None = None

    @cached_property
    def logits(self) -> Tensor:
        return self.made if isinstance(self.made, Tensor) else self.made.logits()

    @property
    def draft(self) -> Draft:
        return Draft(self.made) if isinstance(self.made, Tensor) else self.made

    @property
    def log_probs(self) -> Tensor:
        """(B, K, V) float32, normalised."""
        return torch.log_softmax(self.logits.float(), dim=-1)


@dataclass(frozen=True)
class Given:
    """What is said of given targets. log_probs: (B, T, V) float32, normalised; attention: (B, T, S)
    or None; copied: as of a `Step` with T for K, or None where nothing is copied."""

    log_probs: Tensor
    attention: Tensor | None
    copied: Copied | Pointer | None = None


@dataclass(frozen=True)
class Features:
    """The decoder's answer for a whole target, before the vocabulary.

    values: (B, T, E), input of the output layer. attention: (B, T, S) or None. gate: (B, T)
    float32, the logit of generating and not copying, or None where nothing is copied.
    """

    values: Tensor
    attention: Tensor | None
    gate: Tensor | None = None


@dataclass(frozen=True)
class StepFeatures:
    """A `Step` before the vocabulary. values: (B, K, E), input of the output layer; gate: (B, K),
    as of `Features`."""

    values: Tensor
    state: State
    attention: Tensor | None
    gate: Tensor | None = None
