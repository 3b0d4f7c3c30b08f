"""Figures: attention, sources shaded by it, speech, training curves, and score by source length."""

from __future__ import annotations

from transduce.evaluation.figures.attention import attention_figure, attention_png
from transduce.evaluation.figures.charts import (
    curves_figure,
    curves_png,
    lengths_figure,
    lengths_png,
)
from transduce.evaluation.figures.source import Shaded, shaded, source_figure, source_png
from transduce.evaluation.figures.source_html import source_html
from transduce.evaluation.figures.speech import Spikes, speech_figure, speech_png
from transduce.evaluation.figures.terminal import attention_text

__all__ = [
    "Shaded",
    "Spikes",
    "attention_figure",
    "attention_png",
    "attention_text",
    "curves_figure",
    "curves_png",
    "lengths_figure",
    "lengths_png",
    "shaded",
    "source_figure",
    "source_html",
    "source_png",
    "speech_figure",
    "speech_png",
]
