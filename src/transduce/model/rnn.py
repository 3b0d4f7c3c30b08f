"""Recurrent layers: LSTM, GRU and RNN behind one face.

Every layer is torch's own whole-sequence kernel with one layer in one direction, because that is
what oneDNN and cuDNN fuse. Padding needs no packing: a forward pass never sees what is right of it,
and the backward direction runs over each sequence reversed by its own length.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

from transduce.kernels import available
from transduce.kernels.training import draw, drop, trains
from transduce.model.cudnn import run_whole
from transduce.model.lstm import WholeLSTM

KINDS: dict[str, Callable[..., nn.RNNBase]] = {"lstm": nn.LSTM, "gru": nn.GRU, "rnn": nn.RNN}
GATES = {"lstm": 4, "gru": 3, "rnn": 1}


def reverse_by_length(x: Tensor, lengths: Tensor) -> Tensor:
    """Reverse the real positions of each sequence, leaving padding where it is.

    x (B, T, D), lengths (B,) -> (B, T, D). Its own inverse.

    >>> reverse_by_length(torch.tensor([[[1], [2], [0]]]), torch.tensor([2])).flatten().tolist()
    [2, 1, 0]
    """
    if _alone(x, lengths):
        return x.flip(1)
    positions = torch.arange(x.shape[1], device=x.device)
    ends = lengths.unsqueeze(1)
    index = torch.where(positions < ends, ends - 1 - positions, positions)
    if torch.is_grad_enabled() and x.requires_grad:
        result: Tensor = Rearranged.apply(x, index)
        return result
    return rearranged(x, index)


class Rearranged(torch.autograd.Function):
    """x (B, T, D) with each sequence's positions in the order of index (B, T), its own inverse.

    Whole vectors are moved, and moved back for the gradient; `gather` moves number by number, and
    adds them up on the way back.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, index: Tensor) -> Tensor:
        ctx.save_for_backward(index)
        return rearranged(x, index)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        (index,) = ctx.saved_tensors
        return rearranged(grad, index), None


def rearranged(x: Tensor, index: Tensor) -> Tensor:
    """The vectors of x (B, T, D) at index (B, T)."""
    batch, positions, size = x.shape
    first = torch.arange(0, batch * positions, positions, device=x.device).unsqueeze(1)
    rows = x.reshape(-1, size).index_select(0, (first + index).flatten())
    return rows.view(batch, positions, size)


def last_real(x: Tensor, lengths: Tensor) -> Tensor:
    """The vector at each sequence's last real position. x (B, T, D), lengths (B,) -> (B, D)."""
    if _alone(x, lengths):
        return x[:, -1]
    return x[torch.arange(x.shape[0], device=x.device), lengths - 1]


def _alone(x: Tensor, lengths: Tensor) -> bool:
    """Whether there is one sequence without padding, as a CPU can tell at once."""
    return len(x) == 1 and lengths.device.type == "cpu" and int(lengths[0]) == x.shape[1]


@dataclass(frozen=True)
class LayerState:
    """The state of one layer: hidden (N, D), and cell (N, D) for an LSTM."""

    hidden: Tensor
    cell: Tensor | None = None

    def join(self, other: LayerState) -> LayerState:
        """The rows of another after one's own."""
        hidden = torch.cat([self.hidden, other.hidden])
        if self.cell is None or other.cell is None:
            return LayerState(hidden)
        return LayerState(hidden, torch.cat([self.cell, other.cell]))


Cell = Callable[[Tensor, LayerState], tuple[Tensor, LayerState]]


class Whole(Protocol):
    """A layer over whole sequences in its inference form (`packed_rnn.PackedSequence`)."""

    def __call__(self, x: Tensor, state: LayerState | None) -> tuple[Tensor, LayerState]: ...


