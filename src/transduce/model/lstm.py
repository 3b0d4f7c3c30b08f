"""An LSTM layer over whole sequences, as training on a CPU in bf16 does it.

Four products over all positions and two a position, in bf16, and one pass of `kernels.training`
between them. oneDNN's fused layer takes twice as long there, most of it in the backward pass, where
its products of weight gradients are over one position each.

oneDNN compiles a product for each number of rows, which takes as long as a dozen of them. So rows
are filled up, with zeros, to few different numbers (`filled`, `rows_for`).
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from transduce.kernels import FEW, Blocked, tiles
from transduce.kernels.training import (
    lstm_backward,
    lstm_forward,
    lstm_layer,
    lstm_layer_backward,
    product,
    weight_gradient,
)

BF16 = torch.bfloat16
SENTENCES = 16  # how many sentences a position is filled up to a multiple of: the rows of a tile
POSITIONS = 128  # the same of all positions, for oneDNN


def filled(count: int, multiple: int) -> int:
    """The next multiple."""
    return -(-count // multiple) * multiple


def rows_for(positions: int) -> int:
    """How many rows a product over so many positions has, which tiles take as they are."""
    return positions if tiles() else filled(positions, POSITIONS)


class WholeLSTM(torch.autograd.Function):
    """x (N, T, I), weights (4 D, I) and (4 D, D), biases (4 D,), first hidden and cell (N, D), or
    None for zeros -> outputs (N, T, D) bfloat16, last cell (N, D) float32.

    Gates are in torch's order: input, forget, candidate, output. Inside, positions come first,
    each of `wide` rows, of which those behind the N-th are for filling up, as are some positions.
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
        size, wide = hidden_weight.shape[1], filled(batch, SENTENCES)
        rows = rows_for(positions * wide)
        inputs = room_for(rows, width, positions, batch)
        by_position(inputs, positions, wide)[:, :batch] = x.transpose(0, 1)
        input_weight, hidden_weight = input_weight.to(BF16), hidden_weight.to(BF16)
        bias = (input_bias + hidden_bias).float()
        states = room_for(rows + wide, size, positions + 1, batch)
        hidden = by_position(states, positions + 1, wide)
        cells = x.new_empty(positions + 1, batch, size, dtype=torch.float32)
        cells[0] = 0 if first_cell is None else first_cell
        hidden[0, :batch] = 0 if first is None else first
        with torch.autocast("cpu", enabled=False):
            all_gates = inputs.new_empty(rows, 4 * size)
            product(inputs, input_weight.t(), all_gates)
            gates = by_position(all_gates, positions, wide)
            if in_one_call(batch, size):
                lstm_layer(Blocked(hidden_weight, None), gates, bias, cells, hidden)
            else:
                weight, said = hidden_weight.t().contiguous(), torch.empty_like(gates[0])
                for t in range(positions):
                    torch.mm(hidden[t], weight, out=said)
                    lstm_forward(gates[t], said, bias, cells[t], cells[t + 1], hidden[t + 1])
        ctx.save_for_backward(inputs, input_weight, hidden_weight, all_gates, states, cells)
        ctx.dtype = x.dtype
        return hidden[1:, :batch].transpose(0, 1), cells[-1].clone()

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_outputs: Tensor, grad_end: Tensor) -> tuple[Tensor | None, ...]:
        inputs, input_weight, hidden_weight, all_gates, states, cells = ctx.saved_tensors
        positions, (batch, size) = len(cells) - 1, grad_end.shape
        wide = len(states) - len(inputs)
        gates = by_position(all_gates, positions, wide)
        outputs = states.new_empty(positions, batch, size).copy_(grad_outputs.transpose(0, 1))
        grad_cell = grad_end.float().contiguous().clone()
        recurrent = states.new_zeros(wide, size)
        grads = room_for(len(inputs), 4 * size, positions, batch)
        grad_gates = by_position(grads, positions, wide)
        sums = cells.new_zeros(torch.get_num_threads(), 4 * size)
        if in_one_call(batch, size):
            weights, rows = Blocked(hidden_weight.t(), None), recurrent[:batch]
            lstm_layer_backward(weights, gates, cells, outputs, rows, grad_cell, grad_gates, sums)
        else:
            for t in reversed(range(positions)):
                around = cells[t], cells[t + 1]
                lstm_backward(
                    gates[t], around, outputs[t], recurrent, grad_cell, grad_gates[t], sums
                )
                torch.mm(grad_gates[t], hidden_weight, out=recurrent)
        all_inputs = product(grads, input_weight, torch.empty_like(inputs))
        grad_inputs = by_position(all_inputs, positions, wide)[:, :batch]
        grad_bias = sums.sum(dim=0)
        return (
            grad_inputs.transpose(0, 1).to(ctx.dtype),
            weight_gradient(grads, inputs),
            weight_gradient(grads, states[: len(inputs)]),
            grad_bias,
            grad_bias,
            recurrent[:batch] if ctx.needs_input_grad[5] else None,
            grad_cell if ctx.needs_input_grad[6] else None,
        )


def in_one_call(batch: int, size: int) -> bool:
    """Whether kernels take all positions of a layer in one call: few rows on one thread only."""
    spread = batch > FEW or torch.get_num_threads() == 1
    return tiles() and Blocked.fits(4 * size) and spread


def room_for(rows: int, size: int, positions: int, batch: int) -> Tensor:
    """(rows, size) bfloat16 to be filled in: zeros only where nothing of (T, N, size) will be."""
    made = torch.empty(rows, size, dtype=BF16)
    wide = filled(batch, SENTENCES)
    by_position(made, positions, wide)[:, batch:] = 0
    made[positions * wide :] = 0
    return made


def by_position(rows: Tensor, positions: int, wide: int) -> Tensor:
    """The first rows of (R, D) as (T, wide, D)."""
    return rows[: positions * wide].view(positions, wide, -1)
