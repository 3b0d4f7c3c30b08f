"""An LSTM layer over whole sequences, as training on a CPU in bf16 does it.

Four products over all positions and two a position, in bf16, and one pass between them, all by the
kernels. oneDNN's fused layer takes twice as long there, most of it in the backward pass, where its
products of weight gradients are over one position each.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from transduce.kernels import Blocked
from transduce.kernels.training import lstm_layer, lstm_layer_backward, product, weight_gradient

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
        batch, positions, _ = x.shape
        size = hidden_weight.shape[1]
        inputs = x.transpose(0, 1).to(BF16).contiguous().view(positions * batch, -1)
        input_weight, hidden_weight = input_weight.to(BF16), hidden_weight.to(BF16)
        bias = (input_bias + hidden_bias).float()
        hidden = inputs.new_empty(positions + 1, batch, size)
        cells = x.new_empty(positions + 1, batch, size, dtype=torch.float32)
        hidden[0] = 0 if first is None else first
        cells[0] = 0 if first_cell is None else first_cell
        gates = inputs.new_empty(positions, batch, 4 * size)
        product(inputs, input_weight.t(), gates.view(len(inputs), -1))
        lstm_layer(Blocked(hidden_weight, None), gates, bias, cells, hidden, first is not None)
        ctx.save_for_backward(inputs, input_weight, hidden_weight, gates, hidden, cells)
        ctx.dtype, ctx.begun = x.dtype, first is not None
        return hidden[1:].transpose(0, 1), cells[-1].clone()

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_outputs: Tensor, grad_end: Tensor) -> tuple[Tensor | None, ...]:
        inputs, input_weight, hidden_weight, gates, hidden, cells = ctx.saved_tensors
        positions, (batch, size) = len(gates), grad_end.shape
        outputs = grad_outputs.transpose(0, 1).to(BF16).contiguous()
        grad_cell = grad_end.float().contiguous().clone()
        recurrent = hidden.new_zeros(batch, size)
        grad_gates = torch.empty_like(gates)
        sums = cells.new_zeros(torch.get_num_threads(), 4 * size)
        weights = Blocked(hidden_weight.t(), None)
        lstm_layer_backward(
            weights, gates, cells, outputs, recurrent, grad_cell, grad_gates, sums, ctx.begun
        )
        grads = grad_gates.view(len(inputs), -1)
        grad_inputs = product(grads, input_weight, torch.empty_like(inputs))
        grad_bias = sums.sum(dim=0)
        return (
            grad_inputs.view(positions, batch, -1).transpose(0, 1).to(ctx.dtype),
            weight_gradient(grads, inputs),
            weight_gradient(grads, hidden[:-1].view(len(inputs), size)),
            grad_bias,
            grad_bias,
            recurrent if ctx.needs_input_grad[5] else None,
            grad_cell if ctx.needs_input_grad[6] else None,
        )
