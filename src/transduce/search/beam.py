"""Beam search, vectorised over sentences and hypotheses.

After Sutskever et al. 2014 (1409.3215), section 3.2, with scores normalised by length. Of the
K x V continuations of a sentence's K live hypotheses, the K best are looked at. Those among them
that end in EOS are finished; the K best that do not end live on. A sentence is done when K
hypotheses have finished, when no live one can still beat the n best finished ones, or at its
longest target, where the live hypotheses are closed with EOS and marked unfinished.

Live hypotheses are compared by log-probability; a penalty for coverage and a bonus for length are
added where they end. What a live one may still reach is bounded without the penalty, which is never
above 0, and with the bonus of the longest target.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from transduce.hypotheses.hypothesis import Hypothesis
from transduce.recipe import SearchOptions
from transduce.search.candidates import Survey, best_continuations, copied_share
from transduce.search.coverage import Coverage
from transduce.search.history import Record
from transduce.search.interface import SearchModel
from transduce.search.limits import Limits
from transduce.search.pool import search_batch
from transduce.search.running import Method, Running
from transduce.search.tables import Tables


def beam_search(
    model: SearchModel, source: Tensor, lengths: Tensor, options: SearchOptions
) -> list[list[Hypothesis]]:
    """The n best hypotheses of each sentence: finished before unfinished, then by score.

    source (B, S) int64 padded, lengths (B,) real positions with EOS -> B lists of 1 to n_best.
    """
    return search_batch(model, BEAM, source, lengths, options)


def _step(model: SearchModel, running: Running, options: SearchOptions, t: int) -> Record:
    """Step t of the search: one position more for every running sentence."""
    limits, tables, scores = running.limits, running.ended, running.scores
    # 1. Ask the model, and see what its logits (B, K, V) hold.
    step = model.step(running.tokens, running.state, running.memory)
    survey = Survey.of_step(step, options.beam)
    end = survey.end
    ending = scores + end
    if t < limits.bound:
        ending = ending.masked_fill((limits.steps[1] > t).unsqueeze(1), -math.inf)
    # 2. The K best continuations by a word, and the EOS that are as good.                (B, K)
    best = best_continuations(survey, scores, options.beam)
    ends = _among_best(ending, best.values, options.beam)
    # 3. Finished hypotheses enter their sentence's table of the n best.
    covered = None
    if running.coverage is not None and step.attention is not None:
        covered = running.coverage.add(step.attention)
        running.coverage = covered.select(best.parents)
    # On most steps there are none; to ask an accelerator would cost more than to enter them.
    if ends.device.type != "cpu" or bool(ends.any()):
        tables.finish(_ranked(ending, t, limits, covered, options), ends, t)
    at_end = None
    if t in limits.closing:
        at_end = limits.steps[2] <= t
        ranked = _ranked(ending, t, limits, covered, options)
        tables.close(ranked, ends, at_end, t)
    # 4. The others live on.
    running.tokens = best.tokens if step.words is None else step.words[best.tokens]
    copied = copied_share(step, best)
    running.scores, running.state = best.values, step.state.select(best.parents)
    tables.settle(limits.hope(best.values[:, 0]), at_end)
    return Record(end, running.tokens, best.parents, best.gains, step.attention, copied)


def _tables(batch: int, options: SearchOptions, t: int, device: torch.device) -> Tables:
    return Tables.empty(batch, options.n_best, options.beam, t, device)


BEAM = Method(_tables, _step)


def _ranked(
    ending: Tensor, t: int, limits: Limits, covered: Coverage | None, options: SearchOptions
) -> Tensor:
    """The scores (B, K) of hypotheses that end at step t with log-probabilities `ending` (B, K)."""
    scores = limits.score(ending, t)
    return scores if covered is None else scores + covered.score(options)


def _among_best(ending: Tensor, values: Tensor, beam: int) -> Tensor:
    """Which of `ending` (B, K) are among the `beam` best of both; values (B, K') -> (B, K)."""
    both = torch.cat([ending, values], dim=1)
    worst = both.topk(min(beam, both.shape[1])).values[:, -1:]
    return (ending >= worst) & (ending > -math.inf)
