"""A GPU computes what a processor does, and is never waited for inside an update."""

from __future__ import annotations

import copy
import io
import json
import os
import subprocess
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
from rich.console import Console
from torch import Tensor

import transduce
from transduce.data.batches import Batch
from transduce.model import Seq2Seq
from transduce.model.packing import pack
from transduce.recipe import Recipe, SearchOptions, TrainingOptions
from transduce.recipe_files import dump_recipe
from transduce.search.decode import decode, decode_batch, force_score
from transduce.training.graphs import refusing_to_wait
from transduce.training.loop import train
from transduce.training.losses import sequence_loss
from transduce.training.precision import has_bf16
from transduce.training.update import Updater

from .conftest import MODELS, ROWS, batch_of, make_model

pytestmark = pytest.mark.gpu
every_model = pytest.mark.parametrize("name", MODELS)


@contextmanager
def exact() -> Iterator[None]:
    """No TF32 in cuDNN either; elsewhere it is off unless training switches it on."""
    if not torch.cuda.is_available():
        yield
        return
    with torch.backends.cudnn.flags(allow_tf32=False):
        yield


def make_updater(model: Seq2Seq, precision: str = "fp32", **training: Any) -> Updater:
    said: list[str] = []
    options = TrainingOptions.model_validate({"updates": 10} | training)
    updater = Updater(model, options, precision, lambda rows: [f"row {r}" for r in rows], print)
    updater._warn = said.append
    updater.said = said  # type: ignore[attr-defined]
    return updater


def gradients(model: Seq2Seq, precision: str = "fp32") -> dict[str, Tensor]:
    """The gradient of every parameter for the same batch, on the CPU, and the loss."""
    updater = make_updater(model.train(), precision)
    loss, *_ = updater._gradients([batch_of(ROWS)], 100)
    found = {k: p.grad.cpu() for k, p in model.named_parameters() if p.grad is not None}
    return found | {"loss": loss.cpu()}


