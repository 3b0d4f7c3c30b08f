"""The attention of one output in a terminal: shaded cells under and beside the tokens."""

from __future__ import annotations

import shutil
import unicodedata
from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray

from transduce.evaluation.figures.tokens import (
    checked,
    columns_of,
    labels,
    width_of,
    word_starts,
)

SHADES = " ░▒▓█"
# A cell's shade by its weight. The first bound is low: where attention is spread, 0.08 says much.
BOUNDS = (0.05, 0.2, 0.4, 0.7)
LEFT_TO_RIGHT = "\u200e"  # keeps a terminal from reordering cells after Arabic or Hebrew
JOINED = "·"
WIDEST = 14  # columns of a token's label; longer ones are cut


def attention_text(
    attention: ArrayLike,
    source_tokens: Sequence[str],
    target_tokens: Sequence[str],
    width: int | None = None,
) -> str:
    """The attention weights (T, S) as lines of text, sources across and targets down.

    Never wider than `width` columns (default: the terminal's), as far as tokens allow; source
    tokens that do not fit side by side are written downwards, and a source longer than that
    continues in another block. A dot begins a piece that belongs to the word before it.
    Wide (East Asian) and combining characters keep their columns. UsageError where sizes disagree.
    """
    weights = checked(attention)
    target, source = weights.shape
    columns = _names(source_tokens, source)
    rows = _names(target_tokens, target)
    room = width or shutil.get_terminal_size((80, 24)).columns
    margin = max(map(columns_of, rows))
    wide = [max(3, columns_of(text)) for text in columns]
    upright = margin + sum(wide) + source > room
    if upright:
        wide = [2] * source
    lines: list[str] = []
    for first, last in _blocks(wide, room - margin):
        if lines:
            lines.append("")
        header = _downwards if upright else _across
        lines += [" " * margin + line for line in header(columns[first:last], wide[first:last])]
        lines += [
            _padded(text, margin, right=True) + _cells(row[first:last], wide[first:last])
            for text, row in zip(rows, weights, strict=True)
        ]
    key = "  ".join(f"{shade} {bound:.2f}" for shade, bound in zip(SHADES[1:], BOUNDS, strict=True))
    lines += ["", " " * margin + " " + key + " and more"]
    return "\n".join(line.rstrip() for line in lines)


def _names(tokens: Sequence[str], size: int) -> list[str]:
    """Labels of one side; a piece that goes on with the word before it begins with a dot."""
    starts = word_starts(tokens, size)
    return [
        cut(text if start or not any(map(str.isalnum, text)) else JOINED + text)
        for text, start in zip(labels(tokens, size), starts, strict=True)
    ]


def cut(text: str, widest: int = WIDEST) -> str:
    """`text`, shortened with an ellipsis to at most `widest` columns."""
    if columns_of(text) <= widest:
        return text
    kept, used = "", 0
    for character in text:
        used += width_of(character)
        if used > widest - 1:
            break
        kept += character
    return kept + "…"


def _clusters(text: str) -> list[str]:
    """The characters of `text`, each with the combining marks that follow it."""
    found: list[str] = []
    for character in text:
        if found and width_of(character) == 0:
            found[-1] += character
        else:
            found.append(character)
    return found


def _padded(text: str, size: int, *, right: bool = False) -> str:
    space = " " * (size - columns_of(text))
    marked = text + LEFT_TO_RIGHT if _right_to_left(text) else text
    return space + marked if right else marked + space


def _right_to_left(text: str) -> bool:
    return any(unicodedata.bidirectional(character) in ("R", "AL") for character in text)


def _blocks(wide: Sequence[int], room: int) -> list[tuple[int, int]]:
    """Runs of columns that fit into `room`, each column with a space before it."""
    blocks, first, used = [], 0, 0
    for index, size in enumerate(wide):
        if used + size + 1 > room and index > first:
            blocks.append((first, index))
            first, used = index, 0
        used += size + 1
    return [*blocks, (first, len(wide))]


def _across(texts: Sequence[str], wide: Sequence[int]) -> list[str]:
    return ["".join(" " + _centred(text, size) for text, size in zip(texts, wide, strict=True))]


def _centred(text: str, size: int) -> str:
    before = (size - columns_of(text)) // 2
    return " " * before + _padded(text, size - before)


def _downwards(texts: Sequence[str], wide: Sequence[int]) -> list[str]:
    """Tokens written from top to bottom, ending just above their cells."""
    split = [_clusters(text) for text in texts]
    depth = max(map(len, split))
    lines = []
    for level in range(depth):
        at = [level - (depth - len(letters)) for letters in split]
        lines.append(
            "".join(
                " " + _padded(letters[i] if i >= 0 else "", size)
                for letters, i, size in zip(split, at, wide, strict=True)
            )
        )
    return lines


def _cells(row: NDArray[np.float64], wide: Sequence[int]) -> str:
    shade = np.searchsorted(BOUNDS, row, side="right")
    return "".join(" " + SHADES[s] * size for s, size in zip(shade, wide, strict=True))
