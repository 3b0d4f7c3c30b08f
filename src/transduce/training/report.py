"""What a training tells: `metrics.jsonl`, the terminal, and TensorBoard if asked."""

from __future__ import annotations

import json
import math
import os
import resource
import sys
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn

from transduce.disk import write_error
from transduce.errors import FolderError
from transduce.folder import METRICS


class MetricsFile:
    """`metrics.jsonl`: one JSON object per report and per validation.

    Of several processes only the first `writes`.
    """

    def __init__(self, folder: Path, writes: bool = True) -> None:
        self.path = folder / METRICS
        self.writes = writes

    def size(self) -> int:
        """Bytes written so far."""
        return self.path.stat().st_size if self.path.exists() else 0

    def truncate(self, size: int) -> None:
        """Forget the lines after a checkpoint; they will be written again."""
        if self.writes and self.size() > size:
            with self.path.open("r+b") as stream:
                stream.truncate(size)

    def append(self, row: dict[str, Any]) -> None:
        """Write one line, numbers that are not finite as null, since JSON has no NaN.

        Errors: FolderError when the disk is full; no half line stays.
        """
        if not self.writes:
            return
        row = {key: None if _not_finite(value) else value for key, value in row.items()}
        before = self.size()
        try:
            with self.path.open("ab") as stream:
                stream.write((json.dumps(row, ensure_ascii=False) + "\n").encode())
        except OSError as error:
            self.truncate(before)
            raise write_error(self.path, error) from error


def _not_finite(value: Any) -> bool:
    return isinstance(value, float) and not math.isfinite(value)


def read_metrics(folder: Path) -> list[dict[str, Any]]:
    """The rows of `metrics.jsonl`, without a last line that is still being written.

    Errors: FolderError where a line is not JSON.
    """
    path = folder / METRICS
    try:
        lines = path.read_bytes().split(b"\n")[:-1]
    except OSError as error:
        raise FolderError(f"{path}: {error.strerror or error}") from error
    rows = []
    for number, line in enumerate(lines, start=1):
        try:
            rows.append(json.loads(line))
        except ValueError as error:
            raise FolderError(f"{path}:{number}: not JSON: {error}") from error
    return rows


def memory_mib() -> float:
    """Resident memory of this process in MiB."""
    try:
        pages = int(Path("/proc/self/statm").read_text().split()[1])
        return pages * os.sysconf("SC_PAGE_SIZE") / 2**20
    except (OSError, ValueError, IndexError):  # not Linux: the peak instead
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        return peak / (2**20 if sys.platform == "darwin" else 2**10)


def gpu_facts(device: torch.device) -> dict[str, float]:
    """On a GPU, `gpu_mib`: the most that tensors have taken there in MiB; elsewhere nothing."""
    if device.type != "cuda":
        return {}
    return {"gpu_mib": round(torch.cuda.max_memory_allocated(device) / 2**20, 1)}


def duration(seconds: float | None) -> str:
    """Seconds for people: `1:02:03`, `4:05`, or `?` when unknown."""
    if seconds is None:
        return "?"
    minutes, rest = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


class Reporter:
    """Shows a training on a terminal as one live line, elsewhere as plain lines.

    Of several processes only the first (`rank` 0) reports; the others only warn.
    """

    def __init__(
        self,
        folder: Path,
        console: Console | None,
        progress: bool,
        tensorboard: bool,
        rank: int = 0,
    ) -> None:
        self.metrics = MetricsFile(folder, writes=rank == 0)
        self.console = console or Console(stderr=True)
        self.progress, self.rank = progress, rank
        self.live: Progress | None = None
        self.task: Any = None
        self.board = _board(folder) if tensorboard and rank == 0 else None
        if progress and rank == 0 and self.console.is_terminal:
            self.live = Progress(
                TextColumn("{task.description}"),
                BarColumn(bar_width=24),
                TextColumn("{task.percentage:>3.0f}%  {task.fields[facts]}"),
                console=self.console,
                transient=True,
            )
            self.task = self.live.add_task("starting", total=1.0, facts="")

    def __enter__(self) -> Reporter:
        if self.live is not None:
            self.live.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self.live is not None:
            self.live.stop()
        if self.board is not None:
            self.board.close()

    def say(self, text: str) -> None:
        """A line that stays."""
        if self.rank == 0:
            self.warn(text)

    def warn(self, text: str) -> None:
        """A line that stays, from any process."""
        if self.progress:
            who = f"process {self.rank}: " if self.rank else ""
            self.console.print(who + text, markup=False, highlight=False, soft_wrap=True)

    def status(self, text: str) -> None:
        """What is going on just now; on a terminal only."""
        if self.live is not None:
            self.live.update(self.task, description=text)

    def report(self, row: dict[str, Any], done: float | None, seconds_left: float | None) -> None:
        """A report of the training loss; `done` is the share of the training, None if unknown."""
        self.metrics.append(row)
        facts = (
            f"loss {row['loss']:.3f}  ppl {row['perplexity']:.1f}  {_ctc(row)}"
            f"{row['tokens_per_second']:,.0f} tokens/s  lr {row['learning_rate']:.2e}  "
            f"left {duration(seconds_left)}"
        )
        where = f"update {row['update']:,}  epoch {row['epoch']:.2f}"
        if self.live is not None:
            self.live.update(
                self.task, description=where, completed=done or 0.0, facts=facts, refresh=True
            )
        else:
            self.say(f"{where}  {facts}")
        names = ("loss", "perplexity", "learning_rate", "gradient_norm", "tokens_per_second")
        values = {name: row[name] for name in (*names, "ctc") if name in row}
        self._board_row("train", values, row["update"])

    def validation(self, row: dict[str, Any], label: str) -> None:
        """A validation, with its scores."""
        self.metrics.append(row)
        scores = "  ".join(f"{name} {value:.2f}" for name, value in row["scores"].items())
        mark = "  (best)" if row["best"] else ""
        self.say(
            f"{label}  update {row['update']:,}  epoch {row['epoch']:.2f}  "
            f"loss {row['loss']:.3f}  ppl {row['perplexity']:.2f}  {_ctc(row)}{scores}{mark}"
        )
        values = {"loss": row["loss"], "perplexity": row["perplexity"], **row["scores"]}
        self._board_row("valid", values, row["update"])

    def _board_row(self, part: str, values: dict[str, float], update: int) -> None:
        if self.board is not None:
            for name, value in values.items():
                self.board.add_scalar(f"{part}/{name}", value, update)


def _ctc(row: dict[str, Any]) -> str:
    return f"ctc {row['ctc']:.3f}  " if "ctc" in row else ""


def _board(folder: Path) -> Any:
    from transduce.errors import UsageError

    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError:
        raise UsageError(
            "training.tensorboard needs the package tensorboard: pip install tensorboard"
        ) from None
    return SummaryWriter(log_dir=str(folder / "tensorboard"))
