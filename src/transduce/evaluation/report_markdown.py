"""A report as Markdown (GitHub's, for its tables)."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from transduce.evaluation import errors_view, summaries_view

if TYPE_CHECKING:
    from transduce.evaluation.report import Report, ReportRow, Section


def render(report: Report) -> str:
    """The document."""
    parts = [f"# {text(report.title)}"]
    parts += [f"- {text(name)}: {text(value)}" for name, value in report.details.items()]
    parts += ["", *_scores(report)]
    if report.comparisons:
        parts += ["", "## Comparison", "", *_comparisons(report)]
    if report.summaries is not None:
        parts += ["", *summaries_view.markdown(report.scores, report.summaries)]
    if report.by_length:
        parts += ["", "## By source length", "", *_by_length(report)]
    for errors in report.errors:
        parts += ["", *errors_view.markdown(errors)]
    for section in report.sections:
        parts += ["", f"## {section.heading} outputs", *_examples(section, report.sentence_label)]
    return "\n".join(parts) + "\n"


def text(raw: str) -> str:
    """Raw text on one line, with everything escaped that Markdown or HTML would take as its own."""
    return re.sub(r"([\\`*_{}\[\]<>#|~$&!])", r"\\\1", " ".join(raw.split()))


def _scores(report: Report) -> list[str]:
    lines = ["| Metric | Score | 95 % interval | Examples | Signature |", "|---|--:|--:|--:|---|"]
    for s in report.scores:
        span = "" if s.low is None else f"{s.low:.2f} to {s.high:.2f}"
        arrow = "↑" if s.higher_is_better else "↓"
        signature = s.signature.replace("|", "\\|")  # a bar ends a cell even inside code
        lines.append(
            f"| {text(s.label)} {arrow} | {s.value:.2f} | {span} | {s.n:,} | `{signature}` |"
        )
    return lines


def _comparisons(report: Report) -> list[str]:
    head = ["| Metric | Against | Model | Difference | 95 % interval | p |"]
    return [
        *head,
        "|---|--:|--:|--:|--:|--:|",
        *(
            f"| {text(c.label)} | {c.first:.2f} | {c.second:.2f} | {c.delta:+.2f} | "
            f"{c.low:+.2f} to {c.high:+.2f} | {c.p_value:.4f} |"
            for c in report.comparisons
        ),
    ]


def _by_length(report: Report) -> list[str]:
    label, unit = text(report.by_length[0].label), report.by_length[0].unit
    lines = [f"| Source {unit} | Examples | {label} | 95 % interval |", "|---|--:|--:|--:|"]
    for row in report.by_length:
        span = "" if row.low is None else f"{row.low:.2f} to {row.high:.2f}"
        lines.append(f"| {row.span} | {row.n:,} | {row.value:.2f} | {span} |")
    return lines


def _examples(section: Section, label: str) -> list[str]:
    lines: list[str] = []
    for number, row in section.rows:
        lines += ["", *_example(number, row, label)]
    return lines


def _example(number: int, row: ReportRow, label: str) -> list[str]:
    score = "" if row.score is None else f"{label} {row.score:.1f}"
    head = ", ".join(part for part in (f"no. {number}", row.where, score) if part)
    lines = [f"**{text(head)}**", "", f"- source: {text(row.source)}"]
    lines += [f"- reference: {text(reference)}" for reference in row.references]
    return [*lines, f"- output: {text(row.hypothesis) or '(empty)'}"]
