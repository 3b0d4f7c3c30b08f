"""Scores by source length: where a model of sequences usually fails first."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from transduce.errors import DataError
from transduce.evaluation.metrics import SEED, Measurement, measure
from transduce.evaluation.resampling import interval


@dataclass(frozen=True, slots=True)
class LengthRow:
    """The score of the `n` examples whose source has `shortest` to `longest` of `unit`."""

    shortest: int
    longest: int
    n: int
    metric: str
    label: str
    value: float
    low: float | None
    high: float | None
    unit: str = "tokens"

    @property
    def span(self) -> str:
        same = self.shortest == self.longest
        return str(self.shortest) if same else f"{self.shortest}–{self.longest}"


def score_by_length(
    metric: str,
    hypotheses: Sequence[str],
    references: Sequence[Sequence[str]],
    source_lengths: Sequence[int],
    *,
    unit: str = "tokens",
    source_language: str | None = None,
    target_language: str | None = None,
    bootstrap: int = 1000,
    seed: int = SEED,
) -> list[LengthRow]:
    """Corpus scores of the examples of similar source length in `unit`s, shortest first."""
    measured = measure(
        metric,
        hypotheses,
        references,
        source_language=source_language,
        target_language=target_language,
    )
    return length_rows(measured, source_lengths, unit=unit, bootstrap=bootstrap, seed=seed)


def length_rows(
    measured: Measurement,
    source_lengths: Sequence[int],
    *,
    unit: str = "tokens",
    bootstrap: int = 1000,
    seed: int = SEED,
) -> list[LengthRow]:
    """The same from a measurement."""
    lengths = np.asarray(source_lengths, dtype=np.int64)
    if len(lengths) != len(measured.statistics):
        raise DataError(f"{len(lengths)} source lengths for {len(measured.statistics)} outputs")
    rows = []
    for shortest, longest in length_spans(lengths):
        inside = (lengths >= shortest) & (lengths <= longest)
        low, high = (
            interval(measured.resampled(bootstrap, seed, inside)) if bootstrap else (None, None)
        )
        rows.append(
            LengthRow(
                shortest,
                longest,
                int(inside.sum()),
                measured.metric.name,
                measured.metric.label,
                measured.value(inside),
                low,
                high,
                unit,
            )
        )
    return rows


def length_spans(
    lengths: NDArray[np.int64], *, most: int = 8, fewest: int = 10
) -> list[tuple[int, int]]:
    """Consecutive spans of lengths: at most `most` of equal width, each with `fewest` examples.

    Spans with fewer are joined to the next longer one, the last to the one before it, so that
    every example is in exactly one. A set smaller than `fewest` is one span.
    """
    top, bottom = int(lengths.max()), int(lengths.min())
    # The width follows 95 % of the examples: one very long sentence must not set it.
    usual = max(1, int(np.quantile(lengths, 0.95)) - bottom + 1)
    width = next(w for w in _round_widths() if usual <= w * most)
    spans: list[tuple[int, int]] = []
    start = bottom
    for end in range((bottom - 1) // width * width + width, top + width, width):
        if (lengths > end).sum() < fewest or len(spans) == most - 1:
            break
        if ((lengths >= start) & (lengths <= end)).sum() >= fewest:
            spans.append((start, end))
            start = end + 1
    spans.append((start, top))
    return spans


def _round_widths() -> list[int]:
    return [step * 10**power for power in range(12) for step in (1, 2, 5)]
