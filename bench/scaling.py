"""How cost grows: with source length, batch, beam, vocabulary, corpus, lines and processes.

    python bench/scaling.py
    python bench/scaling.py --curves beam,batch --runs 9

Every curve measures the same work at several sizes, which take turns, and fits cost = a * size^b to
the medians by least squares on their logarithms: b is in the column `exponent`, beside the share of
the variance that it explains. Models have random weights and the reference sizes.

    length     one batch of 16 sources of so many tokens, beam 5, as many steps as source tokens
    batch      one batch of so many sentences of 15 tokens, beam 5, 15 steps
    beam       one batch of 16 sentences, 15 steps
    vocabulary the same with beam 5 and so many target (and source) ids
    lines      greedy decoding of so many lines of text, bulk
    prepare    making the memory-mapped store of a corpus of so many pairs
    start      opening it and taking the first batch of a shuffled epoch
    processes  lines a second, in all, of so many processes of one thread (1 is perfect)
"""

from __future__ import annotations

import argparse
import os
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from random import Random
from typing import Any

import common
import torch
from common import Contestant, LeftOut
from corpus_scale import noisy
from decoding import VARIANTS, decoder, forced, text_lines, usable
from reference import random_folder, recipe_of
from turns import Worker

import transduce
from transduce.data.batches import BatchStream
from transduce.data.corpus import open_corpora
from transduce.data.prepare import prepare
from transduce.data.text import TextSide
from transduce.recipe import CorpusOptions, DataOptions, Recipe
from transduce.search import decode_batch
from transduce.training.setup import learn_sides

# What is measured at which sizes, and at which with --small (to see that it runs).
SIZES: dict[str, tuple[list[int], list[int]]] = {
    "length": ([8, 16, 32, 64, 128], [4, 8]),
    "batch": ([1, 4, 16, 64, 256], [1, 4]),
    "beam": ([1, 2, 5, 10, 20], [1, 3]),
    "vocabulary": ([1000, 4000, 16000, 64000], [500, 2000]),
    "lines": ([256, 1024, 4096], [16, 64]),
    "prepare": ([10_000, 30_000, 100_000, 300_000], [500, 2000]),
    "start": ([10_000, 30_000, 100_000, 300_000], [500, 2000]),
    "processes": ([n for n in (1, 2, 4, 8, 16) if n <= max(2, os.cpu_count() or 1)], [1, 2]),
}


@dataclass(frozen=True)
class Bench:
    """What the curves share."""

    options: argparse.Namespace
    recipe: Recipe
    work: Path
    stack: ExitStack
    keywords: dict[str, Any]

    def model(self, vocabulary: int) -> transduce.Transducer:
        """The reference model with random weights and a made-up vocabulary."""
        folder = self.work / f"vocabulary-{vocabulary}"
        if not folder.exists():
            random_folder(folder, self.recipe, vocabulary)
        return transduce.load(folder, device="cpu", **self.keywords)


Curve = Callable[[Bench, Sequence[int]], list[Callable[[], float]]]


def main() -> None:
    options = arguments()
    facts = common.machine()
    variants, note = usable([options.precision])
    precision, keywords = next(iter(variants.items()))
    torch.set_num_threads(options.threads)
    rows = [["curve", "at", "median", "range", "probe GF/s", "exponent", "explained"]]
    found = []
    with ExitStack() as stack:
        work = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="scaling-")))
        bench = Bench(options, recipe_of(options.overrides), work, stack, keywords)
        for name in options.curves:
            sizes = SIZES[name][1 if options.small else 0]
            turns = CURVES[name](bench, sizes)
            contestants = [
                Contestant((name, f"{size:,}"), once(turn, options.threads), options.threads)
                for size, turn in zip(sizes, turns, strict=True)
            ]
            common.take_turns(contestants, options.runs)
            line = common.fit(sizes, [statistics.median(c.values) for c in contestants])
            for contestant in contestants:
                told = ["", ""]
                if contestant is contestants[-1]:
                    told = [f"{line.exponent:.2f}", f"{line.explained:.1%}"]
                rows.append([*contestant.label, *common.summary(contestant), *told])
            points = [c.facts() for c in contestants]
            found.append({"curve": name, "sizes": sizes, "fit": vars(line), "points": points})
    facts = common.machine() | facts
    print(common.heading(facts))
    print(
        f"{precision}, {options.threads} thread(s), random weights, median of "
        f"{options.runs} turns; seconds, but lines a second for processes\n{note}"
    )
    print(common.table(rows))
    common.write_json(options.json, options, facts, found)


def arguments() -> argparse.Namespace:
    parser = common.parser(__doc__)
    parser.add_argument("--curves", type=common.names, default=list(SIZES), help=", ".join(SIZES))
    parser.add_argument("--small", action="store_true", help="tiny sizes, to see that it runs")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--precision", choices=VARIANTS, default="fp32")
    parser.add_argument("--set", dest="overrides", nargs="+", default=[], metavar="key=value")
    options = parser.parse_args()
    if unknown := set(options.curves) - SIZES.keys():
        parser.error(f"unknown curve {', '.join(sorted(unknown))}; there are {', '.join(SIZES)}")
    return options


def once(turn: Callable[[], float], threads: int) -> Callable[[], list[float]]:
    """A turn for the table from a function that returns its one figure."""

    def run() -> list[float]:
        torch.set_num_threads(threads)
        return [turn()]

    return run


def seconds(work: Callable[[], Any]) -> Callable[[], float]:
    """A turn that does the work and returns its seconds."""

    def run() -> float:
        start = time.perf_counter()
        work()
        return time.perf_counter() - start

    return run


