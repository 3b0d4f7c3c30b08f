"""Kernels of a decoding step in C, for processors with AVX-512, VNNI and bf16.

A step of a decoder on a CPU is a few products with few rows, which are as fast as their weights
can be read, and dozens of small operations between them, each of which costs more to call than to
compute. These kernels do the first in one pass over the weights and the second in a handful of
calls. Everything has a form in torch as well, which is used where the processor, the compiler at
installation, or TRANSDUCE_KERNELS=0 in the environment says so. Products are by tiles (AMX) where
the processor has them, unless TRANSDUCE_TILES=0 says otherwise.

All take and give contiguous CPU tensors without gradients, float32 or bfloat16.
"""

from __future__ import annotations

import os
import warnings
from typing import Any

import torch
from torch import Tensor

try:
    from transduce.kernels import _kernels as _c  # type: ignore[attr-defined]
except ImportError:  # not compiled on this machine
    _c = None
VERSION = 8  # as in kernels.h; both change with what a kernel takes or does
if _c is not None and getattr(_c, "VERSION", 0) != VERSION:
    warnings.warn(
        "transduce's kernels are of another version and are not used: install transduce again",
        stacklevel=2,
    )
    _c = None
compiled: Any = _c  # for the modules beside this one

FEW = 8  # hypotheses of a search in one call
WIDEST = 1 << 16  # most inputs of a product, whose sums in 8 bits then fit 32
BLOCK = 32  # outputs that are summed together
KINDS = {torch.float32: 0, torch.bfloat16: 1}  # of number, as in simd.h
BEHIND = 1024  # bytes after laid out weights that a tile may reach into
_there = _c is not None and bool(_c.supported()) and os.environ.get("TRANSDUCE_KERNELS") != "0"


def available() -> bool:
    """Whether this machine can run the kernels, and nobody asked it not to."""
    return _there


def takes(x: Tensor) -> bool:
    """Whether the kernels are for such a tensor here."""
    return _there and x.device.type == "cpu" and x.dtype in KINDS and not torch.is_grad_enabled()


class Blocked:
    """x W^T + b with weights laid out in blocks, for reading in one go.

    weight: (N, D) in bfloat16, or int8 with `scales` (N,) or `times` (D,), which x is multiplied by
    before each of its rows is rounded to 8 bits by a scale of its own. bias: (N,) or None. `chosen`
    (N,) int64: which rows of a weight for more outputs.
    """

    def __init__(
        self,
        weight: Tensor,
        bias: Tensor | None,
        scales: Tensor | None = None,
        chosen: Tensor | None = None,
        times: Tensor | None = None,
    ) -> None:
        self.outputs = len(weight) if chosen is None else len(chosen)
        self.inputs = weight.shape[1]
        self.width = _width(weight)
        given = (
            None if x is None else x.detach().float().contiguous() for x in (bias, scales, times)
        )
        self.bias, self.scales, self.times = given
        self.weight = layout(weight.detach(), chosen)
        self._point()

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._point()  # a copy, or what was pickled, has weights of its own

    def _point(self) -> None:
        self.addresses = (
            self.weight.data_ptr(),
            0 if self.scales is None else self.scales.data_ptr(),
            0 if self.bias is None else self.bias.data_ptr(),
        )
        self.times_address = 0 if self.times is None else self.times.data_ptr()

    @staticmethod
    def fits(inputs: int) -> bool:
        """Whether there is a kernel for products with so many inputs here."""
        return _there and inputs <= WIDEST

    def __call__(self, x: Tensor, dtype: torch.dtype) -> Tensor:
        """x (..., D) -> (..., N) of `dtype`."""
        return self.fill(x, torch.empty(*x.shape[:-1], self.outputs, dtype=dtype))

    def fill(self, x: Tensor, y: Tensor) -> Tensor:
        """The same into y (..., N), whose rows may be further apart than N."""
        x = x.contiguous()
        _c.product(
            *self.addresses, x.data_ptr(), KINDS[x.dtype], y.data_ptr(), KINDS[y.dtype],
            x.numel() // self.inputs, self.inputs, self.outputs, self.times_address,
            y.stride(-2) if y.dim() > 1 else 0, torch.get_num_threads(),
        )  # fmt: skip
        return y


