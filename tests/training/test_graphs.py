"""Passes that are recorded and replayed give the gradients of those that are not.

What records is a stand-in here, which does the work again over the same memory, as a CUDA graph
does; that one is tested in tests/gpu.
"""

from __future__ import annotations

import copy
import io
import random
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from rich.console import Console
from torch import Tensor

from transduce.data.batches import Batch, collate
from transduce.model import Seq2Seq, build_model
from transduce.recipe import ModelOptions, Recipe, TrainingOptions
from transduce.training.graphs import Graphs, why_not
from transduce.training.loop import train
from transduce.training.losses import halves
from transduce.training.shapes import Inputs, Shape
from transduce.training.update import Updater

from .conftest import MakeRecipe, rows_of

WORDS = 20
PLAIN = {"embedding_dropout": 0.0, "output_dropout": 0.0, "embedding": 12}
PART = {"size": 16, "dropout": 0.0}
GENERAL = {"encoder": PART, "decoder": PART | {"attention": {"kind": "general"}}}
MODELS: dict[str, dict[str, Any]] = {
    "general": GENERAL,
    "deep": {
        "encoder": PART | {"layers": 2, "residual": True, "layer_norm": True},
        "decoder": PART | {"layers": 2, "start": "mean", "intra_attention": True},
    },
    "multi_head": {
        "encoder": PART | {"kind": "gru"},
        "decoder": PART | {"kind": "gru", "attention": {"kind": "multi_head", "heads": 4}},
    },
    "none": {"encoder": PART, "decoder": PART | {"attention": {"kind": "none"}}},
    "input": {
        "encoder": PART,
        "decoder": PART | {"feeding": "input", "attention": {"kind": "additive"}},
    },
    "context": {
        "encoder": PART,
        "decoder": PART | {"feeding": "context", "attention": {"kind": "location"}},
    },
    "transformer": {"encoder": PART | {"kind": "transformer", "heads": 4}, "decoder": PART},
    "conformer": {"encoder": PART | {"kind": "conformer", "heads": 4}, "decoder": PART},
}


class Again:
    """Instead of a CUDA graph: the same work over the same memory, which must have stayed."""

    made = 0

    def __init__(self, parameters: list[torch.nn.Parameter]) -> None:
        self.parameters = parameters
        type(self).made += 1

    def places(self) -> list[int]:
        return [p.grad.data_ptr() for p in self.parameters if p.grad is not None]

    def record(self, work: Callable[[], None]) -> None:
        work()  # warms up
        self.work, self.known = work, self.places()

    def replay(self) -> None:
        assert self.places() == self.known
        self.work()


@pytest.fixture(autouse=True)
def none_made() -> None:
    Again.made = 0


def make_model(tree: dict[str, Any]) -> Seq2Seq:
    torch.manual_seed(1)
    return build_model(ModelOptions.model_validate(PLAIN | tree), WORDS, WORDS)


def make_updater(model: Seq2Seq, **training: Any) -> Updater:
    """An updater of its own copy of the model, without graphs; what it warns of is in `said`."""
    said: list[str] = []
    precision = training.pop("precision", "fp32")
    options = TrainingOptions.model_validate({"updates": 10} | training)
    updater = Updater(copy.deepcopy(model), options, precision, lambda rows: ["?"], said.append)
    updater.said = said  # type: ignore[attr-defined]
    return updater


def with_graphs(updater: Updater, seen: int = 1, **more: Any) -> Updater:
    """The same updater with graphs, as it would have them on a GPU."""
    new_capture = more.pop("new_capture", partial(Again, updater.parameters))
    loss, device = updater.padded_loss, updater.device
    updater.graphs = Graphs(loss, updater.parameters, device, new_capture, seen, **more)
    return updater


def batch_of(count: int, longest: int, seed: int = 1) -> Batch:
    """Random rows, at least one of which is as long as that; targets are of other lengths."""
    draw = random.Random(seed)
    sides = []
    for most in (longest, max(1, longest - 2)):
        lengths = [most] + [draw.randint(1, most) for _ in range(count - 1)]
        sides.append([[draw.randrange(4, WORDS) for _ in range(n)] for n in lengths])
    return collate(*sides, list(range(count)))


def gradients(updater: Updater, batches: list[Batch]) -> tuple[Tensor, dict[str, Tensor]]:
    """The sums and gradients of an update, copied."""
    sums = updater._gradients(batches, sum(batch.tokens for batch in batches))
    named = updater.model.named_parameters()
    return sums.clone(), {k: p.grad.clone() for k, p in named if p.grad is not None}


