"""Stopping loses nothing: whatever stops a training, its losses are those of one never stopped."""

from __future__ import annotations

import json
import multiprocessing
import os
import random
import runpy
import signal
import time
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

import pytest

from transduce.errors import FolderError, UsageError
from transduce.folder import open_folder
from transduce.kernels import available
from transduce.recipe import Recipe
from transduce.recipe_files import dump_recipe
from transduce.training.checkpoint import best_checkpoints
from transduce.training.interruption import Interrupted
from transduce.training.loop import train
from transduce.training.update import Updater

from .conftest import MakeRecipe, rows_of

CHILD = Path(__file__).with_name("child.py")
EVERYTHING: dict[str, Any] = {
    "epochs": 3,
    "accumulate": 2,
    "ema": 0.9,
    "consistency": 1.0,
    "average": 2,
    "validate_every": 0.4,
    "report_every": 3,
    "schedule": {"kind": "plateau", "warmup": 5, "patience": 0},
}


@pytest.fixture(scope="module")
def everything(
    make_recipe: MakeRecipe, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Recipe, list[dict[str, Any]], bytes]:
    """A recipe with every part that has a state, its uninterrupted rows and its weights."""
    folder = tmp_path_factory.mktemp("uninterrupted")
    recipe = make_recipe(**EVERYTHING)
    train(recipe, folder, progress=False)
    return recipe, rows_of(folder), (folder / "weights.safetensors").read_bytes()


