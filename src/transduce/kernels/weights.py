"""Weights as the products of training multiply with them: in bf16, or rounded to 8 bits.

With 8 bits, the three products of a layer are of whole numbers, which takes half the time. In
y = x W^T and the gradient by x, g W, what is summed lies in one row, which has a scale of its own;
weights are rounded once for both (as in SwitchBack: Wortsman et al. 2023, 2304.13013, section 2.2).
In the gradient by W, g^T x, sums are over rows of many sizes, where rounding to the nearest would
lose the small ones: here columns are rounded by chance, which is right on average.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar

import torch
from torch import Tensor

from transduce.kernels import BEHIND, BLOCK, WIDEST, Blocked, compiled
from transduce.kernels.training import product, seed, weight_gradient

LINE = 64  # bytes of a line of the cache
_in_eight_bits: ContextVar[bool] = ContextVar("in_eight_bits", default=False)


@contextmanager
def eight_bits(wanted: bool = True) -> Iterator[None]:
    """Inside the block, forward passes by the kernels of training, and the backward passes that
    belong to them, round what weights are multiplied with to 8 bits."""
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
        self.given = weight.detach()
        self.scales: Tensor | None = None
        if _in_eight_bits.get() and weight.shape[1] <= WIDEST:
            self.numbers, self.scales = round_rows(self.given)
        else:
            self.numbers = self.given.to(torch.bfloat16)

    def half(self) -> Tensor:
        """The weight in bfloat16, for what is not a product with all of it."""
        return self.numbers if self.scales is None else self.given.to(torch.bfloat16)

    def forward(self, x: Tensor, y: Tensor, bias: Tensor | None = None) -> Tensor:
        """Fills y (N, O), bfloat16 or float32, with x W^T + bias, for x (N, I) bfloat16.

        Rows of y may be further apart than O.
        """
        return self.layer(bias)(x, y)

    def layer(self, bias: Tensor | None) -> Callable[[Tensor, Tensor], Tensor]:
        """`forward`, for some rows after the other: in 8 bits the weight is laid out here."""
        if self.scales is None:
            turned = self.numbers.t()
            return lambda x, y: product(x, turned, y, bias)
        return self.blocked(bias).fill

    def backward(self, grads: Tensor) -> Tensor:
        """The gradient by x (N, I) bfloat16 from that by y, grads (N, O) bfloat16."""
        y = grads.new_empty(len(grads), self.numbers.shape[1])
        if self.scales is None or len(self.numbers) > WIDEST:
            return product(grads, self.half(), y)
        return self.turned().fill(grads, y)

    def gradients(self, grads: Tensor, *inputs: Tensor) -> list[Tensor]:
        """The gradient by a weight (O, I) float32 from that by y, grads (N, O), and x, for each of
        some weights' inputs (N, I) whose products are added up in y; all bfloat16."""
        if self.scales is None or not 0 < len(grads) <= WIDEST:
            return [weight_gradient(grads, x) for x in inputs]
        turned = Columns(grads)
        return [turned.product(Columns(x, blocks=True)) for x in inputs]

    def blocked(self, bias: Tensor | None = None) -> Blocked:
        """The weight of `forward`, laid out."""
        return Blocked(self.numbers, bias, self.scales)

    def turned(self) -> Blocked:
        """The weight of `backward`, laid out. The scales are of its inputs."""
        return Blocked(self.numbers.t(), None, times=self.scales)


class Columns:
    """x (N, D) bfloat16 with each column in 8 bits by a scale of its own, up or down by chance, so
    that on average it is what it was (Chen et al. 2020, 2010.14298, section 3); the seed is from
    torch's generator. N is at most WIDEST."""

    def __init__(self, x: Tensor, blocks: bool = False) -> None:
        """`blocks`: laid out as the second factor of a product, not the first."""
        x = x.contiguous()
        self.count, self.width = x.shape
        self.stride = (-(-self.count // LINE) | 1) * LINE  # an odd number of lines of the cache
        size = -(-self.width // BLOCK) * BLOCK * 4 * -(-self.count // 4) + BEHIND
        self.whole = torch.empty(size if blocks else self.width * self.stride, dtype=torch.int8)
        self.scales = torch.empty(self.width)
        self.excess = torch.empty(self.width, dtype=torch.int32)
        compiled.round_columns(
            x.data_ptr(), self.whole.data_ptr(), self.scales.data_ptr(), self.excess.data_ptr(),
            *x.shape, self.stride, blocks, seed(), torch.get_num_threads(),
        )  # fmt: skip

    def product(self, other: Columns) -> Tensor:
        """x^T y (D, E) float32, y (N, E) being what `other`, in blocks, is of."""
        found = torch.empty(self.width, other.width)
        compiled.product_of_columns(
            other.whole.data_ptr(), other.scales.data_ptr(), self.whole.data_ptr(),
            self.scales.data_ptr(), self.excess.data_ptr(), self.stride, found.data_ptr(),
            self.width, self.count, other.width, torch.get_num_threads(),
        )  # fmt: skip
        return found


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
