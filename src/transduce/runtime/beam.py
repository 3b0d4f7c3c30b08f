"""Beam search in NumPy: the algorithm of `search.beam`, over an exported model.

Of the continuations of a sentence's K live hypotheses, the K best are looked at. Those among them
that take the end symbol are finished; the K best that do not live on. A sentence is done when K
hypotheses have finished, when no live one can still beat the n best finished ones, or at its
longest target, where the live hypotheses are closed and marked unfinished. A beam of 1 is greedy
search.
"""

from __future__ import annotations

import math

import numpy as np

from transduce.data.tokenizers.base import BOS, UNK
from transduce.hypotheses.hypothesis import Hypothesis
from transduce.hypotheses.scoring import length_norms
from transduce.runtime.history import Record, assemble
from transduce.runtime.limits import Limits, remaining
from transduce.runtime.network import Array, Network, Step
from transduce.runtime.options import Search
from transduce.runtime.tables import Tables, best_of


def beam_search(
    network: Network, source: Array, lengths: Array, options: Search
) -> list[list[Hypothesis]]:
    """The n best hypotheses of each sentence: finished before unfinished, then by score.

    source (B, S) int64 padded, lengths (B,) real positions with the end symbol -> B lists of 1 to
    n_best.
    """
    batch, beam = len(lengths), options.beam
    limits = Limits.of(lengths, options)
    longest = int(limits.max.max())
    norms = length_norms(longest, options)
    # The longest target allowed is the most favourable to a live hypothesis.
    widest = np.array([norms[n] for n in limits.max.tolist()], dtype=np.float32)
    bonus = options.length_bonus
    most = np.float32(max(0.0, bonus)) * limits.max.astype(np.float32)
    records: list[Record] = []
    results = Tables.empty(batch, options.n_best, beam)
    tables = Tables.empty(batch, options.n_best, beam)
    memory, state = network.encode(source, lengths)
    rows = np.arange(batch)
    tokens = np.full((batch, 1), BOS, dtype=np.int64)
    scores = np.zeros((batch, 1), dtype=np.float32)
    for t in range(longest + 1):
        # 1. Ask the model. PAD, BOS and EOS may be among the best, and are no words.
        step = network.step(tokens, state, memory, beam + UNK)
        ending = np.where(limits.min[rows, None] > t, -math.inf, scores + step.end)
        # 2. The K best continuations by a word, and the ends that are as good.           (B, K)
        values, parents, tokens, gains = _continuations(step, scores, beam)
        ends = _among_best(ending, values, beam)
        # 3. Finished hypotheses enter their sentence's table of the n best.
        ranked = ending / norms[t] + bonus * t
        tables.finish(ranked, ends, t)
        closing = limits.max[rows] == t
        if closing.any():
            tables.close(ranked, ends, closing, t)
        # 4. The others live on.
        records.append(Record(rows, step.end, tokens, parents, gains, step.attention))
        scores, state = values, step.state.select(parents)
        tables.settle(scores[:, 0] / widest[rows] + most[rows], closing)
        # 5. Sentences that are done leave.
        kept = remaining(tables.done)
        if kept is not None:
            results.put(rows, tables)
            if not len(kept):
                break
            rows, tokens, scores, tables = rows[kept], tokens[kept], scores[kept], tables.keep(kept)
            memory, state = memory.keep(kept), state.keep(kept)
    results.put(rows, tables)
    return assemble(records, results.chosen(), lengths.tolist(), options)


def _continuations(step: Step, scores: Array, beam: int) -> tuple[Array, Array, Array, Array]:
    """The best continuations of each sentence by a word, best first; scores (B, K).

    -> score, parent, word and the word's log-probability, (B, K') each; K' is the beam, or less
    where there are fewer words.
    """
    batch, _, count = step.words.shape
    best = np.where(step.words < UNK, -math.inf, step.best)
    values = (best + scores[:, :, None]).astype(np.float32).reshape(batch, -1)
    picked = best_of(values, beam)
    words, gains = step.words.reshape(batch, -1), best.reshape(batch, -1)
    return (
        np.take_along_axis(values, picked, 1),
        picked // count,
        np.take_along_axis(words, picked, 1),
        np.take_along_axis(gains, picked, 1),
    )


def _among_best(ending: Array, values: Array, beam: int) -> Array:
    """Which of `ending` (B, K) are among the `beam` best of both; values (B, K') -> (B, K)."""
    both = np.concatenate([ending, values], axis=1)
    nth = best_of(both, beam)[:, -1:]
    worst = np.take_along_axis(both, nth, 1)
    return (ending >= worst) & (ending > -math.inf)
