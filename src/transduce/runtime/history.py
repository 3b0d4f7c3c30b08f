"""What a search remembers of its steps, and how hypotheses are put together from it at the end."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from transduce.hypotheses.hypothesis import Hypothesis
from transduce.hypotheses.scoring import normalise
from transduce.runtime.options import Search

Array = np.ndarray


class Record(NamedTuple):
    """One step of the sentences still searched, B of them, K hypotheses each.

    rows (B,): which sentences. ends (B, K): log-probability of the end symbol after each live
    hypothesis. tokens, parents, gains (B, K'): the hypotheses that live on: their new token, which
    old one each continues, and the token's log-probability. attention (B, K, S) belongs to the old
    ones, as `ends` does.
    """

    rows: Array
    ends: Array
    tokens: Array
    parents: Array
    gains: Array
    attention: Array | None


@dataclass(frozen=True)
class Chosen:
    """N hypotheses of each of B sentences, best first.

    step (B, N): the step at which each ended, so its number of tokens; slot (B, N): which live
    hypothesis of that step it was; finished and real (B, N) boolean: real is False where a
    sentence has fewer than N.
    """

    step: Array
    slot: Array
    finished: Array
    real: Array


def assemble(
    records: list[Record], chosen: Chosen, lengths: list[int], options: Search
) -> list[list[Hypothesis]]:
    """The hypotheses of every sentence; lengths: real source positions of each."""
    steps, (sentences, count) = len(records), chosen.step.shape
    tokens = np.zeros((sentences, count, steps), dtype=np.int64)
    scores = np.zeros((sentences, count, steps), dtype=np.float32)
    attends = bool(records) and records[0].attention is not None
    width = max(lengths)
    attention = np.zeros((sentences, count, steps if attends else 0, width), dtype=np.float32)
    slot = chosen.slot.copy()  # the place of each chosen hypothesis after the step that follows
    for t in range(steps - 1, -1, -1):
        record = records[t]
        rows, b = record.rows, np.arange(len(record.rows))[:, None]
        here, last = slot[rows], chosen.step[rows]
        inside, at_end = last > t, last == t
        # Places beyond a step's K belong to hypotheses that have not begun or are not real.
        after = np.minimum(here, record.tokens.shape[1] - 1)
        tokens[rows, :, t] = np.where(inside, record.tokens[b, after], 0)
        before = np.where(inside, record.parents[b, after], here)
        slot[rows] = before
        before = np.minimum(before, record.ends.shape[1] - 1)
        gains = np.where(inside, record.gains[b, after], 0.0)
        scores[rows, :, t] = np.where(at_end, record.ends[b, before], gains)
        if record.attention is not None:
            part = record.attention[b, before]
            attention[rows, :, t, : part.shape[2]] = part[:, :, :width]
    result = []
    for sentence, length in enumerate(lengths):
        found = []
        for n in np.flatnonzero(chosen.real[sentence]).tolist():
            end = int(chosen.step[sentence, n])
            token_scores: list[float] = scores[sentence, n, : end + 1].tolist()
            log_prob = sum(token_scores)
            hypothesis = Hypothesis(
                ids=tokens[sentence, n, :end].tolist(),
                score=normalise(log_prob, end + 1, options),
                log_prob=log_prob,
                token_scores=token_scores,
                # A copy, so that no hypothesis keeps its whole batch alive.
                attention=attention[sentence, n, : end + 1, :length].copy() if attends else None,
                finished=bool(chosen.finished[sentence, n]),
            )
            found.append(hypothesis)
        # Sums in double precision may order near-equals differently than the search did.
        found.sort(key=lambda h: (not h.finished, -h.score))
        result.append(found)
    return result
