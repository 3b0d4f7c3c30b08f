"""What every search returns and how hypotheses are compared: the part that needs no torch.

Both searches share it: `search` drives torch's models, `runtime` exported ones.
"""

from transduce.hypotheses.hypothesis import Hypothesis
from transduce.hypotheses.unknown import replace_unknown

__all__ = ["Hypothesis", "replace_unknown"]
