"""A source text shaded by attention, with the words marked that the output copied from it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import ArrayLike, NDArray

from transduce.errors import UsageError
from transduce.evaluation.figures.canvas import INK, ORANGE, QUIET, new_figure, save, shades
from transduce.evaluation.figures.fonts import Typesetting
from transduce.evaluation.figures.tokens import END, WORD_START, checked, labels

if TYPE_CHECKING:
    from matplotlib.figure import Figure

COPIED = 0.5  # share of a token's probability from which it counts as copied
MARGIN, WIDTH, LINE = 0.25, 8.5, 0.27  # inches; the page is as high as the text needs
SIZE = 10.5  # points
MOST = 3000  # source tokens drawn in a picture


@dataclass(frozen=True, slots=True)
class Shaded:
    """A source of S tokens and an output of T, as pieces of text that only need to be joined.

    attention: (T, S), the weights without the rows and columns of end symbols. total: (S,), their
    sum over the output as shares of the largest, 0 to 1. origins: for each of the T tokens the
    source position it was copied from, None where it was not. known: whether the model says what it
    copies; otherwise tokens count as copied that stand where the model looked most.
    """

    source: list[str]
    target: list[str]
    attention: NDArray[np.float64]
    total: NDArray[np.float64]
    origins: list[int | None]
    known: bool

    @property
    def copied(self) -> set[int]:
        """The source positions that something was copied from."""
        return {origin for origin in self.origins if origin is not None}

    @property
    def legend(self) -> str:
        how = "copied" if self.known else "in the output as well, written while looking at it"
        return f"Shade: attention, summed over the output. Underlined: {how}."


def shaded(
    attention: ArrayLike,
    source_tokens: Sequence[str],
    target_tokens: Sequence[str],
    copied: Sequence[float] | None = None,
) -> Shaded:
    """What the figure shows, from the attention (T, S) of an output with or without end symbols.

    `copied` is the share of each token's probability that came from copying, if the model copies. A
    copied token came from the place of that token in the source that was attended most. Errors:
    UsageError where sizes disagree.
    """
    weights = checked(attention)
    labels(source_tokens, weights.shape[1]), labels(target_tokens, weights.shape[0])  # their errors
    sources, targets = _without_end(source_tokens), _without_end(target_tokens)
    weights = weights[: len(targets), : len(sources)]
    if not weights.size:
        raise UsageError("nothing to draw: the output or the source has no tokens")
    if copied is not None and len(copied) != len(targets):
        raise UsageError(f"{len(targets)} target tokens, but {len(copied)} shares of copying")
    total = weights.sum(axis=0)
    names = np.asarray(sources, dtype=object)
    origins = [
        _origin(token, names, weights[t], None if copied is None else copied[t])
        for t, token in enumerate(targets)
    ]
    return Shaded(
        pieces(sources),
        pieces(targets),
        weights,
        total / max(float(total.max()), 1e-9),
        origins,
        copied is not None,
    )


def pieces(tokens: Sequence[str]) -> list[str]:
    """Tokens as parts of a text: those of words and letters get the spaces they stand for."""
    if any(token.startswith(WORD_START) for token in tokens):
        found = [token.replace(WORD_START, " ") for token in tokens]
    elif any(token.isspace() for token in tokens):  # characters
        found = list(tokens)
    else:
        found = [f" {token}" for token in tokens]
    return [found[0].lstrip(" "), *found[1:]] if found else []


def source_png(drawn: Shaded, path: str | Path) -> Path:
    """Draw it and write it to `path`; the suffix may also be .svg or .pdf."""
    return save(source_figure(drawn), path)


def source_figure(drawn: Shaded) -> Figure:
    """The output above its source, every token of which is shaded by how much it was attended."""
    source = drawn.source[:MOST]
    cut = f"{len(drawn.source) - MOST:,} more tokens are not drawn." if drawn.source[MOST:] else ""
    texts = Typesetting([*source, *drawn.target])
    figure = new_figure(WIDTH, 1.0)
    above = _lines(figure, [texts.text(piece) for piece in drawn.target], texts.families)
    below = _lines(figure, [texts.text(piece) for piece in source], texts.families)
    height = 2 * MARGIN + LINE * (len(above) + len(below) + 2)
    figure.set_size_inches(WIDTH, height)
    colours, copied = shades(), drawn.copied
    top = height - MARGIN
    for line in above:
        top -= LINE
        for place, text, left, wide in line:
            _write(figure, text, left, top, wide, texts, marked=drawn.origins[place] is not None)
    top -= LINE / 2
    for line in below:
        top -= LINE
        for place, text, left, wide in line:
            # The darkest shades would hide the text.
            shade = colours(0.55 * float(drawn.total[place])) if drawn.total[place] > 0.02 else None
            _write(figure, text, left, top, wide, texts, marked=place in copied, shade=shade)
    note = " ".join(part for part in (drawn.legend, cut, texts.note) if part)
    figure.text(MARGIN / WIDTH, MARGIN / height, note, fontsize=7, color=QUIET, parse_math=False)
    return figure


def _without_end(tokens: Sequence[str]) -> list[str]:
    return list(tokens[:-1] if tokens and tokens[-1] == END else tokens)


def _origin(
    token: str, names: NDArray[np.object_], weights: NDArray[np.float64], share: float | None
) -> int | None:
    if share is None:
        looked = int(weights.argmax())
        return looked if names[looked] == token else None
    same = names == token
    if share < COPIED or not same.any():
        return None
    return int(np.where(same, weights, -1.0).argmax())


# number of a token, its text without the space before it, left edge and width of that in inches
Placed = tuple[int, str, float, float]


def _lines(figure: Figure, texts: Sequence[str], families: list[str]) -> list[list[Placed]]:
    """Texts set in lines that break before words, or inside of what is longer than a line."""
    widths = _widths(figure, texts, families)
    right = WIDTH - MARGIN
    lines: list[list[Placed]] = [[]]
    left = MARGIN
    for place, text in enumerate(texts):
        begins = text.startswith(" ")
        needed = widths[text] + (_rest(texts, place, widths, right) if begins else 0.0)
        if lines[-1] and left + needed > right and (begins or left + widths[text] > right):
            lines.append([])
            left = MARGIN
        ink = text.lstrip(" ")
        if lines[-1]:
            left += widths[text] - widths[ink]
        lines[-1].append((place, ink, left, widths[ink]))
        left += widths[ink]
    return lines


def _rest(texts: Sequence[str], place: int, widths: dict[str, float], most: float) -> float:
    """Inches of the pieces that go on with the word at `place`; no more than `most` or so."""
    found = 0.0
    for text in islice(texts, place + 1, None):
        if text.startswith(" ") or found > most:
            break
        found += widths[text]
    return found if found <= most else 0.0


def _widths(figure: Figure, texts: Sequence[str], families: list[str]) -> dict[str, float]:
    """Inches of each distinct text."""
    found = {}
    ruler = figure.text(0, 0, "", fontsize=SIZE, fontfamily=families, parse_math=False)
    renderer = figure.canvas.get_renderer()  # type: ignore[attr-defined]
    edge = _extent(ruler, "..", renderer)
    for text in {*texts, *(text.lstrip(" ") for text in texts)}:
        # Between dots, since spaces at the ends of a text have no extent.
        found[text] = (_extent(ruler, f".{text}.", renderer) - edge) / figure.dpi
    ruler.remove()
    return found


def _extent(ruler: object, text: str, renderer: object) -> float:
    ruler.set_text(text)  # type: ignore[attr-defined]
    return float(ruler.get_window_extent(renderer).width)  # type: ignore[attr-defined]


def _write(
    figure: Figure,
    text: str,
    left: float,
    bottom: float,
    wide: float,
    texts: Typesetting,
    *,
    marked: bool,
    shade: tuple[float, float, float, float] | None = None,
) -> None:
    from matplotlib.patches import Rectangle

    width, height = figure.get_size_inches()
    x, y, w = left / width, bottom / height, wide / width
    if shade is not None:
        low = (bottom - 0.06) / height
        box = Rectangle((x, low), w, 0.22 / height, color=shade, linewidth=0, zorder=0)
        figure.add_artist(box)
    if marked:
        line = Rectangle((x, (bottom - 0.06) / height), w, 0.03 / height, color=ORANGE, linewidth=0)
        figure.add_artist(line)
    figure.text(
        x,
        y,
        text,
        fontsize=SIZE,
        fontfamily=texts.families,
        color=INK,
        parse_math=False,
    )
