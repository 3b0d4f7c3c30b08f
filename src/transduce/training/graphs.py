"""CUDA graphs: the passes of a batch as one thing that the GPU is told to do again.

A small model keeps a GPU less busy than it keeps the processor that queues one operation after the
other. A CUDA graph is queued by one call: all that a forward pass, its loss and the backward pass
do for batches of one shape, recorded once, over the same places in memory at each replay. So
batches are padded to few shapes (`shapes`), and a shape that comes again and again is recorded.

What never changes place: the numbers of a batch (`Inputs`), the weights, their gradients, to which
each pass adds, and the sums for the report. Clipping, the optimizer and counting are outside.

PyTorch's notes on CUDA graphs (docs.pytorch.org, "CUDA semantics", whole-network capture) say what
has to be minded; where something here follows from them, a comment says so.
"""

from __future__ import annotations

import warnings
from collections import Counter, OrderedDict
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Protocol, TypeAlias

import torch
from torch import Tensor, nn

from transduce.data.batches import Batch
from transduce.errors import TransduceError
from transduce.model import Seq2Seq
from transduce.search.batching import out_of_memory
from transduce.training.losses import LossSum
from transduce.training.shapes import Inputs, Shape

# None of these has been measured yet.
SEEN = 3  # batches of a shape before it is recorded: that waits for the GPU, and takes five passes
KEPT = 128  # graphs: shapes of an epoch of sentences are about a hundred
WARM_UPS = 3  # passes before a recording, as the notes ask: libraries make their plans in them


class CannotCaptureError(TransduceError):
    """A pass cannot be recorded, for the reason that this says."""


class Capture(Protocol):
    """Work on a device that is recorded once and then done again, over the same memory."""

    def record(self, work: Callable[[], None]) -> None:
        """Get ready to replay `work`, which may be done some times meanwhile, or not at all."""

    def replay(self) -> None:
        """Do it."""


Loss: TypeAlias = Callable[[Inputs], LossSum]


@dataclass(frozen=True)
class Kept:
    """A recorded shape: what it reads, and what it does."""

    inputs: Inputs
    capture: Capture


class Graphs:
    """Gradients and sums of batches, by replaying what was recorded for their shapes.

    `loss` is the loss of padded inputs, differentiable. `new_capture` makes something to record
    with. Parameters must stay where they are in memory, and, once `begun`, so must their gradients:
    they are zeroed between updates, not taken away. `seen` is how many batches of a shape, at least
    one, come before it is recorded; `kept`, how many stay recorded: the least recently used goes.
    """

    def __init__(
        self,
        loss: Loss,
        parameters: Sequence[nn.Parameter],
        device: torch.device,
        new_capture: Callable[[], Capture],
        seen: int = SEEN,
        kept: int = KEPT,
    ) -> None:
        self.begun = False  # whether anything was ever recorded, or tried to be
        self._loss, self._parameters, self._device = loss, parameters, device
        self._new_capture, self._enough, self._most = new_capture, seen, kept
        self._seen: Counter[Shape] = Counter()
        self._kept: OrderedDict[Shape, Kept] = OrderedDict()  # the last used at the end
        self._sums = torch.zeros(4, device=device)

    def __len__(self) -> int:
        """How many shapes are recorded."""
        return len(self._kept)

    def __call__(self, batch: Batch, tokens: int) -> Tensor:
        """Add a batch's gradients to those of the parameters, for the loss divided by `tokens`.

        batch: ids, on the CPU. Returns the sums of `LossSum.numbers`.

        Errors: CannotCaptureError, before which nothing has changed; whatever the loss raises.
        """
        host = Inputs.of(batch, tokens, pin=self._device.type == "cuda")
        kept = self._kept.get(host.shape)
        if kept is None and self._seen[host.shape] < self._enough:
            # Padded none the less, so that random numbers are the same ones, recorded or not, and a
            # training that goes on is as one that was never stopped.
            self._seen[host.shape] += 1
            self._pass(host.on(self._device))
            return self._sums.clone()
        if kept is None:
            kept = self._record(host.on(self._device))
        else:
            self._kept.move_to_end(host.shape)
            kept.inputs.numbers.copy_(host.numbers, non_blocking=True)
        kept.capture.replay()
        return self._sums.clone()

    def _record(self, inputs: Inputs) -> Kept:
        self.begun = True
        capture = self._new_capture()
        gradients = [p.grad for p in self._parameters if p.grad is not None]
        before = [gradient.clone() for gradient in gradients]
        try:
            # Passes that only warm up shall leave no trace: neither here nor in what dropout draws.
            with torch.random.fork_rng([self._device] if self._device.type == "cuda" else []):
                capture.record(lambda: self._pass(inputs))
        except (RuntimeError, MemoryError) as error:
            if out_of_memory(error):
                raise
            # What broke a capture off comes before what its end has to say.
            cause = error.__context__ or error
            raise CannotCaptureError(str(cause).strip().partition("\n")[0]) from error
        finally:
            torch._foreach_copy_(gradients, before)
        if len(self._kept) >= self._most:
            # To be recorded again it must come as often again.
            oldest, _ = self._kept.popitem(last=False)
            del self._seen[oldest]
        kept = self._kept[inputs.shape] = Kept(inputs, capture)
        return kept

    def _pass(self, inputs: Inputs) -> None:
        """Forwards and backwards. What is recorded is this."""
        sums = self._loss(inputs)
        found: Sequence[Tensor | None] = torch.autograd.grad(
            sums.loss / inputs.tokens, self._parameters, allow_unused=True
        )
        gradients: list[Tensor] = []
        added: list[Tensor] = []
        for parameter, gradient in zip(self._parameters, found, strict=True):
            if gradient is None:  # of which the model alone decides; it never gets one
                continue
            if parameter.grad is None:  # at the first pass of all, which is never recorded
                parameter.grad = torch.zeros_like(parameter)
            gradients.append(parameter.grad)
            added.append(gradient)
        torch._foreach_add_(gradients, added)
        self._sums.copy_(sums.numbers())


