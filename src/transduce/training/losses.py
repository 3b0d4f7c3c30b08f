"""The loss of a batch: label-smoothed cross-entropy of its real target positions."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from transduce.data.batches import Batch
from transduce.data.tokenizers.base import PAD
from transduce.model import Seq2Seq


@dataclass(frozen=True)
class LossSum:
    """Sums over the real target positions of a batch, in nats: float32 scalars on the device."""

    loss: Tensor  # label-smoothed, differentiable
    nll: Tensor  # negative log-likelihood
    tokens: int  # real target positions, each target's end symbol included


def real_positions(target_output: Tensor) -> Tensor:
    """Indices of the real positions of target_output (B, T), flattened -> (N,) int64.

    For a tensor still on the CPU: on a GPU the unknown number of results would stall the queue.
    """
    return (target_output != PAD).flatten().nonzero().squeeze(1)


def sequence_loss(
    model: Seq2Seq,
    batch: Batch,
    smoothing: float,
    positions: Tensor | None = None,
    consistency: float = 0.0,
) -> LossSum:
    """Teacher-forced loss of a batch; padding never reaches the vocabulary.

    Label smoothing as in Szegedy et al. 2016 (1512.00567), section 7. `positions` are those of
    `real_positions`, on the model's device. With `consistency` (R-Drop, 2106.14448), the batch
    goes through the model twice, under two dropout masks.
    """
    if positions is None:
        positions = real_positions(batch.target_output)
    passes = 2 if consistency else 1
    source, entered = (torch.cat([x] * passes) for x in (batch.source, batch.target_input))
    memory = model.encode(source, batch.source_lengths.repeat(passes))
    features = model.features(memory, entered).values.unflatten(0, (passes, -1)).flatten(1, 2)
    values = features.index_select(1, positions)
    targets = batch.target_output.flatten().index_select(0, positions)
    if consistency:
        loss, nll = model.output.consistent_loss(values, targets, smoothing, consistency)
    else:
        loss, nll = model.output.loss(values.squeeze(0), targets, smoothing)
    return LossSum(loss, nll, positions.shape[0])


def halves(batch: Batch) -> list[Batch]:
    """A batch as two of half its sentences, without the padding they no longer need."""
    middle = (batch.size + 1) // 2
    return [_rows(batch, slice(0, middle)), _rows(batch, slice(middle, batch.size))]


def _rows(batch: Batch, rows: slice) -> Batch:
    source_lengths, target_lengths = batch.source_lengths[rows], batch.target_lengths[rows]
    longest = int(source_lengths.max())
    positions = int(target_lengths.max())
    return Batch(
        source=batch.source[rows, :longest],
        source_lengths=source_lengths,
        target_input=batch.target_input[rows, :positions],
        target_output=batch.target_output[rows, :positions],
        target_lengths=target_lengths,
        indices=batch.indices[rows],
    )


def perplexity(nll: float) -> float:
    """exp of a mean negative log-likelihood in nats, bounded so that it stays printable."""
    return float(torch.tensor(min(nll, 80.0), dtype=torch.float64).exp())
