"""Does resident memory grow with the file that is decoded, or over an epoch of training?

    python bench/memory.py --lines 1000000
    python bench/memory.py --model runs/multi30k-en-de --lines 100000

Runs `transduce predict` on 1,000 lines and on `--lines` of them (real lines, over and over), and
`transduce train` for one epoch, each as a process of its own with its children, and looks at their
resident memory a few times a second (Linux: /proc). The table has it at a quarter, at half and at
the end of each run, and its peak; the probe was taken before. Without `--model` the reference model
decodes with random weights, greedily and 15 steps each, since only the number of lines matters.
"""

from __future__ import annotations

import argparse
import os
import shlex
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from itertools import cycle, islice
from pathlib import Path

import common
from decoding import forced, text_lines
from reference import FILE, random_folder, recipe_of

EVERY = 0.2  # seconds between two looks


@dataclass(frozen=True)
class Watched:
    """A run: what, seconds, resident MiB over time (second, MiB), and the highest by the kernel."""

    what: str
    seconds: float
    resident: list[tuple[float, float]]
    peak: float
    probe: float

    def at(self, share: float) -> float:
        """Median MiB of the looks within 5 % of the run around this share of its time."""
        near = [mib for t, mib in self.resident if abs(t / self.seconds - share) <= 0.05]
        return statistics.median(near or [mib for _, mib in self.resident[-3:]])

    def row(self) -> list[str]:
        mib = (self.at(0.25), self.at(0.5), self.at(0.95), self.peak)
        cells = [common.number(value) for value in (*mib, self.probe)]
        return [self.what, f"{self.seconds:,.0f}", *cells]


def main() -> None:
    options = arguments()
    if not Path("/proc/self/status").exists():
        raise SystemExit("bench/memory.py reads /proc, which this system does not have")
    facts = common.machine()
    runs: list[Watched] = []
    with tempfile.TemporaryDirectory(prefix="memory-") as name:
        work = Path(name)
        if "predict" in options.only:
            folder = options.model or random_folder(work / "model", recipe_of(options.overrides))
            search = [] if options.model else fixed(options.steps)
            for count in (1000, options.lines):
                write_lines(work / "lines", options.file, count)
                command = ["predict", str(folder), str(work / "lines"), "--beam", str(options.beam)]
                command += [*search, "--output", os.devnull, "--threads", str(options.threads)]
                what = f"predict {count:,} lines"
                runs.append(watch(what, [*command, *options.more], work / "log", options.threads))
        if "train" in options.only:
            epoch = [f"training.epochs={options.epochs}", f"training.threads={options.threads}"]
            command = ["train", str(FILE), *options.overrides, *epoch]
            command += ["--folder", str(work / "trained"), "--device", "cpu"]
            what = f"train {options.epochs:g} epoch(s)"
            runs.append(watch(what, command, work / "log", options.threads))
    facts = common.machine() | facts
    print(common.heading(facts))
    model = options.model or "random weights"
    print(f"{model}, beam {options.beam}, {options.threads} thread(s)\n")
    head = ["process", "seconds", "MiB at 1/4", "at 1/2", "at the end", "peak", "probe GF/s"]
    print(common.table([head, *(run.row() for run in runs)]))
    if "predict" in options.only:
        first, last = runs[0], runs[1]
        print(f"peak of {options.lines:,} lines over that of 1,000: {last.peak / first.peak:.3f}")
    common.write_json(options.json, options, facts, [asdict(run) for run in runs])


def arguments() -> argparse.Namespace:
    parser = common.parser(__doc__)
    parser.add_argument("--model", type=Path, help="model folder; default: random weights")
    parser.add_argument("--file", type=Path, help="its source lines; default: Multi30k's test")
    parser.add_argument("--set", dest="overrides", nargs="+", default=[], metavar="key=value")
    parser.add_argument("--lines", type=int, default=1_000_000)
    parser.add_argument("--steps", type=int, default=15, help="of random weights, the end counted")
    parser.add_argument("--beam", type=int, default=1)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--epochs", type=float, default=1.0)
    parser.add_argument("--only", type=common.names, default=["predict", "train"])
    parser.add_argument("--more", type=shlex.split, default=[], help="for predict, in one string")
    return parser.parse_args()


def fixed(steps: int) -> list[str]:
    """`predict`'s options for exactly so many steps."""
    return [part for key, value in forced(steps).items() for part in ("--search", f"{key}={value}")]


def write_lines(path: Path, file: Path | None, count: int) -> None:
    """So many lines, the real ones over and over."""
    real = text_lines(file, 1000)
    with path.open("w", encoding="utf-8") as out:
        out.writelines(f"{line}\n" for line in islice(cycle(real), count))


def watch(what: str, command: list[str], log: Path, threads: int) -> Watched:
    """Run `transduce` with this command line and look at its memory until it ends."""
    speed = common.probe(threads)
    environment = os.environ | {"OMP_NUM_THREADS": str(threads), "MKL_NUM_THREADS": str(threads)}
    common.say(f"transduce {' '.join(command)}")
    looks: list[tuple[float, float]] = []
    peak = 0.0
    with log.open("wb") as out:
        start = time.perf_counter()
        process = subprocess.Popen(
            [sys.executable, "-m", "transduce", *command], stdout=out, stderr=out, env=environment
        )
        try:
            while process.poll() is None:
                found = [resident(pid) for pid in family(process.pid)]
                looks.append((time.perf_counter() - start, sum(now for now, _ in found)))
                # Not all need be at their highest at once, but of one process it is exact.
                peak = max(peak, found[0][1] if len(found) == 1 else looks[-1][1])
                time.sleep(EVERY)
        finally:
            if process.poll() is None:
                process.kill()
                process.wait()
        seconds = time.perf_counter() - start
    if process.returncode:
        raise SystemExit(f"{what} failed:\n{log.read_text(errors='replace')[-2000:]}")
    return Watched(what, seconds, [look for look in looks if look[1]], peak, speed)


def family(pid: int) -> Iterator[int]:
    """A process and all that it started."""
    yield pid
    try:
        for task in Path(f"/proc/{pid}/task").iterdir():
            for child in (task / "children").read_text().split():
                yield from family(int(child))
    except OSError:  # it has just ended
        return


def resident(pid: int) -> tuple[float, float]:
    """Resident MiB now and at its highest; zeros for a process that has just ended."""
    found = {"VmRSS": 0.0, "VmHWM": 0.0}
    try:
        for line in Path(f"/proc/{pid}/status").read_text().splitlines():
            name, _, value = line.partition(":")
            if name in found:
                found[name] = int(value.split()[0]) / 1024
    except OSError:
        pass
    return found["VmRSS"], found["VmHWM"]


if __name__ == "__main__":
    main()
