"""What all figures share: colours, an empty figure without pyplot, and saving."""

from __future__ import annotations

import io
from pathlib import Path
from typing import TYPE_CHECKING

from transduce.disk import atomic_bytes
from transduce.errors import UsageError

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.colors import Colormap
    from matplotlib.figure import Figure

INK = "#1f2340"  # text
QUIET = "#8a8fa8"  # second text, frames
FAINT = "#e6e8f0"  # grid
BLUE = "#2f5fb3"
ORANGE = "#e07b39"
GREEN = "#2f8f6b"
SERIES = (BLUE, ORANGE, GREEN, "#8a4fa3", "#b03a5b", "#5a6b7b")
FORMATS = (".png", ".svg", ".pdf")
DPI = 200


def new_figure(width: float, height: float) -> Figure:
    """An empty white figure of the given size in inches, drawn by Agg."""
    # Not through pyplot, which keeps every figure alive and chooses a window system.
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), dpi=DPI, facecolor="white")
    FigureCanvasAgg(figure)
    return figure


def shades() -> Colormap:
    """Weights from near white to deep blue, even to the eye and in grey print."""
    from matplotlib.colors import LinearSegmentedColormap

    stops = ["#f3f5fa", "#d3def2", "#9db9e6", "#5d89d0", "#2f5fb3", "#1b3a80", "#0e1f4d"]
    return LinearSegmentedColormap.from_list("transduce", stops)


def bare(axes: Axes) -> None:
    """Axes without frame or tick marks."""
    for spine in axes.spines.values():
        spine.set_visible(False)
    axes.tick_params(length=0, colors=INK)


def plain(axes: Axes) -> None:
    """Axes of a chart: two quiet lines, a faint grid."""
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    for side in ("left", "bottom"):
        axes.spines[side].set_color(QUIET)
    axes.tick_params(colors=INK, color=QUIET, labelsize=9)
    axes.grid(axis="y", color=FAINT, linewidth=0.8)
    axes.set_axisbelow(True)


def save(figure: Figure, path: str | Path) -> Path:
    """Write a figure whole or not at all; the suffix (.png, .svg, .pdf) says as what."""
    path = Path(path)
    if path.suffix.lower() not in FORMATS:
        raise UsageError(f"{path}: a figure is written as {', '.join(FORMATS)}")
    atomic_bytes(path, rendered(figure, path.suffix.lower()[1:]))
    return path


def rendered(figure: Figure, form: str = "png") -> bytes:
    """The figure's bytes, the same for the same figure whenever it is drawn."""
    stream = io.BytesIO()
    metadata = {"png": {"Software": None}, "svg": {"Date": None}, "pdf": {"CreationDate": None}}
    figure.savefig(stream, format=form, metadata=metadata[form])
    return stream.getvalue()
