"""`train` and `average`."""

from __future__ import annotations

from pathlib import Path

from transduce.commands.showing import console, table
from transduce.data.corpus import open_corpora
from transduce.disk import lock
from transduce.errors import FolderError, UsageError
from transduce.folder import (
    LAST,
    RECIPE,
    WEIGHTS,
    further,
    identity,
    is_unused,
    open_folder,
    publish,
    remove_temporary,
    remove_training,
)
from transduce.model.device import find_device
from transduce.model.weights import tensor_bytes
from transduce.recipe_files import load_recipe
from transduce.training.averaging import average_weights
from transduce.training.checkpoint import best_checkpoints
from transduce.training.distributed import is_first
from transduce.training.loop import train
from transduce.training.shortlisting import make_shortlist


def run_train(
    recipe: Path, overrides: list[str], folder: Path | None, *, fresh: bool, device: str
) -> None:
    """Train what the recipe describes, in `folder` or else in runs/ under the recipe's name.

    Of several processes (see `training.distributed`) the first one clears the folder and reports.
    """
    loaded = load_recipe(recipe, overrides)
    folder = folder if folder is not None else Path("runs") / _stem(recipe)
    if fresh and is_first():
        # A mistake in the command must not cost the former training.
        find_device(device)
        open_corpora([*loaded.data.train, *loaded.data.valid], loaded.source_kind)
        start_anew(folder)
    result = train(loaded, folder, device=device)
    if not is_first():
        return
    out = console()
    out.print(
        f"ended after {result.reason}: {result.updates:,} updates, {result.minutes:.1f} minutes, "
        f"{result.tokens_per_second:,.0f} target tokens/s; "
        f"valid {result.metric} {result.value:.2f}",
        markup=False,
    )
    # A language model answers nothing that could be evaluated.
    then = f"score {folder} FILE" if loaded.task == "language" else f"evaluate {folder}"
    out.print(f"model folder: {folder}\nnext: transduce {then}", markup=False)


def start_anew(folder: Path) -> None:
    """Remove what a former training left in a folder, and nothing else.

    Errors: FolderError when another training is writing there.
    """
    if not folder.exists():
        return
    if not folder.is_dir():
        raise FolderError(f"{folder}: is a file; a model needs a folder")
    with lock(folder):
        remove_training(folder)


def _stem(recipe: Path) -> str:
    # A model folder's own recipe is trained again under the folder's name.
    return recipe.absolute().parent.name if recipe.name == RECIPE else recipe.stem


def run_average(model: Path, count: int, output: Path | None) -> None:
    """Write a new model folder whose weights are the mean of the best checkpoints of `model`."""
    opened = open_folder(model)
    kept = best_checkpoints(model)
    if not kept:
        raise UsageError(
            f"{model / LAST}: holds no kept checkpoints; "
            "train with training.average=N to keep the N best"
        )
    if count > len(kept):
        raise UsageError(
            f"{model}: only {len(kept)} checkpoints were kept; use -n {len(kept)}, "
            f"or train with training.average={count}"
        )
    chosen = kept[:count]
    output = output if output is not None else model.with_name(f"{model.resolve().name}-average")
    if output.exists() and not (output.is_dir() and is_unused(output)):
        raise UsageError(f"{output}: exists already; choose another folder with --output")
    files = {
        name: (model / name).read_bytes()
        for name in opened.manifest["files"]
        if not name.startswith("weights.")
    }
    files[WEIGHTS] = tensor_bytes(average_weights(chosen))
    averaged = further(opened.manifest) | {"averaged": [path.name for path in chosen]}
    with lock(output):
        remove_temporary(output)
        publish(output, files, **identity(opened.manifest), extra=averaged)
    names = ", ".join(path.stem for path in chosen)
    console().print(f"{output}: the mean of {count} checkpoints ({names})", markup=False)


def run_shortlist(model: Path, candidates: int, frequent: int) -> None:
    """Make a model folder's shortlist, and tell how much of the valid references it covers."""
    folder = open_folder(model)
    with lock(model):
        remove_temporary(model)
        found = make_shortlist(folder, candidates, frequent, lambda _: None)
    rows = [[f"{c.count}", f"{c.words:,.0f}", f"{100 * c.share:.2f} %"] for c in found]
    out = console()
    out.print(
        table(
            ["search.shortlist", "words a sentence", "of reference tokens"], rows, right=(0, 1, 2)
        )
    )
    out.print(
        f"next: transduce evaluate {model} --search shortlist={found[-1].count}", markup=False
    )
