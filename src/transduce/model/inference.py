"""Which precision a model answers in: what was asked for, or what this machine does faster."""

from __future__ import annotations

import time
from dataclasses import dataclass
from functools import cache

import torch

from transduce.errors import UsageError
from transduce.model.packed import PackedLinear, has_bf16
from transduce.model.packing import Precision

GAIN = 1.3  # bf16 must be this much faster to be chosen: less than rounding is worth
PROBE = (64, 512, 4096)  # rows, inputs and outputs of the product that is measured


@dataclass(frozen=True)
class Chosen:
    """A precision, and why, for people."""

    precision: Precision
    reason: str


def settle(wanted: str, device: torch.device) -> Chosen:
    """The precision to answer in on this device.

    `auto` is bf16 where the processor has it and a product was measured to be faster in it, else
    fp32. It is a property of the machine and not of the model, so that it is the same every time.
    int8 is chosen by people only: it costs some accuracy.

    Errors: UsageError for a precision that does not exist.
    """
    if wanted in ("fp32", "bf16", "int8"):
        return Chosen(wanted, "as asked for")  # type: ignore[arg-type]
    if wanted != "auto":
        raise UsageError(f"precision `{wanted}` does not exist; use auto, fp32, bf16 or int8")
    if not has_bf16(device):
        return Chosen("fp32", f"this {device.type} has no bf16 arithmetic")
    gain = _gain(device)
    reason = f"a product was measured to be {gain:.1f} times as fast in bf16 as in fp32"
    return Chosen("bf16" if gain >= GAIN else "fp32", reason)


@cache
def _gain(device: torch.device, rounds: int = 7) -> float:
    """How many times as fast bf16 is on this device as fp32: fastest of some rounds of each."""
    rows, inputs, outputs = PROBE
    weight = torch.ones(outputs, inputs, device=device)
    x = torch.ones(rows, inputs, device=device)
    best = {torch.float32: float("inf"), torch.bfloat16: float("inf")}
    with torch.inference_mode():
        products = {dtype: PackedLinear(weight, None, dtype) for dtype in best}
        for _ in range(rounds):
            for dtype, product in products.items():
                rounded = x.to(dtype)
                start = time.perf_counter()
                product(rounded)[0, 0].item()  # an accelerator is waited for
                best[dtype] = min(best[dtype], time.perf_counter() - start)
    return best[torch.float32] / best[torch.bfloat16]
