"""From files to examples: line-aligned files, tables, JSON lines, and the formats of known sets."""

from __future__ import annotations

import csv
import hashlib
import json
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import Any, Literal, TypeAlias

from transduce.data.files import COMPRESSED, count_lines, read_lines
from transduce.errors import DataError, UsageError

Format = Literal["lines", "tsv", "csv", "jsonl", "kaldi", "scan", "cmudict", "cmudict-stress"]
SPLITS = ("train", "valid", "test")


@dataclass(frozen=True, slots=True)
class Example:
    """One source with its target, and the file and line (from 1) it came from.

    Where the source is speech, it is the name of the recording (`audio.files.named`). `references`
    are all right targets, where there are several; the first is `target`.
    """

    source: str
    target: str | None
    file: str
    line: int
    speaker: str | None = None
    references: tuple[str, ...] = ()

    @property
    def answers(self) -> list[str]:
        """All right targets, one or more; none where there is no target."""
        return list(self.references) or ([] if self.target is None else [self.target])


@dataclass(frozen=True, slots=True)
class Layout:
    """Which files hold a corpus, and how to read them.

    `source` and `target` name columns (tsv, csv) or fields (jsonl), `more` those of further
    references (of line-aligned files these are the third path and the following); `split` is
    cmudict's. With `errors` "replace", bytes that are not UTF-8 read as U+FFFD instead of being an
    error. With `audio` the sources are recordings (see `audio.manifest`).
    """

    format: Format
    paths: tuple[Path, ...]
    source: str = "1"
    target: str = "2"
    split: str = ""
    errors: Literal["strict", "replace"] = "strict"
    audio: bool = False
    more: tuple[str, ...] = ()

    def read(self) -> Iterator[Example]:
        """The examples, as a stream. Errors: DataError naming file and line."""
        if self.audio:
            from transduce.data.audio.manifest import read_recordings

            return read_recordings(self)
        return read_texts(self)


def read_texts(layout: Layout) -> Iterator[Example]:
    """The examples of a layout, their sources as they are written."""
    return READERS[layout.format](layout)


def table_format(path: str) -> Format:
    """The format that a table's name tells; UsageError when it tells none."""
    name = path
    for suffix in COMPRESSED:
        name = name.removesuffix(suffix)
    formats: dict[str, Format] = {
        ".tsv": "tsv",
        ".tab": "tsv",
        ".csv": "csv",
        ".jsonl": "jsonl",
        ".ndjson": "jsonl",
    }
    found = formats.get(Path(name).suffix.lower())
    if found is None:
        raise UsageError(f"{path}: a table is a .tsv, .csv or .jsonl file (also .gz, .xz, .zst)")
    return found


# ------------------------------------------------------------------------------------- lines


def _lines(layout: Layout) -> Iterator[Example]:
    """Two files, or more with further references, whose n-th lines belong together."""
    first = layout.paths[0]
    name = str(first)
    streams = [read_lines(path, layout.errors) for path in layout.paths]
    number = 0
    while True:
        lines = [next(stream, None) for stream in streams]
        if None in lines:
            break
        number += 1
        yield _example([line for line in lines if line is not None], name, number)
    for path, line in zip(layout.paths, lines, strict=True):
        if (line is None) != (lines[0] is None):
            left, right = count_lines(first), count_lines(path)
            raise DataError(
                f"{first} has {left:,} lines, {path} has {right:,}: line n of one must be the "
                "translation of line n of the other"
            )
    if not number:
        raise DataError(f"{' and '.join(map(str, layout.paths))} are empty")


def _example(texts: list[str], file: str, line: int) -> Example:
    """A source, its target, and further references, of which blank ones count for nothing."""
    source, target, *others = texts
    several = (target, *filter(str.strip, others)) if others else ()
    return Example(source, target, file, line, references=several)


# ------------------------------------------------------------------------------------ tables


