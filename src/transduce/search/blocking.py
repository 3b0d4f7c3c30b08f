"""Targets that do not repeat themselves: words that would complete a repetition are ruled out.

Both rules look at the same numbers. Let r_p be how many of a hypothesis' last tokens in a row equal
the token p places before them. The next token repeats an n-gram (Paulus, Xiong, Socher 2017,
1705.04304, section 2.5) if it is the one p places back and r_p >= n - 1, for any p; and it says a
phrase of p tokens for the third time in a row if it is that one and r_p >= 2 p - 1. A token more
makes r_p longer by one or zero, so a step costs one pass over each target so far, for all
hypotheses at once.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from transduce.data.tokenizers.base import PAD
from transduce.model.state import Draft, State, Step, join_rows
from transduce.search.interface import SearchModel
from transduce.search.limits import memory_lengths


@dataclass(frozen=True)
class Past:
    """The tokens of K hypotheses of each of B sentences, both (B, K, T) int64.

    tokens: the newest first, PAD where there is none. runs: at p - 1, how many of the last tokens
    in a row equal the one p places before.
    """

    tokens: Tensor
    runs: Tensor

    @classmethod
    def start(cls, batch: int, device: torch.device) -> Past:
        """Nothing yet, K = 1."""
        nothing = torch.zeros((batch, 1, 0), dtype=torch.int64, device=device)
        return cls(nothing, nothing)

    def add(self, tokens: Tensor) -> Past:
        """With one token more each, (B, K) int64."""
        new = tokens.unsqueeze(2)
        runs = torch.where(self.tokens == new, self.runs + 1, 0)
        runs = torch.nn.functional.pad(runs, (0, 1))
        return Past(torch.cat([new, self.tokens], dim=2), runs)

    def repeating(self, ngrams: int, repeats: bool) -> Tensor:
        """The tokens that must not come next, (B, K, T), PAD where there is nothing to forbid.

        ngrams: the n of the n-grams that may stand once only, or 0. repeats: whether no phrase may
        stand three times in a row.
        """
        count = self.tokens.shape[2]
        least = torch.full((count,), count + 1, device=self.tokens.device)
        if repeats:
            least = 2 * torch.arange(count, device=self.tokens.device) + 1
        if ngrams:
            least = least.clamp(max=ngrams - 1)
        return torch.where(self.runs >= least, self.tokens, PAD)

    def select(self, hypotheses: Tensor) -> Past:
        batch, beam, _ = self.tokens.shape
        first = torch.arange(0, batch * beam, beam, device=hypotheses.device).unsqueeze(1)
        index = (first + hypotheses).flatten()
        shape = hypotheses.shape

        def of(x: Tensor) -> Tensor:  # whole rows, which takes a tenth of gathering each number
            return x.flatten(0, 1).index_select(0, index).unflatten(0, shape)

        return Past(of(self.tokens), of(self.runs))

    def keep(self, rows: Tensor) -> Past:
        """Only the sentences `rows` (B',) int64, no wider than the longest of them."""
        tokens = self.tokens[rows]
        used = int((tokens != PAD).any(dim=0).any(dim=0).sum())
        return Past(tokens[:, :, :used], self.runs[rows, :, :used])

    def join(self, other: Past) -> Past:
        """The sentences of another, of equal K, after one's own."""
        width = max(self.tokens.shape[2], other.tokens.shape[2])
        return Past(
            join_rows([self.tokens, other.tokens], 2, width),
            join_rows([self.runs, other.runs], 2, width),
        )


@dataclass(frozen=True)
class BlockedState(State):
    """A decoder's state, and what its hypotheses have said; None before the first step."""

    decoder: Any  # a SearchState
    past: Past | None

    def select(self, hypotheses: Tensor) -> BlockedState:
        past = self.past and self.past.select(hypotheses)
        return BlockedState(self.decoder.select(hypotheses), past)

    def keep(self, rows: Tensor) -> BlockedState:
        return BlockedState(self.decoder.keep(rows), self.past and self.past.keep(rows))

    def join(self, other: BlockedState, width: int) -> BlockedState:
        past = self.past and other.past and self.past.join(other.past)
        return BlockedState(self.decoder.join(other.decoder, width), past)


class Blocked:
    """A model that repeats no n-gram of `ngrams` tokens (0: it may), and with `repeats` says
    nothing three times in a row. The words that remain are as probable as they were."""

    def __init__(self, model: SearchModel, ngrams: int, repeats: bool) -> None:
        self.model, self.ngrams, self.repeats = model, ngrams, repeats

    def memory_lengths(self, lengths: Tensor) -> Tensor:
        return memory_lengths(self.model, lengths)

    def encode(self, source: Tensor, lengths: Tensor) -> Any:
        return self.model.encode(source, lengths)

    def start(self, memory: Any) -> BlockedState:
        return BlockedState(self.model.start(memory), None)

    def step(self, tokens: Tensor, state: BlockedState, memory: Any) -> Step:
        step = self.model.step(tokens, state.decoder, memory)
        past = (state.past or Past.start(len(tokens), tokens.device)).add(tokens)
        forbidden = past.repeating(self.ngrams, self.repeats)
        if step.words is not None:
            forbidden = torch.searchsorted(step.words, forbidden)
        draft = getattr(step, "draft", None) or Draft(step.logits)
        after, copied = BlockedState(step.state, past), getattr(step, "copied", None)
        made = replace(draft, forbidden=forbidden)
        return Step(made, after, step.attention, step.words, copied)

    def __call__(
        self, source: Tensor, lengths: Tensor, target_input: Tensor
    ) -> tuple[Tensor, Tensor | None]:
        """Given targets are scored as they are."""
        return self.model(source, lengths, target_input)
