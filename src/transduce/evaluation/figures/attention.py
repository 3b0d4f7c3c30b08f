"""The attention of one output: which source positions each target token was made from."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import ArrayLike, NDArray

from transduce.errors import UsageError
from transduce.evaluation.figures.canvas import BLUE, FAINT, INK, QUIET, bare, new_figure, save
from transduce.evaluation.figures.canvas import shades as colours
from transduce.evaluation.figures.fonts import Typesetting
from transduce.evaluation.figures.tokens import END, checked, columns_of, labels, word_starts

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from matplotlib.text import Annotation, Text

GAP = 0.16  # between words, in cells
MARGIN = 0.12  # inches around everything
BAR = 0.55  # inches for probability 1
Array = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Side:
    """One side of the matrix: what is written, and where each cell begins (in cells)."""

    texts: list[str]
    starts: Array

    @property
    def centres(self) -> Array:
        return self.starts + 0.5

    @property
    def extent(self) -> float:
        return float(self.starts[-1] + 1)

    @property
    def edges(self) -> Array:
        """Beginning and end of every cell in turn; between them lie the gaps."""
        return np.stack([self.starts, self.starts + 1], axis=1).ravel()


@dataclass(frozen=True, slots=True)
class Page:
    """The size of the figure in inches."""

    width: float
    height: float

    def place(self, x: float, y: float, w: float, h: float) -> tuple[float, float, float, float]:
        """Inches from the lower left corner as the shares of the figure that matplotlib wants."""
        return x / self.width, y / self.height, w / self.width, h / self.height


def attention_png(
    attention: ArrayLike,
    source_tokens: Sequence[str],
    target_tokens: Sequence[str],
    path: str | Path,
    *,
    token_scores: Sequence[float] | None = None,
    title: str | None = None,
) -> Path:
    """Draw attention and write it to `path`; the suffix may also be .svg or .pdf."""
    figure = attention_figure(
        attention, source_tokens, target_tokens, token_scores=token_scores, title=title
    )
    return save(figure, path)


def attention_figure(
    attention: ArrayLike,
    source_tokens: Sequence[str],
    target_tokens: Sequence[str],
    *,
    token_scores: Sequence[float] | None = None,
    title: str | None = None,
) -> Figure:
    """The attention weights (T, S) of one output, sources across and targets down.

    Tokens may leave out the end symbol. Pieces of one word stand together, words apart. With
    `token_scores`, the T log-probabilities, a bar beside each row shows how sure the model was.
    After figure 3 of Bahdanau et al. 2015 (1409.0473). Errors: UsageError where sizes disagree.
    """
    weights = checked(attention)
    target, source = weights.shape
    columns = _side(source_tokens, source)
    rows = _side(target_tokens, target)
    if token_scores is not None and len(token_scores) != target:
        raise UsageError(f"{target} target positions, but {len(token_scores)} token scores")
    cell = _cell_size(source, target)
    type_ = Typesetting([*columns.texts, *rows.texts, title or ""])

    figure = new_figure(4, 4)
    axes = figure.add_axes((0, 0, 1, 1))
    _draw_cells(axes, weights, columns, rows, cell)
    across, down = _draw_labels(axes, columns, rows, cell, type_)
    heading = _heading(figure, title, type_)
    note = _note(figure, type_)

    # Measure the texts, then make the figure exactly as large as they need.
    left = max(_inches(figure, text)[0] for text in down) + 0.08
    top = max(_inches(figure, text)[1] for text in across) + 0.06
    right = max(
        _overhang(figure, across, columns, cell), 0.0 if token_scores is None else BAR + 0.12
    )
    width, height = columns.extent * cell, rows.extent * cell
    notes = [_inches(figure, text) for text in (heading, note) if text]
    foot = 0.28 + (0.16 if note else 0.0)
    head = _inches(figure, heading)[1] + 0.14 if heading else 0.0
    page = Page(
        2 * MARGIN + max(left + max(width + right, 1.7), *(wide for wide, _ in notes), 0.0),
        2 * MARGIN + head + top + height + foot,
    )
    figure.set_size_inches(page.width, page.height)
    x0, y0 = MARGIN + left, MARGIN + foot
    axes.set_position(page.place(x0, y0, width, height))
    if token_scores is not None:
        side = figure.add_axes(page.place(x0 + width + 0.1, y0, BAR, height))
        _draw_bars(side, np.exp(np.asarray(token_scores, dtype=np.float64)), rows)
    _draw_key(figure.add_axes(page.place(x0, y0 - 0.17, 0.9, 0.07)), _ceiling(weights))
    if heading:
        heading.set_position((MARGIN / page.width, 1 - MARGIN / page.height))
    if note:
        note.set_position((MARGIN / page.width, MARGIN / page.height))
    return figure


def _side(tokens: Sequence[str], size: int) -> Side:
    texts = labels(tokens, size)
    words = word_starts(tokens, size)
    # Where every token is a word there is nothing to hold together, and no gaps.
    gaps = np.zeros(size) if all(words) else GAP * np.cumsum([0, *words[1:]])
    return Side(texts, np.arange(size) + gaps)


def _cell_size(source: int, target: int) -> float:
    """Inches: comfortable for a sentence, smaller for long ones, bounded for the picture's sake."""
    most = max(source, target)
    return float(min(np.clip(9.5 / most, 0.15, 0.42), 80 / most))


