"""What the programs of bench/ share: the probe, taking turns, medians, tables, fits.

Contestants take turns, forwards in one round and backwards in the next, so that a machine that
slows down slows all of them; before every turn one matrix product is timed (the probe), which says
how much of the machine was there to be had. Only the standard library is imported above, since the
workers of other toolkits import this file in environments of their own.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import platform
import statistics
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any

PROBE = 1024  # width of the square matrices of the probe


class LeftOut(Exception):
    """A contestant cannot take part, or no longer; the text says why."""


@dataclass
class Contestant:
    """One line of a table: `turn` does the work once and returns what it measured.

    A turn that measures many things at once (a latency for each sentence) returns them all.
    """

    label: tuple[str, ...]
    turn: Callable[[], Sequence[float]]
    threads: int = 1
    dtype: str = "fp32"  # of the probe beside it
    rounds: list[list[float]] = field(default_factory=list)
    probes: list[float] = field(default_factory=list)  # GF/s, one a round
    left_out: str | None = None

    @property
    def name(self) -> str:
        return " ".join(cell for cell in self.label if cell)

    @property
    def values(self) -> list[float]:
        """Everything measured, over all rounds."""
        return [value for one in self.rounds for value in one]

    def facts(self) -> dict[str, Any]:
        """For JSON: the summary, and all it was made from."""
        if not self.rounds:
            return {"label": self.label, "left_out": self.left_out}
        return {
            "label": self.label,
            "threads": self.threads,
            "median": statistics.median(self.values),
            "low": min(self.values),
            "high": max(self.values),
            "rounds": self.rounds,
            "probe_dtype": self.dtype,
            "probe_gflops": self.probes,
            "left_out": self.left_out,
        }


def take_turns(contestants: Sequence[Contestant], runs: int, warm: int = 1) -> None:
    """Let every contestant have `runs` turns that count, after `warm` that do not.

    One that raises LeftOut keeps what it has and takes no further part.
    """
    for number in range(warm + runs):
        order = contestants if number % 2 == 0 else list(reversed(contestants))
        for contestant in order:
            if contestant.left_out is not None:
                continue
            speed = probe(contestant.threads, contestant.dtype)
            try:
                measured = [float(value) for value in contestant.turn()]
            except LeftOut as reason:
                contestant.left_out = str(reason)
                say(f"left out: {contestant.name}: {reason}")
                continue
            counted = "" if number >= warm else " (warming up)"
            middle = f"{statistics.median(measured):,.4g}"
            say(f"round {number + 1}/{warm + runs}{counted}: {contestant.name}: {middle}")
            if number >= warm:
                contestant.rounds.append(measured)
                contestant.probes.append(speed)


# --------------------------------------------------------------------------------------- probe


def probe(threads: int, dtype: str = "fp32") -> float:
    """Billions of floating-point operations a second of one matrix product, best of three.

    fp32 is the better of torch's two libraries for it (MKL and oneDNN), since either may be slower
    than the machine; bf16 is torch's product of bf16 matrices.
    """
    import torch

    torch.set_num_threads(threads)
    best = 0.0
    for product in _products(dtype):
        product()
        for _ in range(3):
            start = time.perf_counter()
            product()
            best = max(best, 2 * PROBE**3 / (time.perf_counter() - start) / 1e9)
    return best


@lru_cache
def _products(dtype: str) -> tuple[Callable[[], Any], ...]:
    import torch
    from torch.utils import mkldnn

    matrix = torch.full((PROBE, PROBE), 0.5)
    if dtype == "bf16":
        half = matrix.bfloat16()
        return (lambda: torch.mm(half, half),)
    if not torch.backends.mkldnn.is_available():
        return (lambda: torch.mm(matrix, matrix),)
    packed, linear = matrix.to_mkldnn(), mkldnn.to_mkldnn(torch.nn.Linear(PROBE, PROBE).eval())
    return (lambda: torch.mm(matrix, matrix), lambda: linear(packed))


# ------------------------------------------------------------------------------------- numbers


def percentile(values: Sequence[float], share: float) -> float:
    """The value below which `share` (0 to 1) of the values lie, between neighbours linearly."""
    ordered = sorted(values)
    place = share * (len(ordered) - 1)
    below = math.floor(place)
    above = min(below + 1, len(ordered) - 1)
    return ordered[below] + (place - below) * (ordered[above] - ordered[below])


def ratio(one: Contestant, base: Contestant) -> tuple[float, float, float]:
    """Ratio of the medians, and the lowest and highest ratio of two turns of the same round."""
    paired = [
        statistics.median(left) / statistics.median(right)
        for left, right in zip(one.rounds, base.rounds, strict=False)
    ]
    middle = statistics.median(one.values) / statistics.median(base.values)
    return middle, min(paired), max(paired)


@dataclass(frozen=True)
class Fit:
    """cost = factor * size ** exponent, and the share of the variance it explains (R squared)."""

    exponent: float
    factor: float
    explained: float


def fit(sizes: Sequence[float], costs: Sequence[float]) -> Fit:
    """Least squares on the logarithms of both; needs two different sizes, all values above 0."""
    x, y = [math.log(size) for size in sizes], [math.log(cost) for cost in costs]
    if len(set(x)) < 2:
        raise ValueError(f"an exponent needs at least two different sizes, not {list(sizes)}")
    mean_x, mean_y = statistics.fmean(x), statistics.fmean(y)
    spread = sum((a - mean_x) ** 2 for a in x)
    exponent = sum((a - mean_x) * (b - mean_y) for a, b in zip(x, y, strict=True)) / spread
    total = sum((b - mean_y) ** 2 for b in y)
    rest = sum((b - mean_y - exponent * (a - mean_x)) ** 2 for a, b in zip(x, y, strict=True))
    explained = 1 - rest / total if total > 1e-12 else 1.0  # else it is flat to rounding
    return Fit(exponent, math.exp(mean_y - exponent * mean_x), explained)


# --------------------------------------------------------------------------------------- table


def number(value: float) -> str:
    """Three significant digits, or all before the point: 0.0123, 12.3, 1,234."""
    return f"{value:,.0f}" if value >= 99.5 else f"{value:#.3g}".rstrip(".")


def summary(contestant: Contestant) -> list[str]:
    """Three cells: median, range, and the median of the probe; blank for one left out."""
    if not contestant.rounds:
        return ["left out", "", ""]
    values = contestant.values
    spread = f"{number(min(values))}-{number(max(values))}"
    probed = number(statistics.median(contestant.probes))
    return [number(statistics.median(values)), spread, probed]


def table(rows: Sequence[Sequence[str]], left: int = 1) -> str:
    """Rows of cells (the first is the head) as lines; the first `left` columns to the left."""
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    lines = []
    for row in rows:
        cells = [
            cell.ljust(width) if i < left else cell.rjust(width)
            for i, (cell, width) in enumerate(zip(row, widths, strict=True))
        ]
        lines.append("  ".join(cells).rstrip())
    return "\n".join(lines)


def reasons(contestants: Sequence[Contestant]) -> str:
    """A line for each contestant that was left out."""
    out = [c for c in contestants if c.left_out is not None]
    return "".join(f"\nleft out: {c.name}: {c.left_out}" for c in out)


# --------------------------------------------------------------------------- the program around


def parser(doc: str | None, *, runs: int = 5) -> argparse.ArgumentParser:
    """The options that every program has."""
    made = argparse.ArgumentParser(description=(doc or "").partition("\n")[0])
    made.add_argument("--runs", type=int, default=runs, help=f"turns that count ({runs})")
    made.add_argument("--json", type=Path, metavar="FILE", help="also write every figure here")
    return made


def numbers(text: str) -> list[int]:
    """The type of an option with several whole numbers: 1,2,5."""
    return [int(part) for part in text.split(",")]


def names(text: str) -> list[str]:
    """The type of an option with several names: fp32,bf16."""
    return [part.strip() for part in text.split(",") if part.strip()]


def say(text: str) -> None:
    """Tell how far it is, on stderr: stdout is for the table."""
    print(text, file=sys.stderr, flush=True)


def machine() -> dict[str, Any]:
    """What the figures were measured on."""
    facts: dict[str, Any] = {
        "processor": _processor(),
        "cores": os.cpu_count(),
        "python": platform.python_version(),
        "system": platform.system(),
    }
    if hasattr(os, "getloadavg"):
        facts["load"] = round(os.getloadavg()[0], 2)
    if "torch" in sys.modules:
        facts["torch"] = sys.modules["torch"].__version__
    return facts


def _processor() -> str:
    cpus = Path("/proc/cpuinfo")
    if cpus.exists():
        for line in cpus.read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def heading(facts: Mapping[str, Any]) -> str:
    """One line about the machine; a load above nothing is a measurement in company."""
    torch = f", torch {facts['torch']}" if "torch" in facts else ""
    load = f", load {facts['load']} at the start" if "load" in facts else ""
    return f"{facts['processor']}, {facts['cores']} cores{torch}{load}"


def write_json(
    path: Path | None, options: argparse.Namespace, facts: Mapping[str, Any], rows: Sequence[Any]
) -> None:
    """Write machine, options and rows where `--json` says, if it says."""
    if path is None:
        return
    program = Path(sys.argv[0]).name
    tree = {"program": program, "machine": facts, "options": vars(options), "rows": rows}
    path.write_text(json.dumps(tree, indent=1, default=str) + "\n", encoding="utf-8")