def rows_of(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


# ------------------------------------------------------------------------------------ the model


@every_model
def test_loss_and_gradients_are_those_of_the_processor(name: str, device: torch.device) -> None:
    model = make_model(name)
    with exact():
        found = gradients(copy.deepcopy(model).to(device))
    expected = gradients(model)
    assert found.keys() == expected.keys()
    for key, value in expected.items():
        torch.testing.assert_close(found[key], value, rtol=1e-3, atol=1e-5, msg=key)


@every_model
def test_bf16_gradients_point_where_those_of_fp32_do(name: str, device: torch.device) -> None:
    if not has_bf16(device):
        pytest.skip("needs bf16")
    model = make_model(name).to(device)
    found, expected = gradients(model, "bf16"), gradients(model)
    torch.testing.assert_close(found["loss"], expected["loss"], rtol=2e-2, atol=0.0)
    for key in expected.keys() - {"loss"}:
        assert found[key].dtype == torch.float32
        together = torch.cosine_similarity(found[key].flatten(), expected[key].flatten(), dim=0)
        assert together > 0.95 or expected[key].norm() < 1e-3 * expected["loss"], key


def test_recurrent_layers_are_never_given_fp16(device: torch.device) -> None:
    """Gradients of a mean over thousands of tokens would vanish in it."""
    model = make_model("lstm").to(device)
    batch = batch_of(ROWS).to(device)
    with torch.autocast(device.type, torch.bfloat16):
        outputs, _ = model.decoder.layers[0](model.target_embedding(batch.target_input))
        memory = model.encode(batch.source, batch.source_lengths)
    assert outputs.dtype != torch.float16
    assert memory.values.dtype != torch.float16


@every_model
@pytest.mark.parametrize("beam", [1, 4])
@pytest.mark.parametrize("refill", [False, True])
def test_decoding_finds_what_the_processor_finds(
    name: str, beam: int, refill: bool, device: torch.device
) -> None:
    model = make_model(name).eval()
    with torch.no_grad():
        model.output.bias.normal_(0.0, 2.0)  # no ties
    options = SearchOptions(beam=beam, max_extra=2)
    expected = list(decode(model, ROWS, options))
    if refill:
        options = options.model_copy(update={"refill": True, "batch_tokens": 60 * beam})
    with exact():
        found = list(decode(copy.deepcopy(model).to(device), ROWS, options, device=device))
    same = 0
    for ours, theirs in zip(found, expected, strict=True):
        assert ours[0].score == pytest.approx(theirs[0].score, abs=1e-3)
        same += ours[0].ids == theirs[0].ids
        if ours[0].ids == theirs[0].ids and theirs[0].attention is not None:
            assert ours[0].attention == pytest.approx(theirs[0].attention, abs=1e-3)
    assert same >= 0.97 * len(ROWS)


@every_model
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_the_inference_form_scores_as_the_processor_does(
    name: str, precision: Any, device: torch.device
) -> None:
    if precision == "bf16" and not has_bf16(device):
        pytest.skip("needs bf16")
    model = make_model(name).eval()
    expected = force_score(model, ROWS, ROWS[::-1])
    packed = pack(copy.deepcopy(model).to(device), precision)
    with exact():
        found = force_score(packed, ROWS, ROWS[::-1], device=device)
    within = 1e-3 if precision == "fp32" else 0.05  # of a token
    for ours, theirs in zip(found, expected, strict=True):
        assert ours.token_scores == pytest.approx(theirs.token_scores, abs=within)
    assert decode_batch(packed, ROWS[:9], SearchOptions(beam=2), device=device)


# ----------------------------------------------------------------------------------- an update


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize("name", [name for name in MODELS if name != "copy"])
def test_an_update_waits_for_nothing(name: str, precision: str, device: torch.device) -> None:
    """`copy` asks cuDNN for packed sequences, whose lengths the processor must know."""
    if device.type != "cuda":
        pytest.skip("a processor always waits")
    updater = make_updater(make_model(name, dropout=0.3).to(device), precision, ema=0.9)
    batch = batch_of(ROWS).pinned()
    for _ in range(3):
        updater.apply([batch], 0.01)
    torch.cuda.synchronize()
    refusing_to_wait(lambda: updater.apply([batch, batch], 0.01))
    assert updater.take_window().updates == 4


@pytest.mark.parametrize("kind", ["adamw", "adam", "sgd"])
def test_an_update_that_is_not_finite_changes_nothing(kind: str, device: torch.device) -> None:
    optimizer = {"kind": kind, "momentum": 0.9}
    updater = make_updater(make_model("lstm").to(device), optimizer=optimizer)
    updater.apply([batch_of(ROWS)], 0.01)
    before = [p.detach().clone() for p in updater.parameters]
    good = updater._gradients

    def poisoned(*arguments: Any) -> tuple[Tensor, Tensor]:
        loss, nll = good(*arguments)
        return loss * float("nan"), nll

    updater._gradients = poisoned  # type: ignore[method-assign]
    updater.apply([batch_of(ROWS)], 0.01)
    for parameter, was in zip(updater.parameters, before, strict=True):
        assert torch.equal(parameter, was)
    window = updater.take_window()
    assert (window.updates, window.skipped) == (1, 1)


def test_a_batch_that_does_not_fit_goes_in_halves(device: torch.device) -> None:
    if device.type != "cuda":
        pytest.skip("needs the memory of a GPU")
    draw = torch.Generator().manual_seed(1)
    rows = torch.randint(4, 8, (2048, 60), generator=draw).tolist()
    batch = batch_of(rows)
    updater = make_updater(make_model("lstm").to(device))
    torch.cuda.empty_cache()
    base = torch.cuda.memory_reserved()
    torch.cuda.reset_peak_memory_stats()
    updater.apply([batch], 0.0)
    whole = torch.cuda.max_memory_reserved() - base
    updater.optimizer.zero_grad(set_to_none=True)
    torch.cuda.empty_cache()
    total = torch.cuda.get_device_properties(device).total_memory
    torch.cuda.set_per_process_memory_fraction((base + 0.8 * whole) / total)
    try:
        updater.apply([batch], 0.0)
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0)
    assert len(updater.said) == 1  # type: ignore[attr-defined]
    window = updater.take_window()
    assert window.tokens == 2 * batch.tokens
    with torch.no_grad():
        alone = sequence_loss(updater.model, batch.to(device), 0.1).loss
    assert window.loss == pytest.approx(2 * float(alone), rel=1e-3)


# ---------------------------------------------------------------------------------- CUDA graphs


# Three of one shape come before it is recorded, so the others are replayed.
LIKE = [ROWS[n : n + 60] for n in range(8)]
steady = pytest.mark.parametrize("name", [name for name in MODELS if name != "copy"])


def with_graphs(model: Seq2Seq, device: torch.device, precision: str = "fp32") -> Updater:
    updater = make_updater(model.to(device), precision, cuda_graphs=True)
    assert (updater.graphs is not None) == (device.type == "cuda")
    return updater


def recorded(updater: Updater) -> int:
    """How many shapes are; on a processor, where none can be, as if one were."""
    return 1 if updater.graphs is None else len(updater.graphs)


