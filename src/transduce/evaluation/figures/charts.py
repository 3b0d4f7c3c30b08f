"""Charts over a training and over source lengths."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from transduce.errors import UsageError
from transduce.evaluation.buckets import LengthRow
from transduce.evaluation.figures.canvas import (
    BLUE,
    FAINT,
    GREEN,
    INK,
    ORANGE,
    QUIET,
    SERIES,
    new_figure,
    plain,
    save,
)
from transduce.evaluation.metrics import METRICS

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Row = Mapping[str, Any]
Array = NDArray[np.float64]


def curves_png(rows: Sequence[Row], path: str | Path) -> Path:
    """Draw training curves and write them to `path`; the suffix may also be .svg or .pdf."""
    return save(curves_figure(rows), path)


def curves_figure(rows: Sequence[Row]) -> Figure:
    """Loss, validation scores and learning rate over updates, from the rows of metrics.jsonl.

    Rows with `scores` are validations, the others reports; a row needs `update` and `loss` (nats
    per target token), or `nll`, which is preferred. Errors: UsageError where nothing can be drawn.
    """
    validations = [row for row in rows if "update" in row and "scores" in row]
    reports = [row for row in rows if "update" in row and "scores" not in row]
    if not validations and not reports:
        raise UsageError("there are no training curves yet: metrics.jsonl has no reports")
    names = list(dict.fromkeys(name for row in validations for name in row["scores"]))
    rates = any("learning_rate" in row for row in reports)
    heights = [2.2, *[1.5] * len(names), *[0.6] * rates]
    figure, charts = _stack(heights, width=5.6)
    first = charts[0]
    _draw_loss(first, reports, validations)
    for axes, name in zip(charts[1:], names, strict=False):
        _draw_metric(axes, name, validations)
    if rates:
        _draw_rate(charts[-1], reports)
    charts[-1].set_xlabel("updates", fontsize=9, color=INK)
    charts[-1].xaxis.set_major_formatter(lambda value, _: f"{value:,.0f}")
    figure.align_ylabels(charts)
    return figure


def lengths_png(rows: Sequence[LengthRow], path: str | Path) -> Path:
    """Draw scores by source length and write them to `path`; the suffix may be .svg or .pdf."""
    return save(lengths_figure(rows), path)


def lengths_figure(rows: Sequence[LengthRow]) -> Figure:
    """Score and 95 % interval by source length, over how many examples there are of each."""
    if not rows:
        raise UsageError("there are no scores by length to draw")
    figure, (upper, lower) = _stack([2.1, 0.65], width=max(3.6, 1.2 + 0.62 * len(rows)))
    at = np.arange(len(rows))
    values = np.array([row.value for row in rows])
    upper.plot(at, values, color=BLUE, linewidth=1.4, marker="o", markersize=5, zorder=3)
    bar: dict[str, Any] = {"color": BLUE, "linewidth": 5, "alpha": 0.22, "solid_capstyle": "butt"}
    for x, row in zip(at, rows, strict=True):
        if row.low is not None and row.high is not None:
            upper.plot([x, x], [row.low, row.high], **bar)
        rises = x + 1 < len(rows) and rows[x + 1].value > row.value
        upper.annotate(
            f"{row.value:.1f}",
            (x, row.value),
            xytext=(7, -11 if rises else 5),  # on the side where the line is not
            textcoords="offset points",
            fontsize=8,
            color=INK,
        )
    counts = lower.bar(at, [row.n for row in rows], width=0.62, color="#c9cfdf")
    lower.bar_label(counts, fmt="{:,.0f}", fontsize=7.5, color=QUIET, padding=1.5)
    upper.set_ylabel(rows[0].label, fontsize=9, color=INK)
    lower.set_ylabel("examples", fontsize=9, color=INK)
    lower.set_xlabel(f"source {rows[0].unit}", fontsize=9, color=INK)
    for axes in (upper, lower):
        plain(axes)
    upper.margins(y=0.14)
    upper.set_xlim(-0.55, len(rows) - 0.3)
    lower.margins(y=0.3)
    lower.grid(visible=False)
    lower.set_yticks([])
    lower.spines["left"].set_visible(False)
    lower.set_xticks(at, [row.span for row in rows])
    figure.align_ylabels([upper, lower])
    return figure


def _stack(heights: Sequence[float], width: float) -> tuple[Figure, list[Axes]]:
    """Charts below each other over one axis of x, of the given heights in inches."""
    left, right, above, below, between = 0.82, 0.15, 0.15, 0.52, 0.22
    total = above + sum(heights) + between * (len(heights) - 1) + below
    figure = new_figure(width, total)
    charts: list[Axes] = []
    top = total - above
    for height in heights:
        across = (width - left - right) / width
        place = (left / width, (top - height) / total, across, height / total)
        charts.append(figure.add_axes(place, sharex=charts[0] if charts else None))
        top -= height + between
    for axes in charts[:-1]:
        axes.tick_params(labelbottom=False)
    return figure, charts


def _draw_loss(axes: Axes, reports: Sequence[Row], validations: Sequence[Row]) -> None:
    plain(axes)
    # Label smoothing is in `loss` but not in `nll`, which validation can be held against.
    at, losses = _points(reports, "nll" if any("nll" in row for row in reports) else "loss")
    if len(at):
        axes.plot(at, losses, color=FAINT, linewidth=1.0)
        dots = _dots(at)
        axes.plot(
            at, smoothed(losses), dots, color=QUIET, linewidth=1.5, markersize=3.2, label="training"
        )
    valid_at, valid = _points(validations, "loss")
    if len(valid_at):
        axes.plot(valid_at, valid, color=BLUE, linewidth=1.6, marker="o", markersize=3.2)
        axes.plot([], [], color=BLUE, marker="o", markersize=3.2, label="validation")
        late = valid[len(valid) // 4 :].max()
        # A scale for both, without the first plunge.
        low = min(valid.min(), losses.min() if len(losses) else valid.min())
        high = max(np.quantile(losses, 0.97) if len(losses) else 0.0, late)
        axes.set_ylim(low - 0.06 * (high - low + 0.1), high + 0.06 * (high - low + 0.1))
    axes.set_ylabel("loss (nats per token)", fontsize=9, color=INK)
    if len(at) or len(valid_at):
        axes.legend(frameon=False, fontsize=8, labelcolor=INK, loc="upper right")


def _draw_metric(axes: Axes, name: str, validations: Sequence[Row]) -> None:
    plain(axes)
    at = np.array([row["update"] for row in validations if name in row["scores"]], dtype=np.float64)
    values = np.array(
        [_number(row["scores"][name]) for row in validations if name in row["scores"]]
    )
    known = METRICS.get(name)
    higher = known.higher_is_better if known else True
    colour = SERIES[(1 + list(METRICS).index(name)) % len(SERIES)] if known else GREEN
    axes.plot(at, values, color=colour, linewidth=1.6, marker="o", markersize=3.2)
    if np.isfinite(values).any():
        best = int(np.nanargmax(values) if higher else np.nanargmin(values))
        axes.plot(at[best], values[best], "o", markersize=8, markerfacecolor="none", color=colour)
        axes.annotate(
            f"{values[best]:.2f}",
            (at[best], values[best]),
            xytext=(0, -13 if higher else 8),
            textcoords="offset points",
            ha="center",
            fontsize=8.5,
            fontweight="bold",
            color=colour,
        )
    axes.margins(y=0.18)
    axes.set_ylabel(known.label if known else name, fontsize=9, color=INK)


def _draw_rate(axes: Axes, reports: Sequence[Row]) -> None:
    plain(axes)
    at, rates = _points(reports, "learning_rate")
    if len(at):
        axes.fill_between(at, rates, color=ORANGE, alpha=0.18, linewidth=0)
        axes.plot(at, rates, _dots(at), color=ORANGE, linewidth=1.2, markersize=3.2)
        top = max(float(rates.max()), 1e-12)
        axes.set_ylim(0, top * 1.45)
        axes.set_yticks([0, top], ["0", f"{top:.1e}".replace("e-0", "e-")])
    # Too low a chart for a label at its side.
    axes.annotate(
        "learning rate",
        (1, 1),
        xycoords="axes fraction",
        ha="right",
        va="top",
        fontsize=9,
        color=INK,
    )


def _points(rows: Sequence[Row], key: str) -> tuple[Array, Array]:
    """Updates and values of the rows whose `key` is a finite number."""
    pairs = [(row["update"], _number(row.get(key))) for row in rows]
    kept = np.array([pair for pair in pairs if math.isfinite(pair[1])], dtype=np.float64)
    return (kept[:, 0], kept[:, 1]) if len(kept) else (np.empty(0), np.empty(0))


def _dots(at: Array) -> str:
    """matplotlib's name of a line; with dots where there are too few points to see one."""
    return "-" if len(at) > 5 else "o-"


def _number(value: Any) -> float:
    return float(value) if isinstance(value, int | float) else math.nan


def smoothed(values: Array, points: int = 40) -> Array:
    """The running mean over about a `points`-th of the values, without a lag at the start."""
    window = max(1, len(values) // points)
    if window == 1:
        return values
    padded = np.concatenate([[0.0], np.cumsum(values)])
    index = np.arange(len(values))
    low = np.maximum(index - window, 0)
    high = np.minimum(index + window + 1, len(values))
    return np.asarray((padded[high] - padded[low]) / (high - low), dtype=np.float64)
