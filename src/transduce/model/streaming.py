"""The memory of speech that is still being spoken: subsampling and encoder with a carried state.

Where nothing looks ahead but the convolutions (by a frame each), a memory position is known as soon
as the last frame under it is; with chunks, as soon as that of its chunk is. Each part here takes
what is new, gives what is now known, and keeps what the next positions still need; together they
give the memory that `Seq2Seq.encode` gives for the whole, whatever the pieces.
"""

from __future__ import annotations

from typing import Protocol

import torch
from torch import Tensor, nn

from transduce.errors import UsageError
from transduce.model.encoder import BidirectionalLayer, RecurrentEncoder
from transduce.model.rnn import LayerState
from transduce.model.seq2seq import Seq2Seq
from transduce.model.state import Memory
from transduce.model.subsampling import Subsampling


def looks_ahead(model: Seq2Seq) -> str | None:
    """Why the memory of a model is only known at the end of its source; None where it can grow."""
    if model.subsampling is None:
        return "its source is text"
    if not isinstance(model.encoder, RecurrentEncoder):
        return "its encoder attends to the whole utterance (model.encoder.kind)"
    first = model.encoder.layers[0]
    assert isinstance(first, BidirectionalLayer)
    if first.backwards is not None and not first.chunk:
        return (
            "its encoder reads in both directions (model.encoder.bidirectional: true), all of the "
            "utterance at once (model.encoder.chunk: 0)"
        )
    return None


class GrowingMemory:
    """The memory of one source, whose frames come in pieces of any length.

    Errors: UsageError for a model that `looks_ahead`.
    """

    def __init__(self, model: Seq2Seq) -> None:
        if reason := looks_ahead(model):
            raise UsageError(f"this model cannot hear piece by piece: {reason}")
        assert model.subsampling is not None and isinstance(model.encoder, RecurrentEncoder)
        self._device = model.device
        self._front = _Front(model.subsampling)
        self._layers = _layers(model.encoder)
        self._begun = False
        self._values: list[Tensor] = []

    @torch.inference_mode()
    def push(self, frames: Tensor, *, last: bool = False) -> Tensor:
        """frames (n, F) more -> (m, D), the memory positions that are now known.

        `last`: these were all; it gives what only silence after them makes whole.
        """
        self._begun = self._begun or len(frames) > 0
        if not self._begun:
            return frames.new_zeros(0, 0)
        x = self._front.push(frames.to(self._device).unsqueeze(0), last)
        for layer in self._layers:
            x = layer.push(x, last)
        if x.shape[1]:
            self._values.append(x)
        return x[0]

    @property
    def positions(self) -> int:
        """How many memory positions there are so far."""
        return sum(values.shape[1] for values in self._values)

    def memory(self) -> Memory:
        """All positions so far as the memory of a batch of one.

        Errors: UsageError as long as there is no position.
        """
        if not self._values:
            raise UsageError("nothing was heard yet")
        values = torch.cat(self._values, dim=1)
        states = [state for layer in self._layers for state in layer.ends()]
        cells = [state.cell for state in states if state.cell is not None]
        with_cell = all(layer.with_cell for layer in self._layers)
        return Memory(
            values=values,
            mask=torch.ones(values.shape[:2], dtype=torch.bool, device=values.device),
            final=torch.stack([state.hidden for state in states]).to(values.dtype),
            cell=torch.stack(cells).to(values.dtype) if with_cell else None,
        )


class _Part(Protocol):
    def push(self, x: Tensor, last: bool) -> Tensor: ...


class _Front:
    """Subsampling: frames (1, n, F) -> positions (1, m, D)."""

    def __init__(self, module: Subsampling) -> None:
        self._linear = module.linear
        self._parts: list[_Part] = []
        for convolution in module.convolutions:
            assert isinstance(convolution, nn.Conv2d)
            self._parts.append(_Convolution(convolution))
        if not self._parts:
            self._parts.append(_Neighbours(module.factor))
        self._maps = len(module.convolutions) > 0

    def push(self, frames: Tensor, last: bool) -> Tensor:
        x = frames.unsqueeze(1) if self._maps else frames
        for part in self._parts:
            x = part.push(x, last)
        if self._maps:
            x = x.permute(0, 2, 1, 3).flatten(2)
        result: Tensor = self._linear(x)
        return result