def updates(updater: Updater, batches: list[Batch], seed: int = 7) -> list[Tensor]:
    """The weights after some updates, on the CPU."""
    torch.manual_seed(seed)
    for batch in batches:
        updater.apply([batch], 0.01)
    return [p.detach().cpu() for p in updater.parameters]


@steady
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_replayed_gradients_are_those_of_an_eager_pass(
    name: str, precision: str, device: torch.device
) -> None:
    if precision == "bf16" and not has_bf16(device):
        pytest.skip("needs bf16")
    model = make_model(name)
    graphs = with_graphs(copy.deepcopy(model).train(), device, precision)
    plain = make_updater(model.train().to(device), precision)
    with exact():
        for rows in LIKE:
            batch = batch_of(rows)
            sums, expected = (one._gradients([batch, batch], 200) for one in (graphs, plain))
            torch.testing.assert_close(sums, expected, rtol=2e-2, atol=0.0)
            for ours, theirs in zip(graphs.parameters, plain.parameters, strict=True):
                assert (ours.grad is None) == (theirs.grad is None)
                if ours.grad is None or theirs.grad is None:
                    continue
                if precision == "fp32":
                    torch.testing.assert_close(ours.grad, theirs.grad, rtol=1e-3, atol=1e-5)
                elif theirs.grad.norm() > 1e-4:
                    flat = ours.grad.flatten(), theirs.grad.flatten()
                    assert torch.cosine_similarity(*flat, dim=0) > 0.98
    assert recorded(graphs) >= 1
    assert not graphs.said  # type: ignore[attr-defined]


def test_replays_draw_the_random_numbers_of_eager_passes(device: torch.device) -> None:
    weights = []
    for seen in (3, 1000):
        updater = with_graphs(make_model("lstm", dropout=0.3), device)
        if updater.graphs is not None:
            updater.graphs._enough = seen
        weights.append(updates(updater, [batch_of(rows) for rows in LIKE]))
    for one, other in zip(*weights, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-2, atol=1e-3)


@steady
def test_a_replayed_update_waits_for_nothing(name: str, device: torch.device) -> None:
    if device.type != "cuda":
        pytest.skip("a processor always waits")
    updater = with_graphs(make_model(name, dropout=0.3), device)
    batch = batch_of(ROWS).pinned()
    for _ in range(5):
        updater.apply([batch], 0.01)
    torch.cuda.synchronize()
    refusing_to_wait(lambda: updater.apply([batch, batch], 0.01))
    assert recorded(updater) == 1