def _ceiling(weights: Array) -> float:
    """The weight drawn darkest: the largest, so that diffuse attention can be seen as well."""
    return float(max(weights.max(), 1e-6))


def _draw_cells(axes: Axes, weights: Array, columns: Side, rows: Side, cell: float) -> None:
    target, source = weights.shape
    # Gaps between words are cells too, without a value: masked ones stay white.
    spaced = np.full((2 * target - 1, 2 * source - 1), np.nan)
    spaced[::2, ::2] = weights
    ceiling = _ceiling(weights)
    axes.pcolormesh(
        columns.edges,
        rows.edges,
        np.ma.masked_invalid(spaced),
        cmap=colours(),
        vmin=0.0,
        vmax=ceiling,
        edgecolors="none",
    )
    line = min(1.2, cell * 3)
    for at in columns.edges:
        axes.axvline(at, color="white", linewidth=line)
    for at in rows.edges:
        axes.axhline(at, color="white", linewidth=line)
    if cell >= 0.3:
        _write_weights(axes, weights, columns, rows, cell)
    axes.set_xlim(0, columns.extent)
    axes.set_ylim(rows.extent, 0)
    bare(axes)


def _write_weights(axes: Axes, weights: Array, columns: Side, rows: Side, cell: float) -> None:
    """Percentages in the cells that matter, where they fit."""
    ceiling = _ceiling(weights)
    for t, s in np.argwhere(weights >= 0.095):
        axes.text(
            columns.centres[s],
            rows.centres[t],
            f"{100 * weights[t, s]:.0f}",
            ha="center",
            va="center_baseline",
            fontsize=cell * 17,
            color="white" if weights[t, s] > 0.45 * ceiling else INK,
        )


def _draw_labels(
    axes: Axes, columns: Side, rows: Side, cell: float, type_: Typesetting
) -> tuple[list[Annotation], list[Annotation]]:
    """Tokens above and to the left; returned, to be measured."""
    size = float(np.clip(cell * 72 * 0.42, 4.0, 11.5))
    axes.set_xticks([])
    axes.set_yticks([])
    # When more tokens than can be read, every few are named.
    step = int(np.ceil(size * 1.1 / (cell * 72)))
    short = all(columns_of(text) <= 3 for text in columns.texts if text != END)
    above = [
        axes.annotate(
            type_.text(text),
            (centre - (0 if short else 0.12), 0),
            xytext=(0, 4),
            textcoords="offset points",
            ha="center" if short else "left",
            va="bottom",
            rotation=0 if short else 45,
            rotation_mode="anchor",
        )
        for text, centre in list(zip(columns.texts, columns.centres, strict=True))[::step]
    ]
    beside = [
        axes.annotate(
            type_.text(text),
            (0, centre),
            xytext=(-5, 0),
            textcoords="offset points",
            ha="right",
            va="center_baseline",
        )
        for text, centre in list(zip(rows.texts, rows.centres, strict=True))[::step]
    ]
    for text in above + beside:
        text.set(
            fontfamily=type_.families,
            fontsize=0.85 * size if text.get_text() == END else size,
            color=QUIET if text.get_text() == END else INK,
            parse_math=False,  # a dollar sign is a token like any other
        )
    return above, beside


def _draw_bars(axes: Axes, probabilities: Array, rows: Side) -> None:
    axes.barh(rows.centres, np.ones(len(probabilities)), height=0.34, color=FAINT)
    axes.barh(rows.centres, probabilities, height=0.34, color=BLUE)
    axes.set_xlim(0, 1)
    axes.set_ylim(rows.extent, 0)
    axes.set_xticks([])
    axes.set_yticks([])
    bare(axes)
    axes.annotate(
        "probability",
        (0.5, rows.extent),
        xytext=(0, -5),
        textcoords="offset points",
        ha="center",
        va="top",
        fontsize=6.5,
        color=QUIET,
        annotation_clip=False,
    )


def _draw_key(axes: Axes, ceiling: float) -> None:
    axes.imshow(np.linspace(0, 1, 256)[None, :], aspect="auto", cmap=colours())
    axes.set_xticks([])
    axes.set_yticks([])
    bare(axes)
    for x, text, side in ((-0.03, "0", "right"), (1.03, f"{ceiling:.2f} weight", "left")):
        axes.text(
            x,
            0.45,
            text,
            transform=axes.transAxes,
            ha=side,
            va="center",
            fontsize=6.5,
            color=QUIET,
        )


def _heading(figure: Figure, title: str | None, type_: Typesetting) -> Text | None:
    if not title:
        return None
    return figure.text(
        0,
        1,
        type_.text(title),
        fontfamily=type_.families,
        fontsize=11,
        color=INK,
        va="top",
        parse_math=False,
    )


def _note(figure: Figure, type_: Typesetting) -> Text | None:
    if type_.note is None:
        return None
    return figure.text(0, 0, type_.note, fontsize=6, color=QUIET, va="bottom", parse_math=False)


def _inches(figure: Figure, text: Text) -> tuple[float, float]:
    box = text.get_window_extent(figure.canvas.get_renderer())  # type: ignore[attr-defined]
    return box.width / figure.dpi, box.height / figure.dpi


def _overhang(figure: Figure, across: list[Annotation], columns: Side, cell: float) -> float:
    """How far slanted labels reach beyond the last column, inches."""
    ends = [text.xy[0] * cell + _inches(figure, text)[0] for text in across if text.get_rotation()]
    return max([0.0, *(end - columns.extent * cell for end in ends)])
