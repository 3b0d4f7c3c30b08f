"""Run in a process of its own: train as one of several processes, with a mishap in one of them.

Globals given: RECIPE (YAML), FOLDER, RANK, COUNT, PORT; MISHAP, the name of a function below or
"", happens to the last process, or to all where it says so. What the process has to say when it
ends is left in FOLDER's parent, its exit code is that of the command line.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

import transduce.training.validation as validation
from transduce.errors import TrainingError, TransduceError
from transduce.model import Seq2Seq
from transduce.recipe_files import load_recipe
from transduce.training.loop import train
from transduce.training.update import Updater

given: dict[str, Any] = globals()
gradients, encode = Updater._gradients, Seq2Seq.encode


def at_update(number: int, happens: Callable[[], None]) -> None:
    """Let something happen before the gradients of an update."""
    count = 0

    def counting(self: Updater, *arguments: Any) -> Any:
        nonlocal count
        count += 1
        if count == number:
            happens()
        return gradients(self, *arguments)

    Updater._gradients = counting  # type: ignore[method-assign]


def terminated() -> None:
    at_update(4, lambda: os.kill(os.getpid(), signal.SIGTERM))


def killed() -> None:
    at_update(4, lambda: os.kill(os.getpid(), signal.SIGKILL))


def failing() -> None:
    def fail() -> None:
        raise TrainingError("a mishap")

    at_update(4, fail)


def short_of_memory() -> None:
    """Batches of more than twelve sentences do not fit."""

    def encode_few(self: Seq2Seq, source: torch.Tensor, lengths: torch.Tensor) -> Any:
        if self.training and source.shape[0] > 12:
            raise torch.OutOfMemoryError("out of memory")
        return encode(self, source, lengths)

    Seq2Seq.encode = encode_few  # type: ignore[method-assign]


def not_finite() -> None:
    """The second update's loss."""
    count = 0

    def poisoned(self: Updater, *arguments: Any) -> Any:
        nonlocal count
        count += 1
        sums = gradients(self, *arguments)
        return sums * float("nan") if count == 2 else sums

    Updater._gradients = poisoned  # type: ignore[method-assign]


def terminated_in_validation() -> None:
    def decode(*_: Any, **__: Any) -> None:
        os.kill(os.getpid(), signal.SIGTERM)

    validation.decode = decode  # type: ignore[assignment]


os.environ |= {
    "RANK": str(given["RANK"]),
    "LOCAL_RANK": str(given["RANK"]),
    "WORLD_SIZE": str(given["COUNT"]),
    "MASTER_ADDR": "127.0.0.1",
    "MASTER_PORT": str(given["PORT"]),
}
if given["MISHAP"] and given["RANK"] == given["COUNT"] - 1:
    given[given["MISHAP"]]()
code, said = 0, ""
try:
    train(load_recipe(Path(given["RECIPE"])), given["FOLDER"], progress=False)
except TransduceError as error:
    code, said = error.exit_code, str(error)
folder = Path(given["FOLDER"])
folder.with_name(f"{folder.name}-{given['RANK']}.txt").write_text(said)
os._exit(code)