class RecurrentLayer(nn.Module):
    """One layer in one direction."""

    def __init__(self, kind: str, input_size: int, size: int) -> None:
        super().__init__()
        self.kind = kind
        self.rnn = KINDS[kind](input_size, size, batch_first=True)
        # The inference form (`packing`): one step, and whole sequences.
        self.cell: Cell | None = None
        self.packed: Whole | None = None

    @property
    def gates(self) -> int:
        """How many numbers the gates of one position are."""
        return GATES[self.kind] * self.rnn.hidden_size

    def forward(self, x: Tensor, state: LayerState | None = None) -> tuple[Tensor, LayerState]:
        """Run over x (N, T, D) from `state` (zeros if None) -> outputs (N, T, size), end state."""
        if self.packed is not None and state is None:
            return self.packed(x, None)
        if self.trained_by_kernels(x):
            given = (None, None) if state is None else (state.hidden, state.cell)
            outputs, cell = WholeLSTM.apply(x, *self._weights(), *given)
            return outputs, LayerState(outputs[:, -1], cell)
        first: Tensor | tuple[Tensor, Tensor] | None = None
        if state is not None:
            first = state.hidden.unsqueeze(0)
            if state.cell is not None:
                first = (first, state.cell.unsqueeze(0))
        outputs, end = run_whole(self.rnn, x, first)
        if isinstance(end, tuple):
            return outputs, LayerState(end[0].squeeze(0), end[1].squeeze(0))
        return outputs, LayerState(end.squeeze(0))

    def trained_by_kernels(self, x: Tensor) -> bool:
        """Whether the kernels run over x, and back."""
        return self.kind == "lstm" and torch.is_grad_enabled() and trains(x)

    def from_the_end(self, x: Tensor, lengths: Tensor) -> Tensor:
        """Run over x (N, T, D) from each sequence's last real position to its first -> outputs (N,
        T, size), each at its position."""
        if self.trained_by_kernels(x):
            outputs: Tensor = WholeLSTM.apply(x, *self._weights(), None, None, lengths)[0]
            return outputs
        return reverse_by_length(self(reverse_by_length(x, lengths))[0], lengths)

    def go_on(self, x: Tensor, state: LayerState | None) -> tuple[Tensor, LayerState]:
        """A piece of a sequence after what left `state` (None: its beginning), as `forward` would
        run over the whole."""
        if self.packed is not None:
            return self.packed(x, state)
        return self(x, state)

    def step(self, x: Tensor, state: LayerState) -> tuple[Tensor, LayerState]:
        """One position: x (N, D) -> outputs (N, size), state.

        A plain cell: for a single step the whole-sequence kernels cost two to five times as much.
        """
        if self.cell is not None:
            return self.cell(x, state)
        hidden, cell = state.hidden.to(x.dtype), state.cell
        weights = self._weights()
        if self.kind == "lstm":
            assert cell is not None
            hidden, cell = torch.lstm_cell(x, (hidden, cell.to(x.dtype)), *weights)
        elif self.kind == "gru":
            hidden = torch.gru_cell(x, hidden, *weights)
        else:
            hidden = torch.rnn_tanh_cell(x, hidden, *weights)
        return hidden, LayerState(hidden, cell)

    def _weights(self) -> list[Tensor]:
        """Of input and hidden state, and their biases."""
        return [getattr(self.rnn, name) for name in self.rnn._flat_weights_names]

    def end_cell(self, x: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        """Like `forward`, with the cell at each last real position: outputs, cell (N, size).

        The fused kernel only tells the cell after the padding, so this takes the packed way.
        """
        packed = pack_padded_sequence(x, lengths.cpu(), batch_first=True, enforce_sorted=False)
        outputs, (_, cell) = run_whole(self.rnn, packed)
        return pad_packed_sequence(outputs, batch_first=True, total_length=x.shape[1])[0], cell[0]


def drawn_bytes(count: int, device: torch.device) -> Tensor:
    """At least so many random bytes: one decides whether an element is dropped.

    On a CPU torch draws one number at a time, which makes its own masks a tenth of a training step.
    """
    if device.type == "cpu" and available():
        return draw(count)
    words = torch.empty((count + 7) // 8, dtype=torch.int64, device=device)
    return words.random_(-(2**63), None).view(torch.uint8)


def threshold_of(probability: float) -> int:
    """Which bytes drop an element: those below. Something is always kept."""
    return min(round(probability * 256), 255)


def keep_mask(shape: torch.Size, probability: float, like: Tensor) -> Tensor:
    """A dropout mask: zero with `probability` (to the nearest 1/256), else 1 / share kept. Same
    dtype and device as `like`."""
    threshold, count = threshold_of(probability), shape.numel()
    kept = drawn_bytes(count, like.device)[:count].view(shape) >= threshold
    return kept.to(like.dtype).mul_(256 / (256 - threshold))


class DropInOnePass(torch.autograd.Function):
    """x times a `keep_mask` that is never written down, with the same random numbers."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, probability: float) -> Tensor:
        ctx.threshold = threshold_of(probability)
        drawn = drawn_bytes(x.numel(), x.device)
        ctx.save_for_backward(drawn)
        return drop(x.contiguous(), drawn, ctx.threshold)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        (drawn,) = ctx.saved_tensors
        return drop(grad.contiguous(), drawn, ctx.threshold), None


class Dropout(nn.Module):
    """Dropout over (B, T, D); `variational` draws one mask for all positions.

    Gal and Ghahramani 2016 (1512.05287), section 4.
    """

    def __init__(self, probability: float, variational: bool = False) -> None:
        super().__init__()
        self.probability = probability
        self.variational = variational

    def mask(self, x: Tensor) -> Tensor | None:
        """A mask for all positions of x (B, T, D): (B, 1, D), or None if each has its own."""
        if not (self.variational and self.training and self.probability):
            return None
        return keep_mask(torch.Size((x.shape[0], 1, x.shape[2])), self.probability, x)

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        """Drop x, by `mask` if one was drawn before (loops over time share it that way)."""
        if not self.training or self.probability == 0:
            return x
        if mask is None:
            mask = self.mask(x)
        if mask is None and trains(x):
            return DropInOnePass.apply(x, self.probability)
        if mask is None:
            mask = keep_mask(x.shape, self.probability, x)
        return x * mask


def drop_words(x: Tensor, probability: float, training: bool) -> Tensor:
    """Hide whole positions of embedded x (B, T, E), without rescaling: a missing word is zero."""
    if not training or probability == 0:
        return x
    return x * (torch.rand(x.shape[:2], device=x.device) >= probability).unsqueeze(2)
