"""The recurrent encoder: embedded source in, memory out."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from transduce.model.rnn import Dropout, RecurrentLayer, last_real, reverse_by_length
from transduce.model.state import Memory
from transduce.model.subsampling import halved, real_mask
from transduce.recipe import EncoderOptions


class BidirectionalLayer(nn.Module):
    """One layer, in one direction or in both side by side (Schuster and Paliwal 1997).

    With a `chunk` the backward direction begins anew, from nothing, at the end of each `chunk`
    positions, so that no position needs more of the future than its chunk has: a latency-controlled
    layer (Zhang et al. 2016, 1510.08983) that looks at nothing right of a chunk. The forward
    direction goes through. Chunks are rows of one batch, however long the source.
    """

    def __init__(
        self, options: EncoderOptions, input_size: int, with_cell: bool, chunk: int = 0
    ) -> None:
        super().__init__()
        width = options.size // 2 if options.bidirectional else options.size
        self.forwards = RecurrentLayer(options.kind, input_size, width)
        self.backwards = (
            RecurrentLayer(options.kind, input_size, width) if options.bidirectional else None
        )
        self.chunk = chunk
        self.given = False
        self.with_cell = with_cell and options.kind == "lstm"

    def _run(
        self, layer: RecurrentLayer, x: Tensor, lengths: Tensor
    ) -> tuple[Tensor, Tensor, Tensor | None]:
        cell = None
        if self.with_cell:
            outputs, cell = layer.end_cell(x, lengths)
        else:
            outputs = layer(x)[0]
        return outputs, last_real(outputs, lengths), cell

    def forward(self, x: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor, Tensor | None]:
        """x (B, S, D) -> outputs (B, S, size), final hidden (B, size), final cell or None.

        In an inference form that was `given` tables, x is what the input says to the gates of both
        directions, side by side.
        """
        own = other = x
        if self.given and self.backwards is not None:
            own, other = x.chunk(2, dim=2)
        outputs, final, cell = self._run(self.forwards, own, lengths)
        if self.backwards is None:
            return outputs, final, cell
        other, other_final, other_cell = self.from_the_end(other, lengths)
        both = torch.cat([outputs, other], dim=-1)
        cells = None if cell is None or other_cell is None else torch.cat([cell, other_cell], -1)
        return both, torch.cat([final, other_final], dim=-1), cells

    def from_the_end(self, x: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor, Tensor | None]:
        """The backward direction as `forward`; its final states are those after the first position,
        or that of the last chunk."""
        assert self.backwards is not None
        if not self.chunk and not self.with_cell:
            found = self.backwards.from_the_end(x, lengths)
            return found, found[:, 0], None
        if not self.chunk:
            found, final, cell = self._run(self.backwards, reverse_by_length(x, lengths), lengths)
            return reverse_by_length(found, lengths), final, cell
        pieces, sizes = _chunks(x, lengths, self.chunk)
        found, final, cell = self._run(self.backwards, reverse_by_length(pieces, sizes), sizes)
        found = reverse_by_length(found, sizes).unflatten(0, (len(x), -1)).flatten(1, 2)
        rows = torch.arange(len(x), device=lengths.device) * (len(pieces) // len(x))
        last = rows + torch.div(lengths - 1, self.chunk, rounding_mode="floor")
        return found[:, : x.shape[1]], final[last], None if cell is None else cell[last]


class RecurrentEncoder(nn.Module):
    """A stack of recurrent layers.

    Each layer: recurrence, layer norm (optional), dropout, residual (optional, where widths agree).
    The first `pyramid` layers above the lowest read pairs of neighbouring outputs side by side, and
    so halve time (Chan et al. 2015, 1508.01211, section 3.1).
    """

    def __init__(self, options: EncoderOptions, input_size: int, with_cell: bool = False) -> None:
        super().__init__()
        self.pyramid = options.pyramid
        paired = [2 * options.size] * options.pyramid
        sizes = [input_size, *paired, *[options.size] * (options.layers - options.pyramid)]
        self.memory_size = options.size
        # Where time is halved, so is the chunk: it stays as long.
        chunks = [options.chunk >> min(i, options.pyramid) for i in range(options.layers)]
        self.layers = nn.ModuleList(
            BidirectionalLayer(options, size, with_cell, chunk)
            for size, chunk in zip(sizes, chunks, strict=False)
        )
        self.norms = nn.ModuleList(
            nn.LayerNorm(options.size) if options.layer_norm else nn.Identity() for _ in self.layers
        )
        self.dropout = Dropout(options.dropout, options.variational)
        self.residual = options.residual
        # To the host, which cuDNN asks for them where a layer's last cells are wanted.
        self.tells_lengths = with_cell and options.kind == "lstm"

    def fed_by_tokens(self) -> list[RecurrentLayer]:
        """The first layer's directions, if they alone read what the encoder is fed."""
        first = self.layers[0]
        assert isinstance(first, BidirectionalLayer)
        if first.with_cell or (self.residual and first.forwards.rnn.input_size == self.memory_size):
            return []
        return [first.forwards] + ([] if first.backwards is None else [first.backwards])

    def memory_lengths(self, lengths: Tensor) -> Tensor:
        """How many memory positions so many positions become. lengths (B,) int64 -> the same."""
        for _ in range(self.pyramid):
            lengths = halved(lengths)
        return lengths

    def forward(self, embedded: Tensor, lengths: Tensor) -> Memory:
        """embedded (B, S, E), lengths (B,) at least 1 -> Memory with D = the encoder's size."""
        x = embedded
        finals, cells = [], []
        for i, (layer, norm) in enumerate(zip(self.layers, self.norms, strict=True)):
            if 0 < i <= self.pyramid:
                x, lengths = _pairs(x, lengths)
            outputs, final, cell = layer(x, lengths)
            outputs = self.dropout(norm(outputs))
            x = x + outputs if self.residual and x.shape == outputs.shape else outputs
            finals.append(final)
            if cell is not None:
                cells.append(cell)
        mask = real_mask(lengths, x.shape[1])
        return Memory(
            values=x * mask.unsqueeze(2),
            mask=mask,
            final=torch.stack(finals),
            cell=torch.stack(cells) if cells else None,
        )


def _chunks(x: Tensor, lengths: Tensor, size: int) -> tuple[Tensor, Tensor]:
    """Each `size` positions as a row: x (B, S, D) -> (B x C, size, D), and their lengths (B x C,).

    What is only padding counts as one position, whose outputs nobody reads.
    """
    x = nn.functional.pad(x, (0, 0, 0, -x.shape[1] % size))
    pieces = x.unflatten(1, (-1, size)).flatten(0, 1)
    firsts = torch.arange(0, x.shape[1], size, device=lengths.device)
    return pieces, (lengths.unsqueeze(1) - firsts).clamp(1, size).flatten()


def _pairs(x: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
    """Neighbours side by side: x (B, S, D) -> (B, S / 2 rounded up, 2 D), and their lengths.

    The last real position of an odd length is beside zeros, whatever the batch pads it with.
    """
    x = x * real_mask(lengths, x.shape[1]).unsqueeze(2)
    x = nn.functional.pad(x, (0, 0, 0, x.shape[1] % 2))
    return x.unflatten(1, (-1, 2)).flatten(2), halved(lengths)
