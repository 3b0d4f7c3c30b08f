"""Which search a model is decoded with: its decoder's, its CTC head's, or both as one."""

from __future__ import annotations

from dataclasses import replace
from typing import cast

from torch import Tensor

from transduce.errors import UsageError
from transduce.hypotheses.hypothesis import Hypothesis
from transduce.recipe import SearchOptions
from transduce.search.beam import beam_search
from transduce.search.ctc.alone import ctc_search
from transduce.search.ctc.joint import CtcModel, Joint
from transduce.search.greedy import greedy_search
from transduce.search.interface import SearchModel

NOTHING_HEARD = "nothing to write was found in it"


def search(
    model: SearchModel, source: Tensor, lengths: Tensor, options: SearchOptions
) -> list[list[Hypothesis]]:
    """The n best hypotheses of each sentence, as `options` ask for them; see `beam_search`.

    An empty hypothesis of a search that asks CTC has a reason. Errors: UsageError when
    `search.ctc_weight` asks for a CTC head that the model does not have.
    """
    if not options.ctc_weight:
        return _by_steps(model, source, lengths, options)
    if not hasattr(model, "ctc_log_probs"):
        raise UsageError(
            f"search.ctc_weight is {options.ctc_weight:g}, but this model has no CTC head; "
            "set it to 0"
        )
    with_head = cast(CtcModel, model)
    if options.ctc_weight == 1:
        found = ctc_search(with_head, source, lengths, options)
    else:
        found = _by_steps(Joint(with_head, options.ctc_weight), source, lengths, options)
    return [[_explained(h) for h in hypotheses] for hypotheses in found]


def _by_steps(
    model: SearchModel, source: Tensor, lengths: Tensor, options: SearchOptions
) -> list[list[Hypothesis]]:
    by_step = greedy_search if options.beam == 1 else beam_search
    return by_step(model, source, lengths, options)


def _explained(hypothesis: Hypothesis) -> Hypothesis:
    return hypothesis if hypothesis.ids else replace(hypothesis, reason=NOTHING_HEARD)