Rows = Iterator[tuple[int, list[str]]]
# Source and targets of a row, None for a blank line, or why there are none: others may go on.
Fields: TypeAlias = "list[str] | DataError | None"
_BLANK = ["", ""]  # what a blank line holds: for others to count and drop


def _texts(fields: Fields) -> list[str]:
    if isinstance(fields, DataError):
        raise fields
    return fields or _BLANK


def _tsv_rows(layout: Layout) -> Rows:
    """Columns between tabs; quotation marks mean themselves."""
    path = layout.paths[0]
    lines = enumerate(read_lines(path, layout.errors), 1)
    return ((number, line.split("\t")) for number, line in lines)


def _csv_rows(layout: Layout) -> Rows:
    """Columns between commas, quoted where needed (RFC 4180); a field may span lines."""
    path = layout.paths[0]
    csv.field_size_limit(2**31 - 1)  # the default refuses fields above 131,072 characters
    reader = csv.reader((line + "\n" for line in read_lines(path, layout.errors)), strict=True)

    while True:
        number = reader.line_num + 1
        try:
            row = next(reader, None)
        except csv.Error as error:
            raise DataError(f"{path}:{number}: not CSV: {error}") from None
        if row is None:
            return
        yield number, row


def _table(layout: Layout) -> Iterator[Example]:
    """Two columns of a table, or more with further references."""
    name = str(layout.paths[0])
    for number, row, _ in table_rows(layout):
        yield _example(_texts(row), name, number)


def table_rows(
    layout: Layout, more: tuple[str, ...] = ()
) -> Iterator[tuple[int, Fields, list[str | None]]]:
    """Line number, source and targets (see `Fields`), and further columns, of each row.

    The columns are named by number (there is no header) or by name (the first row is the header);
    those of `more` are None where the header does not name them.
    """
    rows = _tsv_rows(layout) if layout.format == "tsv" else _csv_rows(layout)
    name = str(layout.paths[0])
    keys = [layout.source, layout.target, *layout.more]
    numbered = all(key.isdecimal() for key in keys)
    if not numbered and any(key.isdecimal() for key in keys):
        raise UsageError(f"{name}: give both sides by number, or both by name")
    header: list[str] = []
    if numbered:
        columns = [int(key) - 1 for key in keys]
        if min(columns) < 0:
            raise UsageError(f"{name}: columns are numbered from 1")
    else:
        _, header = next(rows, (0, []))
        columns = [_column(name, header, key) for key in keys]
    others = [header.index(key) if key in header else -1 for key in more]
    needed = max(columns) + 1
    empty = True
    for number, row in rows:
        empty = False
        if len(row) < needed:
            short = f"{name}:{number}: {len(row)} columns; column {needed} is needed"
            yield number, DataError(short) if any(row) else None, []
            continue
        found = [row[i] if 0 <= i < len(row) else None for i in others]
        yield number, [row[i] for i in columns], found
    if empty:
        raise DataError(f"{name} is empty" + ("" if numbered else ", but for its header"))


def _column(name: str, header: list[str], wanted: str) -> int:
    if not header:
        raise DataError(f"{name} is empty")
    if wanted not in header:
        there = ", ".join(f"`{column}`" for column in header[:20])
        raise DataError(f"{name}:1: no column `{wanted}` in the header: {there}")
    return header.index(wanted)


def _jsonl(layout: Layout) -> Iterator[Example]:
    """Fields of each object."""
    name = str(layout.paths[0])
    for number, _, fields in json_rows(layout):
        yield _example(_texts(fields), name, number)


def json_rows(layout: Layout) -> Iterator[tuple[int, Any, Fields]]:
    """Line number, object, and source and targets (see `Fields`).

    `a.b` finds field b of the object in field a. Targets may be lists of texts; further ones than
    the first may also be null.
    """
    path = layout.paths[0]
    name = str(path)
    number = 0
    for number, line in enumerate(read_lines(path, layout.errors), 1):
        if not line.strip():
            yield number, None, None
            continue
        try:
            row = json.loads(line)
        except (ValueError, RecursionError) as error:
            yield number, None, DataError(f"{name}:{number}: not JSON: {error}")
            continue
        yield number, row, _json_fields(row, layout, f"{name}:{number}")
    if not number:
        raise DataError(f"{name} is empty")


