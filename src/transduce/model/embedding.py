"""Embeddings, whose gradients in training are added up by all threads on a CPU."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from transduce.kernels import KINDS, available
from transduce.kernels.training import add_by_index, look_up, trains


class Embedding(nn.Embedding):
    """torch's, for which a thread fills a gradient for all words with zeros and adds to those of
    the batch."""

    def forward(self, ids: Tensor, in_products: bool = False) -> Tensor:
        """ids (...) int64 -> (..., D), in bfloat16 if it is read `in_products` only, and these are
        the kernels'."""
        if self.training and torch.is_grad_enabled() and self.weight.is_cpu and available():
            found: Tensor = LookedUp.apply(ids, self.weight, in_products)
            return found
        return super().forward(ids)


class LookedUp(torch.autograd.Function):
    """ids (...) int64, weight (V, D) -> (..., D), bfloat16 if `half` and products are."""

    @staticmethod
    def forward(ctx: Any, ids: Tensor, weight: Tensor, half: bool) -> Tensor:
        ctx.save_for_backward(ids)
        ctx.words, ctx.dtype = len(weight), weight.dtype
        if half and trains(weight) and _can_look_up(ids, weight):
            return look_up(weight, ids)
        return nn.functional.embedding(ids, weight)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[None, Tensor, None]:
        (ids,) = ctx.saved_tensors
        grads, index = grad.reshape(ids.numel(), -1), ids.flatten()
        if grads.dtype in KINDS:
            return None, add_by_index(grads, index, ctx.words).to(ctx.dtype), None
        sums = grads.new_zeros(ctx.words, grads.shape[1]).index_add_(0, index, grads)
        return None, sums, None


def _can_look_up(ids: Tensor, weight: Tensor) -> bool:
    """Whether the kernel can, which looks at no bounds; torch says what is wrong with others."""
    if ids.dtype != torch.int64 or weight.dtype != torch.float32 or not ids.numel():
        return False
    least, most = torch.aminmax(ids)
    return int(least) >= 0 and int(most) < len(weight) and weight.is_contiguous()
