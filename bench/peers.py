"""transduce beside eole, CTranslate2 and JoeyNMT: the same work, in alternation, as ratios.

    python bench/peers.py --threads 2
    python bench/peers.py --tasks train --systems transduce,eole --eole-python ENV/bin/python

    train    real target tokens a second, the reference LSTM on Multi30k en-de
    beam     beam 5, batches of 64, every target forced to 15 steps: sentences a second
    greedy   the same with greedy search
    latency  beam 5, one sentence by itself, 15 steps: milliseconds

All have the same pieces, batches, threads and lengths; CTranslate2, which has no recurrent models,
decodes with a Transformer of 4 + 4 layers of width 256. Each contestant is a process of its own in
its own environment (made under --envs when not given), with random weights to decode. The column
`transduce is` says how many times better the best of transduce is than the line, by medians, and in
brackets the lowest and highest ratio of one round. The peers' settings are in bench/peer_setup.py.
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import tempfile
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import common
from common import Contestant, LeftOut
from decoding import VARIANTS, forced
from peer_contestants import Field, entries_of, outside
from peer_setup import PACKAGES, environment, eole_config, write_data
from reference import HERE, WAYS, random_folder, recipe_of, train_turn
from turns import Worker

from transduce.data.catalog import cache_root

UNITS = {
    "train": "target tokens/s",
    "beam": "sentences/s",
    "greedy": "sentences/s",
    "latency": "ms",
}
BEAMS = {"beam": 5, "greedy": 1, "latency": 5}


def main() -> None:
    options = arguments()
    facts = common.machine()
    recipe = recipe_of(options.overrides)
    notes: list[str] = []
    pythons: dict[str, Path] = {}
    for peer in options.systems:
        if peer == "transduce":
            continue
        try:
            pythons[peer] = environment(peer, options.envs, getattr(options, f"{peer}_python"))
        except LeftOut as reason:
            notes.append(f"left out: {peer}: {reason}")
    rows = [
        ["task", "system", "how", "parameters", "median", "range", "probe GF/s", "transduce is"]
    ]
    found = []
    with tempfile.TemporaryDirectory(prefix="peers-") as name:
        field = Field(options, recipe, Path(name), pythons)
        pieces = write_data(recipe, field.work, options.lines)
        notes += prepare(field)
        for task in options.tasks:
            with ExitStack() as stack:
                contestants, about = start(task, field, stack, notes)
                warm = options.warm if task == "train" else 1
                common.take_turns(contestants, options.runs, warm)
            base = best(task, contestants)
            for contestant in contestants:
                told = versus(task, contestant, base)
                size = about[contestant.name]
                cells = [f"{task}, {UNITS[task]}", *contestant.label, f"{size:,}"]
                rows.append([*cells, *common.summary(contestant), told])
                found.append({"task": task, "parameters": size, **contestant.facts()})
            out = [c for c in contestants if c.left_out]
            notes += [f"left out of {task}: {c.name}: {c.left_out}" for c in out]
            facts = common.machine() | facts
            common.write_json(options.json, options, facts, found)  # an hour is long
    print(common.heading(facts))
    print(
        f"{options.threads} thread(s) each, {pieces:,} pieces, batches of at most "
        f"{recipe.training.batch_tokens:,} positions in training; {options.lines} sentences, "
        f"{options.steps} steps, in decoding; median of {options.runs} turns\n"
    )
    print(common.table(rows, left=3))
    print("".join(f"{note}\n" for note in dict.fromkeys(notes)), end="")


def arguments() -> argparse.Namespace:
    parser = common.parser(__doc__)
    every = ["transduce", *PACKAGES]
    parser.add_argument("--tasks", type=common.names, default=list(UNITS), help=", ".join(UNITS))
    parser.add_argument("--systems", type=common.names, default=every, help=", ".join(every))
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--envs", type=Path, default=cache_root() / "peers", metavar="DIR")
    for peer in PACKAGES:
        parser.add_argument(f"--{peer}-python", type=Path, help=f"an environment that has {peer}")
    parser.add_argument("--seconds", type=float, default=20.0, help="of a turn of training")
    parser.add_argument("--warm", type=int, default=4, help="such turns that do not count, before")
    parser.add_argument("--lines", type=int, default=256, help="decoded in a turn")
    parser.add_argument("--single", type=int, default=32, help="of these one by one")
    parser.add_argument("--steps", type=int, default=15, help="target tokens, the end counted")
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--training-precisions", type=common.names, default=list(WAYS))
    parser.add_argument("--precisions", type=common.names, default=list(VARIANTS))
    parser.add_argument("--eole-feeds", type=common.numbers, default=[0, 1], help="input feeding")
    parser.add_argument("--eole-precisions", type=common.names, default=["fp32", "bf16", "int8"])
    types = ["float32", "int8", "int16", "bfloat16"]
    parser.add_argument("--compute-types", type=common.names, default=types, help="CTranslate2's")
    parser.add_argument("--set", dest="overrides", nargs="+", default=[], metavar="key=value")
    options = parser.parse_args()
    for given, known in ((options.tasks, UNITS), (options.systems, every)):
        if unknown := [name for name in given if name not in known]:
            parser.error(f"unknown: {', '.join(unknown)}; there are {', '.join(known)}")
    return options


# ------------------------------------------------------------------------------------- the start


def prepare(field: Field) -> list[str]:
    """Models to decode with, all with the weights that a training begins with; what went wrong."""
    options, work, notes = field.options, field.work, []
    if set(options.tasks) == {"train"}:
        return []
    if "transduce" in options.systems:
        random_folder(work / "transduce", field.recipe)
    if python := field.pythons.get("eole"):
        for feed in options.eole_feeds:
            name = f"eole-{feed}"
            config = eole_config(field.recipe, work, name, feed=feed, precision="fp32", updates=1)
            main = "from eole.bin.main import main; main()"
            notes += call([python, "-c", main, "train", "--config", config], field.log(name), name)
    if python := field.pythons.get("ctranslate2"):
        script = HERE / "worker_ctranslate2.py"
        command: list[str | Path] = [python, script, "make", work / "ct2", work / "pieces"]
        notes += call(command, field.log("ct2"), "ctranslate2")
    return notes


def call(command: Sequence[str | Path], log: Path, name: str) -> list[str]:
    """Run a command; a note if it fails."""
    with log.open("wb") as out:
        done = subprocess.run(
            [str(c) for c in command], stdout=out, stderr=out, env=outside(), check=False
        )
    if not done.returncode:
        return []
    said = log.read_text(errors="replace").strip().splitlines()[-1:]
    return [f"left out: a model of {name}: {''.join(said)}"]


def start(
    task: str, field: Field, stack: ExitStack, notes: list[str]
) -> tuple[list[Contestant], dict[str, int]]:
    """The contestants of a task that could be started, and their numbers of parameters."""
    contestants: list[Contestant] = []
    parameters: dict[str, int] = {}
    entries, said = entries_of(task, field)
    notes += said
    for entry in entries:
        try:
            worker = entry.begin()
        except LeftOut as reason:
            notes.append(f"left out: {entry.system} {entry.how}: {reason}")
            continue
        stack.callback(worker.close)
        turn = turn_of(task, entry.system, worker, field.options)
        label = (worker.about["system"], entry.how)
        contestant = Contestant(label, turn, field.options.threads, entry.dtype)
        contestants.append(contestant)
        parameters[contestant.name] = worker.about["parameters"]
        common.say(f"{task}: {contestant.name} is ready")
    return contestants, parameters


def turn_of(
    task: str, system: str, worker: Worker, options: argparse.Namespace
) -> Callable[[], Sequence[float]]:
    """A turn: tokens a second, sentences a second, or the milliseconds of each sentence."""
    if task == "train":
        return train_turn(worker, options.seconds)
    asked: dict[str, Any] = {"how": "batches", "batch": options.batch}
    if task == "latency":
        asked = {"how": "single", "count": options.single}
    elif system == "ctranslate2":
        asked["batch"] = options.lines  # it cuts them itself
    if system == "transduce":
        asked["search"] = {"beam": BEAMS[task]} | forced(options.steps)
    else:
        asked |= {"beam": BEAMS[task], "steps": options.steps}

    def turn() -> Sequence[float]:
        told = worker.ask(**asked)
        if task == "latency":
            return list(told["ms"])
        if abs(told["steps"] - options.steps) > 0.01:
            raise LeftOut(f"made targets of {told['steps']:.2f} tokens, not {options.steps}")
        return [told["sentences"] / told["seconds"]]

    return turn


# -------------------------------------------------------------------------------------- ratios


def best(task: str, contestants: Sequence[Contestant]) -> Contestant | None:
    """The best of transduce's lines: the highest rate, or the lowest latency."""
    ours = [c for c in contestants if c.rounds and c.label[0].startswith("transduce")]
    pick = min if task == "latency" else max
    return pick(ours, key=lambda c: statistics.median(c.values), default=None)


def versus(task: str, contestant: Contestant, base: Contestant | None) -> str:
    """How many times better the base is than the contestant."""
    if base is None or not contestant.rounds or contestant is base:
        return ""
    pair = (contestant, base) if task == "latency" else (base, contestant)
    middle, low, high = common.ratio(*pair)
    return f"{middle:.2f} x ({low:.2f}-{high:.2f})"


if __name__ == "__main__":
    main()
