"""Beam search, vectorised over sentences and hypotheses.

After Sutskever et al. 2014 (1409.3215), section 3.2, with scores normalised by length. Of the
K x V continuations of a sentence's K live hypotheses, the K best are looked at. Those among them
that end in EOS are finished; the K best that do not end live on. A sentence is done when K
hypotheses have finished, when no live one can still beat the n best finished ones, or at its
longest target, where the live hypotheses are closed with EOS and marked unfinished.
"""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor

from transduce.data.tokenizers.base import BOS
from transduce.hypotheses.hypothesis import Hypothesis
from transduce.hypotheses.scoring import length_norm
from transduce.recipe import SearchOptions
from transduce.search.candidates import Survey, best_continuations
from transduce.search.history import History, Record
from transduce.search.interface import SearchModel
from transduce.search.limits import Limits, remaining
from transduce.search.tables import Tables


@torch.inference_mode()
def beam_search(
    model: SearchModel, source: Tensor, lengths: Tensor, options: SearchOptions
) -> list[list[Hypothesis]]:
    """The n best hypotheses of each sentence: finished before unfinished, then by score.

    source (B, S) int64 padded, lengths (B,) real positions with EOS -> B lists of 1 to n_best.
    """
    batch, device = len(lengths), source.device
    on_cpu = device.type == "cpu"
    limits = Limits.of(lengths, options)
    kind, penalty = options.normalization, options.length_penalty
    norms = [length_norm(t + 1, kind, penalty) for t in range(limits.largest_max + 1)]
    # The longest target allowed is the most favourable to a live hypothesis.
    widest = torch.tensor([norms[n] for n in limits.max.tolist()], device=device)
    history = History()
    results = Tables.empty(batch, options.n_best, options.beam, device)
    tables = Tables.empty(batch, options.n_best, options.beam, device)
    memory = model.encode(source, lengths)
    state = model.start(memory)
    rows = torch.arange(batch, device=device)
    tokens = torch.full((batch, 1), BOS, device=device)
    scores = torch.zeros((batch, 1), device=device)
    numbers = rows.numpy(force=True)
    for t in range(limits.largest_max + 1):
        # 1. Ask the model, and see what its logits (B, K, V) hold.
        step = model.step(tokens, state, memory)
        survey = Survey.of(step.logits, holes=step.words is not None)
        end = survey.end
        ending = scores + end
        if t < limits.largest_min:
            ending = ending.masked_fill((limits.min[rows] > t).unsqueeze(1), -math.inf)
        # 2. The K best continuations by a word, and the EOS that are as good.            (B, K)
        best = best_continuations(survey, scores, options.beam)
        ends = _among_best(ending, best.values, options.beam)
        # 3. Finished hypotheses enter their sentence's table of the n best.
        # On most steps there are none; to ask an accelerator would cost more than to enter them.
        if not on_cpu or bool(ends.any()):
            tables.finish(ending / norms[t], ends, t)
        if t in limits.closing:
            tables.close(ending / norms[t], ends, limits.max[rows] == t, t)
        # 4. The others live on.
        tokens = best.tokens if step.words is None else step.words[best.tokens]
        scores, state = best.values, step.state.select(best.parents)
        record = Record(end, tokens, best.parents, best.gains, step.attention)
        history.record(t, numbers, record)
        tables.settle(scores[:, 0] / widest[rows], limits.max[rows] <= t)
        # 5. Sentences that are done leave.
        kept = remaining(tables.done, t)
        if kept is not None:
            results.put(rows, tables)
            if not len(kept):
                break
            rows, tokens, scores, tables = rows[kept], tokens[kept], scores[kept], tables.keep(kept)
            memory, state = memory.keep(kept), state.keep(kept)
            numbers = rows.numpy(force=True)
    results.put(rows, tables)
    first = np.zeros(batch, dtype=np.int64)
    return history.assemble(np.arange(batch), results.chosen(), first, limits.sources, options)


def _among_best(ending: Tensor, values: Tensor, beam: int) -> Tensor:
    """Which of `ending` (B, K) are among the `beam` best of both; values (B, K') -> (B, K)."""
    both = torch.cat([ending, values], dim=1)
    worst = both.topk(min(beam, both.shape[1])).values[:, -1:]
    return (ending >= worst) & (ending > -math.inf)
