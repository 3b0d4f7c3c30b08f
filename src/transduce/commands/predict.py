"""`predict` and `score`: lines in, one line out for each, in order, whatever the lines hold."""

from __future__ import annotations

import math
import os
import sys
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from functools import partial
from itertools import tee
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

from transduce.commands.searching import SearchChoice
from transduce.data.corpus import NO_SOURCE
from transduce.data.files import UntilError, damage, open_bytes
from transduce.disk import atomic_write
from transduce.errors import UsageError
from transduce.folder import is_exported
from transduce.inputs import WINDOW
from transduce.output import Output, Scored, json_line

if TYPE_CHECKING:
    from transduce.runtime import ExportedModel
    from transduce.transducer import Transducer

_SHOWN = 20  # reasons told one by one on stderr; the rest are counted

# Which tasks the short names of `predict` are for.
_TASKS = {
    "translate": ("translation", "transduction"),
    "transcribe": ("pronunciation", "recognition"),
    "summarize": ("summarization",),
}


def run_predict(
    model: str,
    file: str,
    search: SearchChoice,
    *,
    json: bool,
    output: Path | None,
    window: int | None,
    threads: int | None,
    device: str,
    precision: str | None,
    workers: int,
    task: str | None,
) -> None:
    """Decode the lines of a file or of standard input, in this process or in `workers`."""
    check_window(workers, window)
    with binary_lines(file) as lines:
        terminal = file == "-" and sys.stdin.isatty()
        answer_all(
            lines,
            partial(
                load_for, task, model, device, threads or (1 if workers > 1 else None), precision
            ),
            search,
            _json if json else plain_line,
            output=output,
            window=window or (1 if terminal and workers == 1 else WINDOW),
            workers=workers,
        )


def check_window(workers: int, window: int | None) -> None:
    """UsageError where several workers would have to wait for each other's lines."""
    if workers > 1 and window == 1:
        raise UsageError(
            "--window 1 answers each line before it reads the next, so there is nothing for "
            "several workers; leave out --workers or --window"
        )


def answer_all(
    inputs: Iterator[bytes],
    load: Callable[[], Transducer | ExportedModel],
    search: SearchChoice,
    render: Callable[[int, Output], str],
    *,
    output: Path | None,
    window: int,
    workers: int,
    unit: str | Callable[[int], str] = "line",
) -> None:
    """Decode inputs and write a line for each, here or in several processes.

    `render` makes the line of an output given its number, from 1; it and `load` are sent to
    workers, so they must be functions of a module. `unit` is what reasons on stderr call an input,
    or gives its name. Where an input cannot be had, those before it are answered all the same, and
    its error ends it.
    """
    rest = UntilError(inputs)
    if workers > 1:
        from transduce.commands.workers import Work, in_workers

        answers = in_workers(rest, Work(load, search, render), workers, window)
    else:
        transducer = load()
        outputs = transducer.stream(rest, window=window, **search.options(transducer))
        answers = ((render(n, out), out.reason) for n, out in enumerate(outputs, 1))
    reasons = Reasons(unit if isinstance(unit, str) else "document")
    with line_writer(output, live=window == 1) as write:
        for number, (line, reason) in enumerate(answers, 1):
            reasons.tell(number if isinstance(unit, str) else unit(number), reason)
            write(line)
        reasons.summary()
        if rest.error is not None:  # inside, so that a file of --output stays what it was
            raise rest.error


def load_for(
    task: str | None, model: str, device: str, threads: int | None, precision: str | None
) -> Transducer | ExportedModel:
    """The model; UsageError if the name it is called by is for other tasks."""
    transducer = load_any(model, device, threads, precision)
    if task is not None and transducer.task not in _TASKS[task]:
        command = "transcribe" if transducer.task == "recognition" else "predict"
        raise UsageError(f"{model}: a model for {transducer.task}, so use `transduce {command}`")
    return transducer


