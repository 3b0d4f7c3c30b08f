"""The learning rate is the one the papers and the guide say."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from transduce.errors import UsageError
from transduce.recipe import ScheduleOptions, TrainingOptions
from transduce.training.schedules import Schedule, cosine, halving, inverse_sqrt, linear, warmup


def schedule(kind: str, **options: float) -> Schedule:
    chosen = ScheduleOptions.model_validate({"kind": kind, "warmup": 0, **options})
    return Schedule(TrainingOptions(updates=100, learning_rate=2.0, schedule=chosen))


def test_warmup_is_linear_and_precedes_every_kind() -> None:
    assert [warmup(update, 4) for update in (1, 2, 4, 5)] == [0.25, 0.5, 1.0, 1.0]
    assert warmup(1, 0) == 1.0
    for kind in ("constant", "inverse_sqrt", "cosine", "linear", "plateau", "halving"):
        assert schedule(kind, warmup=10).rate(1, 0.0, 0.0) == pytest.approx(0.2)


def test_inverse_sqrt() -> None:
    assert inverse_sqrt(1, 400) == inverse_sqrt(400, 400) == 1.0
    assert inverse_sqrt(1600, 400) == 0.5
    assert inverse_sqrt(4, 0) == 0.5
    # Vaswani's own formula, up to its constant: d^-0.5 * min(step^-0.5, step * warmup^-1.5)
    paper = [min(n**-0.5, n * 4000**-1.5) * 4000**0.5 for n in (1, 3999, 4000, 10000)]
    ours = schedule("inverse_sqrt", warmup=4000)
    assert [ours.factor(n, 0.0, 0.0) for n in (1, 3999, 4000, 10000)] == pytest.approx(paper)


def test_cosine_and_linear() -> None:
    assert [cosine(p, 0.0) for p in (0.0, 0.5, 1.0, 2.0)] == pytest.approx([1.0, 0.5, 0.0, 0.0])
    assert [cosine(p, 0.2) for p in (0.0, 1 / 3, 1.0)] == pytest.approx([1.0, 0.8, 0.2])
    assert [linear(p, 0.2) for p in (0.0, 0.5, 1.0, 2.0)] == pytest.approx([1.0, 0.6, 0.2, 0.2])


def test_halving_of_2014() -> None:
    rates = [halving(epoch, 5.0, 0.5, 0.5) for epoch in (0.0, 4.99, 5.0, 5.49, 5.5, 7.0, 7.49)]
    assert rates == [1.0, 1.0, 0.5, 0.5, 0.25, 1 / 32, 1 / 32]
    assert halving(0.1 + 0.2, 0.0, 0.1, 0.5) == 1 / 16


def test_plateau() -> None:
    plateau = schedule("plateau", patience=1, factor=0.5)
    factors = []
    for improved in (True, False, False, False, True, False, False):
        plateau.validated(improved)
        factors.append(plateau.factor(1, 0.0, 0.0))
    assert factors == [1.0, 1.0, 0.5, 0.5, 0.5, 0.5, 0.25]
    again = schedule("plateau", patience=1, factor=0.5)
    again.restore(plateau.state())
    assert again.factor(1, 0.0, 0.0) == 0.25


@given(
    kind=st.sampled_from(["constant", "inverse_sqrt", "cosine", "linear", "plateau", "halving"]),
    update=st.integers(1, 10**7),
    epoch=st.floats(0, 1000),
    progress=st.floats(0, 1),
)
def test_the_rate_is_never_above_the_recipes(
    kind: str, update: int, epoch: float, progress: float
) -> None:
    rate = schedule(kind, warmup=100).rate(update, epoch, progress)
    assert math.isfinite(rate)
    assert 0.0 <= rate <= 2.0


@pytest.mark.parametrize("kind", ["cosine", "linear"])
def test_falling_to_an_unknown_end_is_refused(kind: str) -> None:
    chosen = ScheduleOptions.model_validate({"kind": kind})
    with pytest.raises(UsageError, match=r"training\.epochs"):
        Schedule(TrainingOptions(patience=3, schedule=chosen))
