"""`transcribe`: from sound to text."""

from __future__ import annotations

from enum import Enum
from pathlib import Path
from typing import Annotated

import typer

from transduce.cli.arguments import (
    Beam,
    Device,
    Json,
    LengthPenalty,
    Model,
    Precision,
    Search,
    Threads,
)
from transduce.cli.guard import guarded


class Format(str, Enum):
    """What a transcript is written as."""

    text = "text"
    json = "json"
    srt = "srt"
    vtt = "vtt"


@guarded
def transcribe(
    model: Model,
    inputs: Annotated[
        list[str] | None, typer.Argument(help="Sound files, and folders of sound files.")
    ] = None,
    format: Annotated[
        Format, typer.Option("--format", "-f", help="Lines of text or JSON, or subtitles.")
    ] = Format.text,
    out: Annotated[
        Path | None,
        typer.Option("--out", "-o", help="Folder for one file a recording, not to the screen."),
    ] = None,
    names: Annotated[
        bool, typer.Option("--names", help="Begin lines of text with the file and a tab.")
    ] = False,
    longest: Annotated[
        float, typer.Option(help="Seconds; longer recordings are cut at silences.")
    ] = 20.0,
    pause: Annotated[
        float, typer.Option(help="Seconds of silence that end a piece of a long recording.")
    ] = 0.5,
    stream: Annotated[
        bool, typer.Option("--stream", help="Raw 16-bit samples on standard input, text at once.")
    ] = False,
    rate: Annotated[
        int | None,
        typer.Option(min=1000, max=384_000, help="Of --stream: samples a second (16000)."),
    ] = None,
    every: Annotated[
        float, typer.Option(min=0.02, help="Of --stream: seconds between two partial texts.")
    ] = 0.2,
    json: Json = False,
    beam: Beam = None,
    length_penalty: LengthPenalty = None,
    search: Search = None,
    window: Annotated[
        int | None,
        typer.Option(min=1, help="Pieces of recordings read ahead and decoded together (32)."),
    ] = None,
    threads: Threads = None,
    device: Device = "auto",
    precision: Precision = None,
) -> None:
    """Recordings in, one line of text out for each, in order.

    Any sound file: WAV, FLAC, Ogg, Opus, MP3, of any length and rate; folders are searched.
    With a model for pronunciation: lines of text in, as predict."""
    from transduce.commands.searching import SearchChoice
    from transduce.commands.transcribe import Request, run_transcribe

    run_transcribe(
        Request(
            model,
            inputs or [],
            form="json" if json else format.value,
            out=out,
            names=names,
            longest=longest,
            pause=pause,
            search=SearchChoice({"beam": beam, "length_penalty": length_penalty}, search or []),
            window=window,
            threads=threads,
            device=device,
            precision=precision,
        ),
        live=_live(stream, rate, every),
    )


def _live(stream: bool, rate: int | None, every: float) -> tuple[int, float] | None:
    """Samples a second, and seconds between partial texts, of --stream; None without it."""
    from transduce.errors import UsageError

    if rate is not None and not stream:
        raise UsageError("--rate is of --stream; a sound file says its own")
    return (rate or 16000, every) if stream else None
