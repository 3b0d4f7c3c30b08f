"""How hypotheses of different lengths are compared, and how long they may be.

Pure functions. A length counts the target's tokens and its end symbol, so it is at least 1.
"""

from __future__ import annotations

import math
from typing import Literal, Protocol

import numpy as np

Normalization = Literal["average", "gnmt"]
LEAST_COVERED = 1e-9  # attention, less of which is taken for this much: zero has no logarithm


class LengthOptions(Protocol):
    """The search options that concern length; `recipe.SearchOptions` says what they mean."""

    @property
    def normalization(self) -> Normalization: ...
    @property
    def length_penalty(self) -> float: ...
    @property
    def length_bonus(self) -> float: ...
    @property
    def min_ratio(self) -> float: ...
    @property
    def max_ratio(self) -> float: ...
    @property
    def max_extra(self) -> int: ...
    @property
    def min_length(self) -> int | None: ...
    @property
    def max_length(self) -> int | None: ...


class CoverageOptions(Protocol):
    """The search options that concern coverage."""

    @property
    def coverage_penalty(self) -> float: ...
    @property
    def coverage_kind(self) -> Literal["gnmt", "summary"]: ...


def length_norms(most: int, options: LengthOptions) -> list[float]:
    """The norms of targets with 0 to `most` tokens, each with its EOS."""
    kind, penalty = options.normalization, options.length_penalty
    return [length_norm(tokens + 1, kind, penalty) for tokens in range(most + 1)]


def length_norm(length: int, kind: Normalization, penalty: float) -> float:
    """What a log-probability is divided by.

    average: length ** penalty. gnmt: ((5 + length) / 6) ** penalty (Wu et al. 2016, 1609.08144,
    section 7, equation 14). Both grow with the length, and are 1 for penalty 0.
    """
    base = (5 + length) / 6 if kind == "gnmt" else length
    return float(base**penalty)


def normalise(log_prob: float, length: int, options: LengthOptions) -> float:
    """The score of a hypothesis of `length` (tokens and end symbol) with this log-probability.

    A bonus for each token (Watanabe et al. 2017, Hybrid CTC/attention architecture) is added, so
    that it means the same whatever the normalisation.
    """
    norm = length_norm(length, options.normalization, options.length_penalty)
    return log_prob / norm + options.length_bonus * (length - 1)


def min_tokens(source_tokens: int, options: LengthOptions) -> int:
    """The fewest target tokens, end symbol not counted, for a source of so many tokens."""
    # Rounded first, since 0.1 * 30 is a little more than 3 and would ask for 4.
    fewest = math.ceil(round(options.min_ratio * source_tokens, 6))
    return min(max(fewest, options.min_length or 0), max_tokens(source_tokens, options))


def max_tokens(source_tokens: int, options: LengthOptions) -> int:
    """The most target tokens, end symbol not counted; never less than one.

    `min_length` and `max_length`, which are asked for in tokens, come before the ratios: a source
    may be shorter than the shortest target.
    """
    most = math.floor(round(options.max_ratio * source_tokens + options.max_extra, 6))
    most = max(1, most, options.min_length or 0)
    return most if options.max_length is None else min(most, options.max_length)


def coverage_score(attention: np.ndarray, options: CoverageOptions) -> float:
    """What is added to a hypothesis' score for its attention (T, S), rows of which sum to 1.

    With c_i the sum of column i, gnmt (Wu et al. 2016, 1609.08144, section 7, equation 14):
    sum_i log min(c_i, 1), which is 0 where the whole source was read. summary (Gehrmann, Deng, Rush
    2018, 1808.10792, section 4.2): sum_i 1 - max(c_i, 1), which is 0 where nothing was read twice.
    Both times `coverage_penalty`, and never above 0.
    """
    covered = attention.sum(axis=0)
    if options.coverage_kind == "gnmt":
        total = np.log(np.clip(covered, LEAST_COVERED, 1.0)).sum()
    else:
        total = (1.0 - np.maximum(covered, 1.0)).sum()
    return options.coverage_penalty * float(total)
