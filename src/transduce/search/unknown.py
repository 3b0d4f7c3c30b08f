"""Unknown words, replaced. It is in `hypotheses`, which the runtime without torch shares."""

from __future__ import annotations

from transduce.hypotheses.unknown import replace_unknown

__all__ = ["replace_unknown"]
