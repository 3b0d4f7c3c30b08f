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
from reference import (
    VARIANTS,
    decoder,
    forced,
    probe_of,
    random_folder,
    recipe_of,
    text_lines,
    usable,
)
from turns import Worker


def main() -> None:
    options = arguments()
    facts = common.machine()
    with ExitStack() as stack:
        work = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="latency-")))
        folder = options.model or random_folder(work / "model", recipe_of(options.overrides))
        texts = text_lines(options.file, options.lines)
        lines = work / "lines"
        lines.write_text("".join(f"{text}\n" for text in texts), encoding="utf-8")
        variants, note = usable(options.precisions)
        contestants: list[Contestant] = []
        for threads in options.threads:
            for name, keywords in variants.items():
                log = work / f"{name}-{threads}.log"
                try:
                    worker = decoder(folder, keywords, threads, log, lines)
                except LeftOut as reason:
                    note += f"\nleft out: {name}: {reason}"
                    continue
                stack.callback(worker.close)
                for beam in options.beams:
                    search = {"beam": beam} | (forced(options.steps) if options.random else {})
                    told = {"how": "single", "count": options.lines, "search": search}
                    label = ("one sentence", name, str(threads), str(beam))
                    turn = milliseconds(worker, told)
                    contestants.append(Contestant(label, turn, threads, probe_of(name)))
        (work / "one").write_text(f"{texts[0]}\n", encoding="utf-8")
        commands = {
            "start: transduce --help": ["--help"],
            "start: predict one line": ["predict", str(folder), str(work / "one")],
        }
        for what, command in commands.items():
            contestants.append(Contestant((what, "", "1", ""), starting(command)))
        common.take_turns(contestants, options.runs)
    facts = common.machine() | facts
    print(common.heading(facts))
    forced_to = f", {options.steps} steps each" if options.random else ""
    print(
        f"{folder if options.model else 'random weights'}, {options.lines} sentences in each of "
        f"{options.runs} turns{forced_to}\n{note}"
    )
    head = ["what", "precision", "threads", "beam", "ms median", "range", "probe GF/s", "ms 95 %"]
    rows = [head]
    for contestant in contestants:
        slow = common.percentile(contestant.values, 0.95) if contestant.rounds else None
        cells = [*contestant.label, *common.summary(contestant)]
        rows.append([*cells, "" if slow is None else common.number(slow)])
    print(common.table(rows, left=4) + common.reasons(contestants))
    common.write_json(options.json, options, facts, [c.facts() for c in contestants])


def arguments() -> argparse.Namespace:
    parser = common.parser(__doc__)
    parser.add_argument("model", type=Path, nargs="?", help="model folder")
    parser.add_argument("file", type=Path, nargs="?", help="source lines; default: Multi30k's test")
    parser.add_argument("--random", action="store_true", help="random weights, forced length")
    parser.add_argument("--set", dest="overrides", nargs="+", default=[], metavar="key=value")
    parser.add_argument("--steps", type=int, default=15, help="of --random, the end counted")
    parser.add_argument("--lines", type=int, default=64, help="sentences of a turn")
    parser.add_argument("--beams", type=common.numbers, default=[1, 5])
    parser.add_argument("--threads", type=common.numbers, default=[1])
    parser.add_argument("--precisions", type=common.names, default=list(VARIANTS))
    options = parser.parse_args()
    if bool(options.model) == options.random:
        parser.error("give a model folder, or --random")
    return options


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
