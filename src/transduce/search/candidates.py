"""The best continuations of K hypotheses among K x V."""

from __future__ import annotations

import torch
from torch import Tensor

BLOCK = 64  # words looked at together; about the square root of a vocabulary
MANY = 1024  # vocabularies from this size on are searched in two stages


def best_continuations(log_probs: Tensor, scores: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """The `count` best of scores + log_probs for each sentence, best first.

    log_probs (B, K, V), scores (B, K) -> values (B, count), index (B, count) int64 in K * V.
    There are fewer than `count` if K * V is less.

    A selection over K * V words costs more than the softmax before it. For large vocabularies it
    goes in two stages: the maximum of every block of words (one cheap pass), and a selection
    within the `count` best blocks, outside which no candidate can be among the `count` best.
    """
    batch, beam, vocabulary = log_probs.shape
    count = min(count, beam * vocabulary)
    if vocabulary < MANY:
        return (log_probs + scores.unsqueeze(2)).flatten(1).topk(count)
    blocks, rest = divmod(vocabulary, BLOCK)
    whole = log_probs[..., : blocks * BLOCK].unflatten(2, (blocks, BLOCK))
    maxima = whole.amax(dim=3) + scores.unsqueeze(2)
    best = maxima.flatten(1).topk(min(count, beam * blocks)).indices
    parent = best // blocks
    # First word of each chosen block, as an index in K * V; then all words of these blocks.
    first = (parent * rest + best * BLOCK).unsqueeze(2)
    index = (first + torch.arange(BLOCK, device=first.device)).flatten(1)
    before = scores.gather(1, parent).repeat_interleave(BLOCK, dim=1)
    if rest:  # the words after the last whole block are always candidates
        ends = torch.arange(1, beam + 1, device=first.device).unsqueeze(1) * vocabulary
        tail = (ends - torch.arange(rest, 0, -1, device=first.device)).flatten()
        index = torch.cat([index, tail.expand(batch, -1)], dim=1)
        before = torch.cat([before, scores.repeat_interleave(rest, dim=1)], dim=1)
    values, picked = (log_probs.flatten(1).gather(1, index) + before).topk(count)
    return values, index.gather(1, picked)
