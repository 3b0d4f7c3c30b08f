"""Recurrent layers in their inference form: one position, and whole sequences."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from transduce import kernels
from transduce.kernels import Blocked
from transduce.model.packed import Kept, can_pack
from transduce.model.rnn import LayerState, RecurrentLayer

_CELL = 2  # in torch's order: input, forget, cell, output
_NAMES = ("weight_ih", "weight_hh", "bias_ih", "bias_hh")


class PackedCell:
    """One position of a recurrent layer, its gates in one product (two for a GRU).

    With `given`, what the input says to the gates comes from `input_table` instead of the input,
    and half of the product is spared.
    """

    def __init__(
        self, layer: RecurrentLayer, kept: Kept, dtype: torch.dtype, given: bool = False
    ) -> None:
        self.kind, self.size, self.given = layer.kind, layer.rnn.hidden_size, given
        w_x, w_h, b_x, b_h = _gates(layer)
        self.fused = kernels.available() and w_x.device.type == "cpu"
        if self.kind == "gru":
            self.of_input: Callable[[Tensor], Tensor] = _same if given else kept(w_x, b_x, dtype)
            self.of_hidden = kept(w_h, b_h, dtype)
        elif given:
            self.of_hidden = kept(w_h, None, dtype)
        else:
            self.of_both = kept(torch.cat([w_x, w_h], dim=1), b_x + b_h, dtype)

    def __call__(self, x: Tensor, state: LayerState) -> tuple[Tensor, LayerState]:
        """x (N, D), or rows of the table (N, gates x size); state -> outputs (N, size), state."""
        before = state.hidden.to(x.dtype)
        if self.kind == "gru":
            hidden = self._gru(x, before)
            return hidden, LayerState(hidden)
        if self.given:
            gates, given = self.of_hidden(before), x
        else:
            gates, given = self.of_both(torch.cat([x, before], dim=-1)), None
        if state.cell is not None and self.fused:
            hidden, cell = kernels.lstm_cell(gates, given, state.cell, x.dtype)
            return hidden, LayerState(hidden, cell)
        if given is not None:
            gates = gates + given
        if self.kind == "rnn":
            hidden = gates.tanh().to(x.dtype)
            return hidden, LayerState(hidden)
        assert state.cell is not None
        i, f, s, o = gates.float().sigmoid_().chunk(4, dim=1)
        cell = torch.addcmul(f * state.cell, i, s, value=2).sub_(i)  # f c + i g, g = 2 s - 1
        hidden = (o * cell.tanh()).to(x.dtype)
        return hidden, LayerState(hidden, cell)

    def _gru(self, x: Tensor, hidden: Tensor) -> Tensor:
        of_input, of_hidden = self.of_input(x).float(), self.of_hidden(hidden).float()
        r, z = (of_input + of_hidden)[:, : 2 * self.size].sigmoid_().chunk(2, dim=1)
        n = torch.addcmul(of_input[:, 2 * self.size :], r, of_hidden[:, 2 * self.size :]).tanh_()
        return torch.lerp(n, hidden.float(), z).to(x.dtype)


class PackedSequence:
    """An LSTM layer over whole sequences: a product for all positions, and one call for the rest.

    Torch's fused layer lays its weights out anew for every batch. With `given`, the input is what
    `input_table` says.
    """

    def __init__(
        self, layer: RecurrentLayer, kept: Kept, dtype: torch.dtype, given: bool = False
    ) -> None:
        w_x, w_h, b_x, b_h = _gates(layer)
        self.of_input: Callable[[Tensor], Tensor] = _same if given else kept(w_x, b_x + b_h, dtype)
        of_hidden = kept(w_h, None, dtype).for_kernels()
        assert of_hidden is not None
        self.of_hidden = of_hidden

    @staticmethod
    def fits(layer: RecurrentLayer, dtype: torch.dtype) -> bool:
        """Whether there are kernels for this layer here."""
        inner = layer.rnn.get_parameter("weight_hh_l0")
        able = dtype == torch.bfloat16 and can_pack(inner.device, dtype)
        return able and layer.kind == "lstm" and Blocked.fits(layer.rnn.hidden_size)

    def __call__(self, x: Tensor, state: LayerState | None) -> tuple[Tensor, LayerState]:
        """x (N, T, D) -> outputs (N, T, size) and the end state, from `state`."""
        of_input = self.of_input(x.transpose(0, 1))
        before = None
        if state is not None:
            assert state.cell is not None
            before = state.hidden, state.cell
        hidden, cell = kernels.lstm_sequence(self.of_hidden, of_input, before)
        return hidden.transpose(0, 1), LayerState(hidden[-1], cell)


def input_table(layer: RecurrentLayer, embeddings: Tensor) -> Tensor:
    """What each row of embeddings (V, D) says to the gates of a layer: (V, gates x size)."""
    w_x, _, b_x, b_h = _gates(layer)
    return torch.addmm(b_x if layer.kind == "gru" else b_x + b_h, embeddings, w_x.t())


def _gates(layer: RecurrentLayer) -> list[Tensor]:
    """Weights (gates x size, D) of input and hidden, and their biases, for a packed cell."""
    weights = [getattr(layer.rnn, f"{name}_l0").detach() for name in _NAMES]
    if layer.kind != "lstm":
        return weights
    # tanh(x) = 2 sigmoid(2 x) - 1, so that one pass over the gates does all four.
    rows = torch.ones(4, layer.rnn.hidden_size, device=weights[0].device)
    rows[_CELL] = 2
    return [(weight.t() * rows.flatten()).t() for weight in weights]


def _same(x: Tensor) -> Tensor:
    return x