# ------------------------------------------------------------------------------------ decoding


def decoding(
    model: transduce.Transducer, count: int, length: int, beam: int, steps: int
) -> Callable[[], float]:
    """One batch of random sources."""
    rng = Random(1)
    size = model.source.size
    sources = [[rng.randrange(4, size) for _ in range(length)] for _ in range(count)]
    search = model.search_options(beam=beam, **forced(steps))
    return seconds(lambda: decode_batch(model.model, sources, search))


def length(bench: Bench, sizes: Sequence[int]) -> list[Callable[[], float]]:
    model = bench.model(7800)
    return [decoding(model, 16, size, 5, max(2, size)) for size in sizes]


def batch(bench: Bench, sizes: Sequence[int]) -> list[Callable[[], float]]:
    model = bench.model(7800)
    return [decoding(model, size, 15, 5, 15) for size in sizes]


def beam(bench: Bench, sizes: Sequence[int]) -> list[Callable[[], float]]:
    model = bench.model(7800)
    return [decoding(model, 16, 15, size, 15) for size in sizes]


def vocabulary(bench: Bench, sizes: Sequence[int]) -> list[Callable[[], float]]:
    return [decoding(bench.model(size), 16, 15, 5, 15) for size in sizes]


def lines(bench: Bench, sizes: Sequence[int]) -> list[Callable[[], float]]:
    folder = bench.work / "text"
    if not folder.exists():
        random_folder(folder, bench.recipe)
    model = transduce.load(folder, device="cpu", **bench.keywords)
    search = {"beam": 1} | forced(15)
    return [seconds(partial(model, text_lines(None, size), **search)) for size in sizes]


# ---------------------------------------------------------------------------------- the corpus


def prepare_corpus(bench: Bench, sizes: Sequence[int]) -> list[Callable[[], float]]:
    sides = learn_sides(bench.recipe, open_corpora(bench.recipe.data.train))
    return [preparing(bench, pairs(bench, size), sides) for size in sizes]


def preparing(
    bench: Bench, files: CorpusOptions, sides: tuple[TextSide, TextSide]
) -> Callable[[], float]:
    """Into a new place at every turn: what is there already would only be opened."""

    def run() -> None:
        with tempfile.TemporaryDirectory(dir=bench.work) as cache:
            prepare(open_corpora([files]), *sides, DATA, Path(cache))

    return seconds(run)


def start(bench: Bench, sizes: Sequence[int]) -> list[Callable[[], float]]:
    sides = learn_sides(bench.recipe, open_corpora(bench.recipe.data.train))
    turns = []
    for size in sizes:
        files, cache = pairs(bench, size), bench.work / f"cache-{size}"
        prepare(open_corpora([files]), *sides, DATA, cache)
        turns.append(starting(files, sides, cache))
    return turns


def starting(
    files: CorpusOptions, sides: tuple[TextSide, TextSide], cache: Path
) -> Callable[[], float]:
    def run() -> None:
        store = prepare(open_corpora([files]), *sides, DATA, cache)
        stream = BatchStream(store, *sides, batch_tokens=3000, seed=1)
        stream.next()
        stream.close()

    return seconds(run)


def pairs(bench: Bench, count: int) -> CorpusOptions:
    """Two files of so many pairs: Multi30k over and over, with noise."""
    source, target = bench.work / f"{count}.en", bench.work / f"{count}.de"
    if not source.exists():
        real = [(e.source, e.target or "") for e in open_corpora(bench.recipe.data.train)[0]]
        words = [sorted({w for pair in real[:2000] for w in pair[i].split()}) for i in (0, 1)]
        rng = Random(1)
        with (
            source.open("w", encoding="utf-8") as left,
            target.open("w", encoding="utf-8") as right,
        ):
            for i in range(count):
                pair = real[i % len(real)]
                left.write(noisy(pair[0], words[0], rng) + "\n")
                right.write(noisy(pair[1], words[1], rng) + "\n")
    return CorpusOptions(source=str(source), target=str(target))


DATA = DataOptions(train=[], valid=[])

# ----------------------------------------------------------------------------------- processes


def processes(bench: Bench, sizes: Sequence[int]) -> list[Callable[[], float]]:
    folder = bench.work / "text"
    if not folder.exists():
        random_folder(folder, bench.recipe)
    file = bench.work / "lines"
    texts = text_lines(None, 16 if bench.options.small else 256)
    file.write_text("".join(f"{text}\n" for text in texts), encoding="utf-8")
    workers: list[Worker] = []
    for number in range(max(sizes)):
        try:
            made = decoder(folder, bench.keywords, 1, bench.work / f"{number}.log", file)
        except LeftOut as reason:
            raise SystemExit(str(reason)) from None
        bench.stack.callback(made.close)
        workers.append(made)
    return [together(workers[:size], len(texts)) for size in sizes]


def together(workers: Sequence[Worker], count: int) -> Callable[[], float]:
    """Lines a second of all of them at once, until the last has done its part."""
    question = {"how": "bulk", "search": {"beam": 1} | forced(15)}

    def run() -> float:
        begun = time.perf_counter()
        for worker in workers:
            worker.send(**question)
        for worker in workers:
            worker.receive()
        return count * len(workers) / (time.perf_counter() - begun)

    return run


CURVES: dict[str, Curve] = {
    "length": length,
    "batch": batch,
    "beam": beam,
    "vocabulary": vocabulary,
    "lines": lines,
    "prepare": prepare_corpus,
    "start": start,
    "processes": processes,
}

if __name__ == "__main__":
    main()
