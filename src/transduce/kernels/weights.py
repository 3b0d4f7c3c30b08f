"""Weights as the products of training multiply with them: in bf16, or rounded to 8 bits.

With 8 bits, y = x W^T and the gradient by x, g W, are products of whole numbers, in half the time;
the gradient by W stays in bf16, since its sums are over rows of many scales (SwitchBack: Wortsman
et al. 2023, 2304.13013, section 2.2). Weights are rounded once for both directions.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

import torch
from torch import Tensor

from transduce.kernels import WIDEST, Blocked, compiled
from transduce.kernels.training import product

_in_eight_bits: ContextVar[bool] = ContextVar("in_eight_bits", default=False)


@contextmanager
def eight_bits(wanted: bool = True) -> Iterator[None]:
    """Inside the block, forward passes by the kernels of training, and the backward passes that
    belong to them, round to 8 bits."""
    before = _in_eight_bits.set(wanted)
    try:
        yield
    finally:
        _in_eight_bits.reset(before)


class Weight:
    """A weight (O, I), float32 or bfloat16, on a CPU with kernels.

    Inside `eight_bits` it is rounded, each row by a scale of its own, and so is each row of what it
    is multiplied with; else both are bfloat16.
    """

    def __init__(self, weight: Tensor) -> None:
        self.scales: Tensor | None = None
        if _in_eight_bits.get() and max(weight.shape) <= WIDEST:
            self.numbers, self.scales = round_rows(weight.detach())
        else:
            self.numbers = weight.detach().to(torch.bfloat16)

    def forward(self, x: Tensor, y: Tensor, bias: Tensor | None = None) -> Tensor:
        """Fills y (N, O), bfloat16 or float32, with x W^T + bias, for x (N, I) bfloat16.

        Rows of y may be further apart than O.
        """
        if self.scales is None:
            return product(x, self.numbers.t(), y, bias)
        return self.blocked(bias).fill(x, y)

    def backward(self, grads: Tensor) -> Tensor:
        """The gradient by x (N, I) bfloat16 from that by y, grads (N, O) bfloat16."""
        y = grads.new_empty(len(grads), self.numbers.shape[1])
        if self.scales is None:
            return product(grads, self.numbers, y)
        return self.turned().fill(grads, y)

    def blocked(self, bias: Tensor | None = None) -> Blocked:
        """The weight of `forward`, laid out."""
        return Blocked(self.numbers, bias, self.scales)

    def turned(self) -> Blocked:
        """The weight of `backward`, laid out. The scales are of its inputs."""
        return Blocked(self.numbers.t(), None, times=self.scales)


def round_rows(weight: Tensor) -> tuple[Tensor, Tensor]:
    """A weight (O, I) in 8 bits, int8, and the scale of each row (O,), which it is to be multiplied
    by; scales of rows with what is no number are none."""
    weight = weight.float().contiguous()
    whole, scales = torch.empty(weight.shape, dtype=torch.int8), torch.empty(len(weight))
    compiled.round_rows(
        weight.data_ptr(), whole.data_ptr(), scales.data_ptr(), *weight.shape,
        torch.get_num_threads(),
    )  # fmt: skip
    return whole, scales
