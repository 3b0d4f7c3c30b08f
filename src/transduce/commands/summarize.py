"""`summarize`: documents in, one line of text or JSON out for each, in order."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from transduce.commands.predict import answer_all, binary_lines, check_window, load_for, plain_line
from transduce.commands.searching import SearchChoice
from transduce.data.files import damage, open_bytes
from transduce.data.formats import field_of
from transduce.errors import DataError, UsageError
from transduce.inputs import WINDOW, cut_of
from transduce.output import Output, json_line

LARGEST = 64 << 20  # bytes of one document; a stream that does not end would fill the memory


@dataclass(frozen=True)
class Request:
    """What the command line asks for.

    Each of `files` is a document; or, with `lines`, has one a line; or, with `field`, is JSON lines
    with one in that field of each.
    """

    model: str
    files: Sequence[str]
    lines: bool
    field: str | None
    json: bool
    search: SearchChoice
    output: Path | None
    window: int | None
    threads: int | None
    workers: int
    device: str
    precision: str | None


def run_summarize(request: Request) -> None:
    """Summarize every document. Errors: DataError naming file and row for what is no document."""
    if request.lines and request.field is not None:
        raise UsageError("--lines is for plain text, --field for JSON lines: leave one out")
    check_window(request.workers, request.window)
    by_row = request.lines or request.field is not None
    files = list(request.files) or ["-"]
    for file in files:
        if file != "-":
            open_bytes(file).close()  # before a model is loaded and others are summarized
    named = [] if by_row else ["standard input" if file == "-" else file for file in files]
    threads = request.threads or (1 if request.workers > 1 else None)
    answer_all(
        _rows(files, request.field) if by_row else map(_document, files),
        partial(load_for, "summarize", request.model, request.device, threads, request.precision),
        request.search,
        partial(_json, named) if request.json else plain_line,
        output=request.output,
        window=request.window or WINDOW,
        workers=request.workers,
        unit="document" if by_row else lambda number: named[number - 1],
    )


# --------------------------------------------------------------------------------- documents


def _document(file: str) -> bytes:
    """A whole file, or standard input to its end, as one document."""
    with ExitStack() as stack:
        if file != "-":
            name, stream = file, stack.enter_context(open_bytes(file))
        else:
            if sys.stdin is None:
                raise UsageError("standard input is closed; give a file, or pipe a document in")
            if sys.stdin.isatty():
                print("Type a document; Ctrl-D ends it.", file=sys.stderr)
            name, stream = "standard input", sys.stdin.buffer
        with damage(name):
            text = stream.read(LARGEST + 1)
    if len(text) > LARGEST:
        raise DataError(
            f"{name}: a document of more than {LARGEST >> 20} MiB; with one document a line "
            "use --lines, with JSON lines --field"
        )
    return text.removeprefix(b"\xef\xbb\xbf")


def _rows(files: Iterable[str], field: str | None) -> Iterator[bytes]:
    """One document a line, or a field of the object in each line; blank lines are blank ones."""
    for file in files:
        name = "standard input" if file == "-" else file
        with binary_lines(file) as lines:
            for number, line in enumerate(lines, 1):
                blank = field is None or not line.strip()
                yield line if blank else _field(line, field or "", f"{name}:{number}")


def _field(line: bytes, field: str, where: str) -> bytes:
    try:
        row = json.loads(line)
    except UnicodeDecodeError as error:
        raise DataError(f"{where}: not UTF-8 (byte {error.start + 1})") from None
    except (ValueError, RecursionError) as error:
        raise DataError(f"{where}: not JSON: {error}") from None
    return field_of(row, field, where).encode("utf-8")


# ----------------------------------------------------------------------------------- answers


def _json(named: Sequence[str], number: int, out: Output) -> str:
    """Everything about a summary but its attention, which has a column for each source token."""
    cut = cut_of(out.reason)
    place = {"document": named[number - 1]} if named else {"line": number}
    fields: dict[str, Any] = out.as_dict()
    for key in ("attention", "source_tokens"):
        fields.pop(key)
    for other in fields.get("n_best", []):
        other.pop("attention")
    read = {
        "source_tokens_read": len(out.source_tokens),
        "truncated": None if cut is None else {"tokens": cut[0], "read": cut[1]},
    }
    return json_line(place | fields | read)
