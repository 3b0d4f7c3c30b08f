"""The gate between generating a word and copying one (See et al. 2017, 1704.04368, equation 8)."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class Gate(nn.Module):
    """The logit of p_gen: w_h · context + w_s · state + w_x · embedded input + b (equation 8).

    In float32 whatever the precision: a gate of 8 bits would be felt in every probability.
    """

    def __init__(self, size: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(size))
        self.bias = nn.Parameter(torch.zeros(()))

    def forward(self, parts: list[Tensor]) -> Tensor:
        """parts: tensors (..., D_i) side by side -> (...) float32."""
        x = torch.cat([part.float() for part in parts], dim=-1)
        with torch.autocast(x.device.type, enabled=False):
            return torch.mv(x.flatten(0, -2), self.weight.float()).view(x.shape[:-1]) + self.bias
