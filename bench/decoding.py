"""How bench/ decodes: which ways there are, forced lengths, workers, and their common options."""

from __future__ import annotations

import argparse
import inspect
import json
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from itertools import cycle, islice
from pathlib import Path
from typing import Any

import common
from common import LeftOut
from reference import WORKER, random_folder, recipe_of
from turns import Worker

import transduce
from transduce.data.corpus import open_corpora
from transduce.recipe import CorpusOptions

LINES = "multi30k-en-de:test_2016_flickr"  # what is decoded where no file is given
CANDIDATES = 50  # of each source token on a shortlist
# How a model folder decodes: a name for the table, and keywords of `transduce.load`; `shortlist`:
# how many candidates of each source token are chosen among.
VARIANTS: dict[str, dict[str, Any]] = {
    "fp32": {"precision": "fp32"},
    "bf16": {"precision": "bf16"},
    "int8": {"precision": "int8"},
    "auto": {"precision": "auto"},
    "bf16+list": {"precision": "bf16", "shortlist": CANDIDATES},
    "int8+list": {"precision": "int8", "shortlist": CANDIDATES},
}


def usable(wanted: Sequence[str]) -> tuple[dict[str, dict[str, Any]], str]:
    """Those of VARIANTS that this transduce can load, and a line about those it cannot.

    Where it can load none, the one way there is, under the name `fp32`.
    """
    known = {*inspect.signature(transduce.load).parameters, "shortlist"}
    chosen = {name: VARIANTS[name] for name in wanted}
    able = {name: keywords for name, keywords in chosen.items() if keywords.keys() <= known}
    if len(able) == len(chosen):
        return able, ""
    missing = sorted({key for one in chosen.values() for key in one} - known)
    unable = ", ".join(name for name in chosen if name not in able and (able or name != "fp32"))
    note = f"not measured: {unable}, since transduce.load has no {', '.join(missing)} yet"
    return able or {"fp32": {}}, note if unable else ""


# ---------------------------------------------------------------------------------------- lines


def text_lines(file: Path | None, count: int) -> list[str]:
    """So many source lines of a file, or of Multi30k's test set, over again where they run out."""
    if file is None:
        (corpus,) = open_corpora([CorpusOptions(name=LINES)])
        found = [example.source for example in corpus]
    else:
        found = [line for line in file.read_text(encoding="utf-8").split("\n") if line.strip()]
    if not found:
        raise SystemExit(f"{file}: no lines to decode")
    return list(islice(cycle(found), count))


def forced(tokens: int) -> dict[str, Any]:
    """Search options for exactly so many target tokens, the end symbol counted: as many steps."""
    return {"min_ratio": 1000.0, "max_ratio": 1e-9, "max_extra": tokens - 1}


# -------------------------------------------------------------------------------------- workers


def decoder(folder: Path, keywords: dict[str, Any], threads: int, log: Path, lines: Path) -> Worker:
    """A worker that decodes the lines of a file with a model folder, loaded by `keywords`."""
    command = [*WORKER, "decode", str(folder), str(lines), json.dumps(keywords), str(threads)]
    return Worker(command, log, threads=threads)


@dataclass
class Decoding:
    """A turn of a decoding worker: sentences a second. `steps` is the mean of the last turn."""

    worker: Worker
    question: dict[str, Any]
    steps: float = 0.0

    def __call__(self) -> list[float]:
        told = self.worker.ask(**self.question)
        self.steps = told["steps"]
        return [told["sentences"] / told["seconds"]]


def probe_of(variant: str) -> str:
    """The probe that stands beside one of VARIANTS."""
    return "bf16" if variant.startswith("bf16") else "fp32"


# ------------------------------------------------------- what decode_speed and latency share


@dataclass(frozen=True)
class Ready:
    """A worker that is ready to decode: which of VARIANTS it is, with how many threads."""

    worker: Worker
    variant: str
    threads: int


def options_of(parser: argparse.ArgumentParser, *, lines: int) -> argparse.Namespace:
    """Parse the command line: what is decoded, by which model, in which ways."""
    parser.add_argument("model", type=Path, nargs="?", help="model folder")
    parser.add_argument("file", type=Path, nargs="?", help="source lines; default: Multi30k's test")
    parser.add_argument("--random", action="store_true", help="random weights, forced length")
    parser.add_argument("--set", dest="overrides", nargs="+", default=[], metavar="key=value")
    parser.add_argument("--steps", type=int, default=15, help="of --random, the end counted")
    parser.add_argument("--lines", type=int, default=lines, help=f"of a turn ({lines})")
    parser.add_argument("--beams", type=common.numbers, default=[1, 5])
    parser.add_argument("--threads", type=common.numbers, default=[1])
    parser.add_argument("--precisions", type=common.names, default=list(VARIANTS))
    options = parser.parse_args()
    if bool(options.model) == options.random:
        parser.error("give a model folder, or --random")
    if unknown := set(options.precisions) - VARIANTS.keys():
        parser.error(f"unknown precision {', '.join(unknown)}; there are {', '.join(VARIANTS)}")
    return options


def search_of(options: argparse.Namespace, beam: int) -> dict[str, Any]:
    """Search options of a turn."""
    return {"beam": beam} | (forced(options.steps) if options.random else {})


def start(
    options: argparse.Namespace, work: Path, stack: ExitStack
) -> tuple[Path, list[Ready], str]:
    """Start a worker for each precision and number of threads; the stack ends them.

    Returns the model folder, the workers, and lines about those there are not.
    """
    folder = options.model or random_folder(work / "model", recipe_of(options.overrides))
    texts = text_lines(options.file, options.lines)
    (work / "lines").write_text("".join(f"{text}\n" for text in texts), encoding="utf-8")
    variants, note = usable(options.precisions)
    made = []
    for threads in options.threads:
        for name, keywords in variants.items():
            log = work / f"{name}-{threads}.log"
            try:
                worker = decoder(folder, keywords, threads, log, work / "lines")
            except LeftOut as reason:
                note += f"\nleft out: {name}: {reason}"
                continue
            stack.callback(worker.close)
            made.append(Ready(worker, name, threads))
    if not made:
        raise SystemExit(note.strip())
    return folder, made, note


def told_of(options: argparse.Namespace, about: dict[str, Any]) -> str:
    """A line about model and work, from what a worker told when it was ready."""
    model = f"{options.model}" if options.model else "random weights"
    length = f"{options.steps} steps each" if options.random else "as long as they come out"
    return (
        f"{about['system']}, {model}: {about['parameters']:,} parameters; {options.lines:,} "
        f"sentences of {about['source']:.1f} source positions, {length}; {options.runs} turns"
    )
