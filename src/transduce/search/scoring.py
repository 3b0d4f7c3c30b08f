"""Lengths and scores. They are in `hypotheses`, which the runtime without torch shares."""

from __future__ import annotations

from transduce.hypotheses.scoring import (
    Normalization,
    length_norm,
    max_tokens,
    min_tokens,
    normalise,
)

__all__ = ["Normalization", "length_norm", "max_tokens", "min_tokens", "normalise"]
