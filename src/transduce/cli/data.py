"""`data`: the catalogue, and looking for bad pairs."""

from __future__ import annotations

from typing import Annotated

import typer

from transduce.cli.arguments import (
    Json,
    SourceFile,
    Table,
    TargetFile,
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
    """Find pairs that look wrong: counts and examples.

    Misaligned, empty, duplicate, over-long, wrongly encoded and probably untranslated ones."""
    from transduce.commands.data import run_check

    run_check(name, source, target, table, json=json)
