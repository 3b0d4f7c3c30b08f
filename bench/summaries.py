"""How fast documents are summarized by the command: text to text, in one process and in several.

    python bench/summaries.py runs/dialogsum dialogsum:train --words 400

The documents are the sources of a corpus cut and joined to so many words each. Every turn runs
`transduce summarize` as a user would, once on all documents and once on a single one, whose time
is that of starting and loading; the rate is that of the documents alone. `--search key=value` is
handed on, and `--workers 1,2` says in how many processes.
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from itertools import islice
from pathlib import Path

import common
from common import Contestant

from transduce.assessment import chosen_corpora
from transduce.data.corpus import open_corpora
from transduce.output import one_line


def main() -> None:
    parser = common.parser(__doc__, runs=3)
    parser.add_argument("model", type=Path, help="model folder")
    parser.add_argument("data", help="corpus whose sources are summarized, by its catalogue name")
    parser.add_argument("--words", type=int, default=400, help="of a document (400)")
    parser.add_argument("--documents", type=int, default=400, help="of a turn (400)")
    parser.add_argument("--workers", type=common.numbers, default=[1, 2])
    parser.add_argument("--beams", type=common.numbers, default=[4, 1])
    parser.add_argument("--precision", default="auto")
    parser.add_argument("--search", action="append", default=[], metavar="key=value")
    options = parser.parse_args()
    facts = common.machine()
    with tempfile.TemporaryDirectory(prefix="summaries-") as folder:
        texts = list(islice(documents(options.data, options.words), options.documents))
        if not texts:
            raise SystemExit(f"{options.data} has no {options.words} words")
        options.documents = len(texts)
        many, one = Path(folder, "many.txt"), Path(folder, "one.txt")
        many.write_text("".join(f"{text}\n" for text in texts), encoding="utf-8")
        one.write_text(f"{texts[0]}\n", encoding="utf-8")
        contestants = [
            Contestant((str(workers), str(beam)), Turn(options, workers, beam, many, one), workers)
            for workers in options.workers
            for beam in options.beams
        ]
        common.take_turns(contestants, options.runs, warm=0)
    print(common.heading(facts | common.machine()))
    print(
        f"{options.model}, {len(texts):,} documents of {options.words} words, one thread a process"
    )
    head = ["processes", "beam", "documents/s", "range", "probe GF/s", "to start, s"]
    rows = [
        [*each.label, *common.summary(each), f"{statistics.median(each.turn.starts):.1f}"]  # type: ignore[attr-defined]
        for each in contestants
    ]
    print(common.table([head, *rows], left=2))
    common.write_json(options.json, options, facts, [each.facts() for each in contestants])


def documents(name: str, words: int) -> Iterator[str]:
    """Texts of exactly so many words, cut out of the sources of a corpus one after the other."""
    kept: list[str] = []
    for corpus in open_corpora(chosen_corpora(name, None, None, None)):
        for example in corpus:
            kept += one_line(example.source).split()
            if len(kept) >= words:
                yield " ".join(kept[:words])
                kept = []


class Turn:
    """One contestant: documents a second, without the time that starting takes."""

    def __init__(
        self, options: argparse.Namespace, workers: int, beam: int, many: Path, one: Path
    ) -> None:
        said = ["--workers", str(workers), "--threads", "1", "--beam", str(beam)]
        more = [part for each in options.search for part in ("--search", each)]
        self.command = [
            sys.executable,
            "-m",
            "transduce",
            "summarize",
            str(options.model),
            "--lines",
        ]
        self.options = [*said, "--precision", options.precision, *more]
        self.many, self.one, self.count = many, one, options.documents
        self.starts: list[float] = []

    def __call__(self) -> list[float]:
        start = self._seconds(self.one, 1)
        self.starts.append(start)
        return [self.count / (self._seconds(self.many, self.count) - start)]

    def _seconds(self, file: Path, count: int) -> float:
        begin = time.perf_counter()
        command = [*self.command, str(file), *self.options]
        done = subprocess.run(command, capture_output=True, text=True)
        if done.returncode:
            raise common.LeftOut(done.stderr.strip().rpartition("\n")[2])
        if done.stdout.count("\n") != count:
            raise common.LeftOut(f"not one summary for each of {count} documents")
        return time.perf_counter() - begin


if __name__ == "__main__":
    main()
