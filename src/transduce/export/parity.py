"""Whether exported graphs answer as the model does: log-probabilities, attention, hypotheses."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from transduce.data.batches import collate
from transduce.data.tokenizers.base import PAD
from transduce.errors import TransduceError
from transduce.hypotheses import Hypothesis
from transduce.model.seq2seq import Seq2Seq
from transduce.recipe import SearchOptions
from transduce.runtime.decode import decode as decode_exported
from transduce.runtime.network import Network
from transduce.runtime.options import Search
from transduce.search import decode

TIE = 1e-4  # hypotheses whose scores differ by less count as equal: rounding decides between them
CHUNK = 8  # sources whose log-probabilities, of all words, are held together

Ids = Sequence[int]


@dataclass(frozen=True)
class Tolerance:
    """How far exported graphs may be from the model, along the targets that the model chose.

    log_prob: the largest difference of a log-probability, of any word at any position.
    mean_log_prob: the mean difference of those of the target's own tokens. equal: the least share
    of equal hypotheses.
    """

    log_prob: float
    mean_log_prob: float
    equal: float


TOLERANCES = {
    # Rounding of float32, added up over layers and positions.
    "fp32": Tolerance(log_prob=5e-4, mean_log_prob=5e-5, equal=1.0),
    # What moves a score by no more than a few hundredths. A word that the model gives no chance may
    # move by more, to no effect.
    "int8": Tolerance(log_prob=2.0, mean_log_prob=0.03, equal=0.7),
}


@dataclass(frozen=True)
class Parity:
    """What was measured on so many sources and target positions: see `Tolerance`.

    attention: the largest difference of a weight. equal: how many hypotheses are equal, or differ
    by a tie.
    """

    sources: int
    positions: int
    log_prob: float
    mean_log_prob: float
    attention: float
    equal: int

    def beyond(self, tolerance: Tolerance) -> list[str]:
        """What is not within the tolerance, in words; not a number never is."""
        problems = []
        if not self.log_prob <= tolerance.log_prob:
            problems.append(
                f"log-probabilities differ by up to {self.log_prob:.2g} "
                f"(tolerance {tolerance.log_prob:g})"
            )
        if not self.mean_log_prob <= tolerance.mean_log_prob:
            problems.append(
                f"log-probabilities of the chosen tokens differ by {self.mean_log_prob:.2g} on "
                f"average (tolerance {tolerance.mean_log_prob:g})"
            )
        if self.equal < tolerance.equal * self.sources:
            problems.append(
                f"{self.equal} of {self.sources} hypotheses are equal "
                f"(tolerance {tolerance.equal:.0%})"
            )
        return problems


def compare(model: Seq2Seq, network: Network, sources: Sequence[Ids], options: Search) -> Parity:
    """Both on the same sources, none of them empty: decoded, and along the model's hypotheses."""
    wanted = [found[0] for found in decode(model, sources, SearchOptions(**dict(options)))]
    reasons: list[str] = []
    found = decode_exported(network, sources, options, lambda _, reason: reasons.append(reason))
    if reasons:
        raise TransduceError(f"the exported graphs cannot be run: {reasons[0]}")
    equal = sum(_same(one, other[0]) for one, other in zip(wanted, found, strict=True))
    along = _Along()
    for start in range(0, len(sources), CHUNK):
        part = slice(start, start + CHUNK)
        along.measure(model, network, sources[part], [one.ids for one in wanted[part]])
    return Parity(
        sources=len(sources),
        positions=along.positions,
        log_prob=along.log_prob,
        mean_log_prob=along.total / along.positions,
        attention=along.attention,
        equal=equal,
    )


def _same(one: Hypothesis, other: Hypothesis) -> bool:
    return one.ids == other.ids or abs(one.score - other.score) <= TIE


@dataclass
class _Along:
    """Differences along given targets: all at once in torch, step by step in the graphs."""

    positions: int = 0
    log_prob: float = 0.0
    total: float = 0.0  # of the tokens of the targets
    attention: float = 0.0

    @torch.inference_mode()
    def measure(
        self, model: Seq2Seq, network: Network, sources: Sequence[Ids], targets: Sequence[Ids]
    ) -> None:
        batch = collate(sources, targets, np.arange(len(sources)))
        log_probs, attention = model(batch.source, batch.source_lengths, batch.target_input)
        wanted = log_probs.float().numpy()
        weights = None if attention is None else attention.float().numpy()
        entered, output = batch.target_input.numpy(), batch.target_output.numpy()
        real = output != PAD
        memory, state = network.encode(batch.source.numpy(), batch.source_lengths.numpy())
        for t in range(entered.shape[1]):
            answer, state, attended = network.log_probs(entered[:, t : t + 1], state, memory)
            rows = real[:, t]
            difference = np.abs(answer[rows, 0] - wanted[rows, t])
            self.log_prob = _largest(self.log_prob, difference)
            chosen = output[rows, t][:, None]
            self.total += float(np.take_along_axis(difference, chosen, 1).sum())
            if weights is not None and attended is not None:
                between = np.abs(attended[rows, 0] - weights[rows, t])
                self.attention = _largest(self.attention, between)
        self.positions += int(real.sum())


def _largest(so_far: float, differences: np.ndarray) -> float:
    """The largest of all, and NaN once there is one."""
    return float(np.max(differences, initial=so_far))
