"""fp32, bf16 or int8: what the recipe says, or what this machine is measured to do faster."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor

from transduce.data.batches import Batch, BatchStream
from transduce.errors import UsageError
from transduce.kernels import available
from transduce.kernels.weights import eight_bits
from transduce.model import Seq2Seq
from transduce.model.packed import has_bf16
from transduce.recipe import TrainingOptions
from transduce.search.batching import out_of_memory
from transduce.training.losses import real_positions, sequence_loss

MEASURED = 3  # batches that `auto` is measured on
GAIN = 1.1  # a precision must be so much faster than the one it would be instead of


@contextmanager
def products_in(precision: str, device: torch.device, cache: bool = True) -> Iterator[None]:
    """Inside the block, forward passes multiply in this precision, and so do their backward passes.

    `int8` is `bf16` but for the products of weights that are the kernels' (`kernels.weights`).
    Without `cache`, autocast casts a weight anew for every product.
    """
    half = precision in ("bf16", "int8")
    with (
        torch.autocast(device.type, torch.bfloat16, enabled=half, cache_enabled=cache),
        eight_bits(precision == "int8"),
    ):
        yield


def settle_precision(
    options: TrainingOptions, model: Seq2Seq, stream: BatchStream, before: str | None
) -> tuple[str, str]:
    """`choose_precision` on the stream's next batches, which will then come again; for a training
    that goes on, the precision that it had `before`, and nothing to say if that is to be had."""
    if before is not None:
        if before == "int8" and "int8" not in _candidates(model.device):
            return "bf16", "int8, in which this training began, is not to be had here"
        return before, ""
    if options.precision != "auto":
        return choose_precision(options, model, [])
    begin = stream.position()
    batches = [stream.next() for _ in range(MEASURED)]
    stream.seek(begin)
    return choose_precision(options, model, batches)


def choose_precision(
    options: TrainingOptions, model: Seq2Seq, batches: Sequence[Batch], rounds: int = 3
) -> tuple[str, str]:
    """The precision to train in (fp32, bf16 or int8) and the reason, for people.

    `auto` times forward and backward passes over `batches` in all that there are here, in turn.
    Weights, gradients and the random numbers of the training are left as they were.

    Errors: UsageError when bf16 or int8 is demanded of a device that cannot do it.
    """
    device, wanted = model.device, options.precision
    if wanted != "auto":
        _check(wanted, device)
        return wanted, "as the recipe says"
    if not has_bf16(device):
        return "fp32", f"this {device.type} has no bf16 arithmetic"
    moved = [(x.to(device), real_positions(x.target_output).to(device)) for x in batches]
    devices = [device] if device.type == "cuda" else []
    with torch.random.fork_rng(devices):
        try:
            times: dict[str, list[float]] = {name: [] for name in _candidates(device)}
            for number in range(rounds + 1):  # the first round warms up and is not counted
                for precision, found in times.items():
                    seconds = _measure(model, moved, options, precision)
                    if number:
                        found.append(seconds)
        except (RuntimeError, MemoryError) as error:
            if not out_of_memory(error):
                raise
            return "fp32", "not measured: out of memory"
        finally:
            model.zero_grad(set_to_none=True)
    return _fastest({name: min(found) for name, found in times.items()})


def _candidates(device: torch.device) -> tuple[str, ...]:
    kernels = available() and device.type == "cpu"
    return ("fp32", "bf16", "int8") if kernels else ("fp32", "bf16")


def _check(precision: str, device: torch.device) -> None:
    if precision == "bf16" and device.type not in ("cpu", "cuda"):
        raise UsageError(f"training.precision bf16 is not supported on {device.type}")
    if precision == "int8" and "int8" not in _candidates(device):
        raise UsageError(
            "training.precision int8 is for CPUs with AVX-512, VNNI and bf16, where transduce's "
            "kernels were compiled at installation and TRANSDUCE_KERNELS is not 0; bf16 or auto "
            "are for others"
        )


def _fastest(seconds: Mapping[str, float]) -> tuple[str, str]:
    """The precision to choose by the time that each takes, in the order in which they round more,
    and why."""
    chosen, gains = "fp32", []
    for name in list(seconds)[1:]:
        if seconds[chosen] >= GAIN * seconds[name]:
            chosen = name
        gains.append(f"{name} {seconds['fp32'] / seconds[name]:.2f}")
    return chosen, f"measured to be so many times as fast as fp32: {', '.join(gains)}"


def _measure(
    model: Seq2Seq,
    batches: Sequence[tuple[Batch, Tensor]],
    options: TrainingOptions,
    precision: str,
) -> float:
    """Seconds of one forward and backward pass over all batches, each with its real positions."""
    model.train()
    device, sampled = model.device, options.output_gradient == "sampled"
    synchronize = torch.cuda.synchronize if device.type == "cuda" else (lambda: None)
    synchronize()
    start = time.perf_counter()
    for batch, positions in batches:
        model.zero_grad(set_to_none=True)
        with products_in(precision, device):
            sums = sequence_loss(model, batch, options.label_smoothing, positions, sampled=sampled)
        (sums.loss / sums.tokens).backward()
    synchronize()
    return time.perf_counter() - start


@contextmanager
def tensor_cores(device: torch.device) -> Iterator[None]:
    """Inside the block, fp32 on a GPU means TF32: matrices are multiplied by its tensor cores.

    They read 10 bits of each factor's mantissa and sum in 32-bit floating point; cuDNN's recurrent
    layers do so in any case.
    """
    if device.type != "cuda":
        yield
        return
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("high")
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(before)
