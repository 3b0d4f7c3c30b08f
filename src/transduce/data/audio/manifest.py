"""Corpora of recordings: tables of sound files with their texts, and folders in Kaldi's manner."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

from transduce.data.audio.files import named, parts
from transduce.data.files import read_lines
from transduce.data.formats import Example, Fields, Layout, json_rows, read_texts, table_rows
from transduce.errors import DataError, UsageError

# Columns that a table may have beside those of the recording and its text.
SPEAKER, START, END = "speaker", "start", "end"
_WHOLE = 1 << 20  # bytes of a file that are hashed one by one
_PIECE = 1 << 16  # of larger files, so many at each of 17 places


@dataclass(frozen=True, slots=True)
class BadRow:
    """A row that cannot be read, by file and line; `error` names both."""

    file: str
    line: int
    error: DataError


def read_recordings(layout: Layout) -> Iterator[Example]:
    """Examples whose source is the name of a recording (see `audio.files`), as a stream.

    Errors: DataError naming file and line, for rows that cannot be read; whether the recordings are
    there is found when they are.
    """
    for row in read_rows(layout):
        if isinstance(row, BadRow):
            raise row.error
        yield row


def read_rows(layout: Layout) -> Iterator[Example | BadRow]:
    """As `read_recordings`, but of tables also what follows a row that cannot be read."""
    if layout.format == "kaldi":
        return _kaldi(layout.paths[0].parent)
    if layout.format in ("tsv", "csv"):
        return _table(layout)
    if layout.format == "jsonl":
        return _jsonl(layout)
    if layout.format == "lines":
        return _lines(layout)
    raise UsageError(f"{layout.paths[0]}: a corpus of texts, not of recordings")


def content_of(name: str) -> bytes:
    """A hash of what the file of a recording holds: all of it up to 1 MiB, else 17 pieces and the
    size. Errors: DataError when it is missing or not readable."""
    path, _, _ = parts(name)
    digest = hashlib.sha256()
    try:
        size = path.stat().st_size
        digest.update(str(size).encode())
        with path.open("rb") as file:
            if size <= _WHOLE:
                digest.update(file.read())
            else:
                for place in range(17):
                    file.seek((size - _PIECE) * place // 16)
                    digest.update(file.read(_PIECE))
    except OSError as error:
        reason = "does not exist" if isinstance(error, FileNotFoundError) else error.strerror
        raise DataError(f"{path}: {reason}") from None
    return digest.digest()


# ------------------------------------------------------------------------------------ tables


def _recording(layout_folder: Path, file: str, start: Any, end: Any, where: str) -> str:
    """The name of a row's recording; blank where the row names none."""
    if not file.strip():
        return ""
    times = [_seconds(value, where) for value in (start, end)]
    if times[1] is not None and times[1] <= (times[0] or 0.0):
        raise DataError(f"{where}: ends ({times[1]:g} s) before it starts ({times[0] or 0:g} s)")
    return named(layout_folder / Path(file).expanduser(), *times)


def _seconds(value: Any, where: str) -> float | None:
    if value is None or value == "":
        return None
    try:
        seconds = float(value)
    except (TypeError, ValueError):
        seconds = math.nan
    if not 0 <= seconds < math.inf or isinstance(value, bool):
        raise DataError(f"{where}: {value!r} is not a time in seconds")
    return seconds


def _table(layout: Layout) -> Iterator[Example | BadRow]:
    """Rows of a TSV or CSV file; speaker, start and end are used where the header names them."""
    path = layout.paths[0]
    where, folder = str(path), path.parent
    for number, row, more in table_rows(layout, (SPEAKER, START, END)):
        speaker, start, end = more or (None, None, None)
        yield _row(folder, row, (start, end), speaker or None, (where, number))


def _jsonl(layout: Layout) -> Iterator[Example | BadRow]:
    """Objects of a JSON lines file, with the same fields."""
    path = layout.paths[0]
    where, folder = str(path), path.parent
    for number, row, fields in json_rows(layout):
        extra = row if isinstance(row, dict) else {}
        start, end, speaker = (extra.get(key) for key in (START, END, SPEAKER))
        speaker = None if speaker is None else str(speaker)
        yield _row(folder, fields, (start, end), speaker, (where, number))


