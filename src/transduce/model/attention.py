"""Attention: Q queries over one memory.

Scores are leaf functions of queries (B, Q, D) and keys (B, S, D); the module around them owns the
projections. The same code serves training (Q = T target positions) and search (Q = K hypotheses).

    dot         q · k                              Luong et al. 2015 (1508.04025), section 3.1
    scaled_dot  q · k / sqrt(D)                    Vaswani et al. 2017 (1706.03762), section 3.2.1
    general     q · W k                            Luong et al. 2015
    additive    v · tanh(W q + U k)                Bahdanau et al. 2015 (1409.0473), appendix A.1.2
    multi_head  scaled_dot in H subspaces          Vaswani et al. 2017, section 3.2.2
    location    v · tanh(W q + U k + L f)          Chorowski et al. 2015 (1506.07503), section 2.2
    coverage    v · tanh(W q + U k + w c)          See et al. 2017 (1704.04368), equation 11
where c is the sum of the weights of all steps before, and f are features of a position: filters
over the weights of the step before, around it.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from transduce import kernels
from transduce.model.linear import Linear, batched
from transduce.model.state import join_rows
from transduce.recipe import AttentionOptions


def dot_scores(query: Tensor, keys: Tensor) -> Tensor:
    """Inner products. query (..., Q, D), keys (..., S, D) -> (..., Q, S), in the keys' dtype."""
    return batched(query.to(keys.dtype), keys.transpose(-1, -2))


def additive_scores(
    query: Tensor, keys: Tensor, vector: Tensor, places: Tensor | None = None
) -> Tensor:
    """vector · tanh(query + keys + places). query (B, Q, D), keys (B, S, D), vector (D,), places
    (B, Q, S, D) -> (B, Q, S)."""
    inner = query.unsqueeze(2) + keys.unsqueeze(1)
    return torch.matmul(torch.tanh(inner if places is None else inner + places), vector)


def attend(scores: Tensor, penalty: Tensor | None) -> Tensor:
    """Softmax over the real source positions.

    scores (..., Q, S), penalty broadcastable to it, 0 at real positions and -inf at padding (None
    where there is none) -> weights (..., Q, S), float32.
    """
    scores = scores.float()
    return torch.softmax(scores if penalty is None else scores + penalty, dim=-1)


@dataclass(frozen=True)
class Attended:
    """A memory prepared for one attention: projected once, used for every query.

    keys, values: as the kind of attention likes them, sentences first. penalty: (B, 1, S) or
    (B, 1, 1, S), see `attend`; None without padding. axis: where the keys have S; values have it
    last but one.
    """

    keys: Tensor
    values: Tensor
    penalty: Tensor | None
    axis: int = 1

    def keep(self, rows: Tensor) -> Attended:
        penalty = None if self.penalty is None else self.penalty[rows]
        keys = self.keys[rows]
        # Without a projection they are the same memory, and stay it.
        values = keys if self.values is self.keys else self.values[rows]
        return Attended(keys, values, penalty, self.axis)

    def join(self, other: Attended, width: int) -> Attended:
        """The sentences of another after one's own, S cut or padded to `width`."""
        keys = join_rows([self.keys, other.keys], self.axis, width)
        place = self.values.dim() - 2
        values = join_rows([self.values, other.values], place, width)
        widths = {self.values.shape[place], other.values.shape[place], width}
        if self.penalty is None and other.penalty is None and len(widths) == 1:
            return Attended(keys, values, None, self.axis)
        penalties = [self._penalty(), other._penalty()]
        penalty = join_rows(penalties, penalties[0].dim() - 1, width, -math.inf)
        return Attended(keys, values, penalty, self.axis)

    def _penalty(self) -> Tensor:
        if self.penalty is not None:
            return self.penalty
        shape = [len(self.values)] + [1] * (self.values.dim() - 2) + [self.values.shape[-2]]
        return torch.zeros(shape, device=self.values.device)


def padding_penalty(mask: Tensor) -> Tensor | None:
    """mask (B, S) -> (B, 1, S), 0 where True and -inf elsewhere; None without padding, which only
    a CPU is asked for, since an accelerator would have to be waited for."""
    if mask.device.type == "cpu" and bool(mask.all()):
        return None
    return torch.zeros(mask.shape, device=mask.device).masked_fill_(~mask, -math.inf).unsqueeze(1)


def for_steps(keys: Tensor, values: Tensor, training: bool) -> tuple[Tensor, Tensor]:
    """In float32 for search on a CPU without kernels: the products of a step are so many and so
    small that torch's in bf16 take several times as long."""
    if training or keys.device.type != "cpu" or kernels.takes(keys):
        return keys, values
    return keys.float(), values.float()


def fused(query: Tensor, attended: Attended) -> bool:
    """Whether the kernel of `kernels` can answer: in search on a CPU, where nothing is learnt."""
    if not kernels.takes(query):
        return False
    return kernels.takes(attended.keys) and attended.keys.dtype == attended.values.dtype


def ask(query: Tensor, attended: Attended) -> tuple[Tensor, Tensor]:
    """The kernel's answer: query (B, Q, D) -> context (B, Q, C), weights (B, Q, S)."""
    penalty = attended.penalty
    return kernels.attend(
        query, attended.keys, attended.values, None if penalty is None else penalty.flatten(1)
    )


