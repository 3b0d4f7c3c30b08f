"""What a training starts from: recipe, tokenizers, prepared corpora, model, device."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from transduce.data.catalog import cache_root
from transduce.data.copying import codes_of
from transduce.data.corpus import open_corpora
from transduce.data.prepare import prepare
from transduce.data.sides import SourceSide, bins_of, learn_sides, load_sides
from transduce.data.speech import SpeechSide
from transduce.data.starting import take_sides
from transduce.data.store import Store
from transduce.data.text import TextSide
from transduce.data.tokenizers.build import EXTENSIONS
from transduce.disk import atomic_bytes, sync
from transduce.errors import FolderError, UsageError
from transduce.folder import (
    LAST,
    LENGTHS,
    MANIFEST,
    RECIPE,
    further,
    identity,
    open_folder,
    publish,
    read_manifest,
)
from transduce.model import Seq2Seq, build_model
from transduce.model.weights import load_weights
from transduce.recipe import Recipe
from transduce.recipe_files import dump_recipe, load_recipe
from transduce.training.report import Reporter
from transduce.training.validation import ValidationSet, load_validation_set

# What may differ when a training goes on: when it ends, and what it tells meanwhile.
FREE = (
    "training.epochs",
    "training.updates",
    "training.minutes",
    "training.patience",
    "training.report_every",
    "training.checkpoint_minutes",
    "training.threads",
    "training.cuda_graphs",
    "training.tensorboard",
    "data.test",
    "evaluation.bootstrap",
)
DATA = ("data.train", "data.valid")  # compared by content, since files may move
COVER = "decoder.attention.cover"  # the weights of coverage in attention
UPDATE = "training.accumulate"  # compared as part of how many batches make an update


@dataclass(frozen=True)
class Material:
    """Everything that is read but not changed by training."""

    source: SourceSide
    target: TextSide
    store: Store
    valid: ValidationSet
    fingerprint: str  # of the training and valid examples, in their order

    def name_examples(self, indices: Sequence[int]) -> list[str]:
        """File and line of training examples."""
        return [f"{file}:{line}" for file, line in map(self.store.where, indices)]


def load_material(recipe: Recipe, folder: Path, resumed: bool, reporter: Reporter) -> Material:
    """Tokenizers learnt (or, for a training that goes on, read), corpora prepared.

    Errors: DataError and UsageError as from the corpora; FolderError when the disk is full.
    """
    kind = recipe.source_kind
    corpora, valid = (
        open_corpora(split, kind, recipe.data.noise.gap)
        for split in (recipe.data.train, recipe.data.valid)
    )
    if resumed:
        source, target = load_sides(folder, recipe)
    else:
        reporter.status("learning the vocabulary")
        known = recipe.training.start is not None
        source, target = (take_sides if known else learn_sides)(recipe, corpora)
        save_sides(folder, source, target)
    if isinstance(source, SpeechSide) and recipe.training.ctc_consistency:
        source.views = 2
    store = prepare(
        corpora,
        source,
        target,
        recipe.data,
        cache_root() / "prepared",
        lambda read: reporter.status(f"preparing: {read:,} examples"),
    )
    dropped = ", ".join(f"{count:,} {reason}" for reason, count in store.dropped().items() if count)
    cut = ", ".join(f"{count:,} {side}s" for side, count in store.truncated().items())
    reporter.say(
        f"{len(store):,} training examples"
        + (f"; dropped: {dropped}" if dropped else "")
        + (f"; truncated: {cut}" if cut else "")
    )
    store.release()
    held_out = load_validation_set(recipe, valid, source, target)
    if held_out.without_loss:
        unit = "frames" if kind == "speech" else "tokens"
        reporter.say(
            f"{held_out.without_loss:,} valid examples, blank or longer than "
            f"{recipe.search.max_source:,} {unit}, count in the scores but not in the loss"
        )
    found = hashlib.sha256()
    for corpus in (*corpora, *valid):
        found.update(f"{corpus.fingerprint()} {corpus.options.weight}\n".encode())
    return Material(
        source,
        target,
        store,
        held_out,
        found.hexdigest(),
    )


def save_sides(folder: Path, source: SourceSide, target: TextSide) -> None:
    """Write both tokenizers, or what frames depend on, into a folder where none is in use."""
    (folder / LENGTHS).unlink(missing_ok=True)
    if isinstance(source, TextSide) and source.lengths is not None:
        sync(source.lengths.save(folder))
    for stem, side in (("source", source), ("target", target)):
        for extension in set(EXTENSIONS.values()):  # of another kind, from a broken-off start
            (folder / f"{stem}{extension}").unlink(missing_ok=True)
        sync(side.save(folder, stem))


def build(recipe: Recipe, material: Material, device: torch.device) -> Seq2Seq:
    """The model with its first weights, which depend on the recipe alone."""
    torch.manual_seed(recipe.training.seed)
    sizes = material.source.size, material.target.size
    source = material.source
    model = build_model(recipe.model, *sizes, bins_of(source), codes_of(source))
    return model.to(device)


def start_from(recipe: Recipe, model: Seq2Seq) -> None:
    """Fill a new model with the weights that the recipe says to begin with, if it does.

    Attention may look at the coverage where it did not before: its weights are zero at first, so
    that the model begins as what it was (See et al. 2017, section 5, add coverage so).
    Errors: FolderError where that folder is damaged, UsageError where its model is another one.
    """
    if recipe.training.start is None:
        return
    there = open_folder(recipe.training.start)
    mine, theirs = (_flat(one.model.model_dump(mode="json")) for one in (recipe, there.recipe))
    try:
        load_weights(model, there.weights, added=[COVER])
    except FolderError as error:
        differ = [
            f"model.{key}: {_show(theirs.get(key))} there, {_show(mine.get(key))} here"
            for key in sorted(mine.keys() | theirs.keys())
            if mine.get(key) != theirs.get(key) and "dropout" not in key
        ]
        raise UsageError(
            f"training.start: {error}"
            + (f". Options that differ: {'; '.join(differ)}" if differ else "")
        ) from None


# ------------------------------------------------------------------------------- the recipe


def check_same_recipe(recipe: Recipe, folder: Path, state: dict[str, Any], processes: int) -> None:
    """Make sure that the training in `folder` was started with this recipe.

    state: of its checkpoint; processes: how many would go on, which may be others than before as
    long as an update is of as many batches. Errors: UsageError listing the options that differ.
    """
    there = load_recipe(folder / RECIPE)
    before, now = (_flat(r.model_dump(mode="json")) for r in (there, recipe))
    ignored = (*FREE, *DATA, UPDATE)
    changed = [
        f"  {key}: {_show(before.get(key))} there, {_show(now.get(key))} here"
        for key in sorted(before.keys() | now.keys())
        if before.get(key) != now.get(key) and not key.startswith(ignored)
    ]
    # Checkpoints from before there were several processes do not say.
    then, each = state.get("processes", 1), recipe.training.accumulate
    batches = state.get("batches", there.training.accumulate)
    if batches != processes * each:
        if processes != then:
            raise UsageError(_other_update(folder, batches, then, processes, each))
        changed.append(f"  {UPDATE}: {batches // then} there, {each} here")
    if changed:
        raise UsageError(
            f"{folder}: holds a training of another recipe:\n" + "\n".join(changed) + "\n"
            "Go on with the recipe as it was, train into another folder, or start anew with "
            "`--fresh`. (When to stop, and how often to report, may change.)"
        )


def _other_update(folder: Path, batches: int, then: int, processes: int, each: int) -> str:
    same = f"{then} processes" if batches % processes else f"{UPDATE}={batches // processes}"
    return (
        f"{folder}: an update of the training there is of {batches} batches ({then} processes, "
        f"{UPDATE}={batches // then}), here it would be of {processes * each} ({processes} "
        f"processes, {UPDATE}={each}). Go on with {same}, train into another folder, or start "
        "anew with `--fresh`"
    )


def write_recipe(recipe: Recipe, folder: Path) -> None:
    """Write recipe.yaml; in a folder that can be opened already, together with its manifest."""
    data = dump_recipe(recipe).encode()
    path = folder / RECIPE
    if path.exists() and path.read_bytes() == data:
        return
    if not (folder / MANIFEST).exists():
        atomic_bytes(path, data)
        return
    manifest = read_manifest(folder)
    publish(folder, {RECIPE: data}, **identity(manifest), extra=further(manifest))


def check_free(recipe: Recipe, folder: Path) -> None:
    """Make sure that a new training in `folder` would overwrite nothing of value.

    Errors: FolderError when there is a model, or another recipe.
    """
    if (folder / MANIFEST).exists():
        raise FolderError(
            f"{folder}: holds a model but not the checkpoint ({LAST}/) from which its training "
            "could go on; train into another folder, or start anew with `--fresh`"
        )
    path = folder / RECIPE
    if path.exists() and path.read_bytes() != dump_recipe(recipe).encode():
        raise FolderError(
            f"{path}: is there already and would be overwritten; train into another folder, "
            "or start anew with `--fresh`"
        )


def _flat(tree: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in tree.items():
        if isinstance(value, dict):
            flat |= _flat(value, f"{prefix}{key}.")
        else:
            flat[f"{prefix}{key}"] = value
    return flat


def _show(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False)
