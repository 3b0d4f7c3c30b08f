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

from transduce.kernels import KINDS, Blocked, available, compiled, tiles


def trains(x: Tensor) -> bool:
    """Whether these kernels are for training on x: gradients wanted, bf16 products, a CPU."""
    return (
        available()
        and x.device.type == "cpu"
        and torch.is_autocast_enabled("cpu")
        and torch.get_autocast_dtype("cpu") == torch.bfloat16
    )


def lstm_forward(
    gates: Tensor, recurrent: Tensor, bias: Tensor, before: Tensor, cell: Tensor, hidden: Tensor
) -> None:
    """A step: fills cell (N, D) float32 and hidden (N, D) bfloat16.

    gates (N, 4 D) bfloat16: what the input says to input gate, forget gate, candidate and output
    gate; replaced by what they are once recurrent (N, 4 D) bfloat16 and bias (4 D,) float32 are
    added. before (N, D) float32: the cell before.
    """
    rows, size = cell.shape
    compiled.lstm_forward(
        gates.data_ptr(), recurrent.data_ptr(), bias.data_ptr(), before.data_ptr(), cell.data_ptr(),
        hidden.data_ptr(), rows, size, torch.get_num_threads(),
    )  # fmt: skip


def lstm_backward(
    gates: Tensor,
    cells: tuple[Tensor, Tensor],
    output: Tensor,
    recurrent: Tensor,
    grad_cell: Tensor,
    grad_gates: Tensor,
    grad_bias: Tensor,
) -> None:
    """The gradients of a step: fills grad_gates (N, 4 D) bfloat16.

    gates: as `lstm_forward` left them; cells: before and after the step. output, recurrent (N, D)
    bfloat16: gradients by the hidden state as output and as what the step after saw; grad_cell (N,
    D) float32: by the cell after the step, replaced by that before it. Sums over rows are added to
    grad_bias (threads, 4 D) float32.
    """
    rows, size = grad_cell.shape
    compiled.lstm_backward(
        gates.data_ptr(), cells[0].data_ptr(), cells[1].data_ptr(), output.data_ptr(),
        recurrent.data_ptr(), grad_cell.data_ptr(), grad_gates.data_ptr(), grad_bias.data_ptr(),
        rows, size, len(grad_bias),
    )  # fmt: skip


def lstm_layer(
    weights: Blocked, gates: Tensor, bias: Tensor, cells: Tensor, hidden: Tensor
) -> None:
    """`lstm_forward` at all positions in turn, with the products of the hidden state between.

    gates (T, M, 4 D) and hidden (T + 1, M, D) bfloat16, cells (T + 1, N, D) float32, of which
    position 0 of the last two is given; N rows of M count. weights: (4 D, D).
    """
    room = torch.empty(cells.shape[1], gates.shape[2], dtype=gates.dtype)
    compiled.lstm_layer(
        weights.addresses[0], gates.data_ptr(), hidden.data_ptr(), room.data_ptr(), bias.data_ptr(),
        cells.data_ptr(), *_sizes(gates, cells), torch.get_num_threads(),
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
) -> None:
    """`lstm_backward` at all positions, the last first, with the products between.

    gates, cells: as `lstm_layer` left them. outputs (T, N, D) bfloat16: gradients by the outputs.
    recurrent (N, D) bfloat16, zeros, becomes the gradient by the first hidden state; grad_cell that
    by the first cell. weights: (D, 4 D), those of the layer transposed.
    """
    compiled.lstm_layer_backward(
        weights.addresses[0], gates.data_ptr(), 0, 0, 0, cells.data_ptr(), *_sizes(gates, cells),
        outputs.data_ptr(), recurrent.data_ptr(), grad_gates.data_ptr(), grad_cell.data_ptr(),
        grad_bias.data_ptr(), len(grad_bias),
    )  # fmt: skip


def _sizes(gates: Tensor, cells: Tensor) -> tuple[int, ...]:
    """Positions, rows of a position, those that count, and the layer's size."""
    return len(gates), gates.shape[1], *cells.shape[1:]


def cross_entropy(
    logits: Tensor, bias: Tensor, targets: Tensor, smoothing: float
) -> tuple[Tensor, Tensor, Tensor]:
    """Label-smoothed cross-entropy of logits (N, V) + bias (V,), for targets (N,) int64.

    Returns the losses and the negative log-likelihoods, both (N,) float32, and the sum over rows of
    the losses' gradient by the logits (V,) float32; the logits are replaced by that gradient. Rows
    of logits behind those of the targets are left alone.
    """
    rows, vocabulary = len(targets), logits.shape[1]
    threads = torch.get_num_threads()
    bias, targets = bias.float().contiguous(), targets.contiguous()
    share, losses = torch.tensor([smoothing]), torch.empty(rows, 2)
    sums, room = torch.zeros(threads, vocabulary), torch.empty(threads, vocabulary)
    compiled.cross_entropy(
        logits.data_ptr(), KINDS[logits.dtype], bias.data_ptr(), targets.data_ptr(),
        share.data_ptr(), losses.data_ptr(), sums.data_ptr(), room.data_ptr(), rows, vocabulary,
        threads,
    )  # fmt: skip
    return losses[:, 1], losses[:, 0], sums.sum(dim=0)


def product(left: Tensor, right: Tensor, y: Tensor, bias: Tensor | None = None) -> Tensor:
    """Fills y (M, N) with left (M, K) right (K, N) + bias (N,), left and right bfloat16.

    By tiles where the processor has them, with y in bfloat16 or float32; else by torch, which wants
    it in bfloat16. Left and right may be transposed views, and K is at least 1.
    """
    if not tiles():
        torch.mm(left, right, out=y)
        return y if bias is None else y.add_(bias)
    bias = None if bias is None else bias.detach().float().contiguous()
    compiled.multiply(
        *_in_memory(left), *_in_memory(right), 0 if bias is None else bias.data_ptr(),
        y.data_ptr(), KINDS[y.dtype], *y.shape, left.shape[1], torch.get_num_threads(),
    )  # fmt: skip
    return y


def _in_memory(x: Tensor) -> tuple[int, int, int]:
    """Where a matrix is, how far its rows are apart there, and whether these are its columns."""
    columns = int(x.stride(1) != 1)
    return x.data_ptr(), x.stride(columns), columns


def weight_gradient(grads: Tensor, inputs: Tensor) -> Tensor:
    """grads^T inputs, (N, O) and (N, I) bfloat16 -> (O, I) float32."""
    if tiles() and len(grads):
        return product(grads.t(), inputs, torch.empty(grads.shape[1], inputs.shape[1]))
    # By way of inputs^T grads: oneDNN wants its left side row by row, and inputs are the fewer
    # numbers to lay out anew, so this takes half the time.
    return turned(inputs.t().contiguous() @ grads)


def turned(x: Tensor) -> Tensor:
    """x (N, M) -> (M, N) float32, contiguous."""
    rows, columns = x.shape
    y = torch.empty(columns, rows)
    compiled.turn(
        x.data_ptr(), KINDS[x.dtype], y.data_ptr(), rows, columns, torch.get_num_threads()
    )
    return y


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
    seed = int(torch.empty((), dtype=torch.int64).random_())
    compiled.draw(drawn.data_ptr(), seed, count, torch.get_num_threads())
    return drawn


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
