"""One update: the gradient is the mean per token, and neither NaN nor little memory spoils it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch

from transduce.data.batches import Batch, collate
from transduce.errors import TrainingError
from transduce.kernels import available
from transduce.model import Seq2Seq, build_model, sampled
from transduce.model.rnn import Dropout
from transduce.recipe import ModelOptions, TrainingOptions
from transduce.training.losses import halves, sequence_loss
from transduce.training.optimizer import build_optimizer, optimizer_tensors, restore_optimizer
from transduce.training.update import PATIENCE_WITH_NAN, Updater

ROWS = [[4], [5, 6], [7, 4, 5], [6, 6, 7, 5], [4, 5, 6, 7, 4]]


def make_updater(said: list[str] | None = None, **training: Any) -> Updater:
    torch.manual_seed(1)
    part = {"size": 8, "dropout": 0.0}
    tree = {"embedding": 8, "embedding_dropout": 0.0, "output_dropout": 0.0}
    model = build_model(
        ModelOptions.model_validate(tree | {"encoder": part, "decoder": part}), 8, 8
    )
    options = TrainingOptions.model_validate({"updates": 10} | training)
    say: Callable[[str], None] = (said if said is not None else []).append
    return Updater(model, options, "fp32", lambda rows: [f"train.en:{r + 1}" for r in rows], say)


def batch_of(rows: list[list[int]]) -> Batch:
    return collate(rows, [row[::-1] for row in rows], [ROWS.index(row) for row in rows])


def gradients(updater: Updater, batches: list[Batch]) -> torch.Tensor:
    updater._gradients(batches, sum(batch.tokens for batch in batches))
    return torch.cat([p.grad.flatten() for p in updater.parameters if p.grad is not None])


def test_accumulated_batches_equal_one_large_batch() -> None:
    whole = gradients(make_updater(), [batch_of(ROWS)])
    parts = gradients(make_updater(), [batch_of(ROWS[:1]), batch_of(ROWS[1:3]), batch_of(ROWS[3:])])
    torch.testing.assert_close(parts, whole)


def test_the_loss_is_over_real_positions_only() -> None:
    updater = make_updater()
    together = sequence_loss(updater.model, batch_of(ROWS), 0.1)
    alone = [sequence_loss(updater.model, batch_of([row]), 0.1) for row in ROWS]
    torch.testing.assert_close(together.loss, torch.stack([one.loss for one in alone]).sum())
    torch.testing.assert_close(together.nll, torch.stack([one.nll for one in alone]).sum())
    assert together.tokens == sum(len(row) + 1 for row in ROWS)


@pytest.mark.skipif(not available(), reason="no kernels on this machine")
def test_the_recipe_says_how_the_output_layer_learns(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sampled, "LEAST", 1)
    monkeypatch.setattr(sampled, "THRESHOLD", 0.3)  # so that chance shows with 8 words

    def of(kind: str, precision: str, seed: int) -> torch.Tensor:
        updater = make_updater(output_gradient=kind)
        updater.precision = precision
        torch.manual_seed(seed)
        return gradients(updater, [batch_of(ROWS)])

    assert not of("sampled", "bf16", 1).equal(of("sampled", "bf16", 2))
    assert of("sampled", "bf16", 1).equal(of("sampled", "bf16", 1))
    assert of("exact", "bf16", 1).equal(of("exact", "bf16", 2))
    assert of("sampled", "fp32", 1).equal(of("exact", "fp32", 2))


def test_passes_that_agree_cost_nothing() -> None:
    """R-Drop without dropout: both passes are the same, so it is the plain loss."""
    plain = gradients(make_updater(), [batch_of(ROWS)])
    twice = gradients(make_updater(consistency=5.0), [batch_of(ROWS)])
    torch.testing.assert_close(twice, plain)


def test_passes_under_dropout_are_pulled_together() -> None:
    """Under its own dropout masks each, the divergence counts, and training makes it smaller."""
    updater = make_updater(consistency=4.0, label_smoothing=0.0)
    for module in updater.model.modules():
        if isinstance(module, Dropout):
            module.probability = 0.3
    batch = batch_of(ROWS)

    def divergence() -> float:
        found = 0.0
        for seed in range(10):
            torch.manual_seed(seed)
            with torch.no_grad():
                sums = sequence_loss(updater.model, batch, 0.0, None, 1.0)
            assert sums.tokens == batch.tokens
            found += float(sums.loss - sums.nll)
        return found

    updater.model.train()
    before = divergence()
    assert before > 0.0
    for parameter in updater.parameters:
        parameter.data.mul_(2.0)  # surer of itself, and so in more disagreement
    apart = divergence()
    assert apart > before
    for _ in range(60):
        updater.apply([batch], 0.01)
    assert divergence() < apart


def test_halves_keep_every_example_and_drop_padding() -> None:
    first, second = halves(batch_of(ROWS))
    assert (first.size, second.size) == (3, 2)
    assert list(first.indices) + list(second.indices) == [0, 1, 2, 3, 4]
    assert first.source.shape[1] == 4  # three symbols and the end
    assert first.tokens + second.tokens == batch_of(ROWS).tokens


# ---------------------------------------------------------------------------------- memory


def fits(monkeypatch: pytest.MonkeyPatch, updater: Updater, most: int, late: bool) -> None:
    """Let memory run out for batches above a size, in the forward or in the backward pass."""
    original = Seq2Seq.encode

    def fail(*_: Any) -> None:
        raise RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 1")

    def encode(self: Seq2Seq, source: torch.Tensor, lengths: torch.Tensor) -> Any:
        memory = original(self, source, lengths)
        if source.shape[0] > most:
            if not late:
                raise torch.OutOfMemoryError("CUDA out of memory")
            memory.values.register_hook(fail)
        return memory

    monkeypatch.setattr(Seq2Seq, "encode", encode)


@pytest.mark.parametrize("late", [False, True], ids=["forward", "backward"])
def test_a_batch_that_does_not_fit_goes_in_halves(
    late: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    batches = [batch_of(ROWS[:2]), batch_of(ROWS)]
    expected = gradients(make_updater(), batches)
    said: list[str] = []
    updater = make_updater(said)
    fits(monkeypatch, updater, most=2, late=late)
    torch.testing.assert_close(gradients(updater, batches), expected)
    updater.apply(batches, 0.01)
    assert len(said) == 1
    assert "training.batch_tokens" in said[0]


def test_one_example_that_does_not_fit_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    updater = make_updater()
    fits(monkeypatch, updater, most=0, late=False)
    with pytest.raises(TrainingError, match=r"single example: train\.en:1;"):
        updater.apply([batch_of(ROWS)], 0.01)


def test_other_errors_are_not_taken_for_lack_of_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    def encode(*_: Any) -> None:
        raise RuntimeError("shapes do not match")

    monkeypatch.setattr(Seq2Seq, "encode", encode)
    with pytest.raises(RuntimeError, match="shapes"):
        make_updater().apply([batch_of(ROWS)], 0.01)


# ------------------------------------------------------------------------------------- NaN


def poison(monkeypatch: pytest.MonkeyPatch, bad_updates: set[int]) -> None:
    """Make the gradient of the given updates (from 1) not finite."""
    original = Updater._gradients
    count = 0

    def poisoned(self: Updater, *arguments: Any) -> Any:
        nonlocal count
        count += 1
        found = original(self, *arguments)
        if count in bad_updates:
            self.parameters[0].grad = torch.full_like(self.parameters[0], float("nan"))
        return found

    monkeypatch.setattr(Updater, "_gradients", poisoned)


@pytest.mark.parametrize(
    "optimizer", [{"kind": "adamw"}, {"kind": "adam"}, {"kind": "sgd", "momentum": 0.9}]
)
@pytest.mark.parametrize("bad", [1, 2])
def test_an_update_that_is_not_finite_is_as_if_it_had_not_been(
    optimizer: dict[str, Any], bad: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    batch = batch_of(ROWS)
    clean = make_updater(optimizer=optimizer)
    for _ in range(2):
        clean.apply([batch], 0.01)
    poison(monkeypatch, {bad})
    updater = make_updater(optimizer=optimizer)
    for _ in range(3):
        updater.apply([batch], 0.01)
    for ours, theirs in zip(updater.parameters, clean.parameters, strict=True):
        assert torch.equal(ours, theirs)
    updater.check()
    window = updater.take_window()
    assert (window.updates, window.skipped, window.tokens) == (2, 1, 2 * batch.tokens)
    assert window.loss == clean.take_window().loss


def test_many_in_a_row_end_the_training_and_name_the_batch(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    poison(monkeypatch, set(range(2, 100)))
    updater = make_updater()
    for _ in range(PATIENCE_WITH_NAN):
        updater.apply([batch_of(ROWS)], 0.01)
        updater.check()
    updater.apply([batch_of(ROWS)], 0.01)
    with pytest.raises(TrainingError, match=r"20 updates in a row.*train\.en:1, train\.en:2"):
        updater.check()


# ------------------------------------------------------------------------- optimizer, clipping


def test_clipping_scales_the_whole_gradient() -> None:
    batch = batch_of(ROWS)
    free = make_updater(clip_norm=0.0, optimizer={"kind": "sgd"})
    clipped = make_updater(clip_norm=0.01, optimizer={"kind": "sgd"})
    start = [p.detach().clone() for p in free.parameters]
    free.apply([batch], 1.0)
    clipped.apply([batch], 1.0)
    norm = free.take_window().norm
    assert clipped.take_window().norm == norm  # what is reported is before clipping
    for before, one, other in zip(start, free.parameters, clipped.parameters, strict=True):
        torch.testing.assert_close(
            (before - one) * 0.01 / norm, before - other, atol=1e-7, rtol=1e-3
        )


def test_weight_decay_spares_embeddings_and_biases() -> None:
    updater = make_updater(optimizer={"weight_decay": 0.5})
    decayed = {
        id(p)
        for group in updater.optimizer.param_groups
        if group["weight_decay"]
        for p in group["params"]
    }
    names = {name for name, p in updater.model.named_parameters() if id(p) in decayed}
    assert names
    assert not any("embedding" in name or "bias" in name for name in names)
    assert any("weight_hh" in name for name in names)


@pytest.mark.parametrize("kind", ["adamw", "adam", "sgd"])
def test_the_optimizer_comes_back_as_it_was(kind: str) -> None:
    optimizer = {"kind": kind, "momentum": 0.9}
    first, second = make_updater(optimizer=optimizer), make_updater(optimizer=optimizer)
    for _ in range(3):
        first.apply([batch_of(ROWS)], 0.01)
    restore_optimizer(second.optimizer, optimizer_tensors(first.optimizer))
    second.model.load_state_dict(first.model.state_dict())
    for updater in (first, second):
        updater.apply([batch_of(ROWS)], 0.01)
    for one, other in zip(first.parameters, second.parameters, strict=True):
        assert torch.equal(one, other)


def test_every_parameter_is_optimized() -> None:
    updater = make_updater()
    optimizer = build_optimizer(updater.model, updater.options)
    held = [id(p) for group in optimizer.param_groups for p in group["params"]]
    assert sorted(held) == sorted(id(p) for p in updater.model.parameters())
