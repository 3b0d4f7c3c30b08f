"""CTC by enumeration of every labelling: slow, and plainly right."""

from __future__ import annotations

import itertools
import math
from collections import defaultdict
from collections.abc import Callable, Sequence

import numpy as np
import pytest
import torch

VOCABULARY = 6  # the blank, BOS and EOS (never labels), and three labels: 3, 4, 5


def random_frames(seed: int, frames: int, temperature: float = 2.0) -> torch.Tensor:
    """Log-probabilities (S, V) float64 with nothing on BOS and EOS."""
    generator = torch.Generator().manual_seed(seed)
    shape = (frames, VOCABULARY)
    logits = torch.randn(shape, generator=generator, dtype=torch.float64) * temperature
    logits[:, 1:3] = -math.inf
    return logits.log_softmax(dim=1)


def collapse(path: tuple[int, ...]) -> tuple[int, ...]:
    return tuple(label for label, _ in itertools.groupby(path) if label != 0)


def enumerate_targets(frames: torch.Tensor) -> dict[tuple[int, ...], float]:
    """The probability of every target that these frames (S, V) can mean."""
    found: dict[tuple[int, ...], float] = defaultdict(float)
    rows = frames.exp().tolist()
    for path in itertools.product((0, 3, 4, 5), repeat=len(rows)):
        found[collapse(path)] += math.prod(
            row[label] for row, label in zip(rows, path, strict=True)
        )
    return dict(found)


@pytest.fixture(scope="session")
def make_frames() -> Callable[..., torch.Tensor]:
    return random_frames


@pytest.fixture(scope="session")
def targets_of() -> Callable[[torch.Tensor], dict[tuple[int, ...], float]]:
    return enumerate_targets


@pytest.fixture(scope="session")
def collapsed() -> Callable[[tuple[int, ...]], tuple[int, ...]]:
    return collapse


def listed_prefix_beam(
    frames: torch.Tensor, beam: int, said: Callable[[tuple[int, ...]], Sequence[float]]
) -> list[tuple[int, ...]]:
    """`prefix_beam` for one sentence, with a dictionary of prefixes.

    `said`: what others say of each token of a prefix and, last, of its end.
    """
    live = {(): (-math.inf, 0.0)}
    for frame in frames.tolist():
        grown: dict[tuple[int, ...], tuple[float, float]] = {}

        def add(ids, label, blank, grown=grown) -> None:
            old = grown.get(ids, (-math.inf, -math.inf))
            grown[ids] = (np.logaddexp(old[0], label), np.logaddexp(old[1], blank))

        for ids, (label, blank) in live.items():
            total = np.logaddexp(label, blank)
            add(ids, -math.inf, total + frame[0])
            for c in (3, 4, 5):
                if ids and ids[-1] == c:
                    add(ids, label + frame[c], -math.inf)
                add((*ids, c), (blank if ids and ids[-1] == c else total) + frame[c], -math.inf)
        order = sorted(grown, key=lambda ids: -np.logaddexp(*grown[ids]) - sum(said(ids)[:-1]))
        live = {ids: grown[ids] for ids in order[:beam]}
    return sorted(live, key=lambda ids: -np.logaddexp(*live[ids]) - sum(said(ids)))
