"""Does the time to start and the memory held grow with the corpus?

Makes a corpus of `--pairs` pairs by repeating a real one with noise (words dropped, swapped and
replaced, so that pairs differ), prepares it, and, in a process of its own, starts an epoch and runs
through some of it. Prints one table: time, and resident memory after and at the most.

    python bench/corpus_scale.py --pairs 10000000
"""

from __future__ import annotations

import argparse
import json
import random
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from itertools import cycle, islice
from pathlib import Path
from typing import Any

from transduce.data.batches import BatchStream
from transduce.data.corpus import Corpus, open_corpora
from transduce.data.prepare import prepare
from transduce.data.text import TextSide, train_sides
from transduce.recipe import CorpusOptions, DataOptions, TextOptions, TokenizerOptions

STAGES = ("make", "tokenizer", "prepare", "epoch")


def main() -> None:
    options = arguments()
    if options.stage:
        STEPS[options.stage](options)
        return
    folder = Path(options.folder or tempfile.mkdtemp(prefix="corpus-scale-"))
    folder.mkdir(parents=True, exist_ok=True)
    print(f"{options.pairs:,} pairs by repetition and noise of {options.corpus}, in {folder}")
    row = "{:<34} {:>10} {:>14} {:>12} {:>12}".format
    print(row("stage", "seconds", "pairs/second", "MiB after", "MiB at most"), flush=True)
    try:
        for stage in STAGES:
            # A process each: what one leaves in memory must not be counted for the next.
            command = [sys.executable, __file__, *sys.argv[1:], "--stage", stage]
            command += ["--folder", str(folder)]
            done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
            for line in done.stdout.splitlines():
                told = json.loads(line)
                speed = f"{told['pairs'] / told['seconds']:,.0f}" if told["pairs"] else ""
                seconds = f"{told['seconds']:.2f}"
                memory = f"{told['after']:,.0f}", f"{told['most']:,.0f}"
                print(row(told["stage"], seconds, speed, *memory), flush=True)
    finally:
        if not options.keep:
            shutil.rmtree(folder, ignore_errors=True)


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--pairs", type=int, default=10_000_000)
    parser.add_argument("--corpus", default="multi30k-en-de:train", help="a catalogue name")
    parser.add_argument("--size", type=int, default=8000, help="of the BPE vocabulary")
    parser.add_argument("--dropout", type=float, default=0.0, help="of BPE")
    parser.add_argument("--batch-tokens", type=int, default=3000)
    parser.add_argument("--batches", type=int, default=2000, help="to run through after the start")
    parser.add_argument("--folder", help="where to work; default: a temporary folder")
    parser.add_argument("--keep", action="store_true", help="leave the folder as it is")
    parser.add_argument("--stage", choices=STAGES, help=argparse.SUPPRESS)
    return parser.parse_args()


# ------------------------------------------------------------------------------------ stages


def make(options: argparse.Namespace) -> None:
    """Write the noisy corpus as two line-aligned files."""
    real = [
        (e.source, e.target or "") for e in open_corpora([CorpusOptions(name=options.corpus)])[0]
    ]
    sources, targets = (sorted({w for pair in real for w in pair[side].split()}) for side in (0, 1))
    rng = random.Random(1)
    folder = Path(options.folder)
    started = time.perf_counter()
    with (
        (folder / "source.txt").open("w", encoding="utf-8") as source,
        (folder / "target.txt").open("w", encoding="utf-8") as target,
    ):
        for left, right in islice(cycle(real), options.pairs):
            source.write(noisy(left, sources, rng) + "\n")
            target.write(noisy(right, targets, rng) + "\n")
    tell("make the corpus", started, options.pairs)


def noisy(text: str, vocabulary: list[str], rng: random.Random) -> str:
    """The text with a word replaced, two neighbours swapped, and, one time in four, one dropped."""
    words = text.split()
    words[int(rng.random() * len(words))] = vocabulary[int(rng.random() * len(vocabulary))]
    if len(words) > 2:
        at = int(rng.random() * (len(words) - 1))
        words[at], words[at + 1] = words[at + 1], words[at]
        if rng.random() < 0.25:
            del words[int(rng.random() * len(words))]
    return " ".join(words)


