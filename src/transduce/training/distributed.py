"""The processes of one training: how many there are, and how they come to agree.

`torchrun` starts several; without it there is one, and everything here hands back what it was
given. Each process computes gradients on batches of its own. Their sum is the same bits
everywhere, and so are the weights it changes: nothing else of the model ever travels. Whatever
decides what the loop does next (a signal, the clock, a score) is agreed on first, because a
process that waits for the others in a place where they never come would wait for ever.

Few numbers travel between the CPUs (gloo), gradients from GPU to GPU (nccl).
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn

from transduce.errors import TransduceError, UsageError
from transduce.model.device import find_device
from transduce.training.interruption import Interrupted, StopFlag

# As long as the first process may prepare a corpus or write to a slow disk while the others wait.
# A process that ends is noticed at once, whatever this says.
PATIENCE = timedelta(hours=24)
APART = 1_000_003  # between the seeds of two processes
TOLD = ("RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")  # by torchrun, in the environment


class Lost(TransduceError):
    """Another process of the training has ended, so that this one cannot go on."""


class Processes:
    """One process alone. `Together` overrides what several do differently."""

    def __init__(self, device: torch.device, rank: int = 0, count: int = 1) -> None:
        self.device, self.rank, self.count = device, rank, count

    @property
    def first(self) -> bool:
        """Whether this is the process that writes and speaks."""
        return self.rank == 0

    # ------------------------------------------------------------------------ coming to agree

    @contextmanager
    def in_turn(self) -> Iterator[None]:
        """The first process goes through the block before the others do, all of them together."""
        yield

    def wait(self) -> None:
        """Until all processes are here."""

    def agree(self, signal_number: int, seconds: float) -> tuple[int, float]:
        """A signal that any process got (0: none), and the seconds by the clock of the first."""
        return signal_number, seconds

    def tell(self, value: Any) -> Any:
        """What the first process says, a JSON value, on all of them."""
        return value

    def gather(self, work: Callable[[], Any], flag: StopFlag) -> list[Any]:
        """What `work` returned, a JSON value, in each process, by rank.

        Errors: Interrupted, in every process, when a signal broke the work off in one.
        """
        with flag.raising():
            return [work()]

    def stack(self, numbers: Tensor) -> Tensor:
        """numbers (n,) on the CPU, of equal length everywhere -> (processes, n), by rank."""
        return numbers.unsqueeze(0)

    # ------------------------------------------------------------------------------- training

    def total(self, count: int) -> int:
        """The sum of every process's count."""
        return count

    def add_up(self, parameters: Sequence[nn.Parameter], *sums: Tensor) -> tuple[Tensor, ...]:
        """Make each gradient the sum of all processes' gradients; returns such sums of scalars."""
        return sums

    def seed(self, seed: int) -> None:
        """Give every process but the first random numbers of its own (for dropout)."""


