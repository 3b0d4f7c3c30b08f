"""`summarize`: from documents to a line each."""

from __future__ import annotations

from typing import Annotated

import typer

from transduce.cli.arguments import (
    Beam,
    Device,
    Json,
    Length,
    LengthPenalty,
    Model,
    NBest,
    OutputFile,
    Precision,
    Search,
    SearchBatch,
    Threads,
    Window,
    Workers,
)
from transduce.cli.guard import guarded


@guarded
def summarize(
    model: Model,
    files: Annotated[
        list[str] | None,
        typer.Argument(help="Text files, each one document; - is standard input to its end."),
    ] = None,
    lines: Annotated[bool, typer.Option("--lines", help="Files have one document a line.")] = False,
    field: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="Files are JSON lines with a document in this field."),
    ] = None,
    json: Json = False,
    length: Length = None,
    beam: Beam = None,
    n_best: NBest = None,
    length_penalty: LengthPenalty = None,
    batch_tokens: SearchBatch = None,
    search: Search = None,
    output: OutputFile = None,
    window: Window = None,
    threads: Threads = None,
    workers: Workers = 1,
    device: Device = "auto",
    precision: Precision = None,
) -> None:
    """Documents in, one line of text out for each, in order.

    Documents that are too long are cut, blank ones give an empty line: stderr says so."""
    from transduce.commands.searching import SearchChoice
    from transduce.commands.summarize import Request, run_summarize

    named = {
        "beam": beam,
        "n_best": n_best,
        "length_penalty": length_penalty,
        "batch_tokens": batch_tokens,
        "length": length,
    }
    run_summarize(
        Request(
            model,
            files or [],
            lines=lines,
            field=field,
            json=json,
            search=SearchChoice(named, search or []),
            output=output,
            window=window,
            threads=threads,
            workers=workers,
            device=device,
            precision=precision,
        )
    )