def _json_fields(row: Any, layout: Layout, where: str) -> Fields:
    try:
        texts = [field_of(row, layout.source, where)]
        for key in (layout.target, *layout.more):
            value = _field(row, key, where)
            if value is None and len(texts) > 1:
                continue
            values = (value or [""]) if isinstance(value, list) else [value]
            texts += [_text(one, key, where) for one in values]
    except DataError as error:
        return error
    return texts


def field_of(row: Any, wanted: str, where: str) -> str:
    """The text of a field of one JSON object; `a.b` is field b of the object in field a.

    Errors: DataError, beginning with `where`, if it is not there or is no text.
    """
    return _text(_field(row, wanted, where), wanted, where)


def _field(row: Any, wanted: str, where: str) -> Any:
    value = row.get(wanted) if isinstance(row, dict) else None
    if value is None:
        value = row
        for key in wanted.split("."):
            if not isinstance(value, dict) or key not in value:
                there = ", ".join(f"`{key}`" for key in row) if isinstance(row, dict) else ""
                raise DataError(f"{where}: no field `{wanted}`; there is: {there or 'none'}")
            value = value[key]
    return value


def _text(value: Any, field: str, where: str) -> str:
    if not isinstance(value, str):
        kind = "null" if value is None else type(value).__name__
        raise DataError(f"{where}: field `{field}` is {kind}, not text")
    # \ud800 in JSON makes half a character, which no UTF-8 can hold.
    return value.encode("utf-8", "replace").decode("utf-8")


# -------------------------------------------------------------------------------- known sets

_SCAN = re.compile(r"IN: (.*) OUT: (.*)")


def _scan(layout: Layout) -> Iterator[Example]:
    """Commands and actions of SCAN (Lake and Baroni 2018, 1711.00350)."""
    path = layout.paths[0]
    for number, line in enumerate(read_lines(path, layout.errors), 1):
        match = _SCAN.fullmatch(line.strip())
        if match is None:
            raise DataError(f"{path}:{number}: not of the form `IN: … OUT: …`")
        yield Example(match[1].strip(), match[2].strip(), str(path), number)


_VARIANT = re.compile(r"\(\d+\)$")


def _cmudict(layout: Layout) -> Iterator[Example]:
    """Words and phones of one split of CMUdict.

    A word is in one split with all its pronunciations; those that differ in stress alone are one
    where stress is left out.
    """
    path = layout.paths[0]
    stress = layout.format == "cmudict-stress"

    def entries() -> Iterator[tuple[str, str, int]]:
        for number, line in enumerate(read_lines(path, layout.errors), 1):
            entry, _, _ = line.partition("#")
            word, _, phones = entry.strip().partition(" ")
            if word:
                marks = phones if stress else re.sub(r"\d", "", phones)
                yield _VARIANT.sub("", word), " ".join(marks.split()), number

    for word, variants in groupby(entries(), key=lambda entry: entry[0]):
        if word_split(word) != layout.split:
            continue
        seen: set[str] = set()
        for _, phones, number in variants:
            if phones not in seen:
                seen.add(phones)
                yield Example(word, phones, str(path), number)


def word_split(word: str) -> str:
    """Train (93 %), valid (2 %) or test (5 %), from the SHA-256 of the word alone."""
    share = int.from_bytes(hashlib.sha256(word.encode()).digest()[:8], "big") % 100
    return "valid" if share < 2 else "test" if share < 7 else "train"


READERS: dict[str, Callable[[Layout], Iterator[Example]]] = {
    "lines": _lines,
    "tsv": _table,
    "csv": _table,
    "jsonl": _jsonl,
    "scan": _scan,
    "cmudict": _cmudict,
    "cmudict-stress": _cmudict,
}
