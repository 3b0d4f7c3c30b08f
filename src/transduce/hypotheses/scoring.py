"""How hypotheses of different lengths are compared, and how long they may be.

Pure functions. A length counts the target's tokens and its end symbol, so it is at least 1.
"""

from __future__ import annotations

import math
from typing import Literal, Protocol

Normalization = Literal["average", "gnmt"]


class LengthOptions(Protocol):
    """The search options that concern length; `recipe.SearchOptions` says what they mean."""

    @property
    def normalization(self) -> Normalization: ...
    @property
    def length_penalty(self) -> float: ...
    @property
    def min_ratio(self) -> float: ...
    @property
    def max_ratio(self) -> float: ...
    @property
    def max_extra(self) -> int: ...


def length_norm(length: int, kind: Normalization, penalty: float) -> float:
    """What a log-probability is divided by.

    average: length ** penalty. gnmt: ((5 + length) / 6) ** penalty (Wu et al. 2016, 1609.08144,
    section 7, equation 14). Both grow with the length, and are 1 for penalty 0.
    """
    base = (5 + length) / 6 if kind == "gnmt" else length
    return float(base**penalty)


def normalise(log_prob: float, length: int, options: LengthOptions) -> float:
    """The score of a hypothesis of `length` (tokens and end symbol) with this log-probability."""
    return log_prob / length_norm(length, options.normalization, options.length_penalty)


def min_tokens(source_tokens: int, options: LengthOptions) -> int:
    """The fewest target tokens, end symbol not counted, for a source of so many tokens."""
    # Rounded first, since 0.1 * 30 is a little more than 3 and would ask for 4.
    fewest = math.ceil(round(options.min_ratio * source_tokens, 6))
    return min(fewest, max_tokens(source_tokens, options))


def max_tokens(source_tokens: int, options: LengthOptions) -> int:
    """The most target tokens, end symbol not counted; never less than one."""
    return max(1, math.floor(round(options.max_ratio * source_tokens + options.max_extra, 6)))