def assert_same(found: Any, expected: Any) -> None:
    torch.testing.assert_close(found[0], expected[0], rtol=1e-5, atol=1e-5)
    assert found[1].keys() == expected[1].keys()
    for name, gradient in expected[1].items():
        torch.testing.assert_close(found[1][name], gradient, rtol=1e-4, atol=1e-6, msg=name)


# Of one shape, and of others between them: what a batch leaves behind must not be seen by the next.
LIKE = [(17, 5), (18, 7), (3, 12), (17, 4), (3, 11), (18, 6), (3, 12), (17, 7)]


# -------------------------------------------------------------------------------------- exactness


@pytest.mark.parametrize("name", MODELS)
def test_replayed_gradients_are_those_of_each_batch_alone(name: str) -> None:
    model = make_model(MODELS[name])
    plain = make_updater(model, label_smoothing=0.1)
    graphs = with_graphs(make_updater(model, label_smoothing=0.1))
    for seed, (count, longest) in enumerate(LIKE):
        batch = batch_of(count, longest, seed)
        assert_same(gradients(graphs, [batch]), gradients(plain, [batch]))
    assert 2 <= len(graphs.graphs) < len(LIKE)  # type: ignore[arg-type]
    assert not graphs.said  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    "options",
    [
        {"label_smoothing": 0.0},
        {"consistency": 2.0},
        {"consistency": 2.0, "label_smoothing": 0.0},
        {"coverage": 0.7},
    ],
    ids=str,
)
def test_every_loss_ignores_what_is_padded(options: dict[str, Any]) -> None:
    model = make_model(GENERAL)
    plain, graphs = make_updater(model, **options), with_graphs(make_updater(model, **options))
    for seed, (count, longest) in enumerate(LIKE):
        batch = batch_of(count, longest, seed)
        assert_same(gradients(graphs, [batch]), gradients(plain, [batch]))


def test_in_bf16_too() -> None:
    """Sums in 8 bits differ by their order; what they are sums of is the same."""
    model = make_model(GENERAL)
    plain = make_updater(model, precision="bf16")
    graphs = with_graphs(make_updater(model, precision="bf16"))
    for seed, (count, longest) in enumerate(LIKE):
        batch = batch_of(count, longest, seed)
        (sums, found), (known, expected) = gradients(graphs, [batch]), gradients(plain, [batch])
        torch.testing.assert_close(sums, known, rtol=1e-2, atol=0.0)
        for name, gradient in expected.items():
            together = torch.cosine_similarity(found[name].flatten(), gradient.flatten(), dim=0)
            assert together > 0.99 or gradient.norm() < 1e-4, name


@pytest.mark.parametrize("rows", [3, 2049], ids=["one chunk", "two chunks"])
def test_rows_that_do_not_count_have_neither_loss_nor_gradient(rows: int) -> None:
    layer = make_model(GENERAL).output
    counted = (torch.arange(rows) % 3 != 1).float()
    targets = torch.arange(rows) % WORDS
    results = []
    for there in (counted.bool(), None):
        values = torch.linspace(-1, 1, rows * 12).view(rows, 12).sin().requires_grad_()
        kept = values if there is None else values[there]
        chosen = targets if there is None else targets[there]
        loss, nll = layer.loss(kept, chosen, 0.1, counted if there is None else None)
        results.append((loss, nll, *torch.autograd.grad(loss, [values, layer.weight, layer.bias])))
    for expected, found in zip(*results, strict=True):
        torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)
    assert not results[1][2][counted == 0].any()


def test_updates_with_graphs_are_updates_without() -> None:
    """Several batches an update, some recorded and some not; the moving average and the reports."""
    model = make_model(GENERAL)
    options = {"accumulate": 2, "ema": 0.9, "optimizer": {"weight_decay": 0.1}}
    plain = make_updater(model, **options)
    graphs = with_graphs(make_updater(model, **options), seen=2)
    batches = [batch_of(count, longest, n) for n, (count, longest) in enumerate(LIKE * 2)]
    for first in range(0, len(batches), 2):
        for updater in (plain, graphs):
            updater.apply(batches[first : first + 2], 0.01)
    assert len(graphs.graphs) >= 1  # type: ignore[arg-type]
    for one, other in zip(plain.parameters, graphs.parameters, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-3, atol=1e-4)
    ours, theirs = graphs.take_window(), plain.take_window()
    assert (ours.tokens, ours.updates, ours.skipped) == (theirs.tokens, theirs.updates, 0)
    assert [ours.loss, ours.nll, ours.norm] == pytest.approx(
        [theirs.loss, theirs.nll, theirs.norm], rel=1e-4
    )


