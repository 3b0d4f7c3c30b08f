"""An LSTM layer over whole sequences, as training on a CPU in bf16 does it.

Four products over all positions and two a position, in bf16, and one pass of `kernels.training`
between them. oneDNN's fused layer takes twice as long there, most of it in the backward pass, where
its products of weight gradients are over one position each.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from transduce.kernels.training import lstm_backward, lstm_forward, turned

BF16 = torch.bfloat16


class WholeLSTM(torch.autograd.Function):
    """x (N, T, I), weights (4 D, I) and (4 D, D), biases (4 D,), first hidden and cell (N, D), or
    None for zeros -> outputs (N, T, D) bfloat16, last cell (N, D) float32.

    Gates are in torch's order: input, forget, candidate, output. Inside, positions come first.
    """

    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        input_weight: Tensor,
        hidden_weight: Tensor,
        input_bias: Tensor,
        hidden_bias: Tensor,
        first: Tensor | None,
        first_cell: Tensor | None,
    ) -> tuple[Tensor, Tensor]:
        batch, positions, width = x.shape
        size = hidden_weight.shape[1]
        inputs = x.new_empty(positions, batch, width, dtype=BF16).copy_(x.transpose(0, 1))
        input_weight, hidden_weight = input_weight.to(BF16), hidden_weight.to(BF16)
        bias = (input_bias + hidden_bias).float()
        hidden = x.new_empty(positions + 1, batch, size, dtype=BF16)
        cells = x.new_empty(positions + 1, batch, size, dtype=torch.float32)
        hidden[0] = 0 if first is None else first
        cells[0] = 0 if first_cell is None else first_cell
        with torch.autocast("cpu", enabled=False):
            gates = (inputs.flatten(0, 1) @ input_weight.t()).unflatten(0, (positions, batch))
            weight, said = hidden_weight.t().contiguous(), torch.empty_like(gates[0])
            for t in range(positions):
                torch.mm(hidden[t], weight, out=said)
                lstm_forward(gates[t], said, bias, cells[t], cells[t + 1], hidden[t + 1])
        ctx.save_for_backward(inputs, input_weight, hidden_weight, gates, hidden, cells)
        ctx.dtype = x.dtype
        return hidden[1:].transpose(0, 1), cells[-1].clone()

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_outputs: Tensor, grad_end: Tensor) -> tuple[Tensor | None, ...]:
        inputs, input_weight, hidden_weight, gates, hidden, cells = ctx.saved_tensors
        positions, batch, size = hidden[1:].shape
        outputs = torch.empty_like(hidden[1:]).copy_(grad_outputs.transpose(0, 1))
        grad_cell = grad_end.float().contiguous().clone()
        grad_gates, recurrent = torch.empty_like(gates), torch.zeros_like(hidden[0])
        sums = cells.new_zeros(torch.get_num_threads(), 4 * size)
        for t in reversed(range(positions)):
            around = cells[t], cells[t + 1]
            lstm_backward(gates[t], around, outputs[t], recurrent, grad_cell, grad_gates[t], sums)
            torch.mm(grad_gates[t], hidden_weight, out=recurrent)
        grads = grad_gates.flatten(0, 1)
        grad_inputs = (grads @ input_weight).unflatten(0, (positions, batch)).transpose(0, 1)
        grad_bias = sums.sum(dim=0)
        return (
            grad_inputs.to(ctx.dtype),
            weight_gradient(grads, inputs.flatten(0, 1)),
            weight_gradient(grads, hidden[:-1].flatten(0, 1)),
            grad_bias,
            grad_bias,
            recurrent if ctx.needs_input_grad[5] else None,
            grad_cell if ctx.needs_input_grad[6] else None,
        )


def weight_gradient(grads: Tensor, inputs: Tensor) -> Tensor:
    """grads^T inputs, (N, O) and (N, I) bfloat16 -> (O, I) float32.

    By way of inputs^T grads: the product wants its left side row by row, and inputs are the fewer
    numbers to lay out anew, so this takes half the time.
    """
    return turned(inputs.t().contiguous() @ grads)
