"""Greedy search: the best token at every position, without the bookkeeping of a beam."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from transduce.hypotheses.assembling import Chosen
from transduce.hypotheses.hypothesis import Hypothesis
from transduce.recipe import SearchOptions
from transduce.search.candidates import Survey, best_continuations, copied_share
from transduce.search.history import Record
from transduce.search.interface import SearchModel
from transduce.search.pool import search_batch
from transduce.search.running import Method, Running


def greedy_search(
    model: SearchModel, source: Tensor, lengths: Tensor, options: SearchOptions
) -> list[list[Hypothesis]]:
    """One hypothesis for each sentence, the one that a beam of 1 finds.

    source (B, S) int64 padded, lengths (B,) real positions with EOS -> B lists of one hypothesis.
    """
    return search_batch(model, GREEDY, source, lengths, options)


@dataclass
class Stops:
    """Where B sentences came to an end, each (B,).

    step: at which each ended. finished: by its own choice. done: at all.
    """

    step: Tensor
    finished: Tensor
    done: Tensor

    def keep(self, rows: Tensor) -> Stops:
        """Only the sentences `rows` (B',) int64."""
        return Stops(self.step[rows], self.finished[rows], self.done[rows])

    def join(self, other: Stops) -> Stops:
        """The sentences of another after one's own."""
        return Stops(
            torch.cat([self.step, other.step]),
            torch.cat([self.finished, other.finished]),
            torch.cat([self.done, other.done]),
        )

    def chosen(self) -> Chosen:
        """The one hypothesis of each sentence."""
        both = torch.stack([self.step, self.finished.long()]).unsqueeze(2).numpy(force=True)
        real = np.ones(both[0].shape, dtype=bool)
        return Chosen(both[0], slot=np.zeros_like(both[0]), finished=both[1] > 0, real=real)


def _step(model: SearchModel, running: Running, options: SearchOptions, t: int) -> Record:
    """Step t of the search: one position more for every running sentence."""
    limits, stops = running.limits, running.ended
    step = model.step(running.tokens, running.state, running.memory)
    survey = Survey.of_step(step, 1)
    word = best_continuations(survey, running.scores, 1)
    end = survey.end
    chose = (end >= word.gains).squeeze(1)
    if t < limits.bound:
        chose &= limits.steps[1] <= t
    stop = chose if t not in limits.closing else chose | (limits.steps[2] <= t)
    stop = stop & ~stops.done
    stops.step.masked_fill_(stop, t)
    stops.finished |= stop & chose
    stops.done |= stop
    running.tokens = word.tokens if step.words is None else step.words[word.tokens]
    running.state = step.state
    return Record(end, running.tokens, None, word.gains, step.attention, copied_share(step, word))


def _stops(batch: int, options: SearchOptions, t: int, device: torch.device) -> Stops:
    finished = torch.zeros(batch, dtype=torch.bool, device=device)
    return Stops(torch.full((batch,), t, device=device), finished, finished.clone())


GREEDY = Method(_stops, _step)
