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
    the batch. In training in bf16 on a CPU, what is looked up is in bf16, in which it is read."""

    def forward(self, ids: Tensor) -> Tensor:
        if self.training and torch.is_grad_enabled() and self.weight.is_cpu and available():
            found: Tensor = LookedUp.apply(ids, self.weight)
            return found
        return super().forward(ids)


class LookedUp(torch.autograd.Function):
    """ids (...) int64, weight (V, D) -> (..., D), bfloat16 where products are."""

    @staticmethod
    def forward(ctx: Any, ids: Tensor, weight: Tensor) -> Tensor:
        ctx.save_for_backward(ids)
        ctx.words, ctx.dtype = len(weight), weight.dtype
        if weight.dtype == torch.float32 and trains(weight):
            return look_up(weight, ids)
        return nn.functional.embedding(ids, weight)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[None, Tensor]:
        (ids,) = ctx.saved_tensors
        grads, index = grad.reshape(ids.numel(), -1), ids.flatten()
        if grads.dtype in KINDS:
            return None, add_by_index(grads, index, ctx.words).to(ctx.dtype)
        return None, grads.new_zeros(ctx.words, grads.shape[1]).index_add_(0, index, grads)
