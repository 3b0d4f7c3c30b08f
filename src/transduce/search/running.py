"""The sentences that a search is at, whatever the search."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

import numpy as np
import torch
from torch import Tensor

from transduce.data.tokenizers.base import BOS
from transduce.hypotheses.assembling import Chosen
from transduce.recipe import SearchOptions
from transduce.search.coverage import Coverage
from transduce.search.history import Record
from transduce.search.interface import SearchModel
from transduce.search.limits import Limits, memory_lengths


class Ended(Protocol):
    """Which hypotheses of B sentences have come to an end; done: (B,) boolean."""

    @property
    def done(self) -> Tensor: ...
    def keep(self, rows: Tensor) -> Any: ...
    def join(self, other: Any) -> Any: ...
    def chosen(self) -> Chosen: ...


@dataclass
class Running:
    """B sentences with K live hypotheses each, of whatever age.

    numbers: (B,) on the CPU, which sentences. tokens: (B, K) int64, the last of each hypothesis.
    scores: (B, K) float32, its log-probability. coverage: where scores ask about it.
    """

    numbers: np.ndarray
    limits: Limits
    ended: Any
    memory: Any
    state: Any
    tokens: Tensor
    scores: Tensor
    coverage: Coverage | None = None

    @property
    def width(self) -> int:
        """The longest memory, in positions."""
        return int(self.limits.sources.max())

    def keep(self, kept: np.ndarray) -> Running:
        """Only the rows `kept` (B',) int64."""
        rows = torch.from_numpy(kept).to(self.tokens.device)
        return Running(
            self.numbers[kept],
            self.limits.keep(kept, rows),
            self.ended.keep(rows),
            self.memory.keep(rows),
            self.state.keep(rows),
            self.tokens[rows],
            self.scores[rows],
            self.coverage and self.coverage.keep(rows),
        )

    def join(self, other: Running) -> Running:
        """The sentences of another after one's own."""
        beam, width = max(self.beam, other.beam), max(self.width, other.width)
        one, other = self._widen(beam), other._widen(beam)
        return Running(
            np.concatenate([one.numbers, other.numbers]),
            one.limits.join(other.limits),
            one.ended.join(other.ended),
            one.memory.join(other.memory, width),
            one.state.join(other.state, width),
            torch.cat([one.tokens, other.tokens]),
            torch.cat([one.scores, other.scores]),
            one.coverage and other.coverage and one.coverage.join(other.coverage, width),
        )

    @property
    def beam(self) -> int:
        return self.tokens.shape[1]

    def _widen(self, beam: int) -> Running:
        """With `beam` hypotheses a sentence; those that are not there yet are impossible."""
        more = beam - self.beam
        if not more:
            return self
        same = torch.arange(beam, device=self.tokens.device).clamp_(max=self.beam - 1)
        same = same.expand(len(self.tokens), -1)
        pad = torch.nn.functional.pad
        return Running(
            self.numbers,
            self.limits,
            self.ended,
            self.memory,
            self.state.select(same),
            pad(self.tokens, (0, more)),
            pad(self.scores, (0, more), value=-math.inf),
            self.coverage and self.coverage.select(same),
        )


class Method(NamedTuple):
    """A way to search. ended: for (sentences, options, first step, device). step: takes the
    running sentences on by one position, the step of the whole search that it is told."""

    ended: Callable[[int, SearchOptions, int, torch.device], Ended]
    step: Callable[[SearchModel, Running, SearchOptions, int], Record]


def begin(
    model: SearchModel,
    method: Method,
    options: SearchOptions,
    numbers: np.ndarray,
    source: Tensor,
    lengths: Tensor,
    t: int,
    device: torch.device,
) -> Running:
    """Sentences before their first position, to begin at step t.

    numbers (B,), source (B, S) int64 padded, lengths (B,) real positions with EOS on the CPU.
    """
    batch = len(numbers)
    positions = memory_lengths(model, lengths)
    limits = Limits.of(positions, options, t, device)
    memory = model.encode(source.to(device), lengths.to(device))
    return Running(
        numbers,
        limits,
        method.ended(batch, options, t, device),
        memory,
        model.start(memory),
        torch.full((batch, 1), BOS, device=device),
        torch.zeros((batch, 1), device=device),
        Coverage.start(positions.to(device)) if options.coverage_penalty else None,
    )
