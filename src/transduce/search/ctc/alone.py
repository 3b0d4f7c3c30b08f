"""Decoding with CTC and nothing else: the best path, and prefix search with a beam.

The beam goes label by label: of all prefixes one label longer it keeps the K most probable, each
with the sum of everything that begins with it (the prefix search of Graves et al. 2006, section
3.2, bounded by a beam). It ends by itself: no continuation of a prefix is more probable than the
prefix, so a sentence is done when its n best complete targets beat every prefix that lives.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from transduce.data.tokenizers.base import BOS, EOS
from transduce.hypotheses.hypothesis import Hypothesis
from transduce.model.state import State, Step
from transduce.recipe import SearchOptions
from transduce.search.beam import beam_search
from transduce.search.ctc.align import read
from transduce.search.ctc.joint import CtcModel, with_rest
from transduce.search.ctc.prefix import BLANK, LEAST, Frames, PrefixState
from transduce.search.limits import memory_lengths


@torch.inference_mode()
def ctc_search(
    model: CtcModel, source: Tensor, lengths: Tensor, options: SearchOptions
) -> list[list[Hypothesis]]:
    """The n best hypotheses of each sentence by the model's CTC head; arguments as `beam_search`.

    A beam of 1 is the best path. Hypotheses are ranked by their probability, whatever their length:
    `score` is `log_prob`. Their attention is where CTC has each token.
    """
    log_probs = model.ctc_log_probs(model.encode(source, lengths))
    return search_frames(Frames.of(log_probs, memory_lengths(model, lengths)), options)


@torch.inference_mode()
def search_frames(frames: Frames, options: SearchOptions) -> list[list[Hypothesis]]:
    """The same, from CTC's log-probabilities."""
    if options.beam == 1:
        return _described(frames, [[ids] for ids in best_paths(frames)])
    longest = frames.lengths + 1  # a token on every frame, and the end
    plain = SearchOptions(
        beam=options.beam,
        n_best=options.n_best,
        length_penalty=0.0,
        max_ratio=1.0,
        max_extra=0,
    )
    names = torch.arange(len(longest), device=longest.device).unsqueeze(1)
    found = beam_search(_PrefixModel(frames), names, longest, plain)
    return _described(frames, [[h.ids for h in n_best] for n_best in found])


def best_paths(frames: Frames) -> list[list[int]]:
    """The most probable label of each frame, repetitions and blanks removed: B lists of ids."""
    labels = frames.log_probs.clone()
    labels[:, [BOS, EOS]] = 2 * LEAST
    path = labels.argmax(dim=1)
    new = torch.ones_like(path, dtype=torch.bool)
    new[:, 1:] = path[:, 1:] != path[:, :-1]
    chosen = (new & (path != BLANK) & ~frames.padding.squeeze(1)).cpu()
    return [row[mask].tolist() for row, mask in zip(path.cpu(), chosen, strict=True)]


def _described(frames: Frames, found: Sequence[Sequence[list[int]]]) -> list[list[Hypothesis]]:
    """Hypotheses of each sentence's targets, best first."""
    rows = [row for row, targets in enumerate(found) for _ in targets]
    targets = [ids for targets in found for ids in targets]
    results: list[list[Hypothesis]] = [[] for _ in found]
    for row, ids, reading in zip(rows, targets, read(frames, rows, targets), strict=True):
        total = sum(reading.token_scores)
        results[row].append(Hypothesis(ids, total, total, reading.token_scores, reading.attention))
    for hypotheses in results:
        hypotheses.sort(key=lambda h: -h.log_prob)
    return results


@dataclass(frozen=True)
class _PrefixOnly(State):
    prefix: PrefixState

    def select(self, hypotheses: Tensor) -> _PrefixOnly:
        return _PrefixOnly(self.prefix.select(hypotheses))

    def keep(self, rows: Tensor) -> _PrefixOnly:
        return _PrefixOnly(self.prefix.keep(rows))

    def join(self, other: _PrefixOnly, width: int) -> _PrefixOnly:
        return _PrefixOnly(self.prefix.join(other.prefix, width))


@dataclass(frozen=True)
class _PrefixModel:
    """CTC as a model to search: a source is the number of a sentence of `frames`."""

    frames: Frames

    def encode(self, source: Tensor, lengths: Tensor) -> Frames:
        return self.frames.keep(source[:, 0])

    def start(self, memory: Frames) -> _PrefixOnly:
        return _PrefixOnly(PrefixState.start(memory))

    def step(self, tokens: Tensor, state: _PrefixOnly, memory: Frames) -> Step:
        prefix = state.prefix.advance(memory, tokens)
        return Step(with_rest(prefix.scores(memory)), _PrefixOnly(prefix), None)

    def __call__(
        self, source: Tensor, lengths: Tensor, target_input: Tensor
    ) -> tuple[Tensor, Tensor | None]:
        raise NotImplementedError("targets are read by `align.read`")
