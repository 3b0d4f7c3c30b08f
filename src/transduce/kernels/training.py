"""Kernels of a training step in C: what is between the products, each in one
pass, and LSTM layers with their products.

They are used under bf16 autocast on a CPU (`trains`); elsewhere torch's own operations are. They
run on torch's threads. Tensors are contiguous, and of the shapes said; gradients are written out
here, so the autograd functions that call these are theirs to be tested against torch.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from transduce.kernels import KINDS, Blocked, available, compiled

INT = torch.int64


def trains(x: Tensor) -> bool:
    """Whether these kernels are for training on x: gradients wanted, bf16 products, a CPU."""
    return (
        available()
        and x.device.type == "cpu"
        and torch.is_autocast_enabled("cpu")
        and torch.get_autocast_dtype("cpu") == torch.bfloat16
    )


def lstm_layer(
    weights: Blocked,
    gates: Tensor,
    before: Tensor,
    hidden: Tensor,
    cells: Tensor,
    begun: bool,
    lengths: Tensor | None = None,
) -> None:
    """The states of an LSTM layer at all positions of N sentences in turn.

    gates (N, T, 4 D) bfloat16: what the inputs say to input gate, forget gate, candidate and output
    gate; replaced by what they are once what the hidden state says, by weights (4 D, D) in bf16 or
    8 bits, is added.
    before, hidden (N, T, D) bfloat16: the hidden states before and after each position, cells (N, T
    + 1, D) float32, in the order of steps; all are filled in but for what is before the first step,
    which is given. Unless it has `begun`, the first hidden state is zeros. With lengths (N,) int64,
    each sentence is read from its last position to its first, and then what is behind its end.
    """
    positions, batch, size = gates.shape[1], len(gates), before.shape[2]
    room, places = torch.empty(batch, 4 * size, dtype=gates.dtype), torch.empty(batch, dtype=INT)
    compiled.lstm_layer(
        *weights.addresses[:2], gates.data_ptr(), before.data_ptr(), hidden.data_ptr(),
        room.data_ptr(), cells.data_ptr(), positions, batch, size, begun,
        0 if lengths is None else lengths.data_ptr(), places.data_ptr(),
        torch.get_num_threads(),
    )  # fmt: skip


def lstm_layer_backward(
    weights: Blocked,
    gates: Tensor,
    cells: Tensor,
    outputs: Tensor,
    recurrent: Tensor,
    grad_cell: Tensor,
    grad_gates: Tensor,
    grad_bias: Tensor,
    begun: bool,
    lengths: Tensor | None = None,
) -> None:
    """The gradients of `lstm_layer`, the last step first: fills grad_gates (N, T, 4 D).

    gates, cells: as `lstm_layer` left them. outputs (N, T, D) bfloat16: gradients by the outputs.
    recurrent (N, D) bfloat16, zeros, becomes the gradient by the first hidden state if that had
    `begun`; grad_cell (N, D) float32, by the last cell, becomes that by the first. Sums over
    sentences are added to grad_bias (threads, 4 D) float32. weights: (D, 4 D), those of the layer
    transposed.
    """
    positions, (batch, size) = gates.shape[1], grad_cell.shape
    places = torch.empty(batch, dtype=INT)
    compiled.lstm_layer_backward(
        weights.addresses[0], weights.times_address, gates.data_ptr(), 0, 0, 0, cells.data_ptr(),
        positions, batch, size, begun, 0 if lengths is None else lengths.data_ptr(),
        places.data_ptr(), outputs.data_ptr(), recurrent.data_ptr(), grad_gates.data_ptr(),
        grad_cell.data_ptr(), grad_bias.data_ptr(), len(grad_bias),
    )  # fmt: skip


def cross_entropy(
    logits: Tensor, targets: Tensor, smoothing: float
) -> tuple[Tensor, Tensor, Tensor]:
    """Label-smoothed cross-entropy of logits (N, V) for targets (N,) int64.

    Returns the losses and the negative log-likelihoods, both (N,) float32, and the sum over rows of
    the losses' gradient by the logits (V,) float32; the logits are replaced by that gradient. Their
    rows may be further apart than V.
    """
    rows, vocabulary = logits.shape
    threads, targets = torch.get_num_threads(), targets.contiguous()
    share, losses = torch.tensor([smoothing]), torch.empty(rows, 2)
    sums, room = torch.zeros(threads, vocabulary), torch.empty(threads, vocabulary)
    compiled.cross_entropy(
        logits.data_ptr(), KINDS[logits.dtype], logits.stride(0), targets.data_ptr(),
        share.data_ptr(), losses.data_ptr(), sums.data_ptr(), room.data_ptr(), rows, vocabulary,
        threads,
    )  # fmt: skip
    return losses[:, 1], losses[:, 0], sums.sum(dim=0)


def product(
    left: Tensor, right: Tensor, y: Tensor, bias: Tensor | None = None, add: bool = False
) -> Tensor:
    """Fills y (M, N), bfloat16 or float32, with left (M, K) right (K, N) + bias (N,).

    Left and right are bfloat16 and may be transposed views; K is at least 1. Rows of y may be
    further apart than N. With `add`, for float32 without a bias, it is added to what is in y.
    """
    bias = None if bias is None else bias.detach().float().contiguous()
    compiled.multiply(
        *_in_memory(left), *_in_memory(right), 0 if bias is None else bias.data_ptr(),
        y.data_ptr(), y.stride(0), KINDS[y.dtype], add, *y.shape, left.shape[1],
        torch.get_num_threads(),
    )  # fmt: skip
    return y


def products(left: Tensor, right: Tensor) -> Tensor:
    """left (B, M, K) right (B, K, N) -> (B, M, N), all bfloat16; B, M, N and K are at least 1.

    For small matrices: each is one thread's. They may be transposed views.
    """
    left, right = (x if 1 in x.stride()[1:] else x.contiguous() for x in (left, right))
    y = left.new_empty(len(left), left.shape[1], right.shape[2])
    compiled.multiply_many(
        *_in_memory(left[0]), *_in_memory(right[0]), 0, y.data_ptr(), y.stride(1), KINDS[y.dtype],
        False, *y.shape[1:], left.shape[2], torch.get_num_threads(),
        left.stride(0), right.stride(0), y.stride(0), len(y),
    )  # fmt: skip
    return y


def _in_memory(x: Tensor) -> tuple[int, int, int]:
    """Where a matrix is, how far its rows are apart there, and whether these are its columns."""
    columns = int(x.stride(1) != 1)
    return x.data_ptr(), x.stride(columns), columns


def weight_gradient(grads: Tensor, inputs: Tensor) -> Tensor:
    """grads^T inputs, (N, O) and (N, I) bfloat16 -> (O, I) float32."""
    shape = grads.shape[1], inputs.shape[1]
    return product(grads.t(), inputs, torch.empty(shape)) if len(grads) else torch.zeros(shape)


def drop(x: Tensor, drawn: Tensor, threshold: int) -> Tensor:
    """x, zero where the byte drawn for an element is below the threshold, else scaled up.

    drawn: at least as many uint8 as x has elements.
    """
    y, scale = torch.empty_like(x), torch.tensor([256 / (256 - threshold)])
    compiled.drop(
        x.data_ptr(), KINDS[x.dtype], drawn.data_ptr(), threshold, scale.data_ptr(), y.data_ptr(),
        x.numel(), torch.get_num_threads(),
    )  # fmt: skip
    return y


def draw(count: int) -> Tensor:
    """So many bytes by chance, from a seed that torch's generator gives."""
    drawn = torch.empty(count, dtype=torch.uint8)
    compiled.draw(drawn.data_ptr(), seed(), count, torch.get_num_threads())
    return drawn


