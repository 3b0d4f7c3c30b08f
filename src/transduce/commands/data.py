"""`data list|get|check`."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

from transduce.assessment import chosen_corpora
from transduce.commands.showing import console, table
from transduce.data.audio.check import check_recordings
from transduce.data.catalog import CATALOG, resolve
from transduce.data.check import Report, check_corpora
from transduce.data.corpus import Corpus, open_corpora
from transduce.errors import UsageError
from transduce.output import json_line
from transduce.recipe_files import load_recipe


def run_list(*, json: bool) -> None:
    """The catalogue."""
    if json:
        for name, dataset in CATALOG.items():
            print(
                json_line(
                    {"name": name, "splits": list(dataset.splits), "about": dataset.description}
                )
            )
        return
    rows = [
        [name, " ".join(dataset.splits), dataset.licence, dataset.description]
        for name, dataset in CATALOG.items()
    ]
    console().print(table(["name", "splits", "licence", "about"], rows))


def run_get(name: str) -> None:
    """Fetch all splits of a set, or one, and print where each is."""
    if name in CATALOG:
        names = [f"{name}:{split}" for split in CATALOG[name].splits]
    else:
        names = [name]  # a set with its split, or an error that names the nearest
    rows = [[one, str(path)] for one in names for path in resolve(one)]
    console().print(table(["split", "file"], rows))


def run_check(
    name: str | None, source: str | None, target: str | None, table_file: str | None, *, json: bool
) -> None:
    """Look through corpora for pairs that are probably wrong."""
    opened = _opened(name, source, target, table_file)
    speech = [corpus for corpus in opened if corpus.layout.audio]
    texts = [corpus for corpus in opened if not corpus.layout.audio]
    for corpora, check in ((texts, check_corpora), (speech, check_recordings)):
        if not corpora:
            continue
        report: Report = check(corpora)
        if json:
            print(json_line(asdict(report)))
        else:
            console().print(str(report), markup=False)


def _opened(
    name: str | None, source: str | None, target: str | None, table_file: str | None
) -> list[Corpus]:
    if name is not None and name.endswith((".yaml", ".yml")):
        if source or target or table_file:
            raise UsageError("give a recipe, or files, not both")
        if not Path(name).exists():
            raise UsageError(f"{name}: there is no such recipe")
        recipe = load_recipe(Path(name))
        data = recipe.data
        return open_corpora([*data.train, *data.valid, *data.test], recipe.source_kind)
    corpora = chosen_corpora(name, source, target, table_file)
    if not corpora:
        raise UsageError("say what to check: a recipe, a catalogue name, or --source and --target")
    return open_corpora(corpora)
