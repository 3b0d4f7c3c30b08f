"""How fast a model folder decodes: sentences a second for greedy and beam search.

    python bench/decode.py runs/multi30k-en-de test.en --lines 256 --runs 5 --threads 1

Prints one table: medians over the runs, with the slowest and the fastest. The settings take
turns within every run, so that a machine that slows down slows all of them; beside each stands
what one matrix product reached just before it (the probe), which says how busy the machine was.
Sentences are tokenized before the clock starts and not turned into text.
"""

from __future__ import annotations

import argparse
import platform
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import torch

import transduce
from transduce.data.files import read_lines
from transduce.recipe import SearchOptions
from transduce.search import SearchModel, decode_batch

BEAMS = (1, 5)
BATCHES = (1, 64)
PROBE = 768  # width of the square matrices of the probe


@dataclass
class Setting:
    """One line of the table."""

    beam: int
    batch: int
    sources: list[list[int]]
    seconds: list[float] = field(default_factory=list)
    probes: list[float] = field(default_factory=list)
    tokens: int = 0  # target tokens made in one run, ends counted

    def run(self, model: SearchModel, options: SearchOptions, device: torch.device) -> None:
        options = options.model_copy(update={"beam": self.beam, "n_best": 1})
        self.probes.append(probe(device))
        start = time.perf_counter()
        found = []
        for first in range(0, len(self.sources), self.batch):
            batch = self.sources[first : first + self.batch]
            found += decode_batch(model, batch, options, device=device)
        self.seconds.append(time.perf_counter() - start)
        self.tokens = sum(len(hypotheses[0].token_scores) for hypotheses in found)

    def row(self) -> list[str]:
        rates = sorted(len(self.sources) / seconds for seconds in self.seconds)
        median = statistics.median(rates)
        return [
            str(self.beam),
            str(self.batch),
            f"{median:.1f}",
            f"{rates[0]:.1f}-{rates[-1]:.1f}",
            f"{1000 / median:.2f}",
            f"{median * self.tokens / len(self.sources):.0f}",
            f"{statistics.median(self.probes):.0f}",
        ]


def main() -> None:
    arguments = parse()
    torch.set_num_threads(arguments.threads)
    transducer = transduce.load(arguments.model, device=arguments.device)
    sources = read_sources(arguments.file, arguments.lines, transducer.source.encode_batch)
    # One at a time is many times slower, so every few sentences of the same set have to do.
    few = sources[:: max(1, len(sources) // 32)]
    settings = [
        Setting(beam, batch, few if batch == 1 else sources) for batch in BATCHES for beam in BEAMS
    ]
    options = transducer.recipe.search
    for run in range(arguments.runs + 1):
        for setting in settings:
            setting.run(transducer.model, options, transducer.device)
        if run == 0:  # the first run warms up caches and allocators
            for setting in settings:
                setting.seconds.clear()
                setting.probes.clear()
    lengths = [len(ids) + 1 for ids in sources]
    print(
        f"{arguments.model}: {transducer.parameters:,} parameters, vocabulary "
        f"{transducer.target.size}, {len(sources)} sentences of {statistics.mean(lengths):.1f} "
        f"source tokens\n{transducer.device}, {arguments.threads} thread(s), "
        f"torch {torch.__version__}, {platform.machine()}, median of {arguments.runs} runs\n"
    )
    head = ["beam", "batch", "sentences/s", "range", "ms/sentence", "tokens/s", "probe GF/s"]
    print_table([head, *(setting.row() for setting in settings)])


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("model", type=Path, help="model folder")
    parser.add_argument("file", type=Path, help="source lines")
    parser.add_argument("--lines", type=int, default=256, help="use the first so many lines")
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--device", default="cpu")
    return parser.parse_args()


def read_sources(
    file: Path, count: int, encode: Callable[[list[str]], list[list[int]]]
) -> list[list[int]]:
    """Ids of the first `count` lines that are not blank, sorted by length as in bulk decoding."""
    lines = [line for line in read_lines(file) if line.strip()][:count]
    sources = [ids for ids in encode(lines) if ids]
    if not sources:
        raise SystemExit(f"{file}: no lines to decode")
    return sorted(sources, key=len, reverse=True)


def probe(device: torch.device) -> float:
    """Billions of floating-point operations a second of one matrix product, best of three."""
    matrix = torch.ones(PROBE, PROBE, device=device)
    best = float("inf")
    for _ in range(3):
        synchronize(device)
        start = time.perf_counter()
        torch.mm(matrix, matrix)
        synchronize(device)
        best = min(best, time.perf_counter() - start)
    return 2 * PROBE**3 / best / 1e9


def synchronize(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def print_table(rows: list[list[str]]) -> None:
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    for row in rows:
        cells = (cell.rjust(width) for cell, width in zip(row, widths, strict=True))
        print("  ".join(cells))


if __name__ == "__main__":
    main()
