"""Linear layers in their inference form: weights laid out once, in the precision asked for.

Where there are kernels, products in bf16 and 8 bits are theirs; others are oneDNN's.
"""

from __future__ import annotations

import copy
import threading
from abc import ABC, abstractmethod

import torch
from torch import Tensor, nn

from transduce.kernels import Blocked

ROWS = 64  # for how many rows oneDNN chooses the layout of packed weights
MIDDLE = 128  # of unsigned activations: what stands for zero
_LAYING_OUT = threading.Lock()  # several threads may be the first to ask a product


def has_bf16(device: torch.device) -> bool:
    """Whether the processor multiplies bf16 natively."""
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    return device.type == "cpu" and bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())


def has_int8(device: torch.device) -> bool:
    """Whether this torch has the 8-bit product that `int8` is made of."""
    return device.type == "cpu" and hasattr(torch.ops.onednn, "qlinear_pointwise")


def can_pack(device: torch.device, dtype: torch.dtype) -> bool:
    """Whether oneDNN's packed products are there for this device and dtype."""
    if device.type != "cpu" or not hasattr(torch.ops.mkldnn, "_reorder_linear_weight"):
        return False
    if not torch.backends.mkldnn.is_available():
        return False
    return dtype == torch.float32 or has_bf16(device)


class LaidOut(ABC):
    """Weights that are laid out when they are first needed: for the kernels, or for oneDNN where
    these have no product.

    Their own order is kept for ever where `parted` says that parts of them will be asked for. A
    part has the weights of the whole, and `chosen` outputs (U,) int64.
    """

    dtype: torch.dtype

    def _keep(self, weight: Tensor, chosen: Tensor | None, *, kernel: bool) -> None:
        self.outputs = len(weight) if chosen is None else len(chosen)
        self.inputs = weight.shape[1]
        self.weight: Tensor | None = weight
        self.chosen = chosen
        self.parted = False
        self.kernel = kernel and Blocked.fits(self.inputs)
        self.laid_out: Blocked | Tensor | None = None

    def for_kernels(self) -> Blocked | None:
        """The weights laid out for the kernels; None where these have no product."""
        weights = self._weights()
        return weights if isinstance(weights, Blocked) else None

    def __call__(self, x: Tensor) -> Tensor:
        """(..., inputs) -> (..., outputs)."""
        weights = self._weights()
        if isinstance(weights, Blocked):
            return weights(x, self.dtype)
        return self._by_torch(x, weights)

    @abstractmethod
    def _by_torch(self, x: Tensor, weight: Tensor) -> Tensor:
        """The product with weights from `_for_torch`."""

    @abstractmethod
    def _blocks(self, weight: Tensor) -> Blocked:
        """The weights as kernels read them."""

    @abstractmethod
    def _for_torch(self, weight: Tensor) -> Tensor:
        """The weights as oneDNN reads them."""

    def _weights(self) -> Blocked | Tensor:
        if self.laid_out is not None:
            return self.laid_out
        with _LAYING_OUT:
            if self.laid_out is None:
                assert self.weight is not None
                if self.kernel:
                    self.laid_out = self._blocks(self.weight)
                else:
                    own = self.weight if self.chosen is None else self.weight[self.chosen]
                    self.laid_out = self._for_torch(own)
                self.weight = self.weight if self.parted else None
            return self.laid_out


class PackedLinear(LaidOut):
    """x W^T + b with packed weights: (..., inputs) -> (..., outputs), in `dtype`."""

    def __init__(self, weight: Tensor, bias: Tensor | None, dtype: torch.dtype) -> None:
        self.dtype = dtype
        self.packed = can_pack(weight.device, dtype)
        # Sums are in float32 before they are rounded, and the bias joins them there.
        bias_dtype = torch.float32 if self.packed else dtype
        self.bias = None if bias is None else bias.detach().to(bias_dtype).clone()
        self._kernel = self.packed and dtype == torch.bfloat16
        self._keep(weight.detach().to(dtype).clone(), None, kernel=self._kernel)

    def part(self, outputs: Tensor) -> PackedLinear:
        """The product for some outputs (U,) int64 only; `parted` must be set from the start."""
        assert self.weight is not None
        some = copy.copy(self)
        some.bias = None if self.bias is None else self.bias[outputs]
        some._keep(self.weight, outputs, kernel=self._kernel)
        return some

    def _by_torch(self, x: Tensor, weight: Tensor) -> Tensor:
        x = x.to(self.dtype)
        if not self.packed:
            return nn.functional.linear(x, weight, self.bias)
        return torch.ops.mkldnn._linear_pointwise(x, weight, self.bias, "none", [], "")

    def _blocks(self, weight: Tensor) -> Blocked:
        return Blocked(weight, self.bias, None, self.chosen)

    def _for_torch(self, weight: Tensor) -> Tensor:
        return torch.ops.mkldnn._reorder_linear_weight(weight, ROWS) if self.packed else weight


class RowQuantized(LaidOut):
    """x W^T + b in 8 bits: (..., inputs) -> (..., outputs), in `dtype`.

    Weights have a scale for each output. Activations have one for each row: one for the whole
    batch would let the largest value of a batch-mate change a sentence's translation.
    """

    def __init__(self, weight: Tensor, bias: Tensor | None, dtype: torch.dtype) -> None:
        weight = weight.detach().float()
        self.dtype = dtype
        self.scales = weight.abs().amax(dim=1).clamp_min(1e-8) / 127
        self.zeros = torch.zeros(len(weight), dtype=torch.int64)
        self.bias = torch.zeros(len(weight)) if bias is None else bias.detach().float().clone()
        whole = (weight / self.scales.unsqueeze(1)).round().to(torch.int8)
        self._keep(whole, None, kernel=True)

    def part(self, outputs: Tensor) -> RowQuantized:
        """As `PackedLinear.part`; what is in 8 bits is not rounded again."""
        assert self.weight is not None
        some = copy.copy(self)
        some.scales, some.bias = self.scales[outputs], self.bias[outputs]
        some.zeros = self.zeros[outputs]
        some._keep(self.weight, outputs, kernel=True)
        return some

    def _by_torch(self, x: Tensor, weight: Tensor) -> Tensor:
        rows = x.reshape(-1, self.inputs)
        scale = rows.float().abs().amax(dim=1, keepdim=True).clamp_min(1e-8) / 127
        whole = (rows / scale).add_(MIDDLE + 0.5).to(torch.uint8)  # rounds, since it cuts
        product = torch.ops.onednn.qlinear_pointwise(
            whole, 1.0, MIDDLE, weight, self.scales, self.zeros, None,
            1.0, 0, torch.float32, "none", [], "",
        )  # fmt: skip
        answer = torch.addcmul(self.bias, product, scale).to(self.dtype)
        return answer.view(*x.shape[:-1], self.outputs)

    def _blocks(self, weight: Tensor) -> Blocked:
        return Blocked(weight, self.bias, self.scales, self.chosen)

    def _for_torch(self, weight: Tensor) -> Tensor:
        return torch.ops.onednn.qlinear_prepack(weight, [ROWS, self.inputs])


Kept = type[PackedLinear] | type[RowQuantized]
