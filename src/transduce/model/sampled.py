"""The loss of the output layer with a gradient of which most is left to chance.

Of the three products of an output layer in training, two are for the gradient by its logits, of
which nearly all is next to nothing: probabilities of words that nobody expects. Here the small ones
are drawn, so that few stand for all and the gradient is the same on average; the loss is exact.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from transduce.kernels.sampling import Entries, sampled_entropy, sum_by_rows, sum_by_words
from transduce.kernels.training import trains
from transduce.kernels.weights import Weight
from transduce.model.room import CHUNK, Room

# Probabilities below it are drawn. It puts a batch's gradient off by 3 to 4 % of its length, where
# batches differ by as much as it is long and more (bench/gradient_noise.py); a quarter of the
# threshold would halve that, with four times as many rows to add up.
THRESHOLD = 1 / 256
LEAST = 2048  # words from which on this is faster than products, on a Zen 4


def pays(values: Tensor, vocabulary: int) -> bool:
    """Whether this can be done here, and is faster."""
    return vocabulary >= LEAST and torch.is_grad_enabled() and trains(values)


class SampledCrossEntropy(torch.autograd.Function):
    """`LinearCrossEntropy`, with a gradient by the logits that has few entries.

    Of the gradient p - (1 - e) onehot(t) - e / V of a row, the probabilities p that are small are
    drawn (`sampled_entropy`), and the last part, the same for all, is taken off the products.
    """

    @staticmethod
    def forward(
        ctx: Any,
        values: Tensor,
        weight: Tensor,
        bias: Tensor,
        targets: Tensor,
        smoothing: float,
        room: Room,
    ) -> tuple[Tensor, Tensor]:
        """As of `OutputLayer.loss`, and room for logits."""
        with torch.autocast("cpu", enabled=False):
            rows, project = values.to(torch.bfloat16).contiguous(), Weight(weight)
            layer = project.layer(bias)
            entries = Entries.room(len(rows), len(weight), THRESHOLD)
            loss, nll = torch.zeros(()), torch.zeros(())
            for start in range(0, len(rows), CHUNK):
                part = slice(start, start + CHUNK)
                logits = room.take(len(rows[part]), len(weight))
                layer(rows[part], logits)
                given = logits, targets[part], smoothing, THRESHOLD
                losses, nlls = sampled_entropy(*given, entries.part(part))
                loss, nll = loss + losses.sum(), nll + nlls.sum()
        ctx.save_for_backward(rows, project.half())
        ctx.entries, ctx.uniform, ctx.dtype = entries, smoothing / len(weight), values.dtype
        ctx.mark_non_differentiable(nll)
        return loss, nll

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_loss: Tensor, _: Tensor) -> tuple[Tensor | None, ...]:
        rows, words = ctx.saved_tensors
        given = ctx.uniform, float(grad_loss)
        grad_values = sum_by_rows(ctx.entries, words, *given).to(ctx.dtype)
        return grad_values, *sum_by_words(ctx.entries, rows, *given), None, None, None