def learn(options: argparse.Namespace) -> None:
    """Train the shared BPE tokenizer."""
    started = time.perf_counter()
    text, corpus = text_options(options), noisy_corpus(options)
    source, target = train_sides(text, text, lambda: ((e.source, e.target) for e in corpus), seed=1)
    source.save(Path(options.folder), "source")
    target.save(Path(options.folder), "target")
    tell("learn the vocabulary", started, options.pairs)


def first_preparation(options: argparse.Namespace) -> None:
    """Tokenize everything into the memory-mapped store."""
    started = time.perf_counter()
    source, target = sides(options)
    store = prepare([noisy_corpus(options)], source, target, DATA, Path(options.folder) / "cache")
    tell("prepare", started, len(store))


def epoch(options: argparse.Namespace) -> None:
    """What a training does: open what is prepared, take the first batch, then go on."""
    import torch  # so that what it takes is in the memory before

    torch.set_num_threads(1)
    tell("(python and torch)", time.perf_counter() - 1e-9, 0)
    started = time.perf_counter()
    source, target = sides(options)
    store = prepare([noisy_corpus(options)], source, target, DATA, Path(options.folder) / "cache")
    tell("check the files' hash and open", started, 0)
    stream = BatchStream(store, source, target, batch_tokens=options.batch_tokens, seed=1)
    batch = stream.next()
    tell("to the first batch, from the start", started, 0)
    started, examples, real, padded = time.perf_counter(), 0, 0, 0
    for part in range(4):
        for _ in range(options.batches // 4):
            examples += batch.size
            real += batch.tokens + int(batch.source_lengths.sum())
            padded += batch.target_output.numel() + batch.source.numel()
            batch = stream.next()
        about = f"epoch {stream.epoch:.3f}, padding {1 - real / max(1, padded):.1%}"
        tell(f"{(part + 1) * (options.batches // 4):,} batches, {about}", started, examples)
    stream.close()


STEPS: dict[str, Callable[[argparse.Namespace], None]] = {
    "make": make,
    "tokenizer": learn,
    "prepare": first_preparation,
    "epoch": epoch,
}
DATA = DataOptions(train=[], valid=[])


def text_options(options: argparse.Namespace) -> TextOptions:
    tokenizer = TokenizerOptions(size=options.size, shared=True, dropout=options.dropout)
    return TextOptions(tokenizer=tokenizer)


def noisy_corpus(options: argparse.Namespace) -> Corpus:
    folder = Path(options.folder)
    files = CorpusOptions(source=str(folder / "source.txt"), target=str(folder / "target.txt"))
    return open_corpora([files])[0]


def sides(options: argparse.Namespace) -> tuple[TextSide, TextSide]:
    text, folder = text_options(options), Path(options.folder)
    return TextSide.load(folder, "source", text), TextSide.load(folder, "target", text)


# ----------------------------------------------------------------------------------- telling


def tell(stage: str, started: float, pairs: int) -> None:
    """One line for the table: what, how long, and the memory of this process."""
    row: dict[str, Any] = {"stage": stage, "seconds": time.perf_counter() - started, "pairs": pairs}
    row |= {"after": 0.0, "most": 0.0} | dict(memory())
    print(json.dumps(row), flush=True)


def memory() -> Iterator[tuple[str, float]]:
    """Resident memory of this process now and at its highest, in MiB (Linux; else the highest)."""
    status = Path("/proc/self/status")
    if not status.exists():
        import resource

        unit = 2**20 if sys.platform == "darwin" else 2**10
        yield "most", resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / unit
        return
    names = {"VmRSS": "after", "VmHWM": "most"}
    for line in status.read_text().splitlines():
        name, _, value = line.partition(":")
        if name in names:
            yield names[name], int(value.split()[0]) / 1024


if __name__ == "__main__":
    main()
