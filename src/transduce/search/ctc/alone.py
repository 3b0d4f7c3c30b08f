"""Decoding with CTC and no decoder: the best path, or a beam of prefixes.

The beam goes frame by frame and keeps the K prefixes that the frames so far mean most probably,
summed over the paths it has seen, and with what a language model and a bonus for length say of them
(Hannun, Maas, Jurafsky, Ng 2014, 1408.2873, algorithm 1). All K prefixes of all sentences take a
frame together.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from transduce.data.tokenizers.base import BOS, EOS
from transduce.hypotheses.hypothesis import Hypothesis
from transduce.recipe import SearchOptions
from transduce.search.ctc.advice import Advice, Adviser
from transduce.search.ctc.align import read
from transduce.search.ctc.joint import CtcModel
from transduce.search.ctc.prefix import BLANK, LEAST, Frames
from transduce.search.limits import memory_lengths

HASH = 1_000_003  # of label sequences, modulo 2 ** 64
NOBODY = -2  # the hash of no prefix
ADVISED = 40  # labels of each frame that can follow a prefix, at least, where CTC is not alone


@torch.inference_mode()
def ctc_search(
    model: CtcModel, source: Tensor, lengths: Tensor, options: SearchOptions
) -> list[list[Hypothesis]]:
    """The n best hypotheses of each sentence by the model's CTC head; arguments as `beam_search`.

    A beam of 1 is the best path. Hypotheses are ranked by their probability, whatever their length:
    `score` is `log_prob`, the sum over all paths. Their attention is where CTC has each token. A
    language model beside the model (`language.Advised`) and a bonus for length add to all scores,
    those of tokens too, and the search is then that of prefixes whatever the beam.
    """
    log_probs = model.ctc_log_probs(model.encode(source, lengths))
    frames = Frames.of(log_probs, memory_lengths(model, lengths))
    return search_frames(frames, options, Adviser.asked_for(model, options))


@torch.inference_mode()
def search_frames(
    frames: Frames, options: SearchOptions, adviser: Adviser | None = None
) -> list[list[Hypothesis]]:
    """The same, from CTC's log-probabilities, and with whoever has a say beside them."""
    found = [[ids] for ids in best_paths(frames)]
    if options.beam > 1 or adviser is not None:
        # A beam may lose what the best path means; so that a wider search is never a worse one, it
        # stays in the running.
        beams = prefix_beam(frames, options.beam, options.n_best, adviser)
        pairs = zip(found, beams, strict=True)
        found = [beam if first in beam else [first, *beam] for (first,), beam in pairs]
    rows = [row for row, targets in enumerate(found) for _ in targets]
    targets = [ids for targets in found for ids in targets]
    readings = read(frames, rows, targets)
    scores = [reading.token_scores for reading in readings]
    if adviser is not None:
        advice = adviser.scores(targets, frames.blank.device)
        scores = [np.add(*pair).tolist() for pair in zip(scores, advice, strict=True)]
    results: list[list[Hypothesis]] = [[] for _ in found]
    for row, ids, own, reading in zip(rows, targets, scores, readings, strict=True):
        results[row].append(Hypothesis(ids, sum(own), sum(own), own, reading.attention))
    for hypotheses in results:
        hypotheses.sort(key=lambda h: -h.log_prob)
    return [hypotheses[: options.n_best] for hypotheses in results]


def best_paths(frames: Frames) -> list[list[int]]:
    """The most probable label of each frame, repetitions and blanks removed: B lists of ids."""
    path = _labels(frames).argmax(dim=1)
    new = torch.ones_like(path, dtype=torch.bool)
    new[:, 1:] = path[:, 1:] != path[:, :-1]
    chosen = (new & (path != BLANK) & ~frames.padding.squeeze(1)).cpu()
    return [row[mask].tolist() for row, mask in zip(path.cpu(), chosen, strict=True)]


def _labels(frames: Frames) -> Tensor:
    """log_probs (B, V, S) in which BOS and EOS, which no frame means, have none."""
    labels = frames.log_probs.clone()
    labels[:, [BOS, EOS]] = 2 * LEAST
    return labels


@dataclass(frozen=True)
class _Prefixes:
    """K prefixes of each of B sentences after some frames; each tensor (B, K).

    label, blank: log-probability of the paths that end in the last label, or in a blank; -inf where
    there is no prefix. last: the last label. code, parent: hashes of the prefix, and of it without
    its last label.
    """

    label: Tensor
    blank: Tensor
    last: Tensor
    code: Tensor
    parent: Tensor

    @property
    def total(self) -> Tensor:
        return torch.logaddexp(self.label, self.blank)


