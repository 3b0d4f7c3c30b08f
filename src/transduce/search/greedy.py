"""Greedy search: the best token at every position, without the bookkeeping of a beam."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from transduce.data.tokenizers.base import BOS
from transduce.hypotheses.assembling import Chosen
from transduce.hypotheses.hypothesis import Hypothesis
from transduce.recipe import SearchOptions
from transduce.search.candidates import Survey, best_continuations
from transduce.search.history import History, Record
from transduce.search.interface import SearchModel
from transduce.search.limits import Limits, remaining


@torch.inference_mode()
def greedy_search(
    model: SearchModel, source: Tensor, lengths: Tensor, options: SearchOptions
) -> list[list[Hypothesis]]:
    """One hypothesis for each sentence, the one that a beam of 1 finds.

    source (B, S) int64 padded, lengths (B,) real positions with EOS -> B lists of one hypothesis.
    """
    batch, device = len(lengths), source.device
    limits = Limits.of(lengths, options)
    history = History()
    stops = torch.zeros(batch, dtype=torch.int64, device=device)  # step at which each took EOS
    finished = torch.zeros(batch, dtype=torch.bool, device=device)  # and took it by its own choice
    memory = model.encode(source, lengths)
    state = model.start(memory)
    rows = torch.arange(batch, device=device)
    tokens = torch.full((batch, 1), BOS, device=device)
    done = torch.zeros_like(finished)
    zeros = torch.zeros((batch, 1), device=device)
    numbers = rows.numpy(force=True)
    for t in range(limits.largest_max + 1):
        step = model.step(tokens, state, memory)
        state, survey = step.state, Survey.of(step.logits, holes=step.words is not None)
        word = best_continuations(survey, zeros[: len(rows)], 1)
        end = survey.end
        chose = end.squeeze(1) >= word.gains.squeeze(1)
        if t < limits.largest_min:
            chose &= limits.min[rows] <= t
        tokens = word.tokens if step.words is None else step.words[word.tokens]
        record = Record(end, tokens, None, word.gains, step.attention)
        history.record(t, numbers, record)
        stop = (chose | (limits.max[rows] <= t)) & ~done
        stops[rows] = torch.where(stop, t, stops[rows])
        finished[rows] |= stop & chose
        done = done | stop
        kept = remaining(done, t)
        if kept is not None:
            if not len(kept):
                break
            rows, tokens, done = rows[kept], tokens[kept], done[kept]
            memory, state = memory.keep(kept), state.keep(kept)
            numbers = rows.numpy(force=True)
    step_of = stops.unsqueeze(1).numpy(force=True)
    chosen = Chosen(
        step=step_of,
        slot=np.zeros_like(step_of),
        finished=finished.unsqueeze(1).numpy(force=True),
        real=np.ones(step_of.shape, dtype=bool),
    )
    first = np.zeros(batch, dtype=np.int64)
    return history.assemble(np.arange(batch), chosen, first, limits.sources, options)
