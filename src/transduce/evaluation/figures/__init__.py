"""Figures: the attention of one output, training curves, and score by source length."""

from __future__ import annotations

from transduce.evaluation.figures.attention import attention_figure, attention_png
from transduce.evaluation.figures.charts import (
    curves_figure,
    curves_png,
    lengths_figure,
    lengths_png,
)
from transduce.evaluation.figures.terminal import attention_text

__all__ = [
    "attention_figure",
    "attention_png",
    "attention_text",
    "curves_figure",
    "curves_png",
    "lengths_figure",
    "lengths_png",
]
