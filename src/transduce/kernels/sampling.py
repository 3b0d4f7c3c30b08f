"""The loss with its gradient by the logits as a few entries drawn by chance, and products of these.

As for all kernels of `training`, tensors are contiguous and on a CPU, and threads are torch's.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from transduce.kernels import KINDS, compiled
from transduce.kernels.training import draw

LANES = 16  # sums that entries are drawn by, each with a start of its own


@dataclass(frozen=True)
class Entries:
    """What is not zero of a matrix (N, V): of row n the first counts[n] of its words, which are
    columns, and their values; a word may come twice. words (N, any) int32, values (N, any) float32,
    counts (N,) int32."""

    words: Tensor
    values: Tensor
    counts: Tensor
    vocabulary: int

    @classmethod
    def room(cls, rows: int, vocabulary: int, threshold: float) -> Entries:
        """Room for as many as `sampled_entropy` may draw."""
        width = int(1 / threshold) + 4 * LANES
        words = torch.empty(rows, width, dtype=torch.int32)
        counts = torch.zeros(rows, dtype=torch.int32)
        return cls(words, torch.empty(rows, width), counts, vocabulary)

    def part(self, rows: slice) -> Entries:
        """Of these rows; what is drawn for them is drawn for the whole."""
        return Entries(self.words[rows], self.values[rows], self.counts[rows], self.vocabulary)

    def arguments(self) -> tuple[int, ...]:
        where = self.words.data_ptr(), self.counts.data_ptr(), self.values.data_ptr()
        return *where, *self.words.shape, self.vocabulary


def sampled_entropy(
    logits: Tensor, targets: Tensor, smoothing: float, threshold: float, entries: Entries
) -> tuple[Tensor, Tensor]:
    """Label-smoothed cross-entropy of logits (N, V) for targets (N,) int64, whose gradient by the
    logits is drawn into `entries`, but for the -smoothing / V that is everywhere.

    A probability p below the threshold t is drawn with p / t as its chance, and then stands as t,
    so that on average it is p (Wangni et al. 2018, 1710.09854, of whole gradients);
    others stand as they are, and so does smoothing - 1 for the target.
    Returns the losses and the negative log-likelihoods, both (N,) float32. The logits' rows may be
    further apart than V; what is drawn hangs on torch's generator alone, not on threads.
    """
    (rows, vocabulary), threads = logits.shape, torch.get_num_threads()
    targets, losses, room = (
        targets.contiguous(),
        torch.empty(rows, 2),
        torch.empty(threads, vocabulary),
    )
    drawn, options = draw(4 * LANES * rows), torch.tensor([smoothing, threshold])
    compiled.sampled_entropy(
        *entries.arguments(), logits.data_ptr(), KINDS[logits.dtype], logits.stride(0),
        targets.data_ptr(), options.data_ptr(), drawn.data_ptr(), losses.data_ptr(),
        room.data_ptr(), threads,
    )  # fmt: skip
    return losses[:, 1], losses[:, 0]


def sum_by_rows(entries: Entries, table: Tensor, share: float, scale: float) -> Tensor:
    """scale (x - share) table, for entries x (N, V) and table (V, E) bfloat16: (N, E) bfloat16."""
    y = torch.empty(len(entries.words), table.shape[1], dtype=torch.bfloat16)
    numbers = torch.tensor([share, scale])
    compiled.sum_by_rows(
        *entries.arguments(), table.data_ptr(), *table.shape, numbers.data_ptr(), y.data_ptr(),
        torch.get_num_threads(),
    )  # fmt: skip
    return y


def sum_by_words(
    entries: Entries, table: Tensor, share: float, scale: float
) -> tuple[Tensor, Tensor]:
    """scale (x - share)^T table, for table (N, E) bfloat16, and the sums of scale (x - share) over
    rows: (V, E) and (V,), both float32."""
    y, sums = torch.empty(entries.vocabulary, table.shape[1]), torch.empty(entries.vocabulary)
    numbers = torch.tensor([share, scale])
    compiled.sum_by_words(
        *entries.arguments(), table.data_ptr(), *table.shape, numbers.data_ptr(), y.data_ptr(),
        sums.data_ptr(), torch.get_num_threads(),
    )  # fmt: skip
    return y, sums
