"""Tables and progress on the terminal, plain text where there is none."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table
from rich.text import Text

from transduce.evaluation.metrics import Score


def console() -> Console:
    """Where commands print; as wide as needed when nobody looks at it."""
    wide = sys.stdout is None or not sys.stdout.isatty()
    return Console(width=400 if wide else None, highlight=False, soft_wrap=wide, emoji=False)


def table(
    head: Sequence[str], rows: Sequence[Sequence[str]], *, right: Sequence[int] = ()
) -> Table:
    """A table without lines; the columns numbered in `right` are aligned to the right."""
    shown = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="bold")
    for number, name in enumerate(head):
        shown.add_column(name, justify="right" if number in right else "left")
    for row in rows:
        shown.add_row(*[Text(cell) for cell in row])
    return shown


def scores_table(scores: Sequence[Score]) -> Table:
    """Metric, value, 95 % interval, and what makes it comparable."""
    rows = [
        [label(score), f"{score.value:.2f}", interval(score), score.signature] for score in scores
    ]
    return table(["metric", "score", "95 % interval", "signature"], rows, right=(1,))


def label(score: Score) -> str:
    return f"{score.label} {'↑' if score.higher_is_better else '↓'}"


def interval(score: Score) -> str:
    if score.low is None or score.high is None:
        return ""
    return f"{score.low:.2f} to {score.high:.2f}"


@contextmanager
def progress_bar(what: str, total: int) -> Iterator[Callable[[int], None]]:
    """A bar on stderr while the block runs; gives the function that moves it to a count."""
    if sys.stderr is None or not sys.stderr.isatty():
        yield lambda done: None
        return
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task(what, total=total)
        yield lambda done: bar.update(task, completed=done)