def why_not(model: Seq2Seq, device: torch.device) -> str | None:
    """Why there can be no graphs of this model's training on this device; None if there can."""
    if device.type != "cuda":
        return f"graphs are for GPUs, and the device is `{device.type}`"
    return model.varies


# ------------------------------------------------------------------------------------ on a GPU


class CudaCaptures:
    """Makes the captures of one training: they share their memory, since one runs at a time."""

    def __init__(self, device: torch.device) -> None:
        """device: with its number, as that of a tensor."""
        self.device = device
        self.pool = torch.cuda.graph_pool_handle()
        self.stream = torch.cuda.Stream(device)  # a capture cannot be on the default stream

    def __call__(self) -> CudaCapture:
        return CudaCapture(self)


class CudaCapture:
    """A `torch.cuda.CUDAGraph`.

    Nothing that it computes outlives a replay in the memory that graphs share, so they may be
    replayed in any order. The default generator of random numbers, by which dropout draws, is
    torch's to register: each replay goes on where the one before ended.
    """

    def __init__(self, shared: CudaCaptures) -> None:
        self._shared = shared
        self._graph = torch.cuda.CUDAGraph()

    def record(self, work: Callable[[], None]) -> None:
        """Errors: RuntimeError where `work` cannot be recorded. The device can be used as before,
        but no other capture can be relied upon."""
        stream, current = self._shared.stream, torch.cuda.current_stream(self._shared.device)
        stream.wait_stream(current)
        try:
            # Around the capture too: when one fails, torch does not go back to the stream before.
            with torch.cuda.stream(stream):
                for _ in range(WARM_UPS - 1):
                    work()
                refusing_to_wait(work)
                self._capture(work)
        finally:
            current.wait_stream(stream)

    def _capture(self, work: Callable[[], None]) -> None:
        shared = self._shared
        generator = torch.cuda.default_generators[shared.device.index]
        spare = generator.clone_state()
        try:
            # Only what this thread does counts: another makes batches meanwhile, in pinned memory,
            # which in the usual mode would end the capture.
            with torch.cuda.graph(
                self._graph,
                pool=shared.pool,
                stream=shared.stream,
                capture_error_mode="thread_local",
            ):
                work()
        except BaseException:
            # A capture that was broken off leaves the generator waiting for its end, and the
            # allocator in the pool; torch has no public way back.
            generator.graphsafe_set_state(spare)
            with suppress(RuntimeError, AttributeError):  # it did end
                torch._C._cuda_endAllocateToPool(shared.device.index, shared.pool)
                torch._C._cuda_releasePool(shared.device.index, shared.pool)
            raise

    def replay(self) -> None:
        self._graph.replay()


def refusing_to_wait(work: Callable[[], None]) -> None:
    """Do work on a GPU that must not wait for it: a wait, inside a capture, would break it off.

    Errors: RuntimeError where it waits.
    """
    before = torch.cuda.get_sync_debug_mode()
    with warnings.catch_warnings():  # that torch does not notice every wait
        warnings.simplefilter("ignore")
        torch.cuda.set_sync_debug_mode("error")
    try:
        work()
    finally:
        torch.cuda.set_sync_debug_mode(before)
