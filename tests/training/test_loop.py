"""A training leaves a folder that can be used, and refuses what would spoil one."""

from __future__ import annotations

import os
import resource
from pathlib import Path
from typing import Any

import pytest
import torch
from rich.console import Console

from transduce.data.text import TextSide
from transduce.disk import lock
from transduce.errors import DataError, FolderError, TrainingError, UsageError
from transduce.folder import open_folder
from transduce.model import build_model
from transduce.model.weights import load_weights
from transduce.search.decode import decode
from transduce.training.loop import train
from transduce.training.losses import sequence_loss
from transduce.training.report import read_metrics
from transduce.training.update import Updater

from .conftest import MakeRecipe, rows_of

WELL: dict[str, Any] = {
    "epochs": 12,
    "learning_rate": 0.02,
    "label_smoothing": 0.0,
    "report_every": 20,
    "validate_every": 4.0,
    "model": {"embedding": 16, "encoder": {"size": 32, "dropout": 0.0}, "decoder": {"size": 32}},
}


def test_the_folder_holds_a_model_that_has_learnt(make_recipe: MakeRecipe, tmp_path: Path) -> None:
    result = train(make_recipe(**WELL), tmp_path, progress=False)
    assert result.metric == "accuracy"
    assert result.value >= 60.0
    assert result.epochs == 12.0
    opened = open_folder(tmp_path)
    assert opened.manifest["trained"]["valid"]["accuracy"] == result.value
    source = TextSide.load(opened.path, "source", opened.recipe.source)
    target = TextSide.load(opened.path, "target", opened.recipe.target)
    model = build_model(opened.recipe.model, source.size, target.size)
    load_weights(model, opened.weights)
    found = next(iter(decode(model, [source.encode("a b c")], opened.recipe.search)))
    assert target.decode(found[0].ids) == "c b a"
    assert (tmp_path / "figures" / "curves.png").stat().st_size > 1000


def test_training_with_consistency_learns_too(make_recipe: MakeRecipe, tmp_path: Path) -> None:
    model = {"embedding": 16, "encoder": {"size": 32}, "decoder": {"size": 32, "dropout": 0.1}}
    recipe = make_recipe(**(WELL | {"consistency": 1.0, "model": model}))
    result = train(recipe, tmp_path, progress=False)
    assert result.value >= 50.0
    rows = [row for row in rows_of(tmp_path) if row["kind"] == "report"]
    assert all(row["loss"] > row["nll"] for row in rows)  # no smoothing: the rest is divergence
    assert rows[-1]["nll"] < rows[0]["nll"]