def prefix_beam(
    frames: Frames, beam: int, n_best: int, adviser: Adviser | None = None
) -> list[list[list[int]]]:
    """The ids of the n best prefixes of each sentence after all its frames, best first."""
    labels = _labels(frames).double()
    batch, vocabulary, steps = labels.shape
    # For one prefix the labels that can matter are the `beam` best, and the one it repeats. With an
    # adviser it might be any; those that the frame itself makes most improbable are left out.
    width = min(beam + 1 if adviser is None else max(beam + 1, ADVISED), vocabulary - 1)
    best = labels[:, BLANK + 1 :].topk(width, dim=1)  # (B, C, S)
    floor = best.values.masked_fill(frames.padding | (best.values <= LEAST), -math.inf)
    zeros = torch.zeros((batch, 1), dtype=torch.int64, device=labels.device)
    empty = torch.full((batch, 1), -math.inf, dtype=torch.float64, device=labels.device)
    prefixes = _Prefixes(empty, torch.zeros_like(empty), zeros, zeros, zeros - 1)
    advice = None if adviser is None else Advice.start(adviser, batch, labels.device)
    parents, tokens = [], []
    for t in range(steps):
        chances = floor[:, :, t], best.indices[:, :, t] + BLANK + 1
        picked, prefixes, advice = _take_frame(prefixes, labels[:, :, t], *chances, beam, advice)
        parents.append(picked[0])
        tokens.append(picked[1])
    scores = prefixes.total if advice is None else prefixes.total + advice.at_end()
    return _trace(scores, parents, tokens, n_best)


def _take_frame(
    old: _Prefixes,
    frame: Tensor,
    values: Tensor,
    labels: Tensor,
    beam: int,
    advice: Advice | None,
) -> tuple[tuple[Tensor, Tensor], _Prefixes, Advice | None]:
    """One frame more: which prefix each new one continues and by what (0: by nothing), they, and
    what is said of them.

    frame (B, V): log-probabilities; values, labels (B, C): the best labels.
    """
    total = old.total
    # 1. Each prefix as it is: a blank, or its last label once more.                     (B, K)
    blank = total + frame[:, BLANK].unsqueeze(1)
    again = frame.gather(1, old.last)
    label = old.label + again
    # It is also its parent with its last label, where the parent is there too.       (B, K, K)
    is_child = old.parent.unsqueeze(2) == old.code.unsqueeze(1)
    repeats = old.last.unsqueeze(2) == old.last.unsqueeze(1)
    grown = torch.where(repeats, old.blank.unsqueeze(1), total.unsqueeze(1))
    grown = grown.masked_fill(~is_child, -math.inf).amax(dim=2) + again
    label = torch.logaddexp(label, grown)
    # 2. Each prefix with one of the best labels, unless that is there already.       (B, K, C)
    repeats = old.last.unsqueeze(2) == labels.unsqueeze(1)
    longer = torch.where(repeats, old.blank.unsqueeze(2), total.unsqueeze(2)) + values.unsqueeze(1)
    codes = old.code.unsqueeze(2) * HASH + labels.unsqueeze(1)
    there = (codes.unsqueeze(3) == old.code[:, None, None, :]).any(dim=3)
    longer = longer.masked_fill(there, -math.inf)
    # 3. The best of both.
    kept, count = old.last.shape[1], labels.shape[1]
    choices = torch.cat([torch.logaddexp(label, blank), longer.flatten(1)], dim=1)
    said = None
    if advice is not None:
        said = torch.cat([advice.said, advice.of_longer(labels).flatten(1)], dim=1)
    ranked = choices if said is None else choices + said
    index = ranked.topk(min(beam, choices.shape[1])).indices
    score = choices.gather(1, index)
    stays = index < kept
    extended = (index - kept).clamp(min=0)
    parent = torch.where(stays, index, torch.div(extended, count, rounding_mode="floor"))
    token = labels.gather(1, extended % count)
    code = torch.where(stays, old.code.gather(1, parent), codes.flatten(1).gather(1, extended))
    before = torch.where(stays, old.parent.gather(1, parent), old.code.gather(1, parent))
    nothing = score == -math.inf  # and nothing's child: or it would come to life beside its double
    new = _Prefixes(
        label=torch.where(stays, label.gather(1, parent), score),
        blank=torch.where(stays, blank.gather(1, parent), -math.inf),
        last=torch.where(stays, old.last.gather(1, parent), token),
        code=code.masked_fill(nothing, NOBODY),
        parent=before.masked_fill(nothing, NOBODY - 1),
    )
    token = torch.where(stays, 0, token)
    if advice is not None and said is not None:
        advice = advice.follow(said.gather(1, index), parent, token, ~nothing)
    return (parent, token), new, advice


def _trace(
    total: Tensor, parents: Sequence[Tensor], tokens: Sequence[Tensor], n_best: int
) -> list[list[list[int]]]:
    """Follow the n best prefixes, by total (B, K) after the last frame, back to the first."""
    scores, slot = total.topk(min(n_best, total.shape[1]))
    slots, real = slot.numpy(force=True), (scores > -math.inf).numpy(force=True)
    sentence = np.arange(len(slots))[:, None]
    path = np.zeros((len(tokens), *slots.shape), dtype=np.int64)
    for t in range(len(tokens) - 1, -1, -1):
        path[t] = tokens[t].numpy(force=True)[sentence, slots]
        slots = parents[t].numpy(force=True)[sentence, slots]
    return [
        [path[path[:, b, n] != BLANK, b, n].tolist() for n in np.flatnonzero(real[b])]
        for b in range(len(slots))
    ]
