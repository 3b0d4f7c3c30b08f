"""Errors of recognition to read: as text for terminals, in Markdown, and in HTML."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from html import escape

from transduce.evaluation.alignment import Counts, Edit
from transduce.evaluation.figures.tokens import columns_of
from transduce.evaluation.recognition import Aligned, Errors, Row

HEAD = ("", "utterances", "wrong", "units", "sub", "del", "ins", "rate %", "95 % interval")
MARKS = {"equal": "", "substitute": "S", "delete": "D", "insert": "I"}
_NOTHING = "*"  # stands, as often as the unit has columns, where one side has no unit

STYLE = """
.aligned { display: flex; flex-wrap: wrap; gap: .3rem .5rem; }
.aligned.close { gap: .3rem .1rem; }
.aligned > span { display: inline-grid; text-align: center; padding: 0 .15em; border-radius: 3px;
  white-space: pre; }
.aligned > .substitute { background: var(--miss); } .aligned > .delete { background: var(--gone); }
.aligned > .insert { background: var(--extra); }
:root { --gone: #f6d5dc; --extra: #dfe9d8; }
@media (prefers-color-scheme: dark) { :root { --gone: #59263a; --extra: #2b4429; } }
"""


def cells(errors: Errors) -> list[list[str]]:
    """The rows under HEAD: all utterances, then each speaker."""
    return [_cells(row) for row in (errors.total, *errors.speakers)]


def _cells(row: Row) -> list[str]:
    c = row.counts
    span = "" if row.low is None else f"{row.low:.2f} to {row.high:.2f}"
    numbers = (row.n, row.wrong, c.length, c.substitutions, c.deletions, c.insertions)
    return [row.name, *(f"{number:,}" for number in numbers), f"{row.rate:.2f}", span]


def confusion_lines(errors: Errors, most: int) -> list[str]:
    """The commonest edits, such as `5 × FIVE → NINE`, `3 × OF → (nothing)`."""
    shown = errors.confusions[:most]
    return [f"{c.times} × {_unit(c.reference)} → {_unit(c.output)}" for c in shown]


def heading(one: Aligned) -> str:
    """What stands above an alignment: number, name, speaker, and its errors."""
    parts = [f"no. {one.number}", one.where, one.speaker or "", tally(one.counts)]
    return ", ".join(part for part in parts if part)


def tally(counts: Counts) -> str:
    """Such as `2 of 7 wrong: 1 substituted, 1 inserted`."""
    kinds = {
        "substituted": counts.substitutions,
        "deleted": counts.deletions,
        "inserted": counts.insertions,
    }
    found = ", ".join(f"{number} {kind}" for kind, number in kinds.items() if number)
    return f"{counts.edits} of {counts.length} wrong" + (f": {found}" if found else "")


# ----------------------------------------------------------------------------------- text


def aligned_text(columns: Sequence[Edit], unit: str, *, width: int = 100) -> str:
    """Reference over output over marks (S, D, I), units in columns, folded at `width` columns.

    `unit` is that of `Errors`: characters stand side by side, others apart.
    """
    gap = _gap(unit)
    blocks: list[str] = []
    for part in _folded(columns, max(8, width - 5), gap):
        lines = ["REF: ", "OUT: ", "     "]
        for column in part:
            wide = _width(column)
            texts = (_side(column.reference, wide), _side(column.output, wide), MARKS[column.kind])
            for k, text in enumerate(texts):
                lines[k] += text + " " * (wide - columns_of(text) + gap)
        blocks += [line.rstrip() for line in lines if line.strip()]
    return "\n".join(blocks)


def _gap(unit: str) -> int:
    """Columns between two units: none between characters, one between words or phones."""
    return 0 if unit == "character" else 1


def _folded(columns: Sequence[Edit], width: int, gap: int) -> Iterator[list[Edit]]:
    part: list[Edit] = []
    used = 0
    for column in columns:
        wide = _width(column) + gap
        if part and used + wide > width:
            yield part
            part, used = [], 0
        part.append(column)
        used += wide
    yield part


def _width(column: Edit) -> int:
    return max(1, *(columns_of(_clean(text)) for text in (column.reference, column.output) if text))


def _side(text: str | None, width: int) -> str:
    return _NOTHING * width if text is None else _clean(text)


def _clean(text: str) -> str:
    """A unit as one printable word: spaces visible, control characters replaced."""
    shown = text.replace(" ", "␣")
    return "".join(c if c.isprintable() else "�" for c in shown)


def _unit(text: str | None) -> str:
    return "(nothing)" if text is None else _clean(text)


# ------------------------------------------------------------------------- Markdown and HTML


def markdown(errors: Errors, *, most: int = 10) -> list[str]:
    """Lines of a section: a table by speaker, the commonest errors, the worst outputs."""
    from transduce.evaluation.report_markdown import text

    lines = [f"## Errors by {errors.unit}", "", "| " + " | ".join(HEAD) + " |"]
    lines.append("|---|" + "--:|" * (len(HEAD) - 1))
    lines += ["| " + " | ".join(text(cell) for cell in row) + " |" for row in cells(errors)]
    if errors.confusions:
        lines += ["", "Most frequent:", ""]
        lines += [f"- {text(line)}" for line in confusion_lines(errors, most)]
    for one in errors.worst(most):
        # An indented block is code, in which nothing needs to be escaped.
        block = aligned_text(one.columns, errors.unit).splitlines()
        lines += ["", f"**{text(heading(one))}**", "", *(f"    {line}" for line in block)]
    return lines


def html(errors: Errors, *, most: int = 10) -> str:
    """The same section as HTML; its styles are STYLE."""
    head = "".join(f"<th{_right(k)}>{escape(name)}</th>" for k, name in enumerate(HEAD))
    rows = "".join(
        "<tr>" + "".join(f"<td{_right(k)}>{escape(c)}</td>" for k, c in enumerate(row)) + "</tr>"
        for row in cells(errors)
    )
    parts = [f"<h2>Errors by {escape(errors.unit)}</h2><table><tr>{head}</tr>{rows}</table>"]
    if errors.confusions:
        items = "".join(f"<li>{escape(line)}</li>" for line in confusion_lines(errors, most))
        parts.append(f'<p class="quiet">Most frequent:</p><ul>{items}</ul>')
    parts += [_aligned_html(one, errors.unit) for one in errors.worst(most)]
    return "\n".join(parts)


def _right(column: int) -> str:
    return ' class="n"' if column else ""


def _aligned_html(one: Aligned, unit: str) -> str:
    close = "" if _gap(unit) else " close"
    units = "".join(
        f'<span class="{column.kind}"><b>{_html_unit(column.reference)}</b>'
        f"<span>{_html_unit(column.output)}</span></span>"
        for column in one.columns
    )
    return (
        f'<p class="quiet">{escape(heading(one))}</p>'
        f'<div class="aligned{close}" dir="auto">{units}</div>'
    )


def _html_unit(text: str | None) -> str:
    return "–" if text is None else escape(_clean(text))
