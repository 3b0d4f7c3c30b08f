"""Memory for logits in training, and how many rows of them are alive at a time."""

from __future__ import annotations

import torch
from torch import Tensor

LINE = 32  # numbers in bfloat16 that fill a line of the cache
CHUNK = 2048  # rows of logits alive at a time; larger costs cache, smaller costs calls


class Room:
    """Memory for logits that is kept from one call to the next.

    The system takes back what is so large when it is freed, and gives it again page by page, which
    takes as long as the product that fills it.
    """

    def __init__(self) -> None:
        self._numbers = torch.empty(0, dtype=torch.bfloat16)

    def __deepcopy__(self, memo: object) -> Room:
        return Room()

    def take(self, rows: int, columns: int) -> Tensor:
        """(rows, columns) bfloat16 of whatever was there before, each row in lines of the cache of
        its own."""
        wide = -(-columns // LINE) * LINE
        if self._numbers.numel() < rows * wide:
            self._numbers = torch.empty(rows * wide, dtype=torch.bfloat16)
        return self._numbers[: rows * wide].view(rows, wide)[:, :columns]
