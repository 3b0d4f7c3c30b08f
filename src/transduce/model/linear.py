"""Linear layers and attention, whose products in training on a CPU are the kernels'."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from transduce.kernels.training import products, trains
from transduce.kernels.weights import Weight

BF16 = torch.bfloat16
FEW_ROWS = 4  # of each of many matrices; with fewer, most of what is summed together is nothing
MANY = 512  # rows: of all positions at once, and not of one after the other


class Linear(nn.Linear):
    """torch's, but for training in bf16 on a CPU.

    oneDNN compiles a product for each number of rows, which takes as long as a dozen of them, and
    all positions of a batch are ever new numbers. Loops over positions are torch's, which takes
    their weights to bf16 once. A layer `once` a batch is in no such loop, however few its rows are.
    """

    once = False

    def forward(self, x: Tensor) -> Tensor:
        many = x.numel() >= (1 if self.once else MANY) * self.in_features
        if many and torch.is_grad_enabled() and trains(x):
            y: Tensor = LinearByKernels.apply(x, self.weight, self.bias)
            return y
        return super().forward(x)


class LinearByKernels(torch.autograd.Function):
    """x (..., I), weight (O, I), bias (O,) or None -> (..., O) bfloat16."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        rows = x.reshape(-1, x.shape[-1]).to(BF16).contiguous()
        ctx.save_for_backward(rows)
        ctx.weight, ctx.shape, ctx.dtype = Weight(weight), x.shape, x.dtype
        y: Tensor = ctx.weight.forward(rows, rows.new_empty(len(rows), len(weight)), bias)
        return y.view(*x.shape[:-1], -1)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        (rows,) = ctx.saved_tensors
        grads = grad.reshape(len(rows), -1).to(BF16).contiguous()
        of_x = of_weight = of_bias = None
        if ctx.needs_input_grad[0]:
            of_x = ctx.weight.backward(grads).view(ctx.shape).to(ctx.dtype)
        if ctx.needs_input_grad[1]:
            (of_weight,) = ctx.weight.gradients(grads, rows)
        if ctx.needs_input_grad[2]:
            of_bias = grads.sum(dim=0, dtype=torch.float32)
        return of_x, of_weight, of_bias


def batched(left: Tensor, right: Tensor) -> Tensor:
    """left (..., M, K) right (..., K, N) -> (..., M, N): torch's product of many small matrices,
    but for training in bf16 on a CPU. One row at a time, as loops over positions, is torch's."""
    some = left.shape[-2] >= FEW_ROWS and right.numel() > 0
    if some and torch.is_grad_enabled() and trains(left):
        y: Tensor = BatchedByKernels.apply(left, right)
        return y
    return torch.matmul(left, right)


class BatchedByKernels(torch.autograd.Function):
    """left (..., M, K), right (..., K, N) -> (..., M, N) bfloat16."""

    @staticmethod
    def forward(ctx: Any, left: Tensor, right: Tensor) -> Tensor:
        one, other = (x.to(BF16).flatten(0, -3) for x in (left, right))
        ctx.save_for_backward(one, other)
        ctx.left, ctx.right = (left.shape, left.dtype), (right.shape, right.dtype)
        return products(one, other).view(*left.shape[:-1], right.shape[-1])

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        one, other = ctx.saved_tensors
        grads = grad.to(BF16).flatten(0, -3)
        of_left = of_right = None
        if ctx.needs_input_grad[0]:
            shape, dtype = ctx.left
            of_left = products(grads, other.transpose(1, 2)).view(shape).to(dtype)
        if ctx.needs_input_grad[1]:
            shape, dtype = ctx.right
            of_right = products(one.transpose(1, 2), grads).view(shape).to(dtype)
        return of_left, of_right
