"""What search returns."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np


@dataclass(frozen=True, slots=True)
class Hypothesis:
    """One decoded target.

    ids: the target's tokens, without BOS and EOS.
    score: log_prob normalised by length, plus the penalty for coverage where one was asked for;
        what hypotheses are ranked by.
    log_prob: natural logarithm of the probability of the whole target, EOS included.
    token_scores: log-probability of each token and, last, of EOS; their sum is log_prob.
    attention: (T, S) float32, T = len(ids) + 1 rows (the last for EOS), S real source positions
        (the source's EOS last), rows sum to 1; None where the model has no attention.
    finished: False if the model would have gone on beyond the longest target allowed.
    reason: why it is as it is, where a user would ask.
    copied: for each of ids the share of its probability, 0 to 1, that came from copying; None where
        the model does not copy. Ids from the size V of the vocabulary on are copied words that it
        does not know: V + s is the one at source position s.
    spans: (T - 1, 2) where each token begins and ends, as shares of the source from 0 to 1; None
        where nobody asked, or nothing knows.
    """

    ids: list[int]
    score: float
    log_prob: float
    token_scores: list[float]
    attention: np.ndarray | None = field(default=None, repr=False, compare=False)
    finished: bool = True
    reason: str | None = None
    spans: np.ndarray | None = field(default=None, repr=False, compare=False)
    copied: list[float] | None = None

    @classmethod
    def empty(cls) -> Hypothesis:
        """The answer to an empty source: nothing, for certain, without asking the model."""
        return cls(ids=[], score=0.0, log_prob=0.0, token_scores=[0.0])
