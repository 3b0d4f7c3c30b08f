"""From frames of speech to fewer, wider positions: what stands before the encoder for sound.

A second of speech is a hundred frames and a dozen characters: neighbouring frames are joined, so
that the encoder has less to do and attention fewer positions to choose among.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from transduce.model.linear import Linear
from transduce.model.rnn import Dropout
from transduce.recipe import SubsamplingOptions


def real_mask(lengths: Tensor, width: int) -> Tensor:
    """lengths (B,) -> (B, width) boolean, True at real positions."""
    return torch.arange(width, device=lengths.device) < lengths.unsqueeze(1)


def halved(lengths: Tensor) -> Tensor:
    """How many pairs so many positions make, the last one perhaps with an empty half."""
    return (lengths + 1) // 2


class Subsampling(nn.Module):
    """Frames (B, S, F) to positions (B, S / factor rounded up, size).

    `conv` is the front of most hybrid systems: two convolutions (three for a factor of 8) of 3 x 3;
    those that need not halve time halve the bins only. Frames beyond a sentence's end count as
    silence (zeros) at every convolution, as they do at its edge, so padding changes nothing.
    """

    def __init__(self, options: SubsamplingOptions, bins: int, size: int) -> None:
        super().__init__()
        self.factor = 1 if options.kind == "none" else options.factor
        self.convolutions = nn.ModuleList()
        width = bins * self.factor
        if options.kind == "conv":
            halvings = int(math.log2(self.factor))
            channels = 1
            for i in range(max(2, halvings)):
                stride = (2 if i < halvings else 1, 2)
                self.convolutions.append(
                    nn.Conv2d(channels, options.channels, 3, stride=stride, padding=1)
                )
                channels, bins = options.channels, (bins + 1) // 2
            width = channels * bins
        self.linear = Linear(width, size)
        self.dropout = Dropout(options.dropout)

    def lengths(self, lengths: Tensor) -> Tensor:
        """How many positions so many frames become. lengths (B,) int64 -> (B,) int64."""
        return (lengths + self.factor - 1) // self.factor

    def forward(self, frames: Tensor, lengths: Tensor) -> Tensor:
        """frames (B, S, F) zero beyond lengths (B,) -> (B, S', size)."""
        if self.convolutions:
            x = self._convolved(frames, lengths)
        else:
            # The last position may lack frames; a sentence alone has none there either.
            missing = -frames.shape[1] % self.factor
            x = nn.functional.pad(frames, (0, 0, 0, missing))
            x = x.unflatten(1, (-1, self.factor)).flatten(2)
        result: Tensor = self.dropout(self.linear(x))
        return result

    def _convolved(self, frames: Tensor, lengths: Tensor) -> Tensor:
        """(B, S, F) -> (B, S', channels x F')."""
        x = frames.unsqueeze(1)
        for convolution in self.convolutions:
            assert isinstance(convolution, nn.Conv2d)
            if not torch.is_autocast_enabled(x.device.type):
                x = x.to(convolution.weight.dtype)  # the inference form's
            x = torch.relu(convolution(x))
            if convolution.stride[0] == 2:
                lengths = halved(lengths)
            x = x * real_mask(lengths, x.shape[2]).view(len(lengths), 1, -1, 1)
        return x.permute(0, 2, 1, 3).flatten(2)
