"""From the steps of a search to hypotheses: which were chosen, and what led to them.

A search leaves each step's choices and back-pointers as they are. Afterwards the chosen
hypotheses are followed backwards, all together.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from transduce.errors import UsageError
from transduce.hypotheses.hypothesis import Hypothesis
from transduce.hypotheses.scoring import (
    CoverageOptions,
    LengthOptions,
    coverage_score,
    normalise,
)

Array = np.ndarray


@dataclass(frozen=True)
class Chosen:
    """N hypotheses of each of B sentences, best first.

    step (B, N): the step at which each ended; slot (B, N): which live hypothesis of that step it
    was; finished and real (B, N) boolean: real is False where a sentence has fewer than N.
    """

    step: Array
    slot: Array
    finished: Array
    real: Array


def choose(
    finished: Array, finished_at: Array, unfinished: Array, unfinished_at: Array, beam: int
) -> Chosen:
    """The n best of each sentence, finished before unfinished; always at least one.

    finished, unfinished: (B, n) scores, best first, -inf where there is none; finished_at,
    unfinished_at: (B, n), step * beam + slot of each.
    """
    n_best = finished.shape[1]
    scores = np.concatenate([finished, unfinished], axis=1)
    at = np.concatenate([finished_at, unfinished_at], axis=1)
    ended = np.broadcast_to(np.arange(2 * n_best) < n_best, scores.shape)
    real = scores > -math.inf
    # A model that rules out everything, or answers NaN, still gets its one hypothesis.
    real[:, n_best] |= ~real.any(axis=1)
    order = np.argsort(~real, axis=1, kind="stable")[:, :n_best]
    at, ended, real = (np.take_along_axis(x, order, axis=1) for x in (at, ended, real))
    return Chosen(step=at // beam, slot=at % beam, finished=ended, real=real)


class Trace(NamedTuple):
    """What one step says of some of the chosen's sentences.

    sentences (B',): which of the chosen's. rows (B',): where each stands in the arrays that
    follow. ends (B, K): log-probability of the end symbol after each live hypothesis. tokens,
    parents, gains (B, K'): the hypotheses that live on: their new token, which old one each
    continues (None: the k-th the k-th), and the token's log-probability. copied (B, K'): how much
    of it came from copying, where a model copies.
    """

    step: int
    sentences: Array
    rows: Array
    ends: Array
    tokens: Array
    parents: Array | None
    gains: Array
    copied: Array | None = None


@dataclass(frozen=True)
class Paths:
    """The chosen hypotheses, step by step: tokens and scores (B, N, T), zero outside of them.

    slots: for each trace (B', N), the live hypothesis on the path before the step's choice. copied:
    (B, N, T) like the scores, the tokens' copied shares, or None where nothing is copied.
    """

    tokens: Array
    scores: Array
    slots: list[Array]
    copied: Array | None = None


def follow(traces: Sequence[Trace], chosen: Chosen, steps: int) -> Paths:
    """Follow the back-pointers from the last step; traces in the order of their steps, < steps."""
    shape = (*chosen.step.shape, steps)
    tokens, scores = np.zeros(shape, dtype=np.int64), np.zeros(shape, dtype=np.float32)
    copies = any(trace.copied is not None for trace in traces)
    copied = np.zeros(shape, dtype=np.float32) if copies else None
    slot = chosen.slot.copy()  # the place of each chosen hypothesis after the step that follows
    slots = []
    for trace in reversed(traces):
        who, b, t = trace.sentences, trace.rows[:, None], trace.step
        here, last = slot[who], chosen.step[who]
        inside, at_end = last > t, last == t
        # Places beyond a step's K belong to hypotheses that have not begun or are not real.
        after = np.minimum(here, trace.tokens.shape[1] - 1)
        tokens[who, :, t] = np.where(inside, trace.tokens[b, after], 0)
        before = here
        if trace.parents is not None:
            before = slot[who] = np.where(inside, trace.parents[b, after], here)
        before = np.minimum(before, trace.ends.shape[1] - 1)
        if copied is not None and trace.copied is not None:
            copied[who, :, t] = np.where(inside, trace.copied[b, after], 0.0)
        gains = np.where(inside, trace.gains[b, after], 0.0)
        scores[who, :, t] = np.where(at_end, trace.ends[b, before], gains)
        slots.append(before)
    return Paths(tokens, scores, slots[::-1], copied)


def assemble(
    paths: Paths,
    chosen: Chosen,
    attention: Array | None,
    first: Sequence[int],
    sources: Sequence[int],
    options: LengthOptions,
    coverage: CoverageOptions | None = None,
) -> list[list[Hypothesis]]:
    """The hypotheses of every sentence, best first.

    attention: (B, N, T, S) along the paths, or None. first: the step at which each sentence began.
    sources: its real source positions. coverage: what to add to scores for it, if anything.

    Errors: UsageError when coverage is asked for and there is no attention.
    """
    if coverage is not None and attention is None:
        raise UsageError(
            "search.coverage_penalty needs a model with attention, and this one has none; set it "
            "to 0"
        )
    result = []
    for b, (start, width) in enumerate(zip(first, sources, strict=True)):
        found = []
        for n in np.flatnonzero(chosen.real[b]).tolist():
            end = int(chosen.step[b, n])
            token_scores: list[float] = paths.scores[b, n, start : end + 1].tolist()
            log_prob = sum(token_scores)
            score = normalise(log_prob, end + 1 - start, options)
            # A copy, so that no hypothesis keeps all of them alive.
            own = None if attention is None else attention[b, n, start : end + 1, :width].copy()
            if coverage is not None and own is not None:
                score += coverage_score(own, coverage)
            hypothesis = Hypothesis(
                ids=paths.tokens[b, n, start:end].tolist(),
                score=score,
                log_prob=log_prob,
                token_scores=token_scores,
                attention=own,
                finished=bool(chosen.finished[b, n]),
                copied=None if paths.copied is None else paths.copied[b, n, start:end].tolist(),
            )
            found.append(hypothesis)
        # Sums in double precision may order near-equals differently than the search did.
        found.sort(key=lambda h: (not h.finished, -h.score))
        result.append(found)
    return result
