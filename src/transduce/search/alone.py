"""The beam search of one sentence in one call, where the model has a plan for its steps.

What comes out is what `beam` finds (and `greedy`, which is a beam of one): kernels/search.c does
the same in the same order. For a single sentence most of a step's time would be Python's.
"""

from __future__ import annotations

import math

import numpy as np
from torch import Tensor

from transduce.data.tokenizers.base import BOS, EOS
from transduce.hypotheses.hypothesis import Hypothesis
from transduce.hypotheses.scoring import length_norms, max_tokens, min_tokens, normalise
from transduce.kernels.plan import Ends, Plan, Walk, fits
from transduce.recipe import SearchOptions
from transduce.search.candidates import WORDS
from transduce.search.interface import SearchModel
from transduce.search.running import Running

MOST_ATTENTION = 1 << 24  # numbers of attention, of all steps: what Python would note step by step


def search_source(
    model: SearchModel, source: Tensor, lengths: Tensor, options: SearchOptions
) -> list[list[Hypothesis]] | None:
    """The n best hypotheses of the only sentence of a source (1, S), its length (1,), from its
    tokens on; None where there is no plan for all of it."""
    make = getattr(model, "plan_from_source", None)
    if make is None or not _could(options) or source.device.type != "cpu" or source.dim() > 2:
        return None
    source = source[:, : int(lengths[0])].long().contiguous()  # as kernels read it
    positions = source.shape[1]
    least, last = min_tokens(positions - 1, options), max_tokens(positions - 1, options)
    norms = length_norms(last, options)
    if not _fits((last + 1) * positions, options):
        return None
    plan = make(source)
    if plan is None or plan.columns - WORDS < options.beam:
        return None
    return [_search(plan, least, last, norms, options, positions, source[0])]


def search_alone(
    model: SearchModel, running: Running, options: SearchOptions
) -> list[Hypothesis] | None:
    """The n best hypotheses of the only sentence that is running, before its first step; None
    where there is no plan for its steps."""
    make, limits = getattr(model, "plan", None), running.limits
    if make is None or not _could(options):
        return None
    first, least, last = limits.spans[:, 0].tolist()
    if not _fits((last + 1 - first) * running.width, options):
        return None
    plan = make(running.memory, running.state)
    if plan is None or plan.columns - WORDS < options.beam:
        return None
    return _search(plan, least - first, last - first, limits.norms, options, running.width)


def _could(options: SearchOptions) -> bool:
    """Whether the kernels search like this at all."""
    return fits(options.beam) and not options.coverage_penalty and not options.length_bonus


def _fits(numbers: int, options: SearchOptions) -> bool:
    """Whether there is room for the attention of so many positions by steps."""
    return numbers * options.beam <= MOST_ATTENTION


def _search(
    plan: Plan,
    least: int,
    last: int,
    norms: list[float],
    options: SearchOptions,
    sources: int,
    source: Tensor | None = None,
) -> list[Hypothesis]:
    scale = np.array(norms, dtype=np.float32)
    ends = Ends(least, last, scale, begin=BOS, end=EOS, first_word=WORDS)
    return _hypotheses(plan.search(options.beam, options.n_best, ends, sources, source), options)


def _hypotheses(walk: Walk, options: SearchOptions) -> list[Hypothesis]:
    """The n best, finished before unfinished; always at least one."""
    ended = zip(walk.finished.tolist(), walk.finished_at.tolist(), strict=True)
    found = [_followed(walk, at, True, options) for score, at in ended if score > -math.inf]
    for score, at in zip(walk.unfinished.tolist(), walk.unfinished_at.tolist(), strict=True):
        # A model that rules out everything, or answers NaN, still gets its one hypothesis.
        if len(found) < options.n_best and (score > -math.inf or not found):
            found.append(_followed(walk, at, False, options))
    found.sort(key=lambda h: (not h.finished, -h.score))
    return found


def _followed(walk: Walk, at: int, finished: bool, options: SearchOptions) -> Hypothesis:
    """The hypothesis that ended at `at`, followed from there to its first token."""
    end, slot = divmod(at, options.beam)
    ids, scores, slots = [], [float(walk.ends[end, slot])], [slot]
    for tokens, parents, gains in zip(
        walk.tokens[:end][::-1].tolist(),
        walk.parents[:end][::-1].tolist(),
        walk.gains[:end][::-1].tolist(),
        strict=True,
    ):
        ids.append(tokens[slot])
        scores.append(gains[slot])
        slot = parents[slot]
        slots.append(slot)
    scores.reverse()
    log_prob = sum(scores)
    attention: np.ndarray = walk.attention[np.arange(end + 1), slots[::-1]]
    score = normalise(log_prob, end + 1, options)
    return Hypothesis(ids[::-1], score, log_prob, scores, attention, finished)
