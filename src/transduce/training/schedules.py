"""The learning rate over updates.

Each schedule is a factor of the recipe's learning rate. Warm-up is linear and multiplies any of
them. Updates count from 1: the first update of a warm-up of 400 has the factor 1/400.
"""

from __future__ import annotations

import math
from typing import Any

from transduce.errors import UsageError
from transduce.recipe import ScheduleOptions, TrainingOptions


def warmup(update: int, updates: int) -> float:
    """Linear from 1/updates to 1."""
    return min(1.0, update / updates) if updates else 1.0


def inverse_sqrt(update: int, warmup_updates: int) -> float:
    """1 until the end of warm-up, then 1/sqrt(update) scaled to join it.

    Vaswani et al. 2017 (1706.03762), section 5.3.
    """
    start = max(warmup_updates, 1)
    return math.sqrt(start / max(update, start))


def cosine(progress: float, final: float) -> float:
    """Half a cosine from 1 to `final`; progress is the share of the training done, 0 to 1.

    Loshchilov and Hutter 2017 (1608.03983), section 3, without restarts.
    """
    return final + (1.0 - final) * 0.5 * (1.0 + math.cos(math.pi * min(max(progress, 0.0), 1.0)))


def linear(progress: float, final: float) -> float:
    """A straight line from 1 to `final`."""
    return 1.0 - (1.0 - final) * min(max(progress, 0.0), 1.0)


def halving(epoch: float, start: float, every: float, factor: float) -> float:
    """1 for `start` epochs, then times `factor` at once and again every `every` epochs.

    Sutskever et al. 2014 (1409.3215), section 3.4: start 5, every 0.5, factor 0.5.
    """
    if epoch < start:
        return 1.0
    # The tiny addend keeps 5.0 + 3 * 0.1 from being read as just below three steps.
    return float(factor ** (1 + math.floor((epoch - start) / every + 1e-9)))


class Schedule:
    """The learning rate of one training; only `plateau` keeps a state."""

    def __init__(self, options: TrainingOptions) -> None:
        self.options: ScheduleOptions = options.schedule
        self.learning_rate = options.learning_rate
        self.reduced = 0  # plateau: how often it was multiplied by `factor`
        self.waiting = 0  # plateau: validations since the last improvement or reduction
        ends = (options.epochs, options.updates, options.minutes)
        if self.options.kind in ("cosine", "linear") and all(end is None for end in ends):
            raise UsageError(
                f"training.schedule.kind `{self.options.kind}` falls towards the end of the "
                "training, so the recipe must say when that is: set training.epochs, "
                "training.updates or training.minutes"
            )

    def factor(self, update: int, epoch: float, progress: float) -> float:
        """The factor of the learning rate at an update (from 1) and its epoch (from 0.0).

        progress: the share of the training done, 0 to 1.
        """
        options = self.options
        if options.kind == "inverse_sqrt":
            body = inverse_sqrt(update, options.warmup)
        elif options.kind == "cosine":
            body = cosine(progress, options.final)
        elif options.kind == "linear":
            body = linear(progress, options.final)
        elif options.kind == "halving":
            body = halving(epoch, options.start, options.every, options.factor)
        elif options.kind == "plateau":
            body = options.factor**self.reduced
        else:
            body = 1.0
        return warmup(update, options.warmup) * body

    def rate(self, update: int, epoch: float, progress: float) -> float:
        """The learning rate at an update."""
        return self.learning_rate * self.factor(update, epoch, progress)

    def validated(self, improved: bool) -> None:
        """Tell a plateau schedule how a validation went."""
        if improved:
            self.waiting = 0
            return
        self.waiting += 1
        if self.waiting > self.options.patience:
            self.reduced += 1
            self.waiting = 0

    def state(self) -> dict[str, Any]:
        return {"reduced": self.reduced, "waiting": self.waiting}

    def restore(self, state: dict[str, Any]) -> None:
        self.reduced, self.waiting = int(state["reduced"]), int(state["waiting"])
