"""Metrics by edit distance and by exact match, for pronunciation, transduction and recognition.

Distances come from rapidfuzz, the library jiwer itself computes with, and texts are cut as jiwer
cuts them, so the rates are jiwer's. With several references the closest one counts.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from importlib.metadata import version

import numpy as np

from transduce.evaluation.sacre import Array, rates

Split = Callable[[str], list[str]]


def words(text: str) -> list[str]:
    """jiwer's words: runs of white space are one space, and spaces separate."""
    return [word for word in re.sub(r"\s\s+", " ", text).strip().split(" ") if word]


def characters(text: str) -> list[str]:
    """jiwer's characters: every code point, spaces between words included."""
    return list(text.strip())


def symbols(text: str) -> list[str]:
    """Symbols separated by white space, such as phones."""
    return text.split()


def edit_counts(hypothesis: Sequence[str], references: Sequence[Sequence[str]]) -> tuple[int, int]:
    """Fewest insertions, deletions and substitutions to a reference, and that one's length.

    Among references equally far, the longest.
    """
    from rapidfuzz.distance import Levenshtein

    found = [(Levenshtein.distance(hypothesis, ref), len(ref)) for ref in references]
    return min(found, key=lambda pair: (pair[0], -pair[1]))


class _Counted:
    """What the metrics here share: their signature and the form of their counts."""

    unit: str

    def __init__(self) -> None:
        self._references: set[int] = set()

    def _note(self, references: Sequence[Sequence[str]]) -> None:
        self._references = {len(refs) for refs in references}

    def signature(self) -> str:
        many = len(self._references) != 1
        nrefs = "var" if many else str(next(iter(self._references)))
        return f"nrefs:{nrefs}|case:mixed|unit:{self.unit}|rapidfuzz:{version('rapidfuzz')}"


class ErrorRate(_Counted):
    """Insertions, deletions and substitutions per reference unit, percent."""

    def __init__(self, unit: str, split: Split) -> None:
        super().__init__()
        self.unit, self.split = unit, split

    def statistics(self, hypotheses: Sequence[str], references: Sequence[Sequence[str]]) -> Array:
        self._note(references)
        split = self.split
        counts = [
            edit_counts(split(text), [split(ref) for ref in refs])
            for text, refs in zip(hypotheses, references, strict=True)
        ]
        return np.asarray(counts, dtype=np.float64)

    def values(self, sums: Array, *, sentence: bool = False) -> Array:
        return rates(sums[:, 0], sums[:, 1])


class ExactMatch(_Counted):
    """Share of outputs equal to a reference, percent; with `errors`, of those that are not."""

    def __init__(self, unit: str, split: Split, *, errors: bool = False) -> None:
        super().__init__()
        self.unit, self.split, self.errors = unit, split, errors

    def statistics(self, hypotheses: Sequence[str], references: Sequence[Sequence[str]]) -> Array:
        self._note(references)
        split = self.split
        counts = [
            ((split(text) in [split(ref) for ref in refs]) != self.errors, 1)
            for text, refs in zip(hypotheses, references, strict=True)
        ]
        return np.asarray(counts, dtype=np.float64)

    def values(self, sums: Array, *, sentence: bool = False) -> Array:
        return rates(sums[:, 0], sums[:, 1])
