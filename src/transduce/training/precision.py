"""fp32 or bf16: what the recipe says, or what this machine is measured to do faster."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor

from transduce.data.batches import Batch, BatchStream
from transduce.errors import UsageError
from transduce.model import Seq2Seq
from transduce.model.packed import has_bf16
from transduce.recipe import TrainingOptions
from transduce.search.batching import out_of_memory
from transduce.training.losses import real_positions, sequence_loss

MEASURED = 3  # batches that `auto` is measured on
GAIN = 1.1  # bf16 must be this much faster to be chosen


def settle_precision(
    options: TrainingOptions, model: Seq2Seq, stream: BatchStream
) -> tuple[str, str]:
    """`choose_precision` on the stream's next batches, which will then come again."""
    if options.precision != "auto":
        return choose_precision(options, model, [])
    begin = stream.position()
    batches = [stream.next() for _ in range(MEASURED)]
    stream.seek(begin)
    return choose_precision(options, model, batches)


def choose_precision(
    options: TrainingOptions, model: Seq2Seq, batches: Sequence[Batch], rounds: int = 3
) -> tuple[str, str]:
    """The precision to train in ("fp32" or "bf16") and the reason, for people.

    `auto` times forward and backward passes over `batches` in both precisions, in alternation.
    Weights, gradients and the random numbers of the training are left as they were.

    Errors: UsageError when bf16 is demanded of a device that cannot do it.
    """
    device, wanted = model.device, options.precision
    if wanted != "auto":
        if wanted == "bf16" and device.type not in ("cpu", "cuda"):
            raise UsageError(f"training.precision bf16 is not supported on {device.type}")
        return wanted, "as the recipe says"
    if not has_bf16(device):
        return "fp32", f"this {device.type} has no bf16 arithmetic"
    moved = [(x.to(device), real_positions(x.target_output).to(device)) for x in batches]
    devices = [device] if device.type == "cuda" else []
    with torch.random.fork_rng(devices):
        try:
            times: dict[str, list[float]] = {"fp32": [], "bf16": []}
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
    gain = min(times["fp32"]) / min(times["bf16"])
    chosen = "bf16" if gain >= GAIN else "fp32"
    return chosen, f"bf16 was measured to be {gain:.2f} times as fast as fp32"


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
        with torch.autocast(device.type, torch.bfloat16, enabled=precision == "bf16"):
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
