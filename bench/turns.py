"""Workers: contestants in processes of their own, asked for one turn at a time.

`Worker` is the end of the program that asks; `Questions` and `Turns` are the ends in the worker,
which may be another toolkit's environment, so only the standard library is used. A worker that is
not asked is stopped (SIGSTOP), so that nothing it could do ahead of its turn goes unmeasured and
nothing it does slows the others.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any, Protocol

from common import LeftOut


class Worker:
    """A child process that answers questions, one line of JSON each.

    `about` is what it told when it was ready. Errors: LeftOut, with the end of its log, when it
    cannot start or ends before it has answered.
    """

    def __init__(
        self,
        command: Sequence[str | Path],
        log: Path,
        *,
        threads: int = 1,
        environment: Mapping[str, str] | None = None,
    ) -> None:
        self.log = log
        child = dict(os.environ if environment is None else environment)
        child |= {"OMP_NUM_THREADS": str(threads), "MKL_NUM_THREADS": str(threads)}
        child |= {"CUDA_VISIBLE_DEVICES": "", "PYTHONUNBUFFERED": "1"}
        with log.open("ab") as errors:
            try:
                self.process = subprocess.Popen(
                    [str(part) for part in command],
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                    stderr=errors,
                    env=child,
                    text=True,
                )
            except OSError as error:
                raise LeftOut(f"{command[0]}: {error.strerror}") from None
        self.about = self._answer()

    def ask(self, **question: Any) -> dict[str, Any]:
        """One turn: send the question, wait for the answer, and put the worker to sleep again."""
        self.send(**question)
        return self._answer()

    def send(self, **question: Any) -> None:
        """Send the question only; `receive` waits for the answer."""
        assert self.process.stdin is not None
        try:
            self.process.send_signal(signal.SIGCONT)
            self.process.stdin.write(json.dumps(question) + "\n")
            self.process.stdin.flush()
        except OSError:
            raise LeftOut(self._end()) from None

    def receive(self) -> dict[str, Any]:
        """The answer to what was sent."""
        return self._answer()

    def _answer(self) -> dict[str, Any]:
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        if not line:
            raise LeftOut(self._end())
        self.process.send_signal(signal.SIGSTOP)
        answer: dict[str, Any] = json.loads(line)
        return answer

    def _end(self) -> str:
        """The last line of the log that says something, for people."""
        self.process.kill()
        self.process.wait()
        lines = self.log.read_text(encoding="utf-8", errors="replace").splitlines()
        said = [line.strip() for line in lines if line.strip()]
        return f"{said[-1][:200] if said else 'ended without a word'}"

    def close(self) -> None:
        """End the process."""
        self.process.kill()
        self.process.wait()
        for stream in (self.process.stdin, self.process.stdout):
            if stream is not None:
                with suppress(OSError):  # what was still to be sent
                    stream.close()


class Questions:
    """The worker's end: answers go to what was standard output, everything printed to the log."""

    def __init__(self) -> None:
        self._out = os.fdopen(os.dup(1), "w", encoding="utf-8")
        os.dup2(2, 1)

    def tell(self, **facts: Any) -> None:
        self._out.write(json.dumps(facts) + "\n")
        self._out.flush()

    def next(self) -> dict[str, Any]:
        """The next question; ends the process when there will be none."""
        line = sys.stdin.readline()
        if not line:
            os._exit(0)  # at once: a training would save a checkpoint first
        question: dict[str, Any] = json.loads(line)
        return question


class Turns:
    """Cuts a training loop into turns: the loop calls `after` at the end of each update.

    A question {"seconds": s} lets the loop run until the first update that ends s seconds or more
    later, and is answered with real target tokens, seconds and updates.
    """

    def __init__(self, questions: Questions, **about: Any) -> None:
        self.questions, self.about = questions, about
        self.begin: float | None = None
        self.seconds = 0.0
        self.tokens = self.updates = 0

    def after(self, tokens: int) -> None:
        """An update on so many real target tokens is done; returns when the next may begin."""
        if self.begin is None:
            self.questions.tell(**self.about)  # the first update has been made: all is in place
        else:
            self.tokens += tokens
            self.updates += 1
            seconds = time.perf_counter() - self.begin
            if seconds < self.seconds:
                return
            self.questions.tell(tokens=self.tokens, seconds=seconds, updates=self.updates)
        self.seconds = float(self.questions.next()["seconds"])
        self.tokens = self.updates = 0
        self.begin = time.perf_counter()


Rows = Sequence[Sequence[Any]]  # one source each: ids or pieces


class Search(Protocol):
    """A toolkit's search: the best target of each source, of exactly `steps` ids or pieces."""

    def __call__(self, some: Rows, beam: int, steps: int) -> Sequence[Any]: ...


def answer_decoding(questions: Questions, rows: Rows, search: Search) -> None:
    """Answer how long decoding takes, for as long as it is asked.

    {"how": "batches", "batch": n} is answered with seconds, sentences and the mean length of
    targets, {"how": "single", "count": n} with the milliseconds of each of n sentences by itself;
    both have "beam" and "steps", the length that every target is forced to.
    """
    ordered = sorted(rows, key=len, reverse=True)  # batches of like length, the longest first
    while True:
        asked = questions.next()
        beam, steps = asked["beam"], asked["steps"]
        if asked["how"] == "single":
            alone = [[row] for row in rows]
            took = one_by_one(alone, asked["count"], partial(search, beam=beam, steps=steps))
            questions.tell(ms=took)
            continue
        size = asked["batch"]
        begin = time.perf_counter()
        found = [
            target
            for first in range(0, len(ordered), size)
            for target in search(ordered[first : first + size], beam, steps)
        ]
        seconds = time.perf_counter() - begin
        mean = sum(len(target) for target in found) / len(found)
        questions.tell(seconds=seconds, sentences=len(found), steps=mean)


def one_by_one(items: Sequence[Any], count: int, work: Callable[[Any], object]) -> list[float]:
    """Milliseconds of the work on each of `count` items, spread over all of them."""
    took = []
    for item in items[:: max(1, len(items) // count)][:count]:
        begin = time.perf_counter()
        work(item)
        took.append(1000 * (time.perf_counter() - begin))
    return took