def seed() -> int:
    """What kernels draw from, which torch's generator gives."""
    return int(torch.empty((), dtype=torch.int64).random_())


def look_up(table: Tensor, index: Tensor) -> Tensor:
    """The rows of a table (V, D) float32 that index (...) int64 says: (..., D) bfloat16."""
    index = index.contiguous()
    y = torch.empty(*index.shape, table.shape[1], dtype=torch.bfloat16)
    compiled.look_up(
        table.data_ptr(), index.data_ptr(), y.data_ptr(), index.numel(), table.shape[1],
        torch.get_num_threads(),
    )  # fmt: skip
    return y


def add_by_index(x: Tensor, index: Tensor, rows: int) -> Tensor:
    """The sums (rows, D) float32 of the rows of x (N, D) that have each index; index (N,) int64."""
    x, index = x.contiguous(), index.contiguous()
    y = torch.empty(rows, x.shape[1])
    compiled.add_by_index(
        x.data_ptr(), KINDS[x.dtype], index.data_ptr(), y.data_ptr(), *x.shape, rows,
        torch.get_num_threads(),
    )  # fmt: skip
    return y


def norm(tensors: Sequence[Tensor]) -> Tensor:
    """The Euclidean norm of all numbers of some tensors, float32 on a CPU."""
    threads = torch.get_num_threads()
    sums = torch.zeros(len(tensors), threads, dtype=torch.float64)
    for x, room in zip(tensors, sums, strict=True):
        x = x.contiguous()
        compiled.squares(x.data_ptr(), room.data_ptr(), x.numel(), threads)
    return sums.sum().sqrt().float()