def _row(
    folder: Path,
    fields: Fields,
    times: tuple[Any, Any],
    speaker: str | None,
    place: tuple[str, int],
) -> Example | BadRow:
    """What a row of a table says, which lies at `place`: file and line."""
    if fields is None:
        return Example("", "", *place)
    if isinstance(fields, DataError):
        return BadRow(*place, fields)
    try:
        name = _recording(folder, fields[0], *times, f"{place[0]}:{place[1]}")
    except DataError as error:
        return BadRow(*place, error)
    return Example(name, fields[1], *place, speaker)


def _lines(layout: Layout) -> Iterator[Example]:
    """Two files: paths of recordings, and their texts."""
    folder = layout.paths[0].parent
    for example in read_texts(layout):
        name = _recording(folder, example.source, None, None, "")
        yield Example(name, example.target, example.file, example.line)


# ------------------------------------------------------------------------------------- Kaldi

Lines: TypeAlias = Iterator[tuple[str, str, int]]  # id, what belongs to it, line number


def kaldi_files(folder: Path) -> tuple[Path, ...]:
    """The files of a Kaldi folder that are read, `text` first. Errors: DataError if it is none."""
    if not folder.is_dir():
        raise DataError(f"{folder}: no such folder")
    for name in ("text", "wav.scp"):
        if not (folder / name).is_file():
            raise DataError(f"{folder}: has no {name}; is it a data folder as Kaldi has them?")
    optional = (folder / name for name in ("segments", "utt2spk"))
    return (folder / "text", folder / "wav.scp", *(path for path in optional if path.is_file()))


def _kaldi(folder: Path) -> Iterator[Example]:
    """Utterances of `text` with their recordings; all files are sorted by the same ids.

    Commands in wav.scp are not run.
    """
    paths = {path.name: path for path in kaldi_files(folder)}
    text = paths["text"]
    if "segments" in paths:
        recordings = {key: path for key, path, _ in _scp(paths["wav.scp"])}
        utterances = _segments(paths["segments"], recordings)
    else:
        utterances = _scp(paths["wav.scp"])
    speakers = _pairs(paths["utt2spk"]) if "utt2spk" in paths else None
    empty = True
    for key, words, number in _pairs(text):
        empty = False
        recording = _next(utterances, key, text, number, "wav.scp or segments")
        speaker = None if speakers is None else _next(speakers, key, text, number, "utt2spk")
        yield Example(recording, words, str(text), number, speaker)
    if empty:
        raise DataError(f"{text} is empty")
    if (more := next(utterances, None)) is not None:
        raise DataError(f"{text}: has no line for `{more[0]}`, of which there is a recording")


def _next(rows: Lines, key: str, text: Path, number: int, file: str) -> str:
    found = next(rows, None)
    if found is None or found[0] != key:
        there = "ends before it" if found is None else f"has `{found[0]}` there"
        raise DataError(
            f"{text}:{number}: utterance `{key}`, but {file} {there}; the files of a Kaldi folder "
            "hold the same utterances in the same order (utils/fix_data_dir.sh mends them)"
        )
    return found[1]


def _pairs(path: Path) -> Lines:
    """Id, the rest, and line number of each line."""
    for number, line in enumerate(read_lines(path), 1):
        fields = line.split(maxsplit=1)  # by spaces, or by tabs as some programs write them
        if not fields:
            raise DataError(f"{path}:{number}: the line is blank")
        yield fields[0], fields[1].strip() if len(fields) > 1 else "", number


def _scp(path: Path) -> Lines:
    for key, file, number in _pairs(path):
        if file.endswith("|") or file.startswith("|"):
            raise DataError(
                f"{path}:{number}: `{file[:60]}` is a command, and commands in data are not run; "
                "make it a sound file first"
            )
        if not file:
            raise DataError(f"{path}:{number}: names no file")
        yield key, named(path.parent / Path(file).expanduser()), number


def _segments(path: Path, recordings: dict[str, str]) -> Lines:
    for key, rest, number in _pairs(path):
        where = f"{path}:{number}"
        try:
            recording, start, end = rest.split()
        except ValueError:
            raise DataError(f"{where}: not `utterance recording start end`") from None
        if recording not in recordings:
            raise DataError(f"{where}: wav.scp has no recording `{recording}`")
        until = None if end == "-1" else end  # Kaldi's way to say: to its end
        yield key, _recording(Path(), recordings[recording], start, until, where), number
