"""CTC by enumeration of every labelling: slow, and plainly right."""

from __future__ import annotations

import itertools
import math
from collections import defaultdict
from collections.abc import Callable

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