def layout(weight: Tensor, chosen: Tensor | None = None) -> Tensor:
    """Weights (N, D), or the `chosen` rows of them, as `Blocked` reads them: blocks of 16 outputs,
    an even number of them, and within a block the inputs in pairs (bfloat16) or fours (int8, which
    becomes uint8 by adding 128) of each output. Returns the bytes."""
    if weight.dtype not in (torch.bfloat16, torch.int8):
        raise TypeError(f"weights are bfloat16 or int8, not {weight.dtype}")
    outputs, inputs = len(weight) if chosen is None else len(chosen), weight.shape[1]
    size = -(-outputs // BLOCK) * BLOCK * _width(weight)
    blocks, threads = torch.empty(size + BEHIND, dtype=torch.uint8), torch.get_num_threads()
    blocks[size:] = 0
    kind = KINDS.get(weight.dtype, -1)
    if chosen is None and not weight.is_contiguous() and weight.t().is_contiguous():
        _c.lay_out_turned(weight.data_ptr(), kind, blocks.data_ptr(), outputs, inputs, threads)
        return blocks
    weight = weight.contiguous()
    chosen = None if chosen is None else chosen.contiguous()
    _c.lay_out(
        weight.data_ptr(), kind, 0 if chosen is None else chosen.data_ptr(),
        blocks.data_ptr(), outputs, inputs, threads,
    )  # fmt: skip
    return blocks


def _width(weight: Tensor) -> int:
    """Bytes of an output's weights, once these are laid out."""
    return 4 * -(-weight.shape[1] * weight.element_size() // 4)


def lstm_cell(
    gates: Tensor, given: Tensor | None, cell: Tensor, dtype: torch.dtype
) -> tuple[Tensor, Tensor]:
    """The state after a step: hidden (N, D) of `dtype`, cell (N, D) float32.

    gates (N, 4 D): what goes through the sigmoids of input gate, forget gate, candidate (twice it,
    since tanh x = 2 sigmoid 2x - 1) and output gate, after `given` of the same shape and dtype was
    added. cell (N, D): float32, before the step.
    """
    rows, size = cell.shape
    gates, cell = gates.contiguous(), cell.float().contiguous()
    given = None if given is None else given.contiguous()
    after = torch.empty_like(cell)
    hidden = torch.empty(rows, size, dtype=dtype)
    _c.lstm_cell(
        gates.data_ptr(), 0 if given is None else given.data_ptr(), KINDS[gates.dtype],
        cell.data_ptr(), after.data_ptr(), hidden.data_ptr(), KINDS[dtype], rows, size,
    )  # fmt: skip
    return hidden, after


def lstm_sequence(
    weights: Blocked, inputs: Tensor, before: tuple[Tensor, Tensor] | None = None
) -> tuple[Tensor, Tensor]:
    """An LSTM layer over T positions: hidden (T, N, D), last cell (N, D).

    before: hidden and cell (N, D) that it begins with; zeros if None.

    inputs (T, N, 4 D): what the inputs say to the gates, as in `lstm_cell`, biases included.
    weights: those of the hidden state, without a bias.
    """
    positions, rows, gates = inputs.shape
    inputs = inputs.contiguous()
    hidden = torch.empty(positions + 1, rows, gates // 4, dtype=inputs.dtype)
    hidden[0] = 0 if before is None else before[0]
    # It is written to, so what was given is copied.
    cell = torch.zeros(rows, gates // 4)
    if before is not None:
        cell.copy_(before[1])
    room = torch.empty(rows, gates, dtype=inputs.dtype)
    _c.lstm_sequence(
        *weights.addresses[:2], inputs.data_ptr(), KINDS[inputs.dtype], hidden.data_ptr(),
        cell.data_ptr(), room.data_ptr(), rows, positions, gates // 4, torch.get_num_threads(),
    )  # fmt: skip
    return hidden[1:], cell


def bend(x: Tensor) -> Tensor:
    """The hyperbolic tangents of x, which they may take the place of."""
    x = x.contiguous()
    _c.bend(x.data_ptr(), KINDS[x.dtype], x.numel())
    return x


def attend(
    queries: Tensor, keys: Tensor, values: Tensor, penalty: Tensor | None
) -> tuple[Tensor, Tensor]:
    """Attention of K queries of each of B sentences.

    queries (B, K, H x D); keys (B, H, D, S), or (B, S, D) of a single head; values (B, H, S, C), or
    (B, S, C), of the same dtype; penalty (B, S) float32, added to the scores, or None. Returns the
    context (B, K, H x C) in the queries' dtype, and the weights (B, K, S), the mean over heads.
    """
    queries, keys, values = queries.contiguous(), keys.contiguous(), values.contiguous()
    penalty = None if penalty is None else penalty.contiguous()
    sentences, beam, whole = queries.shape
    across = keys.dim() == 4
    heads = keys.shape[1] if across else 1
    sources, depth = values.shape[-2:]
    context = torch.empty(sentences, beam, heads * depth, dtype=queries.dtype)
    weights = torch.empty(sentences, beam, sources)
    _c.attend(
        queries.data_ptr(), KINDS[queries.dtype], keys.data_ptr(), across, values.data_ptr(),
        KINDS[keys.dtype], 0 if penalty is None else penalty.data_ptr(), context.data_ptr(),
        KINDS[queries.dtype], weights.data_ptr(), sentences, beam, heads, whole // heads, depth,
        sources,
    )  # fmt: skip
    return context, weights


def search(task: int) -> None:
    """The search of the sentences of a `Task` (kernels.h) at this address; `plan` makes it."""
    _c.search(task, torch.get_num_threads())
