"""A report as one HTML page: styles and figure inside, every text escaped."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from difflib import SequenceMatcher
from html import escape
from typing import TYPE_CHECKING

from transduce.evaluation import errors_view, summaries_view

if TYPE_CHECKING:
    from transduce.evaluation.report import Report, ReportRow, Section

STYLE = """
:root { color-scheme: light dark; --ink: #1f2340; --quiet: #6a7088; --line: #e2e5ee; --page: #fff;
  --miss: #fbe3d6; --part: #eef1f8; }
@media (prefers-color-scheme: dark) { :root { --ink: #e4e6f0; --quiet: #9aa0b8; --line: #343849;
  --page: #171923; --miss: #5a3421; --part: #222635; } }
body { font: 16px/1.5 system-ui, sans-serif; color: var(--ink); background: var(--page);
  max-width: 60rem; margin: 2.5rem auto; padding: 0 1.2rem; }
h1 { font-size: 1.5rem; } h2 { font-size: 1.15rem; margin: 2.4rem 0 .6rem; }
table { border-collapse: collapse; } th { text-align: left; font-weight: 600; }
th, td { padding: .3rem 1.1rem .3rem 0; border-bottom: 1px solid var(--line); vertical-align: top; }
td.n, th.n { text-align: right; font-variant-numeric: tabular-nums; }
code, .quiet { color: var(--quiet); font-size: .85rem; } code { overflow-wrap: anywhere; }
.example { border-top: 1px solid var(--line); padding: .7rem 0; display: grid;
  grid-template-columns: 6.5rem 1fr; gap: .15rem 1rem; overflow-wrap: anywhere; }
.example > span { color: var(--quiet); font-size: .85rem; padding-top: .1rem; }
mark { background: var(--miss); color: inherit; border-radius: 3px; padding: 0 .1em; }
img { max-width: 100%; background: #fff; border-radius: 6px; }
"""


def render(report: Report) -> str:
    """The page."""
    extra = errors_view.STYLE if report.errors else ""
    parts = [
        "<!DOCTYPE html>",
        '<html lang="en"><head><meta charset="utf-8">',
        '<meta name="viewport" content="width=device-width, initial-scale=1">',
        f"<title>{escape(report.title)}</title><style>{STYLE}{extra}</style></head><body>",
        f"<h1>{escape(report.title)}</h1>",
        *(f'<p class="quiet">{escape(k)}: {escape(v)}</p>' for k, v in report.details.items()),
        _scores(report),
        _comparisons(report),
        summaries_view.html(report.scores, report.summaries) if report.summaries else "",
        _by_length(report),
        *(errors_view.html(errors) for errors in report.errors),
        *(_section(section, report.sentence_label) for section in report.sections),
        "</body></html>\n",
    ]
    return "\n".join(part for part in parts if part)


def _scores(report: Report) -> str:
    rows = []
    for score in report.scores:
        direction = "higher" if score.higher_is_better else "lower"
        interval = "" if score.low is None else f"{score.low:.2f} to {score.high:.2f}"
        rows.append(
            f'<tr><td title="{direction} is better">{escape(score.label)} '
            f"{'↑' if score.higher_is_better else '↓'}</td>"
            f'<td class="n"><b>{score.value:.2f}</b></td><td class="n">{interval}</td>'
            f'<td class="n">{score.n:,}</td><td><code>{escape(score.signature)}</code></td></tr>'
        )
    head = (
        '<tr><th>Metric</th><th class="n">Score</th><th class="n">95 % interval</th>'
        '<th class="n">Examples</th><th>Signature</th></tr>'
    )
    return f"<table>{head}{''.join(rows)}</table>"


def _comparisons(report: Report) -> str:
    if not report.comparisons:
        return ""
    rows = "".join(
        f'<tr><td>{escape(c.label)}</td><td class="n">{c.first:.2f}</td>'
        f'<td class="n">{c.second:.2f}</td><td class="n"><b>{c.delta:+.2f}</b></td>'
        f'<td class="n">{c.low:+.2f} to {c.high:+.2f}</td><td class="n">{c.p_value:.4f}</td></tr>'
        for c in report.comparisons
    )
    head = (
        '<tr><th>Metric</th><th class="n">Against</th><th class="n">Model</th>'
        '<th class="n">Difference</th><th class="n">95 % interval</th><th class="n">p</th></tr>'
    )
    how = escape(report.comparisons[0].method)
    return f'<h2>Comparison</h2><p class="quiet">Paired; {how}.</p><table>{head}{rows}</table>'


def _by_length(report: Report) -> str:
    if not report.by_length:
        return ""
    from transduce.evaluation.figures.canvas import rendered
    from transduce.evaluation.figures.charts import lengths_figure

    picture = base64.b64encode(rendered(lengths_figure(report.by_length))).decode()
    alt = "; ".join(f"{row.span} {row.unit}: {row.value:.1f}" for row in report.by_length)
    return (
        "<h2>By source length</h2>"
        f'<img width="620" alt="{escape(alt)}" src="data:image/png;base64,{picture}">'
    )


def _section(section: Section, label: str) -> str:
    body = "\n".join(_example(number, row, label) for number, row in section.rows)
    marked = '<p class="quiet">Marked: what no reference has in that place.</p>'
    return f"<h2>{escape(section.heading)} outputs</h2>{marked}\n{body}"


def _example(number: int, row: ReportRow, label: str) -> str:
    score = "" if row.score is None else f"{label} {row.score:.1f}"
    head = " · ".join(part for part in (f"no. {number}", row.where, score) if part)
    lines = [f"<span></span><span>{escape(head)}</span>", _line("source", escape(row.source))]
    lines += [_line("reference", escape(reference)) for reference in row.references]
    lines.append(_line("output", marked(row.hypothesis, row.references)))
    return f'<div class="example">{"".join(lines)}</div>'


def _line(name: str, markup: str) -> str:
    # dir="auto": Arabic and Hebrew run from the right, each line by itself.
    return f'<span>{name}</span><div dir="auto">{markup or "<i>(empty)</i>"}</div>'


def marked(hypothesis: str, references: Sequence[str]) -> str:
    """The output as HTML, with the words marked that its nearest reference does not have there."""
    refs = [reference.split() for reference in references]
    words = hypothesis.split()
    if len(words) > 1000 or not refs:
        return escape(hypothesis)
    matchers = [SequenceMatcher(None, words, ref, autojunk=False) for ref in refs]
    nearest = max(matchers, key=lambda matcher: matcher.ratio())
    pieces = []
    for kind, start, end, _, _ in nearest.get_opcodes():
        text = escape(" ".join(words[start:end]))
        if text:
            pieces.append(text if kind == "equal" else f"<mark>{text}</mark>")
    return " ".join(pieces)
