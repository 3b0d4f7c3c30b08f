"""Which precision a training has: what is demanded, or the fastest that there is here."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import pytest
import torch

from transduce.data.batches import Batch, collate
from transduce.errors import UsageError
from transduce.kernels import available
from transduce.kernels.weights import Weight
from transduce.model import Seq2Seq, build_model
from transduce.recipe import ModelOptions, TrainingOptions
from transduce.training import precision as module
from transduce.training.precision import choose_precision, products_in, settle_precision

CPU = torch.device("cpu")
with_kernels = pytest.mark.skipif(not available(), reason="no kernels on this machine")


def small_model() -> Seq2Seq:
    part = {"size": 8, "dropout": 0.0}
    return build_model(
        ModelOptions.model_validate({"embedding": 8, "encoder": part, "decoder": part}), 8, 8
    )


def options_of(**training: Any) -> TrainingOptions:
    return TrainingOptions.model_validate({"updates": 10} | training)


def batches() -> list[Batch]:
    return [collate([[4, 5], [5]], [[5, 4], [6]], [0, 1])]


def clock(seconds: Sequence[float]) -> Iterator[float]:
    """What the time is, when passes take so long, one after the other, again and again."""
    now, number = 0.0, 0
    while True:
        yield now
        now += seconds[number % len(seconds)]
        yield now
        number += 1


@with_kernels
@pytest.mark.parametrize(
    ("seconds", "chosen"),
    [
        ([3.0, 2.0, 1.0], "int8"),
        ([3.0, 2.0, 1.9], "bf16"),  # not so much faster that it is worth rounding more
        ([3.0, 2.9, 2.8], "fp32"),
        ([3.0, 2.9, 1.0], "int8"),
    ],
)
def test_auto_takes_the_fastest(
    seconds: Sequence[float], chosen: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    ticks = clock(seconds)
    monkeypatch.setattr(module.time, "perf_counter", lambda: next(ticks))
    found, why = choose_precision(options_of(), small_model(), batches())
    assert found == chosen
    assert f"bf16 {seconds[0] / seconds[1]:.2f}, int8 {seconds[0] / seconds[2]:.2f}" in why


def test_auto_measures_what_the_recipe_trains_with(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "has_bf16", lambda device: True)
    asked: list[tuple[bool, bool]] = []
    plain = module.sequence_loss

    def noted(*args: Any, **kwargs: Any) -> Any:
        asked.append((kwargs["sampled"], torch.is_autocast_enabled("cpu")))
        return plain(*args, **kwargs)

    monkeypatch.setattr(module, "sequence_loss", noted)
    for gradient in ("sampled", "exact"):
        asked.clear()
        choose_precision(options_of(output_gradient=gradient), small_model(), batches(), rounds=1)
        assert asked and {sampled for sampled, _ in asked} == {gradient == "sampled"}
        assert not asked[0][1] and asked[1][1]  # fp32, bf16


@with_kernels
def test_only_int8_rounds_to_eight_bits() -> None:
    for precision in ("fp32", "bf16", "int8"):
        with products_in(precision, CPU):
            assert torch.is_autocast_enabled("cpu") == (precision != "fp32")
            assert (Weight(torch.ones(4, 4)).scales is not None) == (precision == "int8")
    assert Weight(torch.ones(4, 4)).scales is None and not torch.is_autocast_enabled("cpu")


def test_without_kernels_there_is_no_int8(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "available", lambda: False)
    with pytest.raises(UsageError, match=r"training\.precision int8 is for CPUs with AVX-512"):
        choose_precision(options_of(precision="int8"), small_model(), [])
    options, model = options_of(precision="int8"), small_model()
    for before, expected in (("int8", "bf16"), ("bf16", "bf16"), ("fp32", "fp32")):
        # the stream is for measuring, which is not done again
        found, why = settle_precision(options, model, None, before)  # type: ignore[arg-type]
        assert found == expected
        assert why.startswith("int8, in which this training began") == (before == "int8")
    found, why = choose_precision(options_of(), small_model(), batches(), rounds=1)
    assert found in ("fp32", "bf16") and "int8" not in why


def test_demanded_precisions_are_not_measured() -> None:
    demanded = ["fp32", "bf16", *(["int8"] if available() else [])]
    for precision in demanded:
        found = choose_precision(options_of(precision=precision), small_model(), [])
        assert found == (precision, "as the recipe says")
