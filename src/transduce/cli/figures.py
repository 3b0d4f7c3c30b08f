"""`figure`: pictures of a model."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from transduce.cli.arguments import (
    Beam,
    Data,
    Device,
    ImageFile,
    Limit,
    Model,
    Search,
    SourceFile,
    Table,
    TargetFile,
)
from transduce.cli.guard import guarded


@guarded
def attention(
    model: Model,
    text: Annotated[str, typer.Argument(help="The input to decode: a text, or a sound file.")],
    output: ImageFile = None,
    target: Annotated[
        str | None, typer.Option(help="Attend for this target, not the model's own.")
    ] = None,
    beam: Beam = None,
    device: Device = "auto",
) -> None:
    """Draw where the model looked while it wrote its answer to TEXT.

    Of a sound file: spectrogram, attention and what CTC hears, in one picture."""
    from transduce.commands.figures import run_attention

    run_attention(model, text, output, target=target, beam=beam, device=device)


@guarded
def source(
    model: Model,
    text: Annotated[str, typer.Argument(help="The input to decode: a text, or a text file.")],
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", help="A .html or .png file (default: one of each)."),
    ] = None,
    target: Annotated[
        str | None, typer.Option(help="Attend for this target, not the model's own.")
    ] = None,
    beam: Beam = None,
    search: Search = None,
    device: Device = "auto",
) -> None:
    """Shade a source by attention, and mark the words that were copied from it.

    In HTML, pointing at a word of the output shows where the model looked for it."""
    from transduce.commands.figures import run_source
    from transduce.commands.searching import SearchChoice

    choice = SearchChoice({"beam": beam}, search or [])
    run_source(model, text, output, target=target, search=choice, device=device)


@guarded
def curves(
    model: Annotated[Path, typer.Argument(help="Model folder.")], output: ImageFile = None
) -> None:
    """Draw loss and metrics over the training."""
    from transduce.commands.figures import run_curves

    run_curves(model, output)


@guarded
def lengths(
    model: Model,
    data: Data = None,
    source: SourceFile = None,
    target: TargetFile = None,
    table: Table = None,
    metric: Annotated[str | None, typer.Option(help="Metric (default: the task's first).")] = None,
    limit: Limit = None,
    output: ImageFile = None,
    device: Device = "auto",
) -> None:
    """Draw the score by source length.

    Without data options on the recipe's test set, or else its validation set."""
    from transduce.commands.figures import run_lengths

    run_lengths(
        model,
        (data, source, target, table),
        metric=metric,
        limit=limit,
        output=output,
        device=device,
    )
