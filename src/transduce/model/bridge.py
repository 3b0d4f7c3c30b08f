"""How the encoder's end becomes the decoder's first state."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from transduce.errors import UsageError
from transduce.model.linear import Linear
from transduce.model.state import Memory


class Bridge(nn.Module):
    """The decoder's state before its first position.

    dense  tanh(W h), W for each layer's hidden and cell, from the encoder's last output
           (Bahdanau et al. 2015, appendix A.2.2)
    copy   the encoder's final hidden and cell, layer by layer (Sutskever et al. 2014; Luong et
           al. 2015); needs equal layers and sizes
    mean   tanh(W m) from the mean of the memory
    zeros  nothing
    """

    def __init__(
        self, kind: str, cell: str, layers: int, size: int, memory_size: int, encoder_layers: int
    ) -> None:
        super().__init__()
        self.kind = kind
        self.layers, self.size = layers, size
        self.states = 2 if cell == "lstm" else 1
        if kind == "copy" and (encoder_layers != layers or memory_size != size):
            raise UsageError(
                f"decoder.start `copy` needs an encoder like the decoder: encoder has "
                f"{encoder_layers} layers of size {memory_size}, decoder {layers} of {size}; "
                f"make them equal or use `dense`"
            )
        if kind in ("dense", "mean"):
            self.linear = Linear(memory_size, layers * size * self.states)
            self.linear.once = True

    def forward(self, memory: Memory) -> tuple[Tensor, Tensor | None]:
        """hidden (L, B, D), and cell of the same shape for an LSTM."""
        batch = memory.values.shape[0]
        if self.kind == "zeros":
            zeros = memory.values.new_zeros(self.layers, batch, self.size)
            return zeros, zeros if self.states == 2 else None
        if self.kind == "copy":
            assert memory.final is not None
            cell = memory.cell
            if self.states == 2 and cell is None:
                cell = torch.zeros_like(memory.final)  # encoder without cells
            return memory.final, cell if self.states == 2 else None
        if self.kind == "dense" and memory.final is not None:
            end = memory.final[-1]
        else:
            end = memory.values.sum(dim=1) / memory.mask.sum(dim=1, keepdim=True)
        states = torch.tanh(self.linear(end)).view(batch, self.states, self.layers, self.size)
        hidden, *cell_or_none = states.permute(1, 2, 0, 3).unbind(0)
        return hidden, cell_or_none[0] if cell_or_none else None
