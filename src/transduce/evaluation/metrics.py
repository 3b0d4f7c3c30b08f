"""The metrics by name, their values on a corpus, and their confidence intervals.

    scores = compute(["bleu", "chrf"], outputs, [[line] for line in references],
                     source_language="en", target_language="de")
    print(scores[0])          # BLEU 39.12 [37.94, 40.31]

A metric is computed in two stages: `measure` counts once what every sentence contributes;
scores, intervals, paired tests, scores by length and by sentence all follow from those counts.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType

import numpy as np
from numpy.typing import NDArray

from transduce.errors import DataError, UsageError
from transduce.evaluation.edits import ErrorRate, ExactMatch, characters, symbols, words
from transduce.evaluation.resampling import bootstrap_weights, interval
from transduce.evaluation.rouge import Rouge
from transduce.evaluation.sacre import Array, Bleu, ChrF, MosesBleu, Scorer, Ter

SEED = 12345  # sacreBLEU's


@dataclass(frozen=True, slots=True)
class Metric:
    """A metric: how it is called, which direction is good, and how to make its scorer.

    `needs` names the arguments of `compute` without which it falls back to a default.
    """

    name: str
    label: str
    higher_is_better: bool
    make: Callable[[str | None], Scorer]  # from the target language
    needs: tuple[str, ...] = ()


def _table(*metrics: Metric) -> Mapping[str, Metric]:
    return MappingProxyType({metric.name: metric for metric in metrics})


def _rouge(kind: str) -> Metric:
    label = f"ROUGE-{kind.removeprefix('rouge')}"
    return Metric(kind, label, True, lambda language: Rouge(kind, language), ("target_language",))


METRICS: Mapping[str, Metric] = _table(
    Metric("bleu", "BLEU", True, Bleu, ("target_language",)),
    Metric("chrf", "chrF2", True, ChrF),
    Metric("ter", "TER", False, Ter),
    Metric("moses_bleu", "BLEU (Moses, lower-cased)", True, MosesBleu, ("target_language",)),
    Metric("accuracy", "exact match %", True, lambda _: ExactMatch("output", characters)),
    Metric("wer", "WER %", False, lambda _: ErrorRate("word", words)),
    Metric("cer", "CER %", False, lambda _: ErrorRate("character", characters)),
    Metric("per", "PER %", False, lambda _: ErrorRate("phone", symbols)),
    Metric("g2p_wer", "word errors %", False, lambda _: ExactMatch("word", symbols, errors=True)),
    *(_rouge(kind) for kind in ("rouge1", "rouge2", "rougeL", "rougeLsum")),
)


@dataclass(frozen=True, slots=True)
class Score:
    """A metric's value on a corpus of `n` examples, with its 95 % bootstrap interval if asked."""

    name: str
    value: float
    signature: str
    higher_is_better: bool
    low: float | None
    high: float | None
    n: int

    @property
    def label(self) -> str:
        return METRICS[self.name].label

    def __str__(self) -> str:
        text = f"{self.label} {self.value:.2f}"
        return text if self.low is None else f"{text} [{self.low:.2f}, {self.high:.2f}]"


@dataclass(frozen=True, slots=True, eq=False)
class Measurement:
    """One metric counted on one system's outputs: `statistics` is (N, C), a row per example."""

    metric: Metric
    scorer: Scorer
    statistics: Array

    def value(self, rows: NDArray[np.bool_] | None = None) -> float:
        """The score of the corpus, or of the part of it that the mask `rows` (N,) names."""
        chosen = self.statistics if rows is None else self.statistics[rows]
        return float(self.scorer.values(chosen.sum(axis=0, keepdims=True))[0])

    def sentence_values(self) -> Array:
        """The score of each example on its own: (N,)."""
        return self.scorer.values(self.statistics, sentence=True)

    def resampled(
        self, samples: int, seed: int = SEED, rows: NDArray[np.bool_] | None = None
    ) -> Array:
        """Scores of `samples` corpora drawn with replacement: (samples,)."""
        chosen = self.statistics if rows is None else self.statistics[rows]
        draws = bootstrap_weights(len(chosen), samples, seed)
        return np.concatenate([self.scorer.values(weights @ chosen) for weights in draws])

    def score(self, bootstrap: int = 1000, seed: int = SEED) -> Score:
        """The score of the corpus with its interval from `bootstrap` resamples (0: none)."""
        low, high = interval(self.resampled(bootstrap, seed)) if bootstrap else (None, None)
        return Score(
            name=self.metric.name,
            value=self.value(),
            signature=self.scorer.signature(),
            higher_is_better=self.metric.higher_is_better,
            low=low,
            high=high,
            n=len(self.statistics),
        )


def metric(name: str) -> Metric:
    """The metric called `name`; UsageError naming the nearest if there is none."""
    if name not in METRICS:
        near = difflib.get_close_matches(name, METRICS, n=1)
        hint = f"; did you mean `{near[0]}`?" if near else ""
        raise UsageError(f"unknown metric `{name}`{hint} (known: {', '.join(METRICS)})")
    return METRICS[name]


def measure(
    name: str,
    hypotheses: Sequence[str],
    references: Sequence[Sequence[str]],
    *,
    source_language: str | None = None,
    target_language: str | None = None,
) -> Measurement:
    """Count a metric on N outputs, each with one or more references.

    DataError where numbers differ, where there is nothing, or where an example has no reference.
    """
    if len(hypotheses) != len(references):
        raise DataError(
            f"{len(hypotheses)} outputs but {len(references)} references: they must be in line"
        )
    if not len(hypotheses):
        raise DataError("nothing to evaluate: there are no outputs")
    for number, refs in enumerate(references, start=1):
        if isinstance(refs, str) or not refs:
            raise DataError(f"example {number} needs a list of references, not {refs!r}")
    chosen = metric(name)
    scorer = chosen.make(target_language)
    return Measurement(chosen, scorer, scorer.statistics(hypotheses, references))


def compute(
    names: Sequence[str],
    hypotheses: Sequence[str],
    references: Sequence[Sequence[str]],
    *,
    source_language: str | None = None,
    target_language: str | None = None,
    bootstrap: int = 1000,
    seed: int = SEED,
) -> list[Score]:
    """Scores of N outputs against their references, one per name, with 95 % intervals.

    Text is taken as it is: detokenized output against raw references (moses_bleu tokenizes
    itself). Values are in percent or, for BLEU and chrF, on the scale of 0 to 100. `bootstrap` is
    the number of resamples, 0 for no interval. Errors as in `measure`.
    """
    languages = {"source_language": source_language, "target_language": target_language}
    for name in names:
        metric(name)  # an unknown name must not cost the time of the others first
    return [
        measure(name, hypotheses, references, **languages).score(bootstrap, seed) for name in names
    ]


def better(name: str, value: float, than: float) -> bool:
    """Whether `value` is a better score than `than`; `loss` is known too, NaN is never better."""
    if np.isnan(than):
        return not np.isnan(value)
    higher = name != "loss" and metric(name).higher_is_better
    return value > than if higher else value < than


def group_by_source(
    sources: Sequence[str], targets: Sequence[str]
) -> tuple[list[str], list[list[str]]]:
    """Distinct sources in order of appearance, each with all its distinct targets.

    For dictionaries, where one word has several right answers and counts once.
    """
    grouped: dict[str, list[str]] = {}
    for source, target in zip(sources, targets, strict=True):
        answers = grouped.setdefault(source, [])
        if target not in answers:
            answers.append(target)
    return list(grouped), list(grouped.values())
