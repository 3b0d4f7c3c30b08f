"""How long targets may be, and when sentences that are done leave the batch."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from transduce.hypotheses.scoring import max_tokens, min_tokens
from transduce.runtime.options import Search

COMPANY = 8  # one sentence in so many must be done for the others to be copied without it


@dataclass(frozen=True)
class Limits:
    """Fewest and most target tokens of each sentence, the end symbol not counted: (B,) int64."""

    min: np.ndarray
    max: np.ndarray

    @classmethod
    def of(cls, lengths: np.ndarray, options: Search) -> Limits:
        """lengths: (B,) real source positions, the source's end symbol counted."""
        sources = [length - 1 for length in lengths.tolist()]
        return cls(
            min=np.array([min_tokens(n, options) for n in sources], dtype=np.int64),
            max=np.array([max_tokens(n, options) for n in sources], dtype=np.int64),
        )


def remaining(done: np.ndarray) -> np.ndarray | None:
    """The rows that go on, or None to go on with all of them; done (B,) boolean -> (B',) int64.

    It changes how much work is done, never a result.
    """
    count = int(done.sum())
    if count == 0 or (count < len(done) and count * COMPANY < len(done)):
        return None
    return np.flatnonzero(~done)
