"""From a stream of inputs of any length to batches that fit, and back into order."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sized
from contextlib import contextmanager
from itertools import islice
from typing import TypeVar

import torch
from torch import nn

from transduce.errors import DataError

Item = TypeVar("Item")
Result = TypeVar("Result")


def in_windows(
    items: Iterable[Item],
    answer: Callable[[list[Item]], list[Result]],
    width: Callable[[Item], int],
    window: int,
) -> Iterator[Result]:
    """Answer a stream of items in order, `window` of them at a time, which are sorted by width."""
    stream = iter(items)
    while chunk := list(islice(stream, window)):
        results: list[Result | None] = [None] * len(chunk)
        # The widest first: what does not fit into memory shows at once.
        order = sorted(range(len(chunk)), key=lambda i: -width(chunk[i]))
        answers = answer([chunk[i] for i in order])
        for i, result in zip(order, answers, strict=True):
            results[i] = result
        yield from results  # type: ignore[misc]  # every one has been answered


def in_batches(
    items: list[Item],
    answer: Callable[[list[Item]], list[Result]],
    width: Callable[[Item], int],
    budget: int,
) -> list[Result]:
    """Answer items, the widest of which come first, in batches of at most `budget` positions
    (items x the widest of them, but at least one item), or halves where memory does not suffice."""
    results: list[Result] = []
    while len(results) < len(items):
        start = len(results)
        batch = items[start : start + fitting(width(items[start]), budget)]
        results += _answer_or_halve(batch, answer, width)
    return results


def fitting(width: int, budget: int) -> int:
    """How many items of this width make `budget` positions; at least one."""
    return max(1, budget // max(1, width))


def _answer_or_halve(
    batch: list[Item], answer: Callable[[list[Item]], list[Result]], width: Callable[[Item], int]
) -> list[Result]:
    """The answers to a batch; where memory does not suffice, half of it at a time."""
    try:
        return answer(batch)
    except (torch.OutOfMemoryError, MemoryError, RuntimeError) as error:
        if not out_of_memory(error):
            raise
        if len(batch) == 1:
            raise DataError(
                f"an input of {width(batch[0])} positions does not fit into memory; "
                f"shorten it, or use a smaller beam"
            ) from error
    half = len(batch) // 2
    parts = batch[:half], batch[half:]
    return [result for part in parts for result in _answer_or_halve(part, answer, width)]


def out_of_memory(error: BaseException) -> bool:
    """Whether memory ran out; torch says so on the CPU by a RuntimeError with this text."""
    if isinstance(error, (torch.OutOfMemoryError, MemoryError)):
        return True
    return "can't allocate memory" in str(error) or "CUDA out of memory" in str(error)


@contextmanager
def evaluating(model: object) -> Iterator[None]:
    """Switch off dropout for the time of the block, and leave every module as it was."""
    modules = list(model.modules()) if isinstance(model, nn.Module) else []
    training = [module for module in modules if module.training]
    for module in training:
        module.training = False
    try:
        yield
    finally:
        for module in training:
            module.training = True


def positions(ids: Sized) -> int:
    """How many positions a sequence has with its end symbol."""
    return len(ids) + 1
