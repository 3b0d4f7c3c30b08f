"""How long one sentence takes by itself, and how long it takes to start.

    python bench/latency.py runs/multi30k-en-de test.en
    python bench/latency.py --random

Text to text, one sentence after the other: the median and the 95th percentile of all of them, for
greedy and beam 5, each precision in a process of its own. Then the process itself, in wall time
from its start to its end: `transduce --help`, which loads no model, and `transduce predict` of one
line. `--random` is as in bench/decode_speed.py.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import common
from common import Contestant, LeftOut
from decoding import Ready, options_of, probe_of, search_of, start, told_of
from turns import Worker


def main() -> None:
    options = options_of(common.parser(__doc__), lines=64)
    facts = common.machine()
    with ExitStack() as stack:
        work = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="latency-")))
        folder, ready, note = start(options, work, stack)
        contestants = [made for one in ready for made in entries(one, options)]
        contestants += starts(folder, work)
        common.take_turns(contestants, options.runs)
    facts = common.machine() | facts
    print(common.heading(facts))
    print(told_of(options, ready[0].worker.about) + f"\n{note}")
    head = ["what", "precision", "threads", "beam", "ms median", "range", "probe GF/s"]
    rows = [[*head, "ms 95 %"]]
    for contestant in contestants:
        slow = common.percentile(contestant.values, 0.95) if contestant.rounds else None
        cells = [*contestant.label, *common.summary(contestant)]
        rows.append([*cells, "" if slow is None else common.number(slow)])
    print(common.table(rows, left=4) + common.reasons(contestants))
    common.write_json(options.json, options, facts, [c.facts() for c in contestants])


def entries(one: Ready, options: argparse.Namespace) -> list[Contestant]:
    """The lines of the table that one worker fills."""
    made = []
    for beam in options.beams:
        told = {"how": "single", "count": options.lines, "search": search_of(options, beam)}
        label = ("one sentence", one.variant, str(one.threads), str(beam))
        turn = milliseconds(one.worker, told)
        made.append(Contestant(label, turn, one.threads, probe_of(one.variant)))
    return made


def starts(folder: Path, work: Path) -> list[Contestant]:
    """The lines about starting."""
    with (work / "lines").open(encoding="utf-8") as lines:
        (work / "one").write_text(next(lines), encoding="utf-8")
    commands = {
        "start: transduce --help": ["--help"],
        "start: predict one line": ["predict", str(folder), str(work / "one")],
    }
    return [Contestant((what, "", "1", ""), starting(c)) for what, c in commands.items()]


def milliseconds(worker: Worker, question: dict[str, Any]) -> Callable[[], Sequence[float]]:
    """A turn: milliseconds of every sentence."""
    return lambda: worker.ask(**question)["ms"]


def starting(command: list[str]) -> Callable[[], list[float]]:
    """A turn: milliseconds that a `transduce` of one thread takes from start to end."""
    environment = os.environ | {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}

    def run() -> list[float]:
        start = time.perf_counter()
        done = subprocess.run(
            [sys.executable, "-m", "transduce", *command],
            env=environment,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
            check=False,
        )
        if done.returncode:
            raise LeftOut(done.stderr.strip().splitlines()[-1])
        return [1000 * (time.perf_counter() - start)]

    return run


if __name__ == "__main__":
    main()
