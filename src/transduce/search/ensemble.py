"""Several models searched as one (Sutskever et al. 2014, 1409.3215, section 3.6)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import cast

import torch
from torch import Tensor, nn

from transduce.errors import UsageError
from transduce.model.state import Copied, Given, Memory, State, Step
from transduce.search.interface import SearchModel, SearchStep, columns_of, given_by, has_decoder
from transduce.search.limits import memory_lengths


@dataclass(frozen=True)
class EnsembleMemory:
    """One memory of each model."""

    members: list[Memory]

    def keep(self, rows: Tensor) -> EnsembleMemory:
        return EnsembleMemory([memory.keep(rows) for memory in self.members])

    def join(self, other: EnsembleMemory, width: int) -> EnsembleMemory:
        pairs = zip(self.members, other.members, strict=True)
        return EnsembleMemory([one.join(its, width) for one, its in pairs])


@dataclass(frozen=True)
class EnsembleState(State):
    """One state of each model; all of them carry the same hypotheses."""

    members: list[State]

    def select(self, hypotheses: Tensor) -> EnsembleState:
        return EnsembleState([state.select(hypotheses) for state in self.members])

    def keep(self, rows: Tensor) -> EnsembleState:
        return EnsembleState([state.keep(rows) for state in self.members])

    def join(self, other: EnsembleState, width: int) -> EnsembleState:
        pairs = zip(self.members, other.members, strict=True)
        return EnsembleState([one.join(its, width) for one, its in pairs])


class Ensemble(nn.Module):
    """Models with the same vocabularies; the probability of a token is the mean of theirs.

    Attention is the mean over the models that have one. Either all of them have a decoder or none,
    and then CTC alone is searched. Errors: UsageError for others, and for transducers.
    """

    def __init__(self, models: Sequence[nn.Module]) -> None:
        super().__init__()
        if not models:
            raise UsageError("an ensemble needs at least one model")
        if any(getattr(model, "transducer", None) is not None for model in models):
            raise UsageError("a transducer cannot be in an ensemble; use it by itself")
        if len({has_decoder(model) for model in models}) > 1:
            raise UsageError(
                "an ensemble needs models that all have a decoder, or all are CTC alone "
                "(model.ctc.weight 1)"
            )
        if len({getattr(model, "copying", None) is not None for model in models}) > 1:
            raise UsageError(
                "an ensemble needs models that all copy or none of which does (model.decoder.copy)"
            )
        self.models = nn.ModuleList(models)

    @property
    def decoder(self) -> Ensemble | None:
        """None where CTC is all there is."""
        return self if all(map(has_decoder, self.models)) else None

    @property
    def _members(self) -> list[SearchModel]:
        return cast("list[SearchModel]", list(self.models))

    def memory_lengths(self, lengths: Tensor) -> Tensor:
        found = [memory_lengths(model, lengths) for model in self._members]
        if any(not torch.equal(one, found[0]) for one in found):
            raise UsageError(
                "an ensemble needs memories of one length, and its models subsample differently"
            )
        return found[0]

    @property
    def has_ctc(self) -> bool:
        """Whether all models have a CTC head."""
        return all(getattr(m, "has_ctc", hasattr(m, "ctc_log_probs")) for m in self.models)

    def ctc_log_probs(self, memory: EnsembleMemory) -> Tensor:
        """(B, S, V): the mean probability on each frame."""
        pairs = zip(self.models, memory.members, strict=True)
        return mean_log_probs([model.ctc_log_probs(one) for model, one in pairs])  # type: ignore[operator]

    def encode(self, source: Tensor, lengths: Tensor) -> EnsembleMemory:
        return EnsembleMemory([model.encode(source, lengths) for model in self._members])

    def start(self, memory: EnsembleMemory) -> EnsembleState:
        pairs = zip(self._members, memory.members, strict=True)
        return EnsembleState([model.start(one) for model, one in pairs])

    def step(self, tokens: Tensor, state: EnsembleState, memory: EnsembleMemory) -> Step:
        members = zip(self._members, state.members, memory.members, strict=True)
        steps = [model.step(tokens, one, its_memory) for model, one, its_memory in members]
        return Step(
            mean_log_probs([step.log_probs for step in steps]),
            EnsembleState([step.state for step in steps]),
            mean_attention([step.attention for step in steps]),
            copied=mean_copied(steps),
        )

    def columns(self, source: Tensor, target: Tensor) -> Tensor:
        """Where `forward` has the log-probabilities of targets, in all models the same."""
        return columns_of(self._members[0], source, target)

    def forward(
        self, source: Tensor, lengths: Tensor, target_input: Tensor
    ) -> tuple[Tensor, Tensor | None]:
        """Teacher-forced log-probabilities (B, T, V) and attention (B, T, S) or None."""
        given = self.given(source, lengths, target_input)
        return given.log_probs, given.attention

    def given(self, source: Tensor, lengths: Tensor, target_input: Tensor) -> Given:
        """What the models say of teacher-forced targets in the mean."""
        answers = [given_by(model, source, lengths, target_input) for model in self._members]
        return Given(
            mean_log_probs([answer.log_probs for answer in answers]),
            mean_attention([answer.attention for answer in answers]),
            mean_copied(answers),
        )


def mean_log_probs(members: list[Tensor]) -> Tensor:
    """Logarithm of the mean probability; each (..., V), and so is the result."""
    sizes = {log_probs.shape[-1] for log_probs in members}
    if len(sizes) > 1:
        raise UsageError(
            f"models of an ensemble need the same target vocabulary; theirs have "
            f"{' and '.join(str(size) for size in sorted(sizes))} tokens"
        )
    return torch.logsumexp(torch.stack(members), dim=0) - math.log(len(members))


def mean_copied(steps: Sequence[SearchStep | Given]) -> Copied | None:
    """What is copied in the mean, if the models copy."""
    found = [copied for step in steps if (copied := getattr(step, "copied", None)) is not None]
    if not found:
        return None
    return Copied(torch.stack([one.weights for one in found]).mean(dim=0), found[0].columns)


def mean_attention(members: list[Tensor | None]) -> Tensor | None:
    """The mean of those that are not None; each (..., S)."""
    real = [attention for attention in members if attention is not None]
    return torch.stack(real).mean(dim=0) if real else None
