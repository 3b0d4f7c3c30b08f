"""An LSTM layer over whole sequences, as training on a CPU in bf16 or int8 does it.

Four products over all positions and two a position, and one pass between them, all by the kernels.
oneDNN's fused layer takes twice as long there, most of it in the backward pass, where its products
of weight gradients are over one position each.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from transduce.kernels.training import lstm_layer, lstm_layer_backward
from transduce.kernels.weights import Weight

BF16 = torch.bfloat16


class WholeLSTM(torch.autograd.Function):
    """x (N, T, I), weights (4 D, I) and (4 D, D), biases (4 D,), first hidden and cell (N, D), or
    None for zeros -> outputs (N, T, D) bfloat16, last cell (N, D) float32.

    Gates are in torch's order: input, forget, candidate, output. With lengths (N,) int64, each
    sentence is read from its end to its beginning, and what is behind the end after that.
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
        lengths: Tensor | None = None,
    ) -> tuple[Tensor, Tensor]:
        if lengths is not None:
            lengths = lengths.to("cpu", torch.int64).contiguous()
        batch, positions, width = x.shape
        size, count = hidden_weight.shape[1], batch * positions
        inputs = x.to(BF16).contiguous().view(count, width)
        by_inputs, by_hidden = Weight(input_weight), Weight(hidden_weight)
        before, hidden = inputs.new_empty(2, batch, positions, size)
        cells = x.new_empty(batch, positions + 1, size, dtype=torch.float32)
        begin = (slice(None), 0) if lengths is None else (torch.arange(batch), lengths - 1)
        before[begin] = 0 if first is None else first
        cells[:, 0] = 0 if first_cell is None else first_cell
        gates = inputs.new_empty(batch, positions, 4 * size)
        by_inputs.forward(inputs, gates.view(count, -1), input_bias + hidden_bias)
        begun = first is not None
        lstm_layer(by_hidden.blocked(), gates, before, hidden, cells, begun, lengths)
        ctx.save_for_backward(inputs, gates, before, cells, lengths)
        ctx.weights, ctx.dtype, ctx.begun = (by_inputs, by_hidden), x.dtype, begun
        return hidden, cells[:, -1].clone()

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_outputs: Tensor, grad_end: Tensor) -> tuple[Tensor | None, ...]:
        inputs, gates, before, cells, lengths = ctx.saved_tensors
        by_inputs, by_hidden = ctx.weights
        batch, positions, size = before.shape
        grad_cell = grad_end.float().contiguous().clone()
        recurrent = before.new_zeros(batch, size)
        grad_gates = torch.empty_like(gates)
        sums = cells.new_zeros(torch.get_num_threads(), 4 * size)
        lstm_layer_backward(
            by_hidden.turned(), gates, cells, grad_outputs.to(BF16).contiguous(),
            recurrent, grad_cell, grad_gates, sums, ctx.begun, lengths,
        )  # fmt: skip
        grads = grad_gates.view(len(inputs), -1)
        grad_inputs = by_inputs.backward(grads)
        grad_bias = sums.sum(dim=0)
        return (
            grad_inputs.view(batch, positions, -1).to(ctx.dtype),
            *by_inputs.gradients(grads, inputs, before.view(len(inputs), size)),
            grad_bias,
            grad_bias,
            recurrent if ctx.needs_input_grad[5] else None,
            grad_cell if ctx.needs_input_grad[6] else None,
            None,
        )
