"""A language model that has its say while another model is searched: shallow fusion.

The score of a continuation is `log p + w log p_lm`, where p is what is searched and p_lm what the
language model makes of the same target, EOS included (Gulcehre et al. 2015, 1503.03535, section
4.1). The sum over a vocabulary of p p_lm^w is at most 1, so that scores are added up as they are.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from transduce.data.tokenizers.base import EOS
from transduce.model.state import State, Step
from transduce.search.ctc.joint import with_rest
from transduce.search.interface import SearchModel
from transduce.search.limits import memory_lengths


class Language:
    """A language model: one that reads the same source, `prompt`, whatever it is to say."""

    def __init__(self, model: SearchModel, prompt: list[int]) -> None:
        self.model, self.prompt = model, [*prompt, EOS]

    def encode(self, batch: int, device: torch.device) -> Any:
        """The memory of so many targets."""
        source = torch.tensor(self.prompt, device=device).repeat(batch, 1)
        return self.model.encode(source, torch.full((batch,), len(self.prompt), device=device))


class Advised:
    """A model, and the language model beside it; everything is the model's own."""

    def __init__(self, model: SearchModel, language: Language) -> None:
        self.advised, self.language = model, language

    def __call__(self, *given: Any) -> Any:
        return self.advised(*given)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.advised, name)


@dataclass(frozen=True)
class FusedMemory:
    """A memory, and the language model's."""

    memory: Any  # both a SearchMemory
    language: Any
    prompt: int  # positions of the latter

    def keep(self, rows: Tensor) -> FusedMemory:
        return FusedMemory(self.memory.keep(rows), self.language.keep(rows), self.prompt)

    def join(self, other: FusedMemory, width: int) -> FusedMemory:
        language = self.language.join(other.language, self.prompt)
        return FusedMemory(self.memory.join(other.memory, width), language, self.prompt)


@dataclass(frozen=True)
class FusedState(State):
    """A decoder's state and the language model's, of the same hypotheses."""

    decoder: Any  # both a SearchState
    language: Any
    prompt: int

    def select(self, hypotheses: Tensor) -> FusedState:
        decoder, language = self.decoder.select(hypotheses), self.language.select(hypotheses)
        return FusedState(decoder, language, self.prompt)

    def keep(self, rows: Tensor) -> FusedState:
        return FusedState(self.decoder.keep(rows), self.language.keep(rows), self.prompt)

    def join(self, other: FusedState, width: int) -> FusedState:
        language = self.language.join(other.language, self.prompt)
        return FusedState(self.decoder.join(other.decoder, width), language, self.prompt)


class Fused:
    """A model beside which a language model has a say of `weight`."""

    def __init__(self, model: SearchModel, language: Language, weight: float) -> None:
        self.model, self.language, self.weight = model, language, weight

    def memory_lengths(self, lengths: Tensor) -> Tensor:
        return memory_lengths(self.model, lengths)

    def encode(self, source: Tensor, lengths: Tensor) -> FusedMemory:
        language = self.language.encode(len(source), source.device)
        return FusedMemory(self.model.encode(source, lengths), language, len(self.language.prompt))

    def start(self, memory: FusedMemory) -> FusedState:
        language = self.language.model.start(memory.language)
        return FusedState(self.model.start(memory.memory), language, memory.prompt)

    def step(self, tokens: Tensor, state: FusedState, memory: FusedMemory) -> Step:
        step = self.model.step(tokens, state.decoder, memory.memory)
        other = self.language.model.step(tokens, state.language, memory.language)
        advice = other.log_probs
        if step.words is not None:  # a shortlist's
            advice = advice.index_select(2, step.words)
        scores = torch.add(step.log_probs, advice, alpha=self.weight)
        after = FusedState(step.state, other.state, state.prompt)
        return Step(with_rest(scores), after, step.attention, step.words)

    def __call__(
        self, source: Tensor, lengths: Tensor, target_input: Tensor
    ) -> tuple[Tensor, Tensor | None]:
        """Given targets are scored by the model alone."""
        return self.model(source, lengths, target_input)
