"""What search returns. It is in `hypotheses`, which the runtime without torch shares."""

from __future__ import annotations

from transduce.hypotheses.hypothesis import Hypothesis

__all__ = ["Hypothesis"]