def test_random_numbers_are_the_same_recorded_or_not() -> None:
    """So that a training that goes on, whose shapes are recorded anew, draws as it would have."""
    tree = {"embedding_dropout": 0.3, "output_dropout": 0.3} | GENERAL
    weights = []
    for seen in (1, 1000):
        updater = with_graphs(make_updater(make_model(tree)), seen)
        torch.manual_seed(5)
        for seed, (count, longest) in enumerate(LIKE):
            updater.apply([batch_of(count, longest, seed)], 0.01)
        weights.append(updater.parameters)
    assert Again.made
    for one, other in zip(*weights, strict=True):
        assert torch.equal(one, other)


def test_a_weight_without_a_gradient_stays_without() -> None:
    """Or weight decay would shrink what is never used."""
    model = make_model(GENERAL)
    model.register_parameter("unused", torch.nn.Parameter(torch.ones(3, 3)))
    updater = with_graphs(make_updater(model, optimizer={"weight_decay": 0.5}))
    for _ in range(3):
        updater.apply([batch_of(5, 5)], 0.1)
    assert Again.made == 1
    assert torch.equal(updater.model.get_parameter("unused"), torch.ones(3, 3))


# ----------------------------------------------------------------------------------------- shapes


def test_batches_of_like_lengths_share_a_shape() -> None:
    shapes = {
        Shape.of(batch_of(count, longest, seed))
        for seed, (count, longest) in enumerate([(n, k) for n in (129, 140, 144) for k in (4, 7)])
    }
    assert {shape[:3] for shape in shapes} == {(144, 8, 8)}
    assert {shape.looked_at * 4 % (144 * 8) for shape in shapes} == {0}


def test_padding_is_what_nothing_looks_at() -> None:
    batch = batch_of(17, 5)
    inputs = Inputs.of(batch, 99)
    padded, shape = inputs.batch, inputs.shape
    assert shape[:3] == (18, 8, 8)
    assert torch.equal(padded.source[:17, :6], batch.source)
    assert not padded.source[17:].any()
    assert padded.source_lengths.tolist() == [*batch.source_lengths.tolist(), 1]
    targets = padded.target_output.flatten()[inputs.positions]
    assert len(targets) == shape.looked_at == len(set(inputs.positions.tolist()))
    assert (targets != 0).sum() == batch.tokens
    assert int(inputs.tokens) == 99


def test_a_full_batch_needs_no_padding() -> None:
    row = [4] * 7
    inputs = Inputs.of(collate([row] * 8, [row] * 8, list(range(8))), 64)
    assert inputs.shape == (8, 8, 8, 64)
    assert inputs.positions.tolist() == list(range(64))


# --------------------------------------------------------------------------- what is kept, and when


def test_a_shape_is_recorded_when_it_has_come_often_enough() -> None:
    updater = with_graphs(make_updater(make_model(GENERAL)), seen=3)
    made = []
    for seed in range(5):
        gradients(updater, [batch_of(17, 5, seed)])
        made.append(Again.made)
    assert made == [0, 0, 0, 1, 1]


def test_the_least_recently_used_shape_gives_way() -> None:
    model = make_model(GENERAL)
    plain, updater = make_updater(model), with_graphs(make_updater(model), kept=2)
    one, two, three = (batch_of(count, 5) for count in (4, 8, 12))
    for batch in (one, one, two, two, one, three, three):
        assert_same(gradients(updater, [batch]), gradients(plain, [batch]))
    assert (Again.made, len(updater.graphs)) == (3, 2)  # type: ignore[arg-type]
    gradients(updater, [one])
    assert Again.made == 3  # still there
    for _ in range(2):
        assert_same(gradients(updater, [two]), gradients(plain, [two]))
    assert Again.made == 4  # had gone


# --------------------------------------------------------------------------------- what goes wrong


class Failing(Again):
    error: Exception

    def record(self, work: Callable[[], None]) -> None:
        super().record(work)
        raise self.error


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (RuntimeError("operation not permitted\nmore"), "recorded (operation not permitted)"),
        (torch.OutOfMemoryError("CUDA out of memory"), "did not fit into memory"),
    ],
)
def test_what_cannot_be_recorded_is_said_once_and_done_without(
    error: Exception, reason: str
) -> None:
    model = make_model(GENERAL)
    plain, updater = make_updater(model), make_updater(model)
    Failing.error = error
    with_graphs(updater, new_capture=partial(Failing, updater.parameters))
    for seed in range(4):
        batches = [batch_of(5, 5, seed), batch_of(17, 5, seed)]  # a gradient is there already
        assert_same(gradients(updater, batches), gradients(plain, batches))
    (said,) = updater.said  # type: ignore[attr-defined]
    assert said.startswith("training.cuda_graphs is off from here on")
    assert reason in said
    assert updater.graphs is None


