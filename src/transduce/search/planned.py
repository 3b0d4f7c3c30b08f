"""The beam search of sentences in one call, where the model has a plan for its steps.

What comes out is what `beam` finds (and `greedy`, which is a beam of one): kernels/search.c does
the same in the same order, for all sentences of a batch, each thread for some. Step by step much of
the time is Python's, and for a single sentence most of it.
"""

from __future__ import annotations

import math
from itertools import accumulate

import numpy as np
import torch
from torch import Tensor

from transduce.data.tokenizers.base import BOS, EOS
from transduce.hypotheses.hypothesis import Hypothesis
from transduce.hypotheses.scoring import length_norms, max_tokens, min_tokens, normalise
from transduce.kernels.plan import Ends, fits
from transduce.kernels.walks import Walk
from transduce.recipe import SearchOptions
from transduce.search.candidates import WORDS
from transduce.search.interface import SearchModel
from transduce.search.running import Running

MOST_ATTENTION = 1 << 24  # numbers of attention of all steps and sentences of a call
# Sentences for each thread in a call: enough for products to be at their fastest, and few enough
# for the weights of all their shortlists to stay in a processor's cache.
TOGETHER = 64


def search_sources(
    model: SearchModel, source: Tensor, lengths: Tensor, options: SearchOptions
) -> list[list[Hypothesis]] | None:
    """The n best hypotheses of each source (B, S), lengths (B,), from their tokens on; None where
    there is no plan for all of it."""
    make = getattr(model, "plan_from_source", None)
    if make is None or not _could(options) or source.device.type != "cpu" or source.dim() > 2:
        return None
    given: list[int] = lengths.tolist()
    order = sorted(range(len(given)), key=lambda i: -given[i])  # the longest first
    positions = [given[i] for i in order]
    spans = [_span(length, options) for length in positions]
    numbers = [
        (last + 1) * length * options.beam
        for (_, last), length in zip(spans, positions, strict=True)
    ]
    if max(numbers) > MOST_ATTENTION:
        return None
    source = source[:, : positions[0]].long().contiguous()  # as kernels read it
    if len(order) > 1:
        source = source[torch.tensor(order)]
    results: list[list[Hypothesis]] = [[]] * len(order)
    start = 0
    while start < len(order):
        most = start + TOGETHER * torch.get_num_threads()
        part = slice(start, start + _fitting(numbers[start:most]))
        plan = make(source[part], torch.tensor(positions[part]))
        if plan is None or plan.columns - WORDS < options.beam:
            return None
        ends = _ends(spans[part], options)
        walks = plan.search(options.beam, options.n_best, ends, positions[part], source[part])
        for i, walk in zip(order[part], walks, strict=True):
            results[i] = _hypotheses(walk, options)
        start = part.stop
    return results


def search_running(
    model: SearchModel, running: Running, options: SearchOptions
) -> list[Hypothesis] | None:
    """The n best hypotheses of the only sentence that is running, before its first step; None
    where there is no plan for its steps."""
    make, limits = getattr(model, "plan", None), running.limits
    if make is None or not _could(options):
        return None
    first, least, last = limits.spans[:, 0].tolist()
    if (last + 1 - first) * running.width * options.beam > MOST_ATTENTION:
        return None
    plan = make(running.memory, running.state)
    if plan is None or plan.columns - WORDS < options.beam:
        return None
    ends = _ends([(least - first, last - first)], options)
    walks = plan.search(options.beam, options.n_best, ends, [running.width])
    return _hypotheses(walks[0], options)


def _could(options: SearchOptions) -> bool:
    """Whether the kernels search like this at all."""
    return fits(options.beam) and not options.coverage_penalty and not options.length_bonus


def _span(positions: int, options: SearchOptions) -> tuple[int, int]:
    """The fewest and the most tokens of a target, by the positions of its source."""
    return min_tokens(positions - 1, options), max_tokens(positions - 1, options)


def _fitting(numbers: list[int]) -> int:
    """How many sentences with so many numbers of attention go together; at least one."""
    fitting = sum(whole <= MOST_ATTENTION for whole in accumulate(numbers))
    return max(1, fitting)


def _ends(spans: list[tuple[int, int]], options: SearchOptions) -> Ends:
    """spans: the fewest and most tokens of each target."""
    least, last = zip(*spans, strict=True)
    norms = np.array(length_norms(max(last), options), dtype=np.float32)
    return Ends(least, last, norms, begin=BOS, end=EOS, first_word=WORDS)


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
    slots = [slot]
    for parents in walk.parents[:end][::-1].tolist():
        slot = parents[slot]
        slots.append(slot)
    slots.reverse()
    steps = np.arange(end + 1)
    ids: list[int] = walk.tokens[steps[:-1], slots[1:]].tolist()
    scores: list[float] = walk.gains[steps[:-1], slots[1:]].tolist()
    scores.append(float(walk.ends[end, slots[-1]]))
    log_prob = sum(scores)
    attention: np.ndarray = walk.attention[steps, slots]
    score = normalise(log_prob, end + 1, options)
    return Hypothesis(ids, score, log_prob, scores, attention, finished)
