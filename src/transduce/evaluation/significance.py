"""Is one system better than another on the same examples, or was it luck?

Two tests of the difference, both paired (they compare sentence by sentence) and two-sided: the
bootstrap of Koehn (2004, W04-3250), which also gives the interval of the difference, and
approximate randomisation (Riezler and Maxwell 2005, W05-0908), which assumes less.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from transduce.errors import DataError
from transduce.evaluation.metrics import SEED, Measurement, measure
from transduce.evaluation.resampling import bootstrap_weights, interval, swap_masks
from transduce.evaluation.sacre import Array


@dataclass(frozen=True, slots=True)
class Comparison:
    """Two systems by one metric; `delta` is second minus first, with its 95 % interval."""

    metric: str
    label: str
    first: float
    second: float
    delta: float
    low: float
    high: float
    p_value: float
    method: str
    samples: int
    n: int
    higher_is_better: bool

    @property
    def winner(self) -> str | None:
        """ "first" or "second" where the difference is significant at 0.05, else None."""
        if self.p_value >= 0.05 or self.delta == 0.0:
            return None
        return "second" if (self.delta > 0) == self.higher_is_better else "first"

    def __str__(self) -> str:
        return (
            f"{self.label} {self.first:.2f} → {self.second:.2f}, difference {self.delta:+.2f} "
            f"[{self.low:+.2f}, {self.high:+.2f}], p = {self.p_value:.4f}"
        )


def compare(
    names: Sequence[str],
    first: Sequence[str],
    second: Sequence[str],
    references: Sequence[Sequence[str]],
    *,
    source_language: str | None = None,
    target_language: str | None = None,
    samples: int = 10_000,
    seed: int = SEED,
) -> list[Comparison]:
    """Compare two systems' outputs: p-value by approximate randomisation, interval by bootstrap."""
    languages = {"source_language": source_language, "target_language": target_language}
    return [
        approximate_randomization(
            measure(name, first, references, **languages),
            measure(name, second, references, **languages),
            samples=samples,
            seed=seed,
        )
        for name in names
    ]


def paired_bootstrap(
    first: Measurement, second: Measurement, *, samples: int = 1000, seed: int = SEED
) -> Comparison:
    """Test on resampled corpora: how often the difference strays as far from its mean as from 0."""
    _check_paired(first, second)
    deltas = _bootstrap_deltas(first, second, samples, seed)
    delta = second.value() - first.value()
    # As in Moses and sacreBLEU: the resampled differences, centred, stand for the null hypothesis.
    extreme = np.abs(deltas - deltas.mean()) >= abs(delta)
    return _comparison(first, second, deltas, extreme, "paired bootstrap")


def approximate_randomization(
    first: Measurement, second: Measurement, *, samples: int = 10_000, seed: int = SEED
) -> Comparison:
    """Test by exchanging outputs between the systems at random; the interval is bootstrapped."""
    _check_paired(first, second)
    delta = abs(second.value() - first.value())
    a, b = first.statistics, second.statistics
    values = first.scorer.values
    extreme = []
    for masks in swap_masks(len(a), samples, seed):
        exchanged = masks @ (b - a)
        shuffled = values(a.sum(axis=0) + exchanged) - values(b.sum(axis=0) - exchanged)
        # A tolerance, because the sums of the same numbers in another order differ in the last bit.
        extreme.append(np.abs(shuffled) >= delta - 1e-9)
    deltas = _bootstrap_deltas(first, second, min(samples, 1000), seed)
    return _comparison(first, second, deltas, np.concatenate(extreme), "approximate randomisation")


def _check_paired(first: Measurement, second: Measurement) -> None:
    if first.metric != second.metric:
        raise ValueError(f"{first.metric.name} cannot be compared with {second.metric.name}")
    if len(first.statistics) != len(second.statistics):
        raise DataError(
            f"{len(first.statistics)} outputs of the first system, {len(second.statistics)} of the "
            "second: a paired comparison needs the same examples"
        )


def _bootstrap_deltas(first: Measurement, second: Measurement, samples: int, seed: int) -> Array:
    values = first.scorer.values
    return np.concatenate(
        [
            values(weights @ second.statistics) - values(weights @ first.statistics)
            for weights in bootstrap_weights(len(first.statistics), samples, seed)
        ]
    )


def _comparison(
    first: Measurement, second: Measurement, deltas: Array, extreme: Array, method: str
) -> Comparison:
    low, high = interval(deltas)
    return Comparison(
        metric=first.metric.name,
        label=first.metric.label,
        first=first.value(),
        second=second.value(),
        delta=second.value() - first.value(),
        low=low,
        high=high,
        # The observed arrangement is one of the possible ones: it keeps p above 0.
        p_value=float((extreme.sum() + 1) / (len(extreme) + 1)),
        method=method,
        samples=len(extreme),
        n=len(first.statistics),
        higher_is_better=first.metric.higher_is_better,
    )
