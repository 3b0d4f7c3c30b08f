"""`inspect`: what a model folder or a recipe holds."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from transduce.commands.precisions import precision_facts
from transduce.commands.showing import console, table
from transduce.data.corpus import open_corpora
from transduce.data.sides import SourceSide, load_sides
from transduce.data.text import TextSide
from transduce.errors import TransduceError, UsageError
from transduce.folder import RECIPE, ModelFolder, open_folder
from transduce.model.build import build_model
from transduce.output import json_line
from transduce.recipe import METRICS, Recipe, TextOptions
from transduce.recipe_files import dump_recipe, load_recipe
from transduce.recipe_speech import SpeechOptions

_TOLD = ("format", "task", "files", "parameters")  # of the manifest, otherwise


def run_inspect(path: Path, overrides: list[str], *, counts: bool, json: bool) -> None:
    """Print a model folder, or a recipe file (never trained, so its sizes are upper bounds)."""
    facts: dict[str, Any]
    if path.is_file() or path.suffix in (".yaml", ".yml"):
        recipe = load_recipe(path, overrides)
        facts = _recipe_facts(recipe)
    else:
        if overrides:
            raise UsageError("key=value options are for recipes; a trained model is what it is")
        folder = open_folder(path)
        recipe = folder.recipe
        facts = _folder_facts(folder)
    if counts:
        facts["examples"] = data_counts(recipe)
    if json:
        print(json_line({**facts, "recipe": recipe.model_dump(mode="json")}))
        return
    _show(facts, recipe, path)


def _folder_facts(folder: ModelFolder) -> dict[str, Any]:
    recipe = folder.recipe
    source, target = load_sides(folder.path, recipe)
    return {
        "task": recipe.task,
        "metrics": list(recipe.evaluation.metrics or METRICS[recipe.task]),
        "vocabulary": {"source": _vocabulary(source), "target": _vocabulary(target)},
        "parameters": parameters(recipe, source.size, target.size),
        "precision": precision_facts(folder.path),
        "files": {name: entry["bytes"] for name, entry in folder.manifest["files"].items()},
        **{key: value for key, value in folder.manifest.items() if key not in _TOLD},
    }


def _recipe_facts(recipe: Recipe) -> dict[str, Any]:
    sides = {"source": recipe.source, "target": recipe.target}
    sizes = {name: _planned(options) for name, options in sides.items()}
    facts: dict[str, Any] = {
        "task": recipe.task,
        "metrics": list(recipe.evaluation.metrics or METRICS[recipe.task]),
        "vocabulary": sizes,
    }
    # Only subword vocabularies have the size that the recipe says; others depend on the data.
    if all(entry["kind"] in ("bpe", "unigram", "frames") for entry in sizes.values()):
        facts["parameters"] = parameters(recipe, *(entry["size"] for entry in sizes.values()))
    return facts


def _planned(options: TextOptions | SpeechOptions) -> dict[str, Any]:
    if options.kind == "speech":
        return {"kind": "frames", "size": options.bins}
    return {"kind": options.tokenizer.kind, "size": options.tokenizer.size}


def data_counts(recipe: Recipe) -> dict[str, dict[str, int | str]]:
    """The number of examples of each corpus of each split, or why they cannot be counted."""
    counts: dict[str, dict[str, int | str]] = {}
    for split in ("train", "valid", "test"):
        counts[split] = {}
        for options in getattr(recipe.data, split):
            name = options.name or options.table or str(options.source)
            try:
                (corpus,) = open_corpora([options], recipe.source_kind)
                counts[split][name] = sum(1 for _ in corpus)
            except TransduceError as error:
                counts[split][name] = str(error)
    return counts


def _vocabulary(side: SourceSide) -> dict[str, Any]:
    if not isinstance(side, TextSide):
        return {"kind": "frames", "size": side.size}
    shown = side.tokens(list(range(4, min(side.size, 24))))
    return {"kind": side.tokenizer.kind, "size": side.size, "first": shown}


def parameters(recipe: Recipe, source_size: int, target_size: int) -> dict[str, int]:
    """Weights by part, and their total; a tensor that two parts share counts for the first."""
    import torch

    with torch.device("meta"):  # shapes only: neither memory nor time for weights that are not used
        bins = source_size if recipe.source.kind == "speech" else None
        model = build_model(recipe.model, source_size, target_size, bins)
    seen: set[int] = set()
    counts: dict[str, int] = {}
    for name, parameter in model.named_parameters(remove_duplicate=False):
        if id(parameter) in seen:
            continue
        seen.add(id(parameter))
        part = ".".join(name.split(".")[:2])
        counts[part] = counts.get(part, 0) + parameter.numel()
    return {**counts, "total": sum(counts.values())}


def _show(facts: Mapping[str, Any], recipe: Recipe, path: Path) -> None:
    out = console()
    out.print(f"{path}: {facts['task']}, judged by {', '.join(facts['metrics'])}", markup=False)
    rows = [
        [side, entry["kind"], f"{entry['size']:,}", " ".join(entry.get("first", ()))]
        for side, entry in facts["vocabulary"].items()
    ]
    out.print()
    out.print(table(["vocabulary", "kind", "size", "first entries"], rows, right=(2,)))
    if "parameters" in facts:
        counts = [[part, f"{count:,}"] for part, count in facts["parameters"].items()]
        out.print()
        out.print(table(["part", "parameters"], counts, right=(1,)))
    else:
        out.print("\nparameters: known when the vocabularies are learnt from the data")
    if "precision" in facts:
        _show_precision(facts["precision"])
    if "examples" in facts:
        rows = [
            [split, name, f"{count:,}" if isinstance(count, int) else count]
            for split, corpora in facts["examples"].items()
            for name, count in corpora.items()
        ]
        out.print()
        out.print(table(["data", "corpus", "examples"], rows))
    if "files" in facts:
        out.print()
        out.print(
            table(["file", "bytes"], [[n, f"{b:,}"] for n, b in facts["files"].items()], right=(1,))
        )
    known = ("task", "metrics", "vocabulary", "parameters", "precision", "examples", "files")
    more = [
        [key.replace("_", " "), part]
        for key, value in facts.items()
        if key not in known
        for part in _lines(value)
    ]
    if more:
        out.print()
        out.print(table(["about", ""], more))
    out.print(f"\nevery option ({RECIPE}):", style="bold")
    out.print(dump_recipe(recipe), markup=False)


def _show_precision(facts: Mapping[str, Any]) -> None:
    out = console()
    out.print(f"\nprecision auto is {facts['auto']} here: {facts['reason']}", markup=False)
    if not facts["kernels"]:
        out.print("  without kernels in C: no AVX-512 here, or no compiler when it was installed")
    for name, distance in facts["distance"].items():
        if distance is None:
            out.print(f"  {name}: not known, since the model's log-probabilities are no numbers")
            continue
        out.print(f"  {name}: log-probabilities of tokens differ by {distance:.4f} in the mean")


def _lines(value: Any) -> list[str]:
    if isinstance(value, Mapping):
        return [f"{key} {part}" for key, inner in value.items() for part in _lines(inner)]
    if isinstance(value, list):
        return [" ".join(part for item in value for part in _lines(item))]
    if value is None:
        return []
    if isinstance(value, float):
        return [f"{value:.4g}"]
    return [f"{value:,}" if isinstance(value, int) else str(value)]
