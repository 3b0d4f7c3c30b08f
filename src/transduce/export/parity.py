"""Whether exported graphs answer as the model does: log-probabilities, attention, hypotheses."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from transduce.data.batches import collate
from transduce.data.tokenizers.base import BOS, PAD, UNK
from transduce.hypotheses import Hypothesis
from transduce.model.seq2seq import Seq2Seq
from transduce.recipe import SearchOptions
from transduce.runtime.decode import decode as decode_exported
from transduce.runtime.network import Network
from transduce.runtime.options import Search
from transduce.search import decode

RANDOM_SOURCES = 32
LONGEST_RANDOM = 24  # tokens

Ids = Sequence[int]


@dataclass(frozen=True)
class Tolerance:
    """How far exported graphs may be from the model.

    log_prob: the largest difference of a log-probability, over all positions and words of targets
    the model itself chose. attention: the same of attention weights. equal: the least share of
    equal hypotheses.
    """

    log_prob: float
    attention: float
    equal: float


TOLERANCES = {
    # Rounding of float32, summed over layers and positions.
    "fp32": Tolerance(log_prob=1e-3, attention=1e-4, equal=1.0),
    "int8": Tolerance(log_prob=2.0, attention=0.5, equal=0.8),
}


@dataclass(frozen=True)
class Parity:
    """What was measured on so many sources and target positions.

    log_prob and attention: the largest differences; mean_log_prob: the mean difference of the
    tokens the model chose; equal: how many hypotheses are equal, or differ by a tie.
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
        if not self.attention <= tolerance.attention:
            problems.append(
                f"attention differs by up to {self.attention:.2g} "
                f"(tolerance {tolerance.attention:g})"
            )
        if self.equal < tolerance.equal * self.sources:
            problems.append(
                f"{self.equal} of {self.sources} hypotheses are equal "
                f"(tolerance {tolerance.equal:.0%})"
            )
        return problems


def random_sources(size: int, *, seed: int = 1) -> list[list[int]]:
    """Sources of random words of a vocabulary of `size` ids, of lengths 1 to LONGEST_RANDOM."""
    rng = np.random.default_rng(seed)
    lengths = rng.integers(1, LONGEST_RANDOM + 1, RANDOM_SOURCES)
    lengths[0], lengths[-1] = LONGEST_RANDOM, 1
    return [rng.integers(UNK, size, n).tolist() for n in lengths]


def compare(
    model: Seq2Seq, network: Network, sources: Sequence[Ids], options: Search, *, tie: float
) -> Parity:
    """Both on the same sources, which are not empty: decoded, and along the model's hypotheses.

    `tie`: hypotheses whose scores differ by no more count as equal, since rounding decides between
    them.
    """
    wanted = [found[0] for found in decode(model, sources, _recipe_options(options))]
    reasons: list[str] = []
    found = decode_exported(network, sources, options, lambda _, reason: reasons.append(reason))
    if reasons:
        return Parity(len(sources), 0, math.nan, math.nan, math.nan, 0)
    equal = sum(_same(one, other[0], tie) for one, other in zip(wanted, found, strict=True))
    return _along(model, network, sources, [one.ids for one in wanted], equal)


def _recipe_options(options: Search) -> SearchOptions:
    return SearchOptions(**{name: getattr(options, name) for name in vars(options)})


def _same(one: Hypothesis, other: Hypothesis, tie: float) -> bool:
    return one.ids == other.ids or abs(one.score - other.score) <= tie


@torch.inference_mode()
def _along(
    model: Seq2Seq, network: Network, sources: Sequence[Ids], targets: Sequence[Ids], equal: int
) -> Parity:
    """Differences along given targets: all at once in torch, step by step in the graphs."""
    batch = collate(sources, targets, np.arange(len(sources)))
    log_probs, attention = model(batch.source, batch.source_lengths, batch.target_input)
    wanted = log_probs.float().numpy()
    weights = None if attention is None else attention.float().numpy()
    entered, output = batch.target_input.numpy(), batch.target_output.numpy()
    real = output != PAD
    memory, state = network.encode(batch.source.numpy(), batch.source_lengths.numpy())
    largest = looked = total = 0.0
    assert (entered[:, 0] == BOS).all()
    for t in range(entered.shape[1]):
        answer, state, attended = network.log_probs(entered[:, t : t + 1], state, memory)
        rows = real[:, t]
        difference = np.abs(answer[rows, 0] - wanted[rows, t])
        largest = _largest(largest, difference)
        chosen = output[rows, t][:, None]
        total += float(np.take_along_axis(difference, chosen, 1).sum())
        if weights is not None and attended is not None:
            looked = _largest(looked, np.abs(attended[rows, 0] - weights[rows, t]))
    positions = int(real.sum())
    return Parity(len(sources), positions, largest, total / positions, looked, equal)


def _largest(so_far: float, differences: np.ndarray) -> float:
    """The largest of all, and NaN once there is one."""
    return float(np.max(differences, initial=so_far))
