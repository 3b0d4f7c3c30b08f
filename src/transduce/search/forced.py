"""The log-probability a model gives to targets that are already there: filtering, reranking."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple, cast

import numpy as np
import torch

from transduce.data.batches import Row, collate
from transduce.search.batching import evaluating, in_batches, in_windows, positions
from transduce.search.ctc.align import read
from transduce.search.ctc.joint import CtcModel
from transduce.search.ctc.prefix import Frames
from transduce.search.interface import SearchModel, columns_of, given_by, has_decoder
from transduce.search.limits import memory_lengths

Pair = tuple[Row, Sequence[int]]  # ids of source (or frames) and target, without BOS and EOS


class Forced(NamedTuple):
    """One target's scores.

    log_prob: natural logarithm of its probability, EOS included. token_scores: of each token and,
    last, of EOS. attention: (T, S) float32 with T = tokens + 1, or None without attention; S
    positions of the memory, end symbol of a text included. By CTC alone: as `ctc.align.read` has
    them, and -inf for a target that is too long for the sound. copied: how much of each token's
    probability came from copying, where the model copies.
    """

    log_prob: float
    token_scores: list[float]
    attention: np.ndarray | None
    copied: list[float] | None = None


def force_score(
    model: SearchModel,
    sources: Iterable[Row],
    targets: Iterable[Sequence[int]],
    *,
    device: torch.device | str = "cpu",
    batch_tokens: int = 2000,
) -> list[Forced]:
    """Score every target given its source, in order; ValueError if there are more of one."""
    pairs = zip(sources, targets, strict=True)
    return list(force_stream(model, pairs, device=device, batch_tokens=batch_tokens))


def force_stream(
    model: SearchModel,
    pairs: Iterable[Pair],
    *,
    device: torch.device | str = "cpu",
    batch_tokens: int = 2000,
    window: int = 2048,
) -> Iterator[Forced]:
    """Score a stream of pairs in order, reading `window` of them at a time.

    batch_tokens: padded positions of a batch, of source or target, whichever has more; one batch
    holds log-probabilities of so many positions x the vocabulary.
    """

    def answer(batch: list[Pair]) -> list[Forced]:
        with evaluating(model):
            return _force_batch(model, batch, torch.device(device))

    def answer_window(pairs: list[Pair]) -> list[Forced]:
        return in_batches(pairs, answer, width, batch_tokens)

    def width(pair: Pair) -> int:
        return max(positions(pair[0]), positions(pair[1]))

    return in_windows(pairs, answer_window, width, window)


@torch.inference_mode()
def _force_batch(model: SearchModel, pairs: list[Pair], device: torch.device) -> list[Forced]:
    sources, targets = [pair[0] for pair in pairs], [pair[1] for pair in pairs]
    batch = collate(sources, targets, np.arange(len(pairs))).to(device)
    widths = memory_lengths(model, batch.source_lengths)
    if not has_decoder(model) and getattr(model, "has_ctc", False):
        head = cast(CtcModel, model)
        log_probs = head.ctc_log_probs(head.encode(batch.source, batch.source_lengths))
        return _by_ctc(Frames.of(log_probs, widths), targets)
    given = given_by(model, batch.source, batch.source_lengths, batch.target_input)
    gold = columns_of(model, batch.source, batch.target_output)
    gains = given.log_probs.gather(2, gold.unsqueeze(2)).squeeze(2).float()
    scores = gains.numpy(force=True)
    weights = None if given.attention is None else given.attention.float().numpy(force=True)
    shares = None
    if given.copied is not None:
        each = torch.arange(gold.shape[1], device=device).expand_as(gold)
        shares = given.copied.share(each, gold, gains).numpy(force=True)
    results = []
    for b, (target, columns) in enumerate(zip(targets, widths.tolist(), strict=True)):
        rows = positions(target)
        token_scores: list[float] = scores[b, :rows].tolist()
        part = None if weights is None else weights[b, :rows, :columns].copy()
        copied = None if shares is None else shares[b, : rows - 1].tolist()
        results.append(Forced(sum(token_scores), token_scores, part, copied))
    return results


def _by_ctc(frames: Frames, targets: list[Sequence[int]]) -> list[Forced]:
    results = []
    for reading in read(frames, range(len(targets)), targets):
        # What follows the impossible has no probability of its own.
        scores = [-math.inf if math.isnan(score) else score for score in reading.token_scores]
        results.append(Forced(sum(scores), scores, reading.attention))
    return results
