"""Baselines and facts of summaries to read: as rows of text, in Markdown, and in HTML."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

from transduce.evaluation.metrics import Score
from transduce.evaluation.summaries import Summaries
from transduce.evaluation.summary_facts import SummaryFacts

FACTS = (
    "words, on average",
    "source words for each word",
    "1-grams not in the source %",
    "2-grams not in the source %",
    "3-grams not in the source %",
    "tokens copied %",
    "texts that repeat a trigram %",
    "texts that say something three times %",
    "numbers not in the source",
    "capitalised words not in the source",
)
NOTE = (
    "Capitalised words are those inside sentences. Baselines are taken from the sources by rule: "
)


def score_rows(model: Sequence[Score], summaries: Summaries) -> tuple[list[str], list[list[str]]]:
    """Head and rows: the model, then each baseline, a column for each metric."""
    head = ["", *(score.label for score in model)]
    systems = [("model", model), *((b.name, b.scores) for b in summaries.baselines)]
    return head, [[name, *map(_cell, scores)] for name, scores in systems]


def fact_rows(summaries: Summaries) -> tuple[list[str], list[list[str]]]:
    """Head and rows: a fact, and its value for outputs and for references."""
    columns = [_column(facts) for facts in summaries.facts]
    head = ["", *(facts.name for facts in summaries.facts)]
    rows = [[name, *row] for name, *row in zip(FACTS, *columns, strict=True)]
    return head, [row for row in rows if any(row[1:])]


def rules(summaries: Summaries) -> str:
    """What each baseline is, in a sentence."""
    return NOTE + "; ".join(f"{b.name}, {b.rule}" for b in summaries.baselines) + "."


def markdown(model: Sequence[Score], summaries: Summaries) -> list[str]:
    """The section's lines."""
    lines = ["## Baselines"]
    for head, rows in (score_rows(model, summaries), fact_rows(summaries)):
        lines += ["", f"| {' | '.join(head)} |", "|---" + "|--:" * (len(head) - 1) + "|"]
        lines += [f"| {' | '.join(row)} |" for row in rows]
    return [*lines, "", rules(summaries)]


def html(model: Sequence[Score], summaries: Summaries) -> str:
    """The section's markup."""
    parts = ["<h2>Baselines</h2>"]
    for head, rows in (score_rows(model, summaries), fact_rows(summaries)):
        cells = "".join(f'<th class="n">{escape(name)}</th>' for name in head[1:])
        body = "".join(_row(row) for row in rows)
        parts.append(f"<table><tr><th>{escape(head[0])}</th>{cells}</tr>{body}</table><p></p>")
    parts.append(f'<p class="quiet">{escape(rules(summaries))}</p>')
    return "\n".join(parts)


def _row(row: Sequence[str]) -> str:
    numbers = "".join(f'<td class="n">{escape(cell)}</td>' for cell in row[1:])
    return f"<tr><td>{escape(row[0])}</td>{numbers}</tr>"


def _cell(score: Score) -> str:
    if score.low is None or score.high is None:
        return f"{score.value:.2f}"
    return f"{score.value:.2f} ({score.low:.2f} to {score.high:.2f})"


def _column(facts: SummaryFacts) -> list[str]:
    return [
        f"{facts.words:.1f}",
        _share(facts.compression),
        *map(_share, facts.novel),
        _share(facts.copied),
        _share(facts.repeating),
        _share(facts.thrice),
        f"{facts.invented_numbers:,} of {facts.numbers:,}",
        f"{facts.invented_names:,} of {facts.names:,}",
    ]


def _share(value: float | None) -> str:
    return "" if value is None else f"{value:.1f}"