def stop_at(monkeypatch: pytest.MonkeyPatch, update: int, number: signal.Signals) -> None:
    """Send this process a signal in the middle of an update."""
    original = Updater.apply
    count = 0

    def apply(self: Updater, *arguments: Any) -> None:
        nonlocal count
        count += 1
        if count == update:
            os.kill(os.getpid(), number)
        original(self, *arguments)

    monkeypatch.setattr(Updater, "apply", apply)


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_signals_save_and_the_rest_is_bit_equal(
    number: signal.Signals,
    code: int,
    everything: tuple[Recipe, list[dict[str, Any]], bytes],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    recipe, rows, weights = everything
    for update in (1, 4, 6):
        with monkeypatch.context() as patch:
            stop_at(patch, update, number)
            with pytest.raises(Interrupted, match="the same command goes on") as raised:
                train(recipe, tmp_path, progress=False)
        assert raised.value.exit_code == code
    train(recipe, tmp_path, progress=False)
    assert rows_of(tmp_path) == rows
    assert (tmp_path / "weights.safetensors").read_bytes() == weights


@pytest.mark.parametrize("precision", ["fp32", *(["int8"] if available() else [])])
def test_what_chance_decides_goes_on_bit_equal(
    precision: str, make_recipe: MakeRecipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Segmentation, dropout, and, in 8 bits, rounding."""
    tokenizer = {"kind": "bpe", "size": 24, "dropout": 0.3}
    recipe = make_recipe(tokenizer=tokenizer, epochs=2, precision=precision)
    train(recipe, tmp_path / "whole", progress=False)
    with monkeypatch.context() as patch:
        stop_at(patch, 7, signal.SIGTERM)
        with pytest.raises(Interrupted):
            train(recipe, tmp_path / "parts", progress=False)
    train(recipe, tmp_path / "parts", progress=False)
    assert rows_of(tmp_path / "parts") == rows_of(tmp_path / "whole")


def test_a_signal_breaks_a_validation_off_and_it_is_done_again(
    everything: tuple[Recipe, list[dict[str, Any]], bytes],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    recipe, rows, weights = everything
    with monkeypatch.context() as patch:
        import transduce.training.validation as module

        def decode(*_: Any, **__: Any) -> None:
            os.kill(os.getpid(), signal.SIGINT)
            time.sleep(5)
            pytest.fail("the signal did not break the validation off")

        patch.setattr(module, "decode", decode)
        with pytest.raises(Interrupted):
            train(recipe, tmp_path, progress=False)
    train(recipe, tmp_path, progress=False)
    assert rows_of(tmp_path) == rows
    assert (tmp_path / "weights.safetensors").read_bytes() == weights


def test_a_second_signal_does_not_wait_and_does_not_spoil_the_checkpoint(
    everything: tuple[Recipe, list[dict[str, Any]], bytes],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    recipe, rows, _ = everything
    with monkeypatch.context() as patch:

        def gradients(self: Updater, *_: Any) -> None:
            os.kill(os.getpid(), signal.SIGINT)
            os.kill(os.getpid(), signal.SIGINT)
            pytest.fail("two signals should have stopped it")

        patch.setattr(Updater, "_gradients", gradients)
        with pytest.raises(Interrupted):
            train(recipe, tmp_path, progress=False)
    train(recipe, tmp_path, progress=False)
    assert rows_of(tmp_path) == rows


# --------------------------------------------------------------------------------- SIGKILL


PRELOADED = ["transduce.training.loop", "torch._dynamo", "matplotlib.backends.backend_agg"]


def start(recipe: Path, folder: Path, kill_at: int = -1) -> BaseProcess:
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(PRELOADED)
    given = {"RECIPE": str(recipe), "FOLDER": str(folder), "KILL_AT": kill_at}
    process = context.Process(target=runpy.run_path, args=(str(CHILD), given))
    process.start()
    return process


def finished(process: BaseProcess) -> int:
    process.join(120)
    assert process.exitcode is not None
    return process.exitcode


def test_sigkill_at_any_moment_and_the_rest_is_bit_equal(
    everything: tuple[Recipe, list[dict[str, Any]], bytes], tmp_path: Path
) -> None:
    recipe, rows, weights = everything
    often = recipe.training.model_copy(update={"checkpoint_minutes": 1e-9})  # at every update
    path, folder = tmp_path / "recipe.yaml", tmp_path / "run"
    path.write_text(dump_recipe(recipe.model_copy(update={"training": often})))
    draw = random.Random(5)
    for _ in range(5):  # at random times
        process = start(path, folder)
        process.join(draw.uniform(0.1, 0.9))
        process.kill()
        process.join()
        openable(folder)
    for _ in range(5):  # before a random change of names on the disk, where it would hurt most
        if finished(start(path, folder, kill_at=draw.randint(1, 60))) == 0:
            break
        openable(folder)
    assert finished(start(path, folder)) == 0
    assert rows_of(folder) == rows
    assert (folder / "weights.safetensors").read_bytes() == weights
    assert not list(folder.rglob(".*.tmp")), "a temporary file was left"


def openable(folder: Path) -> None:
    if (folder / "manifest.json").exists():
        open_folder(folder)


# ------------------------------------------------------------------------------ going on


def test_an_ended_training_goes_on_when_its_end_is_put_off(
    make_recipe: MakeRecipe, tmp_path: Path
) -> None:
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    train(make_recipe(epochs=3), whole, progress=False)
    train(make_recipe(epochs=1), parts, progress=False)
    assert train(make_recipe(epochs=1), parts, progress=False).epochs == 1.0  # nothing to do
    train(make_recipe(epochs=3, report_every=1), parts, progress=False)
    assert rows_of(parts) == rows_of(whole)
    assert open_folder(parts).recipe.training.epochs == 3


def test_another_recipe_is_refused_and_the_options_named(
    make_recipe: MakeRecipe, tmp_path: Path
) -> None:
    train(make_recipe(updates=2), tmp_path, progress=False)
    other = make_recipe(updates=3, learning_rate=0.02, model={"embedding": 16})
    with pytest.raises(UsageError) as raised:
        train(other, tmp_path, progress=False)
    message = str(raised.value)
    assert "training.learning_rate: 0.01 there, 0.02 here" in message
    assert "model.embedding: 12 there, 16 here" in message
    assert "training.updates" not in message
    assert "--fresh" in message


def test_other_data_is_refused(make_recipe: MakeRecipe, tmp_path: Path) -> None:
    recipe = make_recipe(updates=2)
    corpus = recipe.data.train[0]
    moved = {}
    for side in ("source", "target"):
        moved[side] = str(tmp_path / side)
        Path(moved[side]).write_bytes(Path(str(getattr(corpus, side))).read_bytes())
    data = recipe.data.model_copy(update={"train": [corpus.model_copy(update=moved)]})
    recipe = recipe.model_copy(update={"data": data})
    train(recipe, tmp_path / "run", progress=False)
    train(recipe, tmp_path / "run", progress=False)
    with open(moved["source"], "a") as stream, open(moved["target"], "a") as other:
        stream.write("a b\n")
        other.write("b a\n")
    with pytest.raises(UsageError, match="have changed"):
        train(recipe, tmp_path / "run", progress=False)


def test_a_vocabulary_that_no_longer_fits_is_named(make_recipe: MakeRecipe, tmp_path: Path) -> None:
    train(make_recipe(updates=1), tmp_path, progress=False)
    path = tmp_path / "target.json"
    tree = json.loads(path.read_text())
    path.write_text(json.dumps({**tree, "symbols": [*tree["symbols"], "new"]}))
    with pytest.raises(FolderError, match=r"`model/target_embedding\.weight` should be \(11, 12\)"):
        train(make_recipe(updates=2), tmp_path, progress=False)


def test_the_measured_precision_is_kept(
    make_recipe: MakeRecipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import transduce.training.precision as module

    chosen = iter([("bf16", "measured"), ("fp32", "must not be asked again")])
    monkeypatch.setattr(module, "choose_precision", lambda *_: next(chosen))
    train(make_recipe(updates=2, precision="auto"), tmp_path, progress=False)
    train(make_recipe(updates=3, precision="auto"), tmp_path, progress=False)
    state = json.loads((tmp_path / "last" / "state.json").read_text())
    assert state["precision"] == "bf16"


@pytest.mark.skipif(not available(), reason="no kernels on this machine")
def test_a_training_in_int8_goes_on_without_it(
    make_recipe: MakeRecipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import transduce.training.precision as module

    train(make_recipe(updates=2, precision="int8"), tmp_path, progress=False)
    monkeypatch.setattr(module, "available", lambda: False)
    train(make_recipe(updates=3, precision="int8"), tmp_path, progress=False)
    state = json.loads((tmp_path / "last" / "state.json").read_text())
    assert state["precision"] == "bf16" and state["loop"]["update"] == 3


def test_measuring_the_precision_changes_nothing(make_recipe: MakeRecipe, tmp_path: Path) -> None:
    train(make_recipe(updates=3, precision="auto"), tmp_path / "auto", progress=False)
    state = json.loads((tmp_path / "auto" / "last" / "state.json").read_text())
    same = make_recipe(updates=3, precision=state["precision"])
    train(same, tmp_path / "said", progress=False)
    assert rows_of(tmp_path / "auto") == rows_of(tmp_path / "said")


def test_minutes_count_over_all_parts(make_recipe: MakeRecipe, tmp_path: Path) -> None:
    recipe = make_recipe(minutes=0.02)
    result = train(recipe, tmp_path, progress=False)
    assert result.minutes >= 0.02
    assert train(recipe, tmp_path, progress=False).updates == result.updates


def test_the_best_checkpoints_are_kept_best_first(
    everything: tuple[Recipe, list[dict[str, Any]], bytes], tmp_path: Path
) -> None:
    recipe, rows, _ = everything
    train(recipe, tmp_path, progress=False)
    kept = best_checkpoints(tmp_path)
    validated = {
        row["update"]: row["scores"]["accuracy"]
        for row in rows
        if row["kind"] == "validation" and "averaged" not in row
    }
    values = [validated[int(path.stem.split("-")[1])] for path in kept]
    assert len(kept) == 2
    assert values == sorted(validated.values(), reverse=True)[:2]
    assert sorted(path.name for path in (tmp_path / "last").glob("best-*")) == sorted(
        path.name for path in kept
    )


def test_patience_stops(make_recipe: MakeRecipe, tmp_path: Path) -> None:
    recipe = make_recipe(patience=3, validate_every=0.1, learning_rate=1e-9)
    result = train(recipe, tmp_path, progress=False)
    assert "no better accuracy in 3 validations" in result.reason