class _Convolution:
    """One convolution of 3 x 3, which sees a frame before and one after: (1, C, n, F) -> the same.

    Before the first and after the last frame there are zeros.
    """

    def __init__(self, module: nn.Conv2d) -> None:
        self._module = module
        self._stride = int(module.stride[0])
        self._held: Tensor | None = None

    def push(self, x: Tensor, last: bool) -> Tensor:
        weight = self._module.weight
        x = x.to(weight.dtype)
        silence = x.new_zeros(1, x.shape[1], 1, x.shape[3])
        parts = [silence if self._held is None else self._held, x, *([silence] if last else [])]
        x = torch.cat(parts, dim=2)
        count = max(0, (x.shape[2] - 3) // self._stride + 1)
        self._held = x[:, :, count * self._stride :]
        if not count:
            bins = (x.shape[3] - 1) // 2 + 1
            return x.new_zeros(1, weight.shape[0], 0, bins)
        seen = x[:, :, : (count - 1) * self._stride + 3]
        return torch.relu(
            nn.functional.conv2d(seen, weight, self._module.bias, self._module.stride, (0, 1))
        )


class _Neighbours:
    """So many neighbours side by side, the last ones beside zeros: (1, n, D) -> (1, m, k D)."""

    def __init__(self, factor: int) -> None:
        self._factor = factor
        self._held: Tensor | None = None

    def push(self, x: Tensor, last: bool) -> Tensor:
        if self._held is not None:
            x = torch.cat([self._held, x], dim=1)
        if last:
            x = nn.functional.pad(x, (0, 0, 0, -x.shape[1] % self._factor))
        whole = x.shape[1] // self._factor
        self._held = x[:, whole * self._factor :]
        return x[:, : whole * self._factor].reshape(1, whole, self._factor * x.shape[2])


class _Layer:
    """A layer of the encoder: (1, n, D) -> (1, m, D), from the state that the last piece left.

    One with chunks waits until a chunk is whole.
    """

    def __init__(
        self, layer: BidirectionalLayer, norm: nn.Module, *, residual: bool, paired: bool
    ) -> None:
        self._layer, self._norm, self._residual = layer, norm, residual
        self._held: Tensor | None = None  # what there is of the next chunk
        self._backwards: LayerState | None = None
        self._pairs = _Neighbours(2) if paired else None
        self.with_cell = layer.with_cell
        self._forwards: LayerState | None = None

    def push(self, x: Tensor, last: bool) -> Tensor:
        if self._pairs is not None:
            x = self._pairs.push(x, last)
        if self._layer.chunk:
            x = self._whole_chunks(x, last)
        forwards = self._layer.forwards
        if not x.shape[1]:
            sides = 1 if self._layer.backwards is None else 2
            return x.new_zeros(1, 0, sides * forwards.rnn.hidden_size)
        outputs, self._forwards = forwards.go_on(x, self._forwards)
        if self._layer.backwards is not None:
            other, hidden, cell = self._layer.from_the_end(
                x, torch.tensor([x.shape[1]], device=x.device)
            )
            self._backwards = LayerState(hidden, cell)
            outputs = torch.cat([outputs, other], dim=2)
        outputs = self._norm(outputs)
        return x + outputs if self._residual and x.shape == outputs.shape else outputs

    def _whole_chunks(self, x: Tensor, last: bool) -> Tensor:
        if self._held is not None:
            x = torch.cat([self._held, x], dim=1)
        whole = x.shape[1] if last else x.shape[1] // self._layer.chunk * self._layer.chunk
        self._held = x[:, whole:]
        return x[:, :whole]

    def ends(self) -> list[LayerState]:
        """What the last positions left, both directions side by side; nothing as yet: []."""
        one, other = self._forwards, self._backwards
        if one is None or other is None:
            return [] if one is None else [one]
        cells = (one.cell, other.cell)
        both = [cell for cell in cells if cell is not None] if self.with_cell else []
        cell = torch.cat(both, dim=1) if both else None
        return [LayerState(torch.cat([one.hidden, other.hidden], dim=1), cell)]


def _layers(encoder: RecurrentEncoder) -> list[_Layer]:
    made = []
    for i, (layer, norm) in enumerate(zip(encoder.layers, encoder.norms, strict=True)):
        assert isinstance(layer, BidirectionalLayer)
        paired = 0 < i <= encoder.pyramid
        made.append(_Layer(layer, norm, residual=encoder.residual, paired=paired))
    return made
