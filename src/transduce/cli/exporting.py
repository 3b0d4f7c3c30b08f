"""`export`: a model folder for machines without torch."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from transduce.cli.guard import guarded


@guarded
def export(
    model: Annotated[Path, typer.Argument(help="Model folder.")],
    out: Annotated[Path, typer.Argument(help="New folder, or an exported one to replace.")],
    precision: Annotated[
        str, typer.Option(help="fp32, or int8: smaller, faster, and not quite the same.")
    ] = "fp32",
    sample: Annotated[
        str | None, typer.Option(help="Lines of source to check on (default: validation data).")
    ] = None,
) -> None:
    """Write a model as ONNX graphs, which decode without torch, after checking them."""
    from transduce.commands.exporting import run_export

    run_export(model, out, precision, sample)
