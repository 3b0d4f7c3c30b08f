"""A lexicon learnt from the training data: which target tokens a source token is translated by.

IBM Model 1 (Brown et al. 1993, section 4.1), whose expectation maximisation has one maximum: a
target token comes from one of the source tokens of its sentence, or from none (NULL). Only what
stands together in a sentence is ever counted, so the tables are as long as there are such pairs.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.int64]
NULL = 0  # PAD's id, which no sentence holds, stands for no source token


@dataclass(frozen=True)
class Lexicon:
    """Pairs of tokens with a probability: source (P,), target (P,), probability (P,) of the target
    token given the source token."""

    source: Array
    target: Array
    probability: npt.NDArray[np.float64]

    def best(self, source_size: int, count: int) -> npt.NDArray[np.int32]:
        """The `count` likeliest target tokens of each source token, (source_size, count).

        Best first; rows of source tokens with fewer end in zeros.
        """
        order = np.lexsort((-self.probability, self.source))
        source, target = self.source[order], self.target[order]
        starts = np.searchsorted(source, np.arange(source_size))
        rank = np.arange(len(source)) - starts[source]
        table = np.zeros((source_size, count), dtype=np.int32)
        kept = rank < count
        table[source[kept], rank[kept]] = target[kept]
        return table


def learn_lexicon(
    sources: Sequence[Sequence[int]], targets: Sequence[Sequence[int]], iterations: int = 5
) -> Lexicon:
    """IBM Model 1 on pairs of token ids without BOS and EOS; memory grows with S x T of each."""
    pairs, groups = _together(sources, targets)
    if not pairs.size:
        nothing = np.zeros(0, dtype=np.int64)
        return Lexicon(nothing, nothing, np.zeros(0))
    width = 1 + max(max(ids, default=0) for ids in targets)
    unique, index = np.unique(pairs[0] * width + pairs[1], return_inverse=True)
    source, target = unique // width, unique % width
    probability = np.full(len(unique), 1.0)  # uniform: its size is divided out
    for _ in range(iterations):
        # How much of each target position is owed to each source token of its sentence.
        share = probability[index]
        share /= np.bincount(groups, share)[groups]
        counts = np.bincount(index, share, minlength=len(unique))
        probability = counts / np.bincount(source, counts)[source]
    return Lexicon(source, target, probability)


def _together(
    sources: Sequence[Sequence[int]], targets: Sequence[Sequence[int]]
) -> tuple[Array, Array]:
    """All (source token, target token) of each sentence (2, P), and the target position of each."""
    lefts, rights, groups = [], [], []
    position = 0
    for source, target in zip(sources, targets, strict=True):
        left = np.concatenate([[NULL], np.asarray(source, dtype=np.int64)])
        right = np.asarray(target, dtype=np.int64)
        lefts.append(np.tile(left, len(right)))
        rights.append(np.repeat(right, len(left)))
        groups.append(np.repeat(np.arange(position, position + len(right)), len(left)))
        position += len(right)
    if not lefts:
        return np.zeros((2, 0), dtype=np.int64), np.zeros(0, dtype=np.int64)
    pairs = np.stack([np.concatenate(lefts), np.concatenate(rights)])
    return pairs.astype(np.int64), np.concatenate(groups)
