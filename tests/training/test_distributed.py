"""Several processes train one model: the one that a single process would have trained."""

from __future__ import annotations

import json
import multiprocessing
import os
import runpy
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from transduce.disk import lock
from transduce.errors import UsageError
from transduce.model.weights import read_tensors
from transduce.recipe import Recipe
from transduce.recipe_files import dump_recipe
from transduce.training.distributed import joined
from transduce.training.loop import train

from .conftest import MakeRecipe, rows_of

CHILD = Path(__file__).with_name("together.py")
PRELOADED = ["transduce.training.loop", "torch._dynamo", "matplotlib.backends.backend_agg"]
NO_DROPOUT: dict[str, Any] = {
    "embedding_dropout": 0.0,
    "output_dropout": 0.0,
    "encoder": {"size": 12, "dropout": 0.0},
    "decoder": {"size": 12, "dropout": 0.0},
}
SHORT: dict[str, Any] = {"epochs": 1.2, "validate_every": 0.5, "batch_tokens": 160}


def together(recipe: Recipe, folder: Path, mishap: str = "", count: int = 2) -> list[int]:
    """Train in so many processes; their exit codes, by rank."""
    path = folder.with_name(f"{folder.name}.yaml")
    path.write_text(dump_recipe(recipe))
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(PRELOADED)
    given = {"RECIPE": str(path), "FOLDER": str(folder), "COUNT": count, "PORT": port}
    processes = []
    for rank in range(count):
        own = given | {"RANK": rank, "MISHAP": mishap}
        processes.append(context.Process(target=runpy.run_path, args=(str(CHILD), own)))
        processes[-1].start()
    for process in processes:
        process.join(120)
        if process.exitcode is None:
            process.kill()
    return [process.exitcode if process.exitcode is not None else 99 for process in processes]


def said(folder: Path, rank: int) -> str:
    return folder.with_name(f"{folder.name}-{rank}.txt").read_text()


def weights_of(folder: Path) -> bytes:
    return (folder / "weights.safetensors").read_bytes()


def assert_alike(found: list[dict[str, Any]], expected: list[dict[str, Any]]) -> None:
    """The same reports and validations, up to the rounding of sums."""
    assert len(found) == len(expected)
    for row, other in zip(found, expected, strict=True):
        scores = other.get("scores", {})
        assert row.get("scores", {}) == pytest.approx(scores, rel=1e-4)
        plain = {key: value for key, value in other.items() if isinstance(value, float)}
        assert {key: row[key] for key in plain} == pytest.approx(plain, rel=1e-4)
        for key in other.keys() - plain.keys() - {"scores"}:
            assert row[key] == other[key]


@pytest.fixture(scope="module")
def plain(make_recipe: MakeRecipe) -> Recipe:
    """Without dropout, so that nothing depends on which process a batch is in."""
    return make_recipe(model=NO_DROPOUT, **SHORT)


@pytest.fixture(scope="module")
def alone(
    plain: Recipe, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Recipe, list[dict[str, Any]]]:
    """The recipe with two batches an update, and what one process reports of it."""
    training = plain.training.model_copy(update={"accumulate": 2})
    recipe = plain.model_copy(update={"training": training})
    folder = tmp_path_factory.mktemp("alone")
    train(recipe, folder, progress=False)
    rows = rows_of(folder)
    assert len([row for row in rows if row["kind"] == "validation"]) == 3
    return recipe, rows


@pytest.fixture(scope="module")
def noisy(
    make_recipe: MakeRecipe, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Recipe, list[dict[str, Any]], bytes]:
    """A recipe with random numbers and an average; what two processes make of it undisturbed."""
    recipe = make_recipe(ema=0.9, average=2, **SHORT)
    folder = tmp_path_factory.mktemp("two") / "noisy"
    assert together(recipe, folder) == [0, 0]
    return recipe, rows_of(folder), weights_of(folder)


def test_torchrun_trains_the_model_that_one_process_would(
    plain: Recipe, alone: tuple[Recipe, list[dict[str, Any]]], tmp_path: Path
) -> None:
    path = tmp_path / "recipe.yaml"
    path.write_text(dump_recipe(plain))
    run = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    command = ["-m", "transduce", "train", str(path), "--folder", str(tmp_path / "run")]
    found = subprocess.run(
        [sys.executable, *run, *command],
        capture_output=True,
        text=True,
        timeout=300,
        env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)},
    )
    assert found.returncode == 0, found.stderr
    assert found.stdout.count("model folder:") == 1, "only one process speaks"
    assert_alike(rows_of(tmp_path / "run"), alone[1])
    assert (tmp_path / "run" / "figures" / "curves.png").exists()