class Attention(nn.Module):
    """One of the single-headed kinds. `context_size` is the width of what `forward` returns."""

    def __init__(self, options: AttentionOptions, query_size: int, memory_size: int) -> None:
        super().__init__()
        self.kind = options.kind
        self.context_size = memory_size
        self.dropout = nn.Dropout(options.dropout)
        self.cumulative = options.cumulative or options.coverage
        self.looks_back = self.kind == "location" or options.coverage
        if self.kind in ("additive", "location"):
            inner = options.size or query_size
            self.query = Linear(query_size, inner)
            self.key = Linear(memory_size, inner, bias=False)
            self.vector = nn.Parameter(torch.empty(inner).uniform_(-1, 1) / math.sqrt(inner))
            if self.kind == "location":
                width = options.kernel
                self.filters = nn.Conv1d(1, options.filters, width, padding=width // 2, bias=False)
                self.place = Linear(options.filters, inner, bias=False)
            elif options.coverage:
                self.cover = nn.Parameter(torch.zeros(inner))
        elif self.kind == "general" or query_size != memory_size:
            # dot and scaled_dot of unequal widths need the same bridge that `general` always has.
            self.key = Linear(memory_size, query_size, bias=False)

    def prepare(self, values: Tensor, mask: Tensor) -> Attended:
        """Project a memory once. values (B, S, D), mask (B, S)."""
        keys = self.key(values) if hasattr(self, "key") else values
        if self.kind not in ("additive", "location"):
            keys, values = for_steps(keys, values, self.training)
        return Attended(keys, values, padding_penalty(mask))

    def forward(
        self, query: Tensor, attended: Attended, seen: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """query (B, Q, D) -> context (B, Q, context_size), weights (B, Q, S).

        seen (B, Q, S): what `location` and coverage look at, see `saw`.
        """
        if self.kind in ("additive", "location"):
            places = None if seen is None else self._places(seen)
            scores = additive_scores(self.query(query), attended.keys, self.vector, places)
        else:
            if self.kind == "scaled_dot":
                query = query / math.sqrt(query.shape[-1])
            if not self.training and fused(query, attended):
                return ask(query, attended)
            scores = dot_scores(query, attended.keys)
        weights = attend(scores, attended.penalty)
        used = self.dropout(weights).to(attended.values.dtype)
        return batched(used, attended.values), weights

    def _places(self, seen: Tensor) -> Tensor:
        """Features of each position from the weights around it: (B, Q, S) -> (B, Q, S, inner)."""
        if self.kind == "additive":
            return seen.unsqueeze(3).to(self.cover.dtype) * self.cover
        weight = self.filters.weight
        flat = seen.flatten(0, 1).unsqueeze(1)
        if not torch.is_autocast_enabled(flat.device.type):
            flat = flat.to(weight.dtype)
        result: Tensor = self.place(self.filters(flat).transpose(1, 2))
        return result.unflatten(0, seen.shape[:2])

    def saw(self, seen: Tensor, weights: Tensor) -> Tensor:
        """What the next step sees: the weights of this one, or the sum of all so far."""
        return seen + weights if self.cumulative else weights


class MultiHeadAttention(nn.Module):
    """Attention in H subspaces; the weights returned are the mean over heads."""

    def __init__(self, options: AttentionOptions, query_size: int, memory_size: int) -> None:
        super().__init__()
        inner = options.size or query_size
        self.kind = options.kind
        self.looks_back = False
        self.heads = options.heads
        self.context_size = inner
        self.query = Linear(query_size, inner)
        self.key = Linear(memory_size, inner)
        self.value = Linear(memory_size, inner)
        self.dropout = nn.Dropout(options.dropout)

    def _split(self, x: Tensor) -> Tensor:
        """(B, Q, D) -> (B, H, Q, D / H)."""
        batch, queries, width = x.shape
        return x.view(batch, queries, self.heads, width // self.heads).transpose(1, 2)

    def prepare(self, values: Tensor, mask: Tensor) -> Attended:
        """Project a memory once. values (B, S, D), mask (B, S) -> keys (B, H, D / H, S), scaled,
        and values (B, H, S, D / H), laid out once as the products of every step need them."""
        contents = self._split(self.value(values))
        keys = self._split(self.key(values)).transpose(2, 3) / math.sqrt(contents.shape[3])
        keys, contents = for_steps(keys.contiguous(), contents.contiguous(), self.training)
        penalty = padding_penalty(mask)
        return Attended(keys, contents, None if penalty is None else penalty.unsqueeze(1), 3)

    def forward(self, query: Tensor, attended: Attended) -> tuple[Tensor, Tensor]:
        """query (B, Q, D) -> context (B, Q, context_size), weights (B, Q, S)."""
        query = self.query(query)
        if not self.training and fused(query, attended):
            return ask(query, attended)
        scores = batched(self._split(query).to(attended.keys.dtype), attended.keys)
        weights = attend(scores, attended.penalty)
        used = self.dropout(weights) if self.training else weights
        context = batched(used.to(attended.values.dtype), attended.values)
        return context.transpose(1, 2).flatten(2), weights.mean(dim=1)


def build_attention(
    options: AttentionOptions, query_size: int, memory_size: int
) -> Attention | MultiHeadAttention | None:
    """The attention that the recipe names; None for `none`."""
    if options.kind == "none":
        return None
    if options.kind == "multi_head":
        return MultiHeadAttention(options, query_size, memory_size)
    return Attention(options, query_size, memory_size)
