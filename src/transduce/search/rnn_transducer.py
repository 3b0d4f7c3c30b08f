"""Decoding with RNN transducers (Graves 2012, 1211.3711, section 2.5).

A transducer reads frame after frame; on each it writes any number of labels, then a blank, which
takes it to the next frame. Hypotheses of a sentence stand on different frames, so both searches
give every one a frame of its own and move all of them together, one label or blank at a time: for
the beam this is alignment-length synchronous decoding (Saon, Tueske, Audhkhasi 2020).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor

from transduce.data.tokenizers.base import BOS, EOS, PAD
from transduce.hypotheses.hypothesis import Hypothesis
from transduce.hypotheses.scoring import max_tokens
from transduce.recipe import SearchOptions
from transduce.search.limits import memory_lengths

BLANK = PAD
HASH = 1_000_003  # of label sequences, modulo 2 ** 64


class PredictionState(Protocol):
    """What the prediction network carries for (B, K) hypotheses."""

    def select(self, hypotheses: Tensor) -> Any:
        """New hypothesis k of sentence b continues old `hypotheses[b, k]`; (B, K') int64."""
        ...

    def keep(self, rows: Tensor) -> Any:
        """Only the sentences `rows` (B',) int64."""
        ...

    def where(self, chosen: Tensor, other: Any) -> Any:
        """This state for the hypotheses `chosen` (B, K) boolean, `other` for the rest."""
        ...


class TransducerModel(Protocol):
    """A transducer, as search sees it."""

    def encode(self, source: Tensor, lengths: Tensor) -> Any:
        """A memory with `values` (B, S, D), one vector a frame."""
        ...

    def start(self, memory: Any) -> PredictionState:
        """The state before the first label, K = 1."""
        ...

    def predict(self, tokens: Tensor, state: Any) -> tuple[Tensor, Any]:
        """tokens (B, K) int64, BOS at first -> what follows them (B, K, P), and the new state."""
        ...

    def join(self, frames: Tensor, predictions: Tensor) -> Tensor:
        """(B, K, D) and (B, K, P) -> log-probabilities (B, K, V) of labels and, at 0, the blank."""
        ...


@dataclass(frozen=True)
class _Beam:
    """K hypotheses of each of B sentences that have not read everything.

    prediction (B, K, P) and state: after the last label. score (B, K) float64; -inf: none there.
    frame, count (B, K) int64: where each stands, and its labels so far. code (B, K): a hash of
    them. ids, at (B, K, T): the labels and the frames they were written on; scores (B, K, T): the
    log-probability up to and with each.
    """

    prediction: Tensor
    state: Any
    score: Tensor
    frame: Tensor
    count: Tensor
    code: Tensor
    ids: Tensor
    at: Tensor
    scores: Tensor

    def keep(self, rows: Tensor) -> _Beam:
        own = (getattr(self, name)[rows] for name in _TENSORS)
        return _Beam(self.prediction[rows], self.state.keep(rows), *own)


_TENSORS = ("score", "frame", "count", "code", "ids", "at", "scores")


@torch.inference_mode()
def transducer_search(
    model: TransducerModel, source: Tensor, lengths: Tensor, options: SearchOptions
) -> list[list[Hypothesis]]:
    """The n best hypotheses of each sentence; arguments as `beam_search`. A beam of 1 is greedy.

    A hypothesis' probability is the sum over the alignments that were among the K best; `score` is
    its logarithm, whatever the length. A token's score includes the blanks before it, the last one
    is that of the blanks to the end. The attention (T + 1, S) is 1 on the frame a token was written
    on.
    """
    memory = model.encode(source, lengths)
    frames = memory.values
    last = memory_lengths(model, lengths).to(frames.device)
    sources: list[int] = last.tolist()
    longest = [max_tokens(length, options) for length in sources]
    most = torch.tensor(longest, device=last.device)
    beam = _start(model, memory, len(sources), max(longest))
    rows = torch.arange(len(sources), device=last.device)
    results = _Finished([[] for _ in sources])
    for _ in range(max(sources) + max(longest)):
        # 1. What follows each hypothesis on its frame: a label, or the next frame.     (B, K, V)
        index = beam.frame.clamp(max=frames.shape[1] - 1).unsqueeze(2)
        here = frames.gather(1, index.expand(-1, -1, frames.shape[2]))
        log_probs = model.join(here, beam.prediction).double()
        log_probs[:, :, [BOS, EOS]] = -math.inf
        full = beam.count >= most.unsqueeze(1)
        log_probs[:, :, BLANK + 1 :].masked_fill_(full.unsqueeze(2), -math.inf)
        # 2. The best of all continuations; those that have read everything are finished.
        width = min(options.beam, log_probs.shape[1] * log_probs.shape[2])
        beam = _merged(_continue(model, beam, log_probs, width))
        ended = (beam.frame >= last.unsqueeze(1)) & (beam.score > -math.inf)
        if bool(ended.any()):
            results.enter(rows, beam, ended)
            beam.score.masked_fill_(ended, -math.inf)
        # 3. Sentences in which no hypothesis can become one of the n best leave.
        best = beam.score.amax(dim=1)
        done = best <= results.nth_best(rows, options.n_best).to(best.device)
        if bool(done.any()):
            kept = (~done).nonzero().squeeze(1)
            if not len(kept):
                break
            rows, beam, frames = rows[kept], beam.keep(kept), frames[kept]
            last, most = last[kept], most[kept]
    return results.assemble(sources, longest, options.n_best)


def _start(model: TransducerModel, memory: Any, batch: int, longest: int) -> _Beam:
    device = memory.values.device
    tokens = torch.full((batch, 1), BOS, device=device)
    prediction, state = model.predict(tokens, model.start(memory))
    nothing = torch.zeros((batch, 1), dtype=torch.int64, device=device)
    ids = torch.zeros((batch, 1, longest), dtype=torch.int64, device=device)
    return _Beam(
        prediction=prediction,
        state=state,
        score=torch.zeros((batch, 1), dtype=torch.float64, device=device),
        frame=nothing,
        count=nothing.clone(),
        code=nothing.clone(),
        ids=ids,
        at=ids.clone(),
        scores=ids.double(),
    )


def _continue(model: TransducerModel, beam: _Beam, log_probs: Tensor, width: int) -> _Beam:
    """The `width` best continuations of each sentence; log_probs (B, K, V)."""
    vocabulary = log_probs.shape[2]
    score, index = (log_probs + beam.score.unsqueeze(2)).flatten(1).topk(width)
    parents = torch.div(index, vocabulary, rounding_mode="floor")
    tokens = index - parents * vocabulary
    writes = tokens != BLANK
    frame, count = beam.frame.gather(1, parents), beam.count.gather(1, parents)
    code = beam.code.gather(1, parents)
    whole = parents.unsqueeze(2).expand(-1, -1, beam.ids.shape[2])
    ids, at, scores = (x.gather(1, whole) for x in (beam.ids, beam.at, beam.scores))
    # The new label enters at `count`; a blank writes nothing.
    place = count.clamp(max=ids.shape[2] - 1).unsqueeze(2)
    for table, new in ((ids, tokens), (at, frame), (scores, score)):
        old = table.gather(2, place).squeeze(2)
        table.scatter_(2, place, torch.where(writes, new, old).unsqueeze(2))
    # The prediction network moves on for those that have a new label.
    earlier = beam.state.select(parents)
    predicted, later = model.predict(torch.where(writes, tokens, BOS), earlier)
    index = parents.unsqueeze(2).expand(-1, -1, predicted.shape[2])
    return _Beam(
        prediction=torch.where(writes.unsqueeze(2), predicted, beam.prediction.gather(1, index)),
        state=later.where(writes, earlier),
        score=score,
        frame=torch.where(writes, frame, frame + 1),
        count=count + writes,
        code=torch.where(writes, code * HASH + tokens, code),
        ids=ids,
        at=at,
        scores=scores,
    )


def _merged(beam: _Beam) -> _Beam:
    """Hypotheses of the same labels as one: the best of them has the probability of all."""
    alike = (beam.code.unsqueeze(2) == beam.code.unsqueeze(1)) & (
        beam.count.unsqueeze(2) == beam.count.unsqueeze(1)
    )
    earlier = torch.ones_like(alike[0]).tril(-1)  # better ones come first
    total = torch.where(alike, beam.score.unsqueeze(1), -math.inf).logsumexp(dim=2)
    beam.score.copy_(total.masked_fill((alike & earlier).any(dim=2), -math.inf))
    return beam


@dataclass
class _Finished:
    """Complete hypotheses of each sentence: log_prob, ids, frames, and scores up to each label."""

    found: list[list[tuple[float, np.ndarray, np.ndarray, np.ndarray]]]

    def enter(self, rows: Tensor, beam: _Beam, ended: Tensor) -> None:
        """Enter the hypotheses `ended` (B, K) boolean of the sentences `rows` (B,)."""
        sentence, slot = ended.nonzero(as_tuple=True)
        counts = beam.count[sentence, slot].tolist()
        totals = beam.score[sentence, slot].tolist()
        tables = [x[sentence, slot].numpy(force=True) for x in (beam.ids, beam.at, beam.scores)]
        for n, row in enumerate(rows[sentence].tolist()):
            ids, at, scores = (table[n, : counts[n]].copy() for table in tables)
            self.found[row].append((totals[n], ids, at, scores))

    def nth_best(self, rows: Tensor, n: int) -> Tensor:
        """(B,) the log_prob that one of the n best of the sentences `rows` has to be above."""
        ordered = (sorted(one[0] for one in self.found[row]) for row in rows.tolist())
        worst = [scores[-n] if len(scores) >= n else -math.inf for scores in ordered]
        return torch.tensor(worst, dtype=torch.float64)

    def assemble(self, sources: list[int], longest: list[int], n: int) -> list[list[Hypothesis]]:
        """The n best of each sentence; its frames, and the most labels it may have."""
        results = []
        for entries, width, most in zip(self.found, sources, longest, strict=True):
            best = sorted(entries, key=lambda entry: -entry[0])[:n]
            found = [_hypothesis(entry, width, most) for entry in best]
            # A model that answers NaN still gets its one hypothesis.
            results.append(found or [_hypothesis(_IMPOSSIBLE, width, 0)])
        return results


_IMPOSSIBLE = -math.inf, np.zeros(0, np.int64), np.zeros(0, np.int64), np.zeros(0)


def _hypothesis(
    entry: tuple[float, np.ndarray, np.ndarray, np.ndarray], width: int, longest: int
) -> Hypothesis:
    total, ids, at, scores = entry
    token_scores: list[float] = np.diff([0.0, *scores, total]).tolist()
    attention = np.zeros((len(ids) + 1, width), dtype=np.float32)
    attention[np.arange(len(ids) + 1), [*at, width - 1]] = 1.0
    finished = len(ids) < longest  # else it had no choice but to stop
    return Hypothesis(ids.tolist(), total, total, token_scores, attention, finished)
