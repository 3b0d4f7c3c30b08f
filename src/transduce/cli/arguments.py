"""The arguments and options that several commands share."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

Model = Annotated[
    str, typer.Argument(help="Model folder; several joined by commas are an ensemble.")
]
Input = Annotated[str, typer.Argument(help="Text file, one input a line; - is standard input.")]
Device = Annotated[str, typer.Option(help="cpu, cuda, cuda:1, …, or auto.")]
Json = Annotated[bool, typer.Option("--json", help="One JSON object a line.")]
Data = Annotated[str | None, typer.Option(help="Catalogue name with split, such as cmudict:test.")]
SourceFile = Annotated[
    str | None, typer.Option("--source", help="Source file, or column of --table.")
]
TargetFile = Annotated[
    str | None, typer.Option("--target", help="Target file, or column of --table.")
]
Table = Annotated[str | None, typer.Option(help="A .tsv, .csv or .jsonl file with both sides.")]
Metric = Annotated[list[str] | None, typer.Option(help="Metric; may be given several times.")]
Limit = Annotated[int | None, typer.Option(min=1, help="Use the first so many examples only.")]
ImageFile = Annotated[Path | None, typer.Option("--output", "-o", help="Where to write the PNG.")]
Beam = Annotated[int | None, typer.Option(min=1, help="Beam width (default: the recipe's).")]
NBest = Annotated[
    int | None, typer.Option(min=1, help="Outputs per input; as text, separated by tabs.")
]
Length = Annotated[
    str | None,
    typer.Option(
        metavar="short|medium|long|N",
        help="Of models with source.length_control; a number: at most so many tokens, of any.",
    ),
]
LengthPenalty = Annotated[
    float | None, typer.Option(min=0.0, help="Exponent of length normalisation.")
]
SearchBatch = Annotated[int | None, typer.Option("--batch-tokens", min=1, help="Size of a batch.")]
ReplaceUnknown = Annotated[
    bool | None, typer.Option(help="Replace unknown words by the source word attended most.")
]
Search = Annotated[
    list[str] | None,
    typer.Option(
        metavar="KEY=VALUE", help="Any option of the recipe's search section; may be repeated."
    ),
]
OutputFile = Annotated[
    Path | None, typer.Option("--output", "-o", help="Write here, not to the screen.")
]
Window = Annotated[
    int | None,
    typer.Option(
        min=1, help="Lines read ahead; 1 answers each line at once (a terminal's default)."
    ),
]
Precision = Annotated[
    str | None,
    typer.Option(
        metavar="auto|fp32|bf16|int8",
        help="Arithmetic; auto is bf16 where this machine is faster in it. "
        "Default: auto to predict, fp32 to score and evaluate.",
    ),
]
Workers = Annotated[
    int,
    typer.Option(min=1, help="Processes that decode side by side, for files with many lines."),
]
Threads = Annotated[int | None, typer.Option(min=1, help="Threads of one operation on the CPU.")]
