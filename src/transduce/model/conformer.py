"""The conformer's convolution module (Gulati et al. 2020, 2005.08100, section 2.2)."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from transduce.model.linear import Linear


class Convolution(nn.Module):
    """A gated linear layer, a convolution of each channel over time, norm, Swish, a linear layer.

    Where the paper normalises by the batch, this normalises each position over its channels: a
    batch's mean and variance would let batch-mates and their padding change a sentence's answer in
    training, and need long batches to be estimated well, of which small data has few.
    """

    def __init__(self, size: int, kernel: int) -> None:
        super().__init__()
        self.gated = Linear(size, 2 * size)
        self.filters = nn.Conv1d(size, size, kernel, padding=kernel // 2, groups=size)
        self.norms = nn.LayerNorm(size)
        self.output = Linear(size, size)

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        """x (B, S, D), mask (B, S) True at real positions -> (B, S, D)."""
        x = nn.functional.glu(self.gated(x), dim=2)
        # As zeros, padding is to the convolution what lies beyond the edge is.
        x = self.norms(self._over_time(x * mask.unsqueeze(2)))
        result: Tensor = self.output(nn.functional.silu(x))
        return result

    def _over_time(self, x: Tensor) -> Tensor:
        """(B, S, D) -> (B, S, D).

        As a picture of height 1, whose channels lie side by side in memory as those of x do: torch
        has kernels for that, and the 1-D convolution takes twice the time.
        """
        filters = self.filters
        x = x.transpose(1, 2).unsqueeze(2)
        if not torch.is_autocast_enabled(x.device.type):
            x = x.to(filters.weight.dtype)
        padding = (0, filters.kernel_size[0] // 2)
        weight = filters.weight.unsqueeze(2)
        x = nn.functional.conv2d(x, weight, filters.bias, padding=padding, groups=filters.groups)
        return x.squeeze(2).transpose(1, 2)
