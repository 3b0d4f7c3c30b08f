"""Files that a recipe names: corpora in one form, and paths that hold wherever it is loaded."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from transduce.recipe_errors import Places

_SPLITS = ("train", "valid", "test")


def normalize_corpora(tree: dict[str, Any], places: Places, folder: Path | None) -> None:
    """Make each split, be it a catalogue name, a mapping or a list of those, a list of mappings."""
    data = tree.get("data")
    if not isinstance(data, dict):
        return
    for split in _SPLITS:
        given = data.get(split)
        if given is None:
            continue
        if not isinstance(given, list):
            given, at = [given], ("data", split)
            for old in [known for known in places if known[:2] == at and len(known) > 2]:
                moved = (*at, 0, *old[2:])
                places[moved] = places.pop(old)
        corpora = [{"name": corpus} if isinstance(corpus, str) else corpus for corpus in given]
        data[split] = [_resolved(c, folder) if isinstance(c, dict) else c for c in corpora]


def locate_start(tree: dict[str, Any], folder: Path | None) -> None:
    """The folder that a training begins with is seen from where it was written, as files are."""
    training = tree.get("training")
    if folder is not None and isinstance(training, dict) and training.get("start"):
        tree["training"] = training | {"start": _absolute(training["start"], folder)}


def _resolved(corpus: dict[str, Any], folder: Path | None) -> dict[str, Any]:
    corpus = {
        key: _column(value) if key in ("source", "target") else value
        for key, value in corpus.items()
    }
    files = ("table", "kaldi") if corpus.get("table") else ("source", "target", "kaldi")
    for key in files:
        if folder is not None and corpus.get(key):
            given = corpus[key]
            several = isinstance(given, list)
            corpus[key] = (
                [_absolute(f, folder) for f in given] if several else _absolute(given, folder)
            )
    return corpus


def _absolute(file: Any, folder: Path) -> Any:
    if not isinstance(file, str) or not file:
        return file  # for the recipe's own check to refuse
    # normpath and not resolve(): a link in a data folder is there on purpose.
    return Path(os.path.normpath(folder / Path(file).expanduser())).as_posix()


def _column(value: Any) -> Any:
    # A column's number is naturally written without quotes.
    if isinstance(value, list):
        return [_column(one) for one in value]
    return str(value) if isinstance(value, int) and not isinstance(value, bool) else value