def run_score(
    model: str,
    file: str,
    source: str | None,
    target: str | None,
    *,
    json: bool,
    output: Path | None,
    device: str,
    precision: str | None,
) -> None:
    """Score the pairs of two files, or of lines of source, tab, target; by a language model, the
    lines of one file, with their perplexity on stderr."""
    if (source is None) != (target is None):
        raise UsageError("give both --source and --target, or a file of source, tab, target")
    transducer = load_models(model, device, None, precision or "fp32")
    alone = transducer.task == "language"
    if alone and source is not None:
        raise UsageError("a language model scores lines of one file; leave out --source, --target")
    pairs = _lines_of(file) if alone else _pairs_of(file, source, target)
    with pairs as (sources, targets), line_writer(output) as write:
        reasons = Reasons()
        total, tokens = 0.0, 0
        for number, scored in enumerate(transducer.score(sources, targets), 1):
            reasons.tell(number, scored.reason)
            write(json_line({"line": number, **scored.as_dict()}) if json else _number(scored))
            if scored.token_scores:
                total, tokens = total + scored.log_prob, tokens + len(scored.token_scores)
        reasons.summary()
        if alone and tokens:
            mean = math.exp(min(-total / tokens, 80.0))
            print(f"perplexity {mean:.2f} of {tokens:,} tokens, ends included", file=sys.stderr)


def load_any(
    names: str,
    device: str,
    threads: int | None,
    precision: str | None,
    otherwise: str = "auto",
) -> Transducer | ExportedModel:
    """What decodes: an exported folder, a model folder, or several joined by commas.

    A model folder is loaded in `precision` or, where none is asked for, `otherwise`.
    """
    if not is_exported(names):
        return load_models(names, device, threads, precision or otherwise)
    # Without torch, which takes longer to import than the runtime takes to answer.
    from transduce import runtime

    if device not in ("auto", "cpu"):
        raise UsageError(f"--device {device}: an exported model runs on the CPU")
    if precision is not None:
        raise UsageError(
            f"--precision {precision}: an exported model keeps the precision of its export"
        )
    return runtime.load(names, threads=threads)


def load_models(
    names: str, device: str, threads: int | None, precision: str = "auto"
) -> Transducer:
    """The model folder, or folders joined by commas as an ensemble."""
    from transduce.transducer import load

    if threads is not None:
        import torch

        torch.set_num_threads(threads)
    exists = Path(names).exists()  # a folder whose name has a comma is a folder
    folders = [names] if exists else [name for name in names.split(",") if name]
    return load(folders, device, precision)


# --------------------------------------------------------------------------------- lines


@contextmanager
def binary_lines(file: str) -> Iterator[Iterator[bytes]]:
    """The lines of a file (also .gz, .xz, .zst) or of standard input (-), undecoded.

    Raises DataError for a file that cannot be read, UsageError when standard input is closed.
    """
    if file != "-":
        with open_bytes(file) as stream:
            yield _stripped(stream, file)
        return
    if sys.stdin is None:
        raise UsageError("standard input is closed; give a file, or pipe lines in")
    if sys.stdin.isatty():
        print("Type a line and press Enter; Ctrl-D ends.", file=sys.stderr)
    yield _stripped(sys.stdin.buffer, "standard input")


def _stripped(stream: BinaryIO, name: str) -> Iterator[bytes]:
    # Only \n ends a line: a form feed or U+2028 inside one must not shift all that follow.
    lines = iter(stream)
    mark = b"\xef\xbb\xbf"
    while True:
        with damage(name):
            line = next(lines, None)
        if line is None:
            return
        yield line.removeprefix(mark).removesuffix(b"\n").removesuffix(b"\r")
        mark = b""


@contextmanager
def _pairs_of(
    file: str, source: str | None, target: str | None
) -> Iterator[tuple[Iterable[bytes], Iterable[bytes]]]:
    if source is not None and target is not None:
        with binary_lines(source) as sources, binary_lines(target) as targets:
            yield sources, targets
        return
    with binary_lines(file) as lines:
        split = _Split(lines)
        yield split.side(0), split.side(1)


