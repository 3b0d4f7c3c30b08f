"""The loss of a batch: label-smoothed cross-entropy of its real target positions, CTC, or both."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from transduce.data.batches import Batch
from transduce.data.tokenizers.base import PAD
from transduce.model import Memory, Seq2Seq
from transduce.model.copying import pointer_loss
from transduce.model.ctc import ctc_loss


@dataclass(frozen=True)
class LossSum:
    """Sums over the real target positions of a batch, in nats: float32 scalars on the device."""

    loss: Tensor  # what is trained on: label-smoothed, joined with CTC; differentiable
    nll: Tensor  # negative log-likelihood by the decoder, or by CTC where there is no decoder
    tokens: int  # real target positions, each target's end symbol included
    ctc: Tensor  # negative log-likelihood by CTC; 0 where there is none
    too_short: Tensor  # sentences whose memory is too short for CTC to say their target

    def numbers(self) -> Tensor:
        """loss, nll, ctc, too_short: (4,), for the report."""
        return torch.stack([self.loss, self.nll, self.ctc, self.too_short.float()]).detach()


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
    coverage: float = 0.0,
    ctc_consistency: float = 0.0,
    padded: bool = False,
    sampled: bool = False,
) -> LossSum:
    """Teacher-forced loss of a batch; padding never reaches the vocabulary.

    Label smoothing as in Szegedy et al. 2016 (1512.00567), section 7. `positions` are those of
    `real_positions`, on the model's device. With `consistency` (R-Drop, 2106.14448), the batch
    goes through the model twice, under two dropout masks. A batch of two views goes through it
    twice, too; `ctc_consistency` is the weight by which CTC's answers to them are to agree.
    `coverage` is the weight of `coverage_loss`. Where the batch is `padded` to a shape that others
    share (`shapes`), positions are so many whatever is real, and those of padding count nothing.
    The gradient by the logits may be `sampled` (`OutputLayer.loss`).
    Joined with CTC as in Kim et al. 2017 (1609.06773), of which every sentence's loss is a sum
    over its target too.
    """
    source, passes = _passes(batch, 2 if consistency and model.decoder is not None else 1)
    lengths = batch.source_lengths.repeat(passes)
    memory = model.encode(source, lengths)
    zero = torch.zeros((), device=memory.values.device)
    ctc, apart, too_short = zero, zero, zero
    if model.ctc_weight:
        ctc, apart, too_short = _ctc(model, memory, lengths, batch, passes, ctc_consistency)
    if model.decoder is None:
        loss = ctc
        if model.transducer is not None:
            wanted = batch.target_input.repeat(passes, 1), batch.target_lengths.repeat(passes)
            loss = model.transducer_loss(memory, *wanted).sum() / passes
        joint = _joint(model, loss, ctc + apart)
        return LossSum(joint, loss.detach(), batch.tokens, ctc.detach(), too_short)
    if positions is None:
        positions = real_positions(batch.target_output)
    features = model.features(memory, batch.target_input.repeat(passes, 1))
    if model.copying is not None:
        copied = features, batch.source, batch.target_output, positions
        loss, nll = pointer_loss(model.output, model.copying, *copied, smoothing)
    else:
        values = features.values.unflatten(0, (passes, -1)).flatten(1, 2)
        values = values.index_select(1, positions)
        targets = batch.target_output.flatten().index_select(0, positions)
        counted = (targets != PAD).float() if padded else None
        if passes > 1:
            both = values, targets, smoothing, consistency
            loss, nll = model.output.consistent_loss(*both, counted)
        else:
            given = values.squeeze(0), targets, smoothing, counted
            loss, nll = model.output.loss(*given, sampled)
    if coverage:
        assert features.attention is not None
        real = (batch.target_output != PAD).repeat(passes, 1)
        loss = loss + coverage / passes * coverage_loss(features.attention, real)
    return LossSum(_joint(model, loss, ctc + apart), nll, batch.tokens, ctc.detach(), too_short)


def coverage_loss(attention: Tensor, real: Tensor) -> Tensor:
    """How often attention looks at a place again, summed over real target positions.

    See et al. 2017 (1704.04368), equations 10 and 12: at each position the sum over the source of
    min(a, c), c being the sum of the attention a of all positions before.
    attention (B, T, S), real (B, T) boolean -> float32 scalar.
    """
    attention = attention.float()
    before = attention.cumsum(dim=1) - attention
    again: Tensor = torch.minimum(attention, before).sum(dim=2)
    return again.masked_fill(~real, 0.0).sum()


def _joint(model: Seq2Seq, loss: Tensor, ctc: Tensor) -> Tensor:
    weight = model.ctc_weight
    return (1 - weight) * loss + weight * ctc if weight else loss


def _passes(batch: Batch, passes: int) -> tuple[Tensor, int]:
    """What is encoded, pass after pass, and in how many: as many as there are views, if several."""
    if batch.source.dim() == 4:
        return torch.cat(batch.source.unbind(dim=2)), batch.source.shape[2]
    return batch.source.repeat(passes, *[1] * (batch.source.dim() - 1)), passes


def _ctc(
    model: Seq2Seq, memory: Memory, lengths: Tensor, batch: Batch, passes: int, strength: float
) -> tuple[Tensor, Tensor, Tensor]:
    """CTC's loss summed over the batch, how far its answers to two views are apart times
    `strength`, and how many memories were too short."""
    targets = batch.target_output.repeat(passes, 1)
    without_end = batch.target_lengths.repeat(passes) - 1
    log_probs = model.ctc_log_probs(memory)
    loss, too_short = ctc_loss(log_probs, model.memory_lengths(lengths), targets, without_end)
    apart = torch.zeros_like(loss)
    if strength and passes == 2:
        apart = strength * disagreement(log_probs.unflatten(0, (2, -1)), memory.mask[: batch.size])
    return loss / passes, apart, too_short / passes


def disagreement(log_probs: Tensor, real: Tensor) -> Tensor:
    """How far the answers to two views of the same frames are apart, summed over real positions.

    The mean of the two Kullback-Leibler divergences, each from an answer that is taken as given to
    the other, which learns (Yao et al. 2025, 2410.05101, section 3.2).
    log_probs (2, B, S, V), real (B, S) boolean -> float32 scalar.
    """
    given = log_probs.detach().flip(0)
    apart = (given.exp() * (given - log_probs)).sum(dim=3)
    return apart.masked_fill(~real, 0.0).sum() / 2


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
