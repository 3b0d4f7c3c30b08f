"""Where a training stands, how much of it is done, when it is over, and what it came to."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from transduce.recipe import TrainingOptions


@dataclass(frozen=True)
class Result:
    """How a training ended. `scores` are those of the weights in the folder, on the valid set."""

    folder: Path
    reason: str
    updates: int
    epochs: float
    minutes: float
    parameters: int
    metric: str
    value: float
    scores: dict[str, float]
    tokens_per_second: float  # real target tokens, over the time spent on updates


@dataclass
class Counters:
    """What a checkpoint remembers of the loop itself; JSON values only."""

    update: int = 0
    seconds: float = 0.0  # of training, validations included, over all parts
    updating: float = 0.0  # of those, seconds spent on updates
    tokens: int = 0  # real target tokens, over all updates
    skipped: int = 0  # updates without a finite gradient, until the last report
    next_validation: float = 0.0  # epoch


@dataclass(frozen=True)
class Place:
    """How far a training has come: updates, epochs, seconds."""

    update: int
    epoch: float
    seconds: float


def reason_to_stop(options: TrainingOptions, place: Place, stale: int, metric: str) -> str | None:
    """Why the training is over, for people, or None.

    stale: validations since the best value of `metric`.
    """
    if options.updates is not None and place.update >= options.updates:
        return f"{place.update:,} updates"
    if options.epochs is not None and place.epoch >= options.epochs:
        return f"{place.epoch:.4g} epochs"
    if options.minutes is not None and place.seconds >= 60 * options.minutes:
        return f"{place.seconds / 60:.1f} minutes"
    if options.patience is not None and stale >= options.patience:
        return f"no better {metric} in {stale} validations"
    return None


def share_done(options: TrainingOptions, place: Place) -> float | None:
    """The share of the training that is done, 0 to 1; None if only patience ends it."""
    shares = []
    if options.updates is not None:
        shares.append(place.update / options.updates)
    if options.epochs is not None:
        shares.append(place.epoch / options.epochs)
    if options.minutes is not None:
        shares.append(place.seconds / 60 / options.minutes)
    return min(1.0, max(shares)) if shares else None