def test_the_weights_are_those_of_the_best_validation(
    make_recipe: MakeRecipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import transduce.training.selection as module

    losses = iter([3.0, 1.0, 2.0])
    original = module.validate

    def validate(*arguments: Any) -> Any:
        found = original(*arguments)
        object.__setattr__(found, "loss", next(losses))
        return found

    monkeypatch.setattr(module, "validate", validate)
    recipe = make_recipe(epochs=3, metric="loss")
    result = train(recipe, tmp_path, progress=False)
    assert result.value == 1.0
    trained = open_folder(tmp_path).manifest["trained"]
    assert trained["epoch"] == 2.0
    best = [row["best"] for row in rows_of(tmp_path) if row["kind"] == "validation"]
    assert best == [True, True, False]


def test_a_report_says_what_was_computed(make_recipe: MakeRecipe, tmp_path: Path) -> None:
    recipe = make_recipe(updates=4, report_every=2)
    train(recipe, tmp_path, progress=False)
    rows = [row for row in read_metrics(tmp_path) if row["kind"] == "report"]
    assert [row["update"] for row in rows] == [2, 4]
    assert [row["learning_rate"] for row in rows] == pytest.approx([0.002, 0.004])
    for row in rows:
        assert 0.0 < row["nll"] < 4.0
        assert row["loss"] != row["nll"]  # smoothed
        assert row["gradient_norm"] > 0.0
        assert row["tokens_per_second"] > 0.0
        assert row["memory_mib"] > 10.0


def test_plain_lines_where_there_is_no_terminal(
    make_recipe: MakeRecipe, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    train(make_recipe(updates=2), tmp_path, console=Console(force_terminal=False))
    lines = capsys.readouterr().out.splitlines()
    assert any(line.startswith("update 1  epoch ") and "tokens/s" in line for line in lines)
    assert any(line.startswith("validation  update 2") for line in lines)
    train(make_recipe(updates=4), tmp_path, console=Console(force_terminal=True))
    assert "going on from update 2" in capsys.readouterr().out


def test_tensorboard_gets_its_events(make_recipe: MakeRecipe, tmp_path: Path) -> None:
    pytest.importorskip("tensorboard")
    train(make_recipe(updates=2, tensorboard=True), tmp_path, progress=False)
    assert list((tmp_path / "tensorboard").glob("events.*"))


def test_a_cosine_reaches_its_end(make_recipe: MakeRecipe, tmp_path: Path) -> None:
    schedule = {"kind": "cosine", "warmup": 0, "final": 0.1}
    train(make_recipe(updates=5, schedule=schedule), tmp_path, progress=False)
    rates = [row["learning_rate"] for row in rows_of(tmp_path) if row["kind"] == "report"]
    assert rates == sorted(rates, reverse=True)
    assert rates[-1] == pytest.approx(0.001)


# -------------------------------------------------------------------------------- what goes wrong


def test_two_trainings_on_one_folder(make_recipe: MakeRecipe, tmp_path: Path) -> None:
    with lock(tmp_path), pytest.raises(FolderError, match=f"process {os.getpid()}"):
        train(make_recipe(updates=1), tmp_path, progress=False)
    train(make_recipe(updates=1), tmp_path, progress=False)


def test_a_full_disk_stops_the_training_and_it_goes_on_later(
    make_recipe: MakeRecipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = make_recipe(epochs=2)
    train(recipe, tmp_path / "whole", progress=False)
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    original, updates = Updater.apply, 0

    def apply(self: Updater, *arguments: Any) -> None:
        nonlocal updates
        original(self, *arguments)
        updates += 1
        if updates == 5:
            resource.setrlimit(resource.RLIMIT_FSIZE, (8000, limits[1]))

    with monkeypatch.context() as patch:
        patch.setattr(Updater, "apply", apply)
        try:
            with pytest.raises(FolderError, match="the disk is full"):
                train(recipe, tmp_path / "run", progress=False)
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert updates > 5
    train(recipe, tmp_path / "run", progress=False)
    assert rows_of(tmp_path / "run") == rows_of(tmp_path / "whole")


def test_a_loss_that_stays_nan_stops_and_names_the_lines(
    make_recipe: MakeRecipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import transduce.training.update as module

    def nan(*arguments: Any) -> Any:
        found = sequence_loss(*arguments)
        object.__setattr__(found, "loss", found.loss * float("nan"))
        return found

    monkeypatch.setattr(module, "sequence_loss", nan)
    with pytest.raises(TrainingError, match=r"20 updates in a row.*train-True\.source:\d+"):
        train(make_recipe(epochs=9), tmp_path, progress=False)
    rows = [row for row in rows_of(tmp_path) if row["kind"] == "report"]
    assert rows[-1]["skipped"] == len(rows)


def test_a_damaged_checkpoint_is_named(make_recipe: MakeRecipe, tmp_path: Path) -> None:
    recipe = make_recipe(updates=1)
    train(recipe, tmp_path, progress=False)
    state = tmp_path / "last" / "state.json"
    (tensors,) = (tmp_path / "last").glob("checkpoint-*")
    content = tensors.read_bytes()
    for damaged, message in ((content[:-9], "truncated"), (b"?" + content[1:], "altered")):
        tensors.write_bytes(damaged)
        with pytest.raises(FolderError, match=f"{tensors.name}: {message}.*--fresh"):
            train(recipe, tmp_path, progress=False)
    tensors.unlink()
    with pytest.raises(FolderError, match=f"{tensors.name}: missing"):
        train(recipe, tmp_path, progress=False)
    state.write_text("{")
    with pytest.raises(FolderError, match=r"state\.json: cannot be read"):
        train(recipe, tmp_path, progress=False)


def test_a_model_without_its_checkpoint_is_not_overwritten(
    make_recipe: MakeRecipe, tmp_path: Path
) -> None:
    recipe = make_recipe(updates=1)
    train(recipe, tmp_path, progress=False)
    for path in (tmp_path / "last").iterdir():
        path.unlink()
    with pytest.raises(FolderError, match=r"holds a model but not the checkpoint.*--fresh"):
        train(recipe, tmp_path, progress=False)
    open_folder(tmp_path)


def test_files_of_others_in_the_folder_stay(make_recipe: MakeRecipe, tmp_path: Path) -> None:
    (tmp_path / "source.en").write_text("mine")
    train(make_recipe(updates=1), tmp_path, progress=False)
    assert (tmp_path / "source.en").read_text() == "mine"
    (tmp_path / "own").mkdir()
    (tmp_path / "own" / "recipe.yaml").write_text("# mine")
    with pytest.raises(FolderError, match="would be overwritten"):
        train(make_recipe(updates=1), tmp_path / "own", progress=False)


def test_a_damaged_tokenizer_is_named(make_recipe: MakeRecipe, tmp_path: Path) -> None:
    train(make_recipe(updates=1), tmp_path, progress=False)
    (tmp_path / "source.json").write_text("{")
    with pytest.raises(DataError, match=r"source\.json"):
        train(make_recipe(updates=2), tmp_path, progress=False)


def test_an_unknown_device_is_told(make_recipe: MakeRecipe, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="device `quantum`"):
        train(make_recipe(updates=1), tmp_path, progress=False, device="quantum")


def test_the_first_weights_depend_on_the_seed_alone(
    make_recipe: MakeRecipe, tmp_path: Path
) -> None:
    rows = []
    for number, seed in enumerate((1, 1, 2)):
        torch.manual_seed(number)
        train(make_recipe(updates=2, seed=seed), tmp_path / str(number), progress=False)
        rows.append(rows_of(tmp_path / str(number)))
    assert rows[0] == rows[1]
    assert rows[0] != rows[2]