@pytest.mark.parametrize("late", [False, True], ids=["before", "within"])
def test_a_pass_that_waits_is_never_replayed(
    late: bool, device: torch.device, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is found out before the capture, or breaks that off; updates go on as if without."""
    if device.type != "cuda":
        pytest.skip("a processor always waits")
    original = Seq2Seq.encode

    def encode(self: Seq2Seq, source: Tensor, lengths: Tensor) -> Any:
        assert int(lengths.max()) > 0
        return original(self, source, lengths)

    monkeypatch.setattr(Seq2Seq, "encode", encode)
    if late:
        monkeypatch.setattr("transduce.training.graphs.refusing_to_wait", lambda work: work())
    updater = with_graphs(make_model("lstm", dropout=0.3), device)
    assert all(torch.isfinite(weight).all() for weight in updates(updater, [batch_of(ROWS)] * 8))
    assert torch.cuda.current_stream() == torch.cuda.default_stream()
    torch.cuda.empty_cache()
    (said,) = updater.said  # type: ignore[attr-defined]
    assert "cuda_graphs is off" in said
    assert updater.take_window().updates == 8


def test_graphs_that_give_way_are_recorded_again(device: torch.device) -> None:
    updater = with_graphs(make_model("lstm"), device)
    if updater.graphs is not None:
        updater.graphs._most = 2
    few = [batch_of(ROWS[:count]) for count in (8, 16, 32, 64)]
    batches = [batch for batch in few for _ in range(5)] * 2
    found = updates(updater, batches)
    expected = updates(make_updater(make_model("lstm").to(device)), batches)
    assert recorded(updater) <= 2
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one, other, rtol=5e-2, atol=5e-3)


# ------------------------------------------------------------------------------------- training


def graphed(recipe: Recipe, **training: Any) -> Recipe:
    told = {"cuda_graphs": True, **training}
    return recipe.model_copy(update={"training": recipe.training.model_copy(update=told)})


def test_training_with_graphs_learns(recipe: Recipe, device: torch.device, tmp_path: Path) -> None:
    console = Console(file=io.StringIO(), record=True, width=200)
    result = train(graphed(recipe), tmp_path / "run", console=console, device=device.type)
    assert result.value >= 60.0
    assert "is off from here on" not in console.export_text()


def test_going_on_with_graphs_is_as_if_never_stopped(
    recipe: Recipe, device: torch.device, tmp_path: Path
) -> None:
    def until(updates: int) -> Recipe:
        told = {"epochs": None, "updates": updates, "precision": "fp32", "report_every": 1}
        return graphed(recipe, **told)

    train(until(30), tmp_path / "whole", progress=False, device=device.type)
    train(until(15), tmp_path / "parts", progress=False, device=device.type)
    train(until(30), tmp_path / "parts", progress=False, device=device.type)
    losses = [
        {row["update"]: row["loss"] for row in rows_of(folder) if row["kind"] == "report"}
        for folder in (tmp_path / "whole", tmp_path / "parts")
    ]
    assert losses[1] == pytest.approx(losses[0], rel=1e-2)  # sums on a GPU have no fixed order


@pytest.fixture(scope="module")
def trained(
    recipe: Recipe, device: torch.device, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, list[str]]:
    """A folder trained on the GPU, in the precision that it measures; and what was warned of."""
    folder = tmp_path_factory.mktemp("trained") / "run"
    with warnings.catch_warnings(record=True) as warned:
        warnings.simplefilter("always")
        result = train(recipe, folder, progress=False, device=device.type)
    assert result.value >= 60.0
    return folder, [str(one.message) for one in warned]


def test_training_learns_and_its_model_works_everywhere(
    trained: tuple[Path, list[str]], device: torch.device
) -> None:
    folder, warned = trained
    assert not [text for text in warned if "contiguous chunk" in text]
    lines = ["a b c", "f e d c", "b"]
    there = [output.text for output in transduce.load(folder, device=device.type)(lines)]
    here = [output.text for output in transduce.load(folder, device="cpu")(lines)]
    assert there == here == ["c b a", "c d e f", "b"]
    reports = [row for row in rows_of(folder) if row["kind"] == "report"]
    assert all(("gpu_mib" in row) == (device.type == "cuda") for row in reports)


def test_going_on_is_as_if_never_stopped(
    recipe: Recipe, device: torch.device, tmp_path: Path
) -> None:
    def until(updates: int) -> Recipe:
        told = {"epochs": None, "updates": updates, "precision": "fp32", "report_every": 1}
        return recipe.model_copy(update={"training": recipe.training.model_copy(update=told)})

    train(until(30), tmp_path / "whole", progress=False, device=device.type)
    train(until(12), tmp_path / "parts", progress=False, device=device.type)
    train(until(30), tmp_path / "parts", progress=False, device=device.type)
    losses = [
        {row["update"]: row["loss"] for row in rows_of(folder) if row["kind"] == "report"}
        for folder in (tmp_path / "whole", tmp_path / "parts")
    ]
    assert losses[1] == pytest.approx(losses[0], rel=1e-2)  # sums on a GPU have no fixed order


def test_several_processes(recipe: Recipe, device: torch.device, tmp_path: Path) -> None:
    """As many as there are GPUs, up to two: the same losses as one that accumulates."""
    count = min(2, torch.cuda.device_count()) if device.type == "cuda" else 2
    told = {"epochs": None, "updates": 12, "precision": "fp32", "report_every": 1}
    model = recipe.model.model_dump()
    for part in ("encoder", "decoder"):
        model[part]["dropout"] = 0.0
    model |= {"embedding_dropout": 0.0, "output_dropout": 0.0}
    plain = recipe.model_validate(
        recipe.model_dump() | {"model": model, "training": recipe.training.model_dump() | told}
    )
    path = tmp_path / "recipe.yaml"
    path.write_text(dump_recipe(plain))
    run = ["torch.distributed.run", "--standalone", "--nproc-per-node", str(count)]
    command = ["-m", "transduce", "train", path, "--folder", tmp_path / "many"]
    found = subprocess.run(
        [sys.executable, "-m", *run, *map(str, command), "--device", device.type],
        capture_output=True,
        text=True,
        timeout=120,
        env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)},
    )
    assert found.returncode == 0, found.stderr
    training = plain.training.model_copy(update={"accumulate": count})
    one = plain.model_copy(update={"training": training})
    train(one, tmp_path / "one", progress=False, device=device.type)
    losses = [
        [row["loss"] for row in rows_of(tmp_path / name) if row["kind"] == "report"]
        for name in ("many", "one")
    ]
    assert losses[0] == pytest.approx(losses[1], rel=1e-2)
