"""A report of one evaluation, for people: scores, scores by length, and outputs to read.

The best, the worst and some random outputs stand beside source and reference; the random ones
are there because the others mislead. One file, HTML or Markdown, that needs nothing else.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from transduce.disk import atomic_bytes
from transduce.errors import UsageError
from transduce.evaluation import report_html, report_markdown
from transduce.evaluation.buckets import LengthRow
from transduce.evaluation.metrics import Score, measure
from transduce.evaluation.recognition import Errors
from transduce.evaluation.significance import Comparison
from transduce.evaluation.summaries import Summaries


@dataclass(frozen=True, slots=True)
class ReportRow:
    """One example: source, its references, the output, and the output's own score.

    Without a `score`, the first metric of the report gives it. `where` is shown if given, such as
    `test.en:12`.
    """

    source: str
    references: Sequence[str]
    hypothesis: str
    score: float | None = None
    where: str = ""


@dataclass(frozen=True, slots=True)
class Section:
    """Some of the rows, under a heading, with their numbers (from 1)."""

    heading: str
    rows: list[tuple[int, ReportRow]]


@dataclass(frozen=True, slots=True)
class Report:
    """All that a report says, before it is written in some form."""

    title: str
    scores: Sequence[Score]
    sections: Sequence[Section]
    by_length: Sequence[LengthRow]
    comparisons: Sequence[Comparison]
    details: Mapping[str, str]
    sentence_label: str
    errors: Sequence[Errors] = ()
    summaries: Summaries | None = None


def write_report(
    path: str | Path,
    title: str,
    scores: Sequence[Score],
    rows: Sequence[ReportRow],
    *,
    seed: int = 1,
    examples: int = 10,
    by_length: Sequence[LengthRow] = (),
    comparisons: Sequence[Comparison] = (),
    details: Mapping[str, str] | None = None,
    errors: Sequence[Errors] = (),
    summaries: Summaries | None = None,
    target_language: str | None = None,
) -> Path:
    """Write a report as .html or .md, whichever the suffix of `path` says.

    `examples` is how many best, worst and random rows to show; `seed` chooses the random ones;
    `details` are further facts for the head (data, model, command), `errors` those of recognition
    aligned with their references, `summaries` baselines and facts of summaries. Errors: UsageError
    for another suffix or without scores.
    """
    path = Path(path)
    if path.suffix.lower() not in (".html", ".md"):
        raise UsageError(f"{path}: a report is written as .html or .md")
    if not scores:
        raise UsageError("a report needs at least one score")
    rated = _rated(rows, scores[0], target_language)
    report = Report(
        title=title,
        scores=scores,
        sections=choose(rated, scores[0].higher_is_better, examples, seed),
        by_length=by_length,
        comparisons=comparisons,
        details=details or {},
        sentence_label=scores[0].label,
        errors=errors,
        summaries=summaries,
    )
    form = report_html if path.suffix.lower() == ".html" else report_markdown
    atomic_bytes(path, form.render(report).encode("utf-8", errors="replace"))
    return path


def choose(
    rows: Sequence[ReportRow], higher_is_better: bool, examples: int, seed: int
) -> list[Section]:
    """The best, the worst and random rows; of equally good ones the longer, which say more.

    No row appears among both the best and the worst.
    """

    def best_first(k: int) -> tuple[float, int]:
        value = rows[k].score or 0.0
        return (-value if higher_is_better else value), -len(rows[k].source)

    def worst_first(k: int) -> tuple[float, int]:
        goodness, length = best_first(k)
        return -goodness, length

    order = sorted(range(len(rows)), key=best_first)
    count = min(examples, len(rows) // 2) or len(rows)
    worst = sorted(order[count:], key=worst_first)
    drawn = np.random.default_rng(seed).permutation(len(rows))[:examples]
    chosen = {"Random": sorted(drawn.tolist()), "Worst": worst[:count], "Best": order[:count]}
    return [
        Section(heading, [(k + 1, rows[k]) for k in numbers])
        for heading, numbers in chosen.items()
        if numbers
    ]


def _rated(rows: Sequence[ReportRow], score: Score, target_language: str | None) -> list[ReportRow]:
    if not rows or all(row.score is not None for row in rows):
        return list(rows)
    measured = measure(
        score.name,
        [row.hypothesis for row in rows],
        [list(row.references) for row in rows],
        target_language=target_language,
    )
    values = measured.sentence_values().tolist()
    return [
        row if row.score is not None else replace(row, score=value)
        for row, value in zip(rows, values, strict=True)
    ]
