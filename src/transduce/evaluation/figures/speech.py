"""One utterance over time: its spectrogram, where the decoder looked, where CTC says its tokens."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import ArrayLike, NDArray

from transduce.errors import UsageError
from transduce.evaluation.figures.canvas import (
    FAINT,
    INK,
    QUIET,
    SERIES,
    bare,
    new_figure,
    save,
)
from transduce.evaluation.figures.canvas import shades as colours
from transduce.evaluation.figures.fonts import Typesetting
from transduce.evaluation.figures.tokens import checked, labels

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Array = NDArray[np.float64]

SPIKE = 0.1  # probability from which a label of CTC is drawn
BAND = (20.0, 8000.0)  # Hz: Kaldi's lowest filter, and half of 16 kHz
TICKS = (250, 500, 1000, 2000, 4000)  # Hz
# Inches.
LEFT, RIGHT, TOP, BOTTOM, GAP = 0.75, 0.2, 0.12, 0.42, 0.16
SOUND, SPIKES = 1.2, 0.9


@dataclass(frozen=True, slots=True)
class Spikes:
    """What CTC says at each of its positions: log-probabilities (S, V), the blank is label 0.

    `names` are the V labels as they are to be written.
    """

    log_probs: ArrayLike
    names: Sequence[str]


def speech_png(
    frames: ArrayLike,
    seconds: float,
    path: str | Path,
    *,
    tokens: Sequence[str] = (),
    attention: ArrayLike | None = None,
    ctc: Spikes | None = None,
    band: tuple[float, float] = BAND,
    title: str | None = None,
) -> Path:
    """Draw an utterance and write it to `path`; the suffix may also be .svg or .pdf."""
    figure = speech_figure(
        frames, seconds, tokens=tokens, attention=attention, ctc=ctc, band=band, title=title
    )
    return save(figure, path)


def speech_figure(
    frames: ArrayLike,
    seconds: float,
    *,
    tokens: Sequence[str] = (),
    attention: ArrayLike | None = None,
    ctc: Spikes | None = None,
    band: tuple[float, float] = BAND,
    title: str | None = None,
) -> Figure:
    """Log-mel frames (S, F) over time, and below them attention and CTC where there are any.

    `attention` is (T, S') over the memory's positions, which share the `seconds` evenly; `tokens`
    label its rows and may leave out the end symbol. `band` is the range in Hz of the F mel bins.
    Errors: UsageError where shapes disagree or a number is not finite.
    """
    sound = checked(frames)
    if not seconds > 0:
        raise UsageError(f"an utterance of {seconds:g} s cannot be drawn")
    weights = None if attention is None else checked(attention)
    rows = [] if weights is None else labels(tokens, len(weights))
    curves = None if ctc is None else _curves(ctc)
    spiking = {} if ctc is None or curves is None else _spiking(curves, ctc.names)
    type_ = Typesetting([*rows, *spiking.values(), title or ""])

    row = float(np.clip(4.0 / max(1, len(rows)), 0.09, 0.2))
    heights = [SOUND, *([] if weights is None else [row * len(rows)])]
    heights += [] if curves is None else [SPIKES]
    head = TOP + (0.28 if title else 0.0)
    width = LEFT + float(np.clip(1.6 * seconds, 4.5, 16.0)) + RIGHT
    height = head + sum(heights) + GAP * (len(heights) - 1) + BOTTOM
    figure = new_figure(width, height)
    panels = _panels(figure, heights, head)
    _draw_sound(panels[0], sound, seconds, band)
    if weights is not None:
        _draw_attention(panels[1], weights, rows, seconds, type_, row)
    if curves is not None:
        _draw_spikes(panels[-1], curves, spiking, seconds, type_)
    panels[-1].tick_params(labelbottom=True, length=3, color=QUIET)
    panels[-1].set_xlabel("seconds", fontsize=8, color=QUIET)
    if title:
        _write(figure, LEFT / width, 1 - TOP / height, title, type_)
    if type_.note is not None:
        figure.text(0.01, 0.005, type_.note, fontsize=6, color=QUIET, parse_math=False)
    return figure


def _panels(figure: Figure, heights: Sequence[float], head: float) -> list[Axes]:
    """Axes below each other that share their time."""
    width, height = figure.get_size_inches()
    panels: list[Axes] = []
    top = height - head
    for tall in heights:
        place = (LEFT / width, (top - tall) / height, (width - LEFT - RIGHT) / width, tall / height)
        axes = figure.add_axes(place, sharex=panels[0] if panels else None)
        bare(axes)
        axes.tick_params(labelbottom=False, labelsize=7)
        panels.append(axes)
        top -= tall + GAP
    return panels


def _draw_sound(axes: Axes, frames: Array, seconds: float, band: tuple[float, float]) -> None:
    # The quietest and the loudest hundredth would take the colours of everything between.
    low, high = np.quantile(frames, [0.01, 0.99])
    axes.imshow(
        frames.T,
        extent=(0.0, seconds, 0.0, frames.shape[1]),
        origin="lower",
        aspect="auto",
        cmap="magma",
        vmin=low,
        vmax=max(high, low + 1e-6),
        interpolation="nearest",
    )
    bottom, top = _mel(np.asarray(band))
    shown = [hertz for hertz in TICKS if band[0] < hertz < band[1]]
    places = (_mel(np.asarray(shown, dtype=np.float64)) - bottom) / (top - bottom)
    axes.set_yticks((places * frames.shape[1]).tolist())
    axes.set_yticklabels([f"{hertz / 1000:g}k" if hertz >= 1000 else f"{hertz}" for hertz in shown])
    _side(axes, "Hz")


def _mel(hertz: Array) -> Array:
    return np.asarray(1127.0 * np.log1p(hertz / 700.0))


def _draw_attention(
    axes: Axes,
    weights: Array,
    rows: Sequence[str],
    seconds: float,
    type_: Typesetting,
    row: float,
) -> None:
    axes.imshow(
        weights,
        extent=(0.0, seconds, len(weights), 0.0),
        aspect="auto",
        cmap=colours(),
        vmin=0.0,
        vmax=max(float(weights.max()), 1e-6),
        interpolation="nearest",
    )
    step = int(np.ceil(0.09 / row * max(1.0, len(rows) * row / 9.0)))
    axes.set_yticks([k + 0.5 for k in range(0, len(rows), step)])
    axes.set_yticklabels(
        [type_.text(text) for text in rows[::step]],
        fontfamily=type_.families,
        fontsize=float(np.clip(row * 72 * 0.55, 4.0, 8.0)),
        parse_math=False,
    )
    _side(axes, "attention")


def _curves(ctc: Spikes) -> Array:
    """(S, V) probabilities. Errors: UsageError."""
    logs = np.asarray(ctc.log_probs, dtype=np.float64)
    if logs.ndim != 2 or 0 in logs.shape or logs.shape[1] != len(ctc.names):
        raise UsageError(f"CTC to draw is (S, V) with V names, not {logs.shape}, {len(ctc.names)}")
    probabilities = np.exp(logs)
    if not np.isfinite(probabilities).all():
        raise UsageError("CTC has probabilities that are not finite; the model has diverged")
    return probabilities


def _spiking(curves: Array, names: Sequence[str]) -> dict[int, str]:
    """The labels that are to be drawn, with their names; of thousands few are."""
    shown = [v for v in range(1, curves.shape[1]) if curves[:, v].max() >= SPIKE]
    return dict(zip(shown, labels([names[v] for v in shown], len(shown)), strict=True))


def _draw_spikes(
    axes: Axes, curves: Array, spiking: dict[int, str], seconds: float, type_: Typesetting
) -> None:
    count = len(curves)
    times = (np.arange(count) + 0.5) * seconds / count
    axes.fill_between(times, curves[:, 0], color=FAINT, linewidth=0, step="mid")
    for number, (label, name) in enumerate(spiking.items()):
        colour = SERIES[number % len(SERIES)]
        axes.plot(times, curves[:, label], color=colour, linewidth=0.9, drawstyle="steps-mid")
        for at in _peaks(curves[:, label]):
            axes.annotate(
                type_.text(name),
                (times[at], curves[at, label]),
                xytext=(0, 1.5),
                textcoords="offset points",
                ha="center",
                va="bottom",
                fontsize=6.5,
                fontfamily=type_.families,
                color=INK,
                parse_math=False,
                annotation_clip=False,
            )
    axes.set_xlim(0, seconds)
    axes.set_ylim(0, 1.18)  # room for the names of certain labels
    axes.set_yticks([0, 1])
    _side(axes, "CTC")


def _peaks(curve: Array) -> list[int]:
    """The highest position of each stretch in which a label has probability enough to be drawn."""
    high = np.concatenate([[False], curve >= SPIKE, [False]])
    starts = np.flatnonzero(high[1:] & ~high[:-1])
    ends = np.flatnonzero(high[:-1] & ~high[1:])
    return [
        int(start + np.argmax(curve[start:end])) for start, end in zip(starts, ends, strict=True)
    ]


def _side(axes: Axes, text: str) -> None:
    axes.set_ylabel(text, fontsize=8, color=QUIET)
    axes.yaxis.set_label_coords(-0.58 / _inches(axes), 0.5)


def _inches(axes: Axes) -> float:
    figure = axes.get_figure()
    assert figure is not None
    return float(axes.get_position().width * figure.get_size_inches()[0])  # type: ignore[union-attr]


def _write(figure: Figure, x: float, y: float, text: str, type_: Typesetting) -> None:
    figure.text(
        x,
        y,
        type_.text(text),
        fontfamily=type_.families,
        fontsize=10,
        color=INK,
        va="top",
        parse_math=False,
    )
