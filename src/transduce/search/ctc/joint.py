"""Attention and CTC searched as one (Watanabe et al. 2017, section IV-B; 1609.06773).

The score of a continuation is `(1 - w)` times the decoder's log-probability plus `w` times that of
CTC, which for a word is the probability of the longer prefix given the prefix, and for EOS that of
the target being complete. CTC alone knows how much sound is left: it makes it unlikely that a
decoder stops early, or goes on where nothing is to be heard.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor

from transduce.data.tokenizers.base import BOS, PAD, UNK
from transduce.model.state import State, Step
from transduce.search.ctc.prefix import BLANK, Frames, PrefixState
from transduce.search.interface import SearchModel
from transduce.search.limits import memory_lengths


class CtcModel(SearchModel, Protocol):
    """A model with a CTC head."""

    def ctc_log_probs(self, memory: Any) -> Tensor:
        """What `encode` left -> (B, S, V), normalised, blank 0."""
        ...


@dataclass(frozen=True)
class JointMemory:
    """A memory, and the same sentences as CTC has them.

    silent: (B, 1, 1) boolean, sentences in which CTC finds nothing but blanks.
    """

    memory: Any  # a SearchMemory
    frames: Frames
    silent: Tensor

    def keep(self, rows: Tensor) -> JointMemory:
        return JointMemory(self.memory.keep(rows), self.frames.keep(rows), self.silent[rows])

    def join(self, other: JointMemory, width: int) -> JointMemory:
        return JointMemory(
            self.memory.join(other.memory, width),
            self.frames.join(other.frames, width),
            torch.cat([self.silent, other.silent]),
        )


@dataclass(frozen=True)
class JointState(State):
    """The decoder's state and CTC's, of the same hypotheses."""

    decoder: Any  # a SearchState
    prefix: PrefixState

    def select(self, hypotheses: Tensor) -> JointState:
        return JointState(self.decoder.select(hypotheses), self.prefix.select(hypotheses))

    def keep(self, rows: Tensor) -> JointState:
        return JointState(self.decoder.keep(rows), self.prefix.keep(rows))

    def join(self, other: JointState, width: int) -> JointState:
        return JointState(
            self.decoder.join(other.decoder, width),
            self.prefix.join(other.prefix, width),
        )


class Joint:
    """A model whose CTC head has a say of `weight` (above 0, below 1) in search.

    Where CTC finds nothing but blanks (silence, noise, music), the only target left is the empty
    one: a decoder by itself would make something up.
    """

    def __init__(self, model: CtcModel, weight: float) -> None:
        self.model = model
        self.weight = weight

    def memory_lengths(self, lengths: Tensor) -> Tensor:
        return memory_lengths(self.model, lengths)

    def encode(self, source: Tensor, lengths: Tensor) -> JointMemory:
        memory = self.model.encode(source, lengths)
        frames = Frames.of(self.model.ctc_log_probs(memory), self.memory_lengths(lengths))
        return JointMemory(memory, frames, silent(frames)[:, None, None])

    def start(self, memory: JointMemory) -> JointState:
        return JointState(self.model.start(memory.memory), PrefixState.start(memory.frames))

    def step(self, tokens: Tensor, state: JointState, memory: JointMemory) -> Step:
        step = self.model.step(tokens, state.decoder, memory.memory)
        prefix = state.prefix.advance(memory.frames, tokens)
        scores = prefix.scores(memory.frames).mul_(self.weight)
        scores = scores.add_(step.log_probs, alpha=1 - self.weight)
        scores[:, :, UNK:].masked_fill_(memory.silent, -math.inf)
        return Step(with_rest(scores), JointState(step.state, prefix), step.attention)

    def __call__(
        self, source: Tensor, lengths: Tensor, target_input: Tensor
    ) -> tuple[Tensor, Tensor | None]:
        """Given targets are scored by the decoder alone."""
        return self.model(source, lengths, target_input)


def silent(frames: Frames) -> Tensor:
    """Sentences (B,) in which the blank is the most probable on every frame."""
    quiet = frames.log_probs.amax(dim=1) <= frames.log_probs[:, BLANK]
    return quiet.all(dim=1)


def with_rest(scores: Tensor) -> Tensor:
    """Scores (B, K, V) made a distribution, float32: what they leave of 1 becomes PAD's.

    Search normalises what a step gives; these scores are to be added up as they are. A geometric
    mean of two distributions sums to at most 1 (Hoelder's inequality), so there is a rest, and PAD
    is never a continuation.
    """
    scores[:, :, [PAD, BOS]] = -math.inf
    rest = 1.0 - scores.exp().sum(dim=2)
    scores[:, :, PAD] = torch.log(rest.clamp(min=0.0))
    return scores.float()
