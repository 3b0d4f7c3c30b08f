"""Bulk decoding in several processes, each with a model and a thread of its own.

One operation gains little from a second thread when it is small, and loses much when another
program takes a core; two processes that share nothing have neither trouble. Lines are read and
written by the parent alone, in order, and only a few chunks a worker are ever on their way, so
that memory does not grow with the input.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import suppress
from dataclasses import dataclass
from itertools import islice
from typing import TYPE_CHECKING

from transduce.commands.searching import SearchChoice
from transduce.errors import TransduceError, UsageError

if TYPE_CHECKING:
    from transduce.runtime import ExportedModel
    from transduce.transducer import Transducer

CHUNK = 1024  # lines sent at a time; enough to be sorted by length
AHEAD = 2  # chunks a worker, the one it works on included

Answer = tuple[str, str | None]  # a line to be written, and why it is empty or cut


@dataclass(frozen=True)
class Work:
    """What every worker does; sent to it once. `render` makes the line of an output, given its
    number and the output."""

    load: Callable[[], Transducer | ExportedModel]
    search: SearchChoice
    render: Callable[..., str]


_work: Work | None = None
_model: Transducer | ExportedModel | None = None


def in_workers(lines: Iterable[bytes], work: Work, workers: int, chunk: int) -> Iterator[Answer]:
    """One answer for each line, in order; at most `chunk` lines are sent at a time.

    Errors: those of loading the model; TransduceError when a worker dies.
    """
    if workers < 1:
        raise UsageError(f"{workers} workers cannot do anything; use 1 or more")
    context = multiprocessing.get_context("spawn")  # torch's threads do not survive a fork
    pool = ProcessPoolExecutor(workers, mp_context=context, initializer=_begin, initargs=(work,))
    waiting: deque[Future[list[Answer]]] = deque()
    numbered = chunks(lines, min(chunk, CHUNK), workers)
    try:
        pool.submit(_ready).result()  # before anything is read, so that mistakes show at once
        while True:
            for first, part in islice(numbered, AHEAD * workers - len(waiting)):
                waiting.append(pool.submit(_answer, first, part))
            if not waiting:
                return
            yield from waiting.popleft().result()
    except BrokenProcessPool:
        raise TransduceError(
            "a worker was killed, perhaps for want of memory; use fewer --workers"
        ) from None
    finally:
        _end(pool)


def chunks(lines: Iterable[bytes], size: int, workers: int) -> Iterator[tuple[int, list[bytes]]]:
    """Chunks of at most `size` lines, each with the number of its first, from 1.

    What is left at the end, or is all there is, is shared out evenly.

    >>> [part for _, part in chunks([b"a", b"b", b"c", b"d", b"e"], 2, 2)]
    [[b'a', b'b'], [b'c', b'd'], [b'e']]
    >>> [part for _, part in chunks([b"a", b"b", b"c"], 1024, 2)]
    [[b'a', b'b'], [b'c']]
    """
    rest, first = iter(lines), 1
    while taken := list(islice(rest, size * workers)):
        share = -(-len(taken) // workers)
        for start in range(0, len(taken), share):
            part = taken[start : start + share]
            yield first, part
            first += len(part)


def _end(pool: ProcessPoolExecutor) -> None:
    """End at once: when all is done nothing is lost, and else nobody waits for the rest."""
    processes = list((pool._processes or {}).values())
    manager = getattr(pool, "_executor_manager_thread", None)
    pool.shutdown(wait=False, cancel_futures=True)
    for process in processes:
        with suppress(OSError):
            process.terminate()
    if manager is not None:  # at the interpreter's end it would be woken while it closes its pipe
        manager.join(timeout=5)


# ------------------------------------------------------------------------------- in a worker


def _begin(work: Work) -> None:
    global _work
    _work = work
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's to answer
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    """A parent that was killed sends no word: a worker would wait for its next chunk for ever."""
    parent = multiprocessing.parent_process()
    assert parent is not None
    parent.join()
    os._exit(1)


def _ready() -> None:
    """Load the model, once in each worker. Errors: those of loading, and of the search options."""
    global _model
    assert _work is not None
    if _model is None:
        _model = _work.load()
        _work.search.options(_model)


def _answer(first: int, lines: list[bytes]) -> list[Answer]:
    _ready()
    assert _work is not None and _model is not None
    outputs = _model.stream(lines, window=len(lines), **_work.search.options(_model))
    return [(_work.render(number, out), out.reason) for number, out in enumerate(outputs, first)]
