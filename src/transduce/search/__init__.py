"""Decoding: greedy and beam search over any model with `encode`, `start` and `step`."""

from transduce.hypotheses.hypothesis import Hypothesis
from transduce.hypotheses.unknown import replace_unknown
from transduce.search.beam import beam_search
from transduce.search.decode import decode, decode_batch
from transduce.search.ensemble import Ensemble
from transduce.search.forced import Forced, force_score, force_stream
from transduce.search.greedy import greedy_search
from transduce.search.interface import SearchModel

__all__ = [
    "Ensemble",
    "Forced",
    "Hypothesis",
    "SearchModel",
    "beam_search",
    "decode",
    "decode_batch",
    "force_score",
    "force_stream",
    "greedy_search",
    "replace_unknown",
]