def test_three_processes_share_what_is_left_over(make_recipe: MakeRecipe, tmp_path: Path) -> None:
    """Neither the batches of an epoch nor the 20 valid examples can be divided by three."""
    recipe = make_recipe(model=NO_DROPOUT, **SHORT)
    assert together(recipe, tmp_path / "three", count=3) == [0, 0, 0]
    training = recipe.training.model_copy(update={"accumulate": 3})
    train(recipe.model_copy(update={"training": training}), tmp_path / "one", progress=False)
    assert_alike(rows_of(tmp_path / "three"), rows_of(tmp_path / "one"))


# ------------------------------------------------------------------------- stopping, going on


@pytest.mark.parametrize("mishap", ["terminated", "terminated_in_validation", "killed"])
def test_a_signal_to_one_stops_all_and_going_on_is_bit_equal(
    mishap: str, noisy: tuple[Recipe, list[dict[str, Any]], bytes], tmp_path: Path
) -> None:
    recipe, rows, weights = noisy
    folder = tmp_path / "run"
    codes = together(recipe, folder, mishap)
    if mishap == "killed":
        assert codes == [1, -9]
        assert "another process of this training has ended" in said(folder, 0)
    else:
        assert codes == [143, 143]
        assert "the same command goes on" in said(folder, 0)
        assert said(folder, 1).startswith("process 1: stopped at update")
    last = json.loads((folder / "last" / "state.json").read_text())
    assert (last["processes"], last["batches"]) == (2, 2)
    tensors = read_tensors(folder / "last" / last["tensors"]["file"])
    different = not torch.equal(tensors["random/cpu"], tensors["random/cpu/1"])
    assert different, "both processes draw the same dropout"
    assert len(rows_of(folder)) < len(rows)
    assert together(recipe, folder) == [0, 0]
    assert rows_of(folder) == rows
    assert weights_of(folder) == weights


def test_another_number_of_processes_goes_on_with_as_many_batches_an_update(
    plain: Recipe, alone: tuple[Recipe, list[dict[str, Any]]], tmp_path: Path
) -> None:
    recipe, rows = alone
    folder = tmp_path / "run"
    assert together(plain, folder, "terminated") == [143, 143]
    with pytest.raises(UsageError, match=r"of 2 batches .* Go on with training\.accumulate=2"):
        train(plain, folder, progress=False)
    train(recipe, folder, progress=False)
    assert_alike(rows_of(folder), rows)
    assert together(recipe, folder) == [2, 1]
    assert "Go on with training.accumulate=1" in said(folder, 0)


# -------------------------------------------------------------------------------- what goes wrong


def test_a_failure_in_one_ends_all(plain: Recipe, tmp_path: Path) -> None:
    assert together(plain, tmp_path / "run", "failing") == [1, 1]
    assert said(tmp_path / "run", 1) == "process 1: a mishap"
    assert "what the other said tells why" in said(tmp_path / "run", 0)


def test_a_folder_in_use_is_refused_to_all(plain: Recipe, tmp_path: Path) -> None:
    with lock(tmp_path / "run"):
        assert together(plain, tmp_path / "run") == [1, 1]
    assert "another training is writing here" in said(tmp_path / "run", 0)


def test_memory_that_is_short_in_one_changes_nothing(
    plain: Recipe, alone: tuple[Recipe, list[dict[str, Any]]], tmp_path: Path
) -> None:
    assert together(plain, tmp_path / "run", "short_of_memory") == [0, 0]
    assert_alike(rows_of(tmp_path / "run"), alone[1])


def test_a_loss_that_is_not_finite_in_one_is_skipped_by_all(plain: Recipe, tmp_path: Path) -> None:
    assert together(plain, tmp_path / "run", "not_finite") == [0, 0]
    reports = [row for row in rows_of(tmp_path / "run") if row["kind"] == "report"]
    assert [row["skipped"] for row in reports[:3]] == [0, 1, 1]
    assert reports[1]["loss"] is None
    assert all(0.0 < row["loss"] < 4.0 for row in reports[2:])


@pytest.mark.parametrize(
    ("device", "message"), [("auto", "more processes than GPUs"), ("cuda:0", "device `cuda:0`")]
)
def test_processes_do_not_share_a_gpu(
    device: str, message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    told = {"RANK": "1", "LOCAL_RANK": "1", "WORLD_SIZE": "2", "MASTER_ADDR": "-"}
    for name, value in (told | {"MASTER_PORT": "1"}).items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    monkeypatch.setattr(
        "transduce.training.distributed.find_device", lambda name: torch.device(name)
    )
    with pytest.raises(UsageError, match=message), joined(device):
        pass
