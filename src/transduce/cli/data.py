"""`data`: the catalogue, and looking for bad pairs."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from transduce.cli.arguments import (
    Data,
    Json,
    Model,
    SourceFile,
    Table,
    TargetFile,
    Threads,
)
from transduce.cli.guard import guarded


@guarded
def list_sets(json: Json = False) -> None:
    """The sets of the catalogue: names, splits, languages, licences."""
    from transduce.commands.data import run_list

    run_list(json=json)


@guarded
def get(
    name: Annotated[str, typer.Argument(help="Name of the catalogue, with or without :split.")],
) -> None:
    """Fetch a set of the catalogue, verify its checksums, and print its files."""
    from transduce.commands.data import run_get

    run_get(name)


@guarded
def check(
    name: Annotated[
        str | None, typer.Argument(help="Recipe, or catalogue name with split.")
    ] = None,
    source: SourceFile = None,
    target: TargetFile = None,
    table: Table = None,
    json: Annotated[bool, typer.Option("--json", help="The findings as one JSON object.")] = False,
) -> None:
    """Find pairs and recordings that look wrong: counts and examples.

    Misaligned, empty, duplicate, over-long, wrongly encoded and probably untranslated pairs.
    Of recordings: unreadable, silent, clipped, too short for their text, over-long, of another rate
    than most, and duplicates."""
    from transduce.commands.data import run_check

    run_check(name, source, target, table, json=json)


@guarded
def splice(
    model: Model,
    folder: Annotated[Path, typer.Argument(help="New folder for recordings and table.tsv.")],
    data: Data = None,
    table: Table = None,
    copies: Annotated[int, typer.Option(min=1, help="New recordings for each old one.")] = 5,
    seed: Annotated[int, typer.Option(help="Another seed draws others.")] = 1,
    threads: Threads = None,
) -> None:
    """Make new recordings out of the words of old ones, each of one voice.

    For recognisers with little data. The model, a recogniser with CTC, says where words are."""
    from transduce.commands.splicing import run_splice

    run_splice(model, folder, data, table, copies=copies, seed=seed, threads=threads)
