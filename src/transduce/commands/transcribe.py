"""`transcribe`: sound files to text, JSON or subtitles, and live sound to growing text."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from transduce.commands.predict import Reasons, line_writer, load_any, run_predict
from transduce.commands.searching import SearchChoice
from transduce.data.audio.segmentation import Cutting
from transduce.disk import atomic_bytes
from transduce.errors import DataError, UsageError
from transduce.folder import read_manifest
from transduce.output import json_line
from transduce.recognition.files import Named, destinations, expanded
from transduce.recognition.subtitles import srt, vtt
from transduce.recognition.transcribing import TOGETHER, Recognizer, transcripts
from transduce.recognition.transcript import Transcript

RENDER: dict[str, Callable[[Transcript], str]] = {
    "text": lambda found: found.text,
    "json": lambda found: json_line(found.as_dict()),
    "srt": srt,
    "vtt": vtt,
}
SUFFIX = {"text": ".txt", "json": ".json", "srt": ".srt", "vtt": ".vtt"}


@dataclass(frozen=True)
class Request:
    """What the command line asks for; `form` is a key of RENDER, the times are seconds."""

    model: str
    inputs: Sequence[str]
    form: str
    out: Path | None
    names: bool
    longest: float
    pause: float
    search: SearchChoice
    window: int | None
    threads: int | None
    device: str
    precision: str | None


def run_transcribe(request: Request, *, live: tuple[int, float] | None) -> None:
    """Transcribe recordings or, with `live` (rate, seconds between texts), standard input."""
    if task_of(request.model) != "recognition":
        _read_lines(request, live)
        return
    cutting = Cutting(request.longest, request.pause)
    if live is not None:
        from transduce.commands.listening import run_listen

        if request.inputs or request.out or request.form not in ("text", "json"):
            raise UsageError("--stream reads standard input and writes lines of text or JSON")
        run_listen(
            *load_recognizer(request),
            given=live[0],
            every=live[1],
            cutting=cutting,
            json=request.form == "json",
        )
        return
    recordings, notes = _recordings(request)
    places = destinations(recordings, request.out, SUFFIX[request.form]) if request.out else None
    if request.out is not None:
        _make(request.out)
    model, rate, search = load_recognizer(request)
    if request.form != "text":
        search = {"times": True, **search}  # which cost another pass of the encoder
    for note in notes:
        print(f"transduce: {note}", file=sys.stderr)
    found = transcripts(
        model,
        (one.path for one in recordings),
        rate=rate,
        cutting=cutting,
        window=request.window or TOGETHER,
        **search,
    )
    _write(request, _told(found), places)


def load_recognizer(request: Request) -> tuple[Recognizer, int, dict[str, Any]]:
    """The model, the rate of the sound it takes, and the options of its search."""
    model: Any = load_any(request.model, request.device, request.threads, request.precision)
    return model, model.recipe.source.rate, request.search.options(model)


def task_of(names: str) -> str:
    """The task of a model folder, or of the first of several joined by commas."""
    first = names if Path(names).exists() else names.split(",")[0]
    return str(read_manifest(Path(first)).get("task"))


def _read_lines(request: Request, live: tuple[int, float] | None) -> None:
    """What `transcribe` is for models that pronounce: `predict`."""
    if live or request.out or request.form in ("srt", "vtt") or len(request.inputs) > 1:
        raise UsageError(
            f"{request.model}: a model for {task_of(request.model)}, which reads lines of text: "
            f"transduce predict {request.model} FILE"
        )
    if sys.stdout is None:
        raise UsageError("standard output is closed; use `transduce predict` with --output FILE")
    run_predict(
        request.model,
        request.inputs[0] if request.inputs else "-",
        request.search,
        json=request.form == "json",
        output=None,
        window=request.window,
        threads=request.threads,
        device=request.device,
        precision=request.precision,
        workers=1,
        task="transcribe",
    )


def _recordings(request: Request) -> tuple[list[Named], list[str]]:
    if not request.inputs:
        raise UsageError("name sound files or folders, or use --stream to read standard input")
    recordings, notes = expanded(request.inputs)
    if request.form in ("srt", "vtt") and request.out is None and len(recordings) > 1:
        raise UsageError(
            f"{len(recordings)} recordings cannot share one .{request.form}: name a folder, --out"
        )
    return recordings, notes


def _make(folder: Path) -> None:
    """The folder of `--out`, before minutes of work for it. Errors: UsageError."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        reason = "is no folder" if isinstance(error, FileExistsError) else error.strerror
        raise UsageError(f"--out {folder}: {reason}") from None


def _told(found: Iterator[Transcript]) -> Iterator[Transcript]:
    """The same transcripts, their reasons told on stderr; DataError if none could be read."""
    reasons = Reasons("recording")
    count = readable = 0
    for one in found:
        count += 1
        readable += one.seconds > 0
        reasons.tell(_escaped(one.audio), one.reason)
        yield one
    reasons.summary()
    if not readable:
        raise DataError("nothing to transcribe" if count == 1 else f"none of {count} can be read")


def _escaped(name: str) -> str:
    """The name of a file on one line and without tabs: as Python escapes them, such as `a\\nb`."""
    if os.sep == "\\":  # where no name can hold what would be escaped
        return name
    return "".join(
        c.encode("unicode_escape").decode() if c in "\\\t" or c.splitlines() == [""] else c
        for c in name
    )


def _write(request: Request, found: Iterator[Transcript], places: Sequence[Path] | None) -> None:
    render = RENDER[request.form]
    if places is not None:
        for one, place in zip(found, places, strict=True):
            text = render(one)
            whole = text + "\n" if request.form in ("text", "json") else text
            atomic_bytes(place, whole.encode("utf-8", "replace"))
        print(f"transduce: {len(places):,} transcripts in {request.out}", file=sys.stderr)
        return
    with line_writer(None, live=True, instead="--out FOLDER") as write:
        for one in found:
            name = f"{_escaped(one.audio)}\t" if request.names and request.form == "text" else ""
            write(name + render(one).removesuffix("\n"))