@contextmanager
def _lines_of(file: str) -> Iterator[tuple[Iterable[str], Iterable[bytes]]]:
    """The lines of a file, each after what stands for no source."""
    with binary_lines(file) as lines:
        one, other = tee(lines)
        yield (NO_SOURCE for _ in one), other


class _Split:
    """The two columns of lines of source, tab, target as two streams read in step."""

    def __init__(self, lines: Iterator[bytes]) -> None:
        self._lines = lines
        self._ahead: tuple[list[bytes], list[bytes]] = ([], [])

    def side(self, which: int) -> Iterator[bytes]:
        while True:
            if not self._ahead[which]:
                line = next(self._lines, None)
                if line is None:
                    return
                source, _, target = line.partition(b"\t")
                self._ahead[0].append(source)
                self._ahead[1].append(target)
            yield self._ahead[which].pop(0)


@contextmanager
def line_writer(
    path: Path | None, *, live: bool = False, instead: str = "--output FILE"
) -> Iterator[Callable[[str], object]]:
    """A function that writes one line of UTF-8 to the file or to standard output.

    `live`, or a terminal at either end: each line is sent at once. UsageError when standard output
    is closed; it names the option to use `instead`.
    """
    if path is not None and _flows(path):
        with path.open("wb", buffering=0) as through:
            yield lambda line: through.write(line.encode("utf-8", "replace") + b"\n")
        return
    if path is not None:
        # Renamed into place at the end: the output may be the file that is read.
        with atomic_write(path) as temporary, temporary.open("wb") as stream:
            yield lambda line: stream.write(line.encode("utf-8", "replace") + b"\n")
        return
    if sys.stdout is None:
        raise UsageError(f"standard output is closed; use {instead}")
    out = sys.stdout.buffer
    live = live or sys.stdout.isatty() or (sys.stdin is not None and sys.stdin.isatty())

    def write(line: str) -> None:
        out.write(line.encode("utf-8", "replace") + b"\n")
        if live:
            out.flush()

    yield write
    out.flush()


def _flows(path: Path) -> bool:
    """Whether a path is a named pipe, a device or an open stream: written to, never replaced."""
    # /dev/stdout may lead to a regular file, which others may be writing to as well.
    streams = Path(os.path.abspath(path)).parts[:2] in (("/", "dev"), ("/", "proc"))
    return path.exists() and (streams or not path.is_file())


class Reasons:
    """Tells on stderr why lines are empty or cut: the first ones singly, the others as counts.

    What a line is for others, such as a recording, is called `unit`, and told by its own name.
    """

    def __init__(self, unit: str = "line") -> None:
        self._unit = unit
        self._more: Counter[str] = Counter()
        self._told = 0

    def tell(self, line: int | str, reason: str | None) -> None:
        if reason is None:
            return
        if self._told < _SHOWN:
            self._told += 1
            where = line if isinstance(line, str) else f"{self._unit} {line}"
            print(f"transduce: {where}: {reason}", file=sys.stderr)
        else:
            # "input of 1234 tokens cut to 1000" with every number would be a count of ones.
            self._more["".join("N" if c.isdigit() else c for c in reason).replace("NN", "N")] += 1

    def summary(self) -> None:
        if total := self._more.total():
            kinds = ", ".join(f"{kind}: {n}" for kind, n in self._more.most_common(5))
            print(f"transduce: and {total} more {self._unit}s ({kinds})", file=sys.stderr)


def _json(number: int, out: Output) -> str:
    return json_line({"line": number, **out.as_dict()})


def plain_line(number: int, out: Output) -> str:
    return "\t".join(other.text for other in out.n_best) if out.n_best else out.text


def _number(scored: Scored) -> str:
    return f"{scored.log_prob:.6f}"
