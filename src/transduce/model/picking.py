"""One column of each row of logits.

`gather` and `scatter_add_` along rows are passes over all of a half-precision matrix on a CPU; as
places in the flattened matrix, the same few numbers cost nothing.
"""

from __future__ import annotations

import torch
from torch import Tensor

TINY = 1e-30  # what a probability is at least, before its logarithm


def places(matrix: Tensor, columns: Tensor) -> Tensor:
    """Where (N,) the columns (N,) of the rows of a contiguous matrix (N, V) lie when it is flat."""
    return torch.arange(len(matrix), device=matrix.device) * matrix.shape[1] + columns


def pick(matrix: Tensor, at: Tensor) -> Tensor:
    """The numbers (N,) at these `places`, float32."""
    return matrix.flatten().index_select(0, at).float()


def add(matrix: Tensor, at: Tensor, number: float) -> None:
    """Add a number at these `places`."""
    matrix.view(-1).index_add_(0, at, matrix.new_full(at.shape, number))