def test_graphs_give_their_memory_to_a_batch_that_needs_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """Then it is tried again whole, and only then in halves."""
    model = make_model(GENERAL)
    plain, updater = make_updater(model), with_graphs(make_updater(model))
    large = batch_of(12, 5)
    for _ in range(2):
        gradients(updater, [batch_of(5, 5)])
    original = Seq2Seq.encode

    def encode(self: Seq2Seq, source: Tensor, lengths: Tensor) -> Any:
        if updater.graphs is not None or len(source) > 6:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return original(self, source, lengths)

    expected = gradients(plain, halves(large))
    monkeypatch.setattr(Seq2Seq, "encode", encode)
    assert_same(gradients(updater, [large]), expected)
    first, second = updater.said  # type: ignore[attr-defined]
    assert "cuda_graphs" in first
    assert "halves" in second


def test_other_errors_are_told_as_they_are(monkeypatch: pytest.MonkeyPatch) -> None:
    def encode(*_: Any) -> None:
        raise RuntimeError("shapes do not match")

    monkeypatch.setattr(Seq2Seq, "encode", encode)
    with pytest.raises(RuntimeError, match="shapes"):
        gradients(with_graphs(make_updater(make_model(GENERAL))), [batch_of(5, 5)])


# -------------------------------------------------------------------------------------- the option


def test_without_a_gpu_the_option_does_nothing_and_says_so_once() -> None:
    model = make_model(GENERAL)
    plain, updater = make_updater(model), make_updater(model, cuda_graphs=True)
    (said,) = updater.said  # type: ignore[attr-defined]
    assert said.startswith("training.cuda_graphs does nothing here")
    assert "`cpu`" in said
    for _ in range(3):
        for one in (plain, updater):
            one.apply([batch_of(5, 5)], 0.01)
    assert len(updater.said) == 1  # type: ignore[attr-defined]
    for ours, theirs in zip(updater.parameters, plain.parameters, strict=True):
        assert torch.equal(ours, theirs)


def test_a_training_with_graphs_learns_and_goes_on_as_if_never_stopped(
    make_recipe: MakeRecipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Bit for bit on a CPU, although what was recorded is lost with the process."""
    monkeypatch.setattr("transduce.training.update.why_not", lambda *_: None)
    monkeypatch.setattr("transduce.training.update.CudaCaptures", lambda _: partial(Again, []))

    def until(updates: int) -> Recipe:
        return make_recipe(updates=updates, cuda_graphs=True, validate_every=100)

    train(until(60), tmp_path / "whole", progress=False)
    recorded = Again.made
    assert recorded
    train(until(35), tmp_path / "parts", progress=False)
    train(until(60), tmp_path / "parts", progress=False)
    assert Again.made > recorded
    whole, parts = (
        {row["update"]: row for row in rows_of(tmp_path / name) if row["kind"] == "report"}
        for name in ("whole", "parts")
    )
    assert whole == parts
    assert whole[60]["loss"] < 0.8 * whole[1]["loss"]


def test_a_training_may_go_on_with_graphs_or_without(
    make_recipe: MakeRecipe, tmp_path: Path
) -> None:
    train(make_recipe(updates=2), tmp_path, progress=False)
    console = Console(file=io.StringIO(), record=True, width=200)
    train(make_recipe(updates=4, cuda_graphs=True), tmp_path, console=console)
    assert console.export_text().count("cuda_graphs does nothing here") == 1


@pytest.mark.parametrize(
    ("tree", "bins", "reason"),
    [
        (GENERAL, 8, "speech"),
        (GENERAL | {"decoder": PART | {"copy": "pointer"}}, None, "copied"),
        (GENERAL | {"ctc": {"weight": 0.3}}, 8, "speech"),
        (GENERAL | {"ctc": {"weight": 0.3}}, None, "CTC"),
        (GENERAL | {"decoder": PART | {"start": "copy"}}, None, "lengths"),
    ],
)
def test_what_has_no_graphs_says_why(tree: dict[str, Any], bins: int | None, reason: str) -> None:
    model = build_model(ModelOptions.model_validate(PLAIN | tree), WORDS, WORDS, bins)
    assert reason in (why_not(model, torch.device("cuda")) or "")


@pytest.mark.parametrize("name", MODELS)
def test_what_has_graphs_asks_a_gpu_for_nothing_but_shapes(name: str) -> None:
    model = make_model(MODELS[name])
    assert why_not(model, torch.device("cuda")) is None
    assert "`cpu`" in (why_not(model, torch.device("cpu")) or "")