class Together(Processes):
    """One of several processes.

    Every exchange is a sum over all processes; where each has something of its own to tell, it
    fills its row of a table that is zero elsewhere.
    """

    @contextmanager
    def in_turn(self) -> Iterator[None]:
        if not self.first:
            self.wait()
        yield
        if self.first:
            self.wait()

    def wait(self) -> None:
        self._sum(torch.zeros(1))

    def agree(self, signal_number: int, seconds: float) -> tuple[int, float]:
        table = self.stack(torch.tensor([signal_number, seconds], dtype=torch.float64))
        return int(table[:, 0].max()), float(table[0, 1])

    def tell(self, value: Any) -> Any:
        return self._rows(value if self.first else None)[0]

    def gather(self, work: Callable[[], Any], flag: StopFlag) -> list[Any]:
        # The exchange itself is never broken off: the others are in it too.
        row: dict[str, Any] = {}
        try:
            row["found"] = super().gather(work, flag)[0]
        except Interrupted as interrupted:
            row["signal"] = interrupted.signal_number
        rows = self._rows(row)
        for row in rows:
            if "signal" in row:
                raise Interrupted("stopped with the others", row["signal"])
        return [row["found"] for row in rows]

    def stack(self, numbers: Tensor) -> Tensor:
        table = numbers.new_zeros(self.count, len(numbers))
        table[self.rank] = numbers
        return self._sum(table)

    def total(self, count: int) -> int:
        return int(self._sum(torch.tensor([count])))

    def add_up(self, parameters: Sequence[nn.Parameter], *sums: Tensor) -> tuple[Tensor, ...]:
        # One tensor, so that one exchange does. Which parameters have a gradient depends on the
        # model alone, so all processes put the same ones side by side.
        gradients = [p.grad for p in parameters if p.grad is not None]
        flat = self._sum(torch.cat([part.flatten() for part in (*gradients, *sums)]))
        *parts, totals = flat.split([*(g.numel() for g in gradients), len(sums)])
        pairs = zip(gradients, parts, strict=True)
        torch._foreach_copy_(gradients, [part.view_as(gradient) for gradient, part in pairs])
        return totals.unbind()

    def seed(self, seed: int) -> None:
        if not self.first:
            torch.manual_seed(seed + APART * self.rank)

    def _rows(self, value: Any) -> list[Any]:
        """The JSON value of each process, by rank."""
        data = torch.frombuffer(bytearray(json.dumps(value).encode()), dtype=torch.uint8)
        sizes = self.stack(torch.tensor([len(data)])).flatten().tolist()
        table = self.stack(nn.functional.pad(data, (0, max(sizes) - len(data))))
        rows = zip(table.numpy(), sizes, strict=True)
        return [json.loads(row[:size].tobytes()) for row, size in rows]

    def _sum(self, numbers: Tensor) -> Tensor:
        """The sum over all processes, in place of `numbers`."""
        try:
            dist.all_reduce(numbers)
        except RuntimeError as error:
            found = re.search(r"(?:\[/[^]]*\] *)?([^.\n]*)", str(error).strip())
            raise Lost(
                "another process of this training has ended, and so does this one; what the other "
                f"said tells why (here: {found[1] if found else error})"
            ) from error
        return numbers


# ------------------------------------------------------------------------------ beginning and end


def is_first() -> bool:
    """Whether this process is the only one of its training, or the first of several."""
    return not _several() or os.environ["RANK"] == "0"


@contextmanager
def joined(device: str) -> Iterator[Processes]:
    """Be one of the processes that `torchrun` started, on a device of one's own; or the only one.

    `device` as for `find_device`; `auto` and `cuda` give each process the GPU of its number on
    this machine.

    Errors: UsageError when there are more processes than GPUs. Those that leave the block are
    told as the errors of this process, if it is not the first.
    """
    if not _several():
        yield Processes(find_device(device))
        return
    rank, count = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
    own = _own_device(device, int(os.environ.get("LOCAL_RANK", rank)))
    backend = "cpu:gloo,cuda:nccl" if own.type == "cuda" else "gloo"
    dist.init_process_group(backend, timeout=PATIENCE)
    try:
        yield Together(own, rank, count)
    except TransduceError as error:
        if rank:
            error.args = (f"process {rank}: {error}",)
        raise
    # After an error the others may never come to take their leave.
    dist.destroy_process_group()


def _several() -> bool:
    return all(name in os.environ for name in TOLD)


def _own_device(name: str, local_rank: int) -> torch.device:
    if name not in ("auto", "cuda") or not torch.cuda.is_available():
        found = find_device(name)
        if found.type == "cuda":
            raise UsageError(
                f"device `{name}`: several processes take one GPU each; say `cuda` "
                "(and CUDA_VISIBLE_DEVICES to choose among them)"
            )
        return found
    gpus = torch.cuda.device_count()
    if local_rank >= gpus:
        raise UsageError(
            f"more processes than GPUs on this machine ({gpus}): each takes one; start fewer with "
            "--nproc-per-node, or train on the processor with --device cpu"
        )
    # Before anything is put on a GPU, or every process would open the first one too.
    torch.cuda.set_device(local_rank)
    return torch.device("cuda", local_rank)
