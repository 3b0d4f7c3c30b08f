"""What every table of bench/ rests on: fair turns, medians, ratios, exponents, columns."""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Sequence
from pathlib import Path

import common
import pytest
from common import Contestant, LeftOut
from hypothesis import given
from hypothesis import strategies as st


@pytest.fixture(autouse=True)
def no_probe(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(common, "probe", lambda threads, dtype="fp32": 100.0)


def counting(log: list[str], name: str, values: Sequence[float]) -> Callable[[], list[float]]:
    rest = iter(values)

    def turn() -> list[float]:
        log.append(name)
        return [next(rest)]

    return turn


# --------------------------------------------------------------------------------------- turns


def test_turns_alternate_and_warming_up_does_not_count() -> None:
    log: list[str] = []
    one = Contestant(("one",), counting(log, "a", [9, 1, 2]))
    two = Contestant(("two",), counting(log, "b", [9, 3, 4]))
    common.take_turns([one, two], runs=2, warm=1)
    # Whoever was last is first in the next round: a machine that slows down slows both alike.
    assert "".join(log) == "abbaab"
    assert one.values == [1, 2] and two.values == [3, 4]
    assert one.probes == [100.0, 100.0]


def test_one_that_fails_leaves_the_others_in_peace() -> None:
    log: list[str] = []

    def fails() -> list[float]:
        raise LeftOut("no such processor")

    well = Contestant(("well",), counting(log, "a", [1, 2, 3]))
    ill = Contestant(("ill",), fails)
    common.take_turns([well, ill], runs=2, warm=1)
    assert well.values == [2, 3]
    assert ill.values == [] and ill.left_out == "no such processor"
    assert common.summary(ill)[0] == "left out"
    assert "ill: no such processor" in common.reasons([well, ill])


def test_ratio_is_of_medians_and_its_range_of_rounds() -> None:
    fast = Contestant(("fast",), list, rounds=[[10.0], [30.0], [20.0]])
    slow = Contestant(("slow",), list, rounds=[[5.0], [10.0], [4.0]])
    # Medians 20 and 5; by rounds 2, 3 and 5.
    assert common.ratio(fast, slow) == (4.0, 2.0, 5.0)


# ------------------------------------------------------------------------------------- numbers


@given(st.floats(-3, 3), st.floats(1e-3, 1e3))
def test_exponent_of_a_power_law_is_found(exponent: float, factor: float) -> None:
    sizes = [1, 2, 5, 10, 100]
    found = common.fit(sizes, [factor * size**exponent for size in sizes])
    assert found.exponent == pytest.approx(exponent, abs=1e-6)
    assert found.factor == pytest.approx(factor, rel=1e-6)
    assert found.explained == pytest.approx(1.0, abs=1e-5)


def test_a_curve_that_is_no_power_law_says_so() -> None:
    assert common.fit([1, 2, 4, 8], [1, 8, 1, 8]).explained < 0.5


def test_one_size_has_no_exponent() -> None:
    with pytest.raises(ValueError, match="two different sizes"):
        common.fit([4, 4], [1.0, 2.0])


def test_percentile() -> None:
    values = [float(i) for i in range(101)]
    assert common.percentile(values[::-1], 0.95) == pytest.approx(95.0)
    assert common.percentile([1.0, 2.0], 0.25) == pytest.approx(1.25)
    assert common.percentile([7.0], 0.95) == 7.0


@pytest.mark.parametrize(
    ("value", "text"),
    [(0.01234, "0.0123"), (12.34, "12.3"), (99.96, "100"), (123.4, "123"), (12345.6, "12,346")],
)
def test_numbers_have_three_digits_or_all_before_the_point(value: float, text: str) -> None:
    assert common.number(value) == text


# --------------------------------------------------------------------------------------- table


def test_columns_of_a_table_stand_in_line() -> None:
    lines = common.table([["who", "figure"], ["a", "1,234"], ["longer", "5"]]).split("\n")
    assert lines == ["who     figure", "a        1,234", "longer       5"]


def test_json_holds_every_figure(tmp_path: Path) -> None:
    done = Contestant(("fp32", "1"), list, rounds=[[1.0], [3.0], [2.0]], probes=[9.0, 8.0, 7.0])
    path = tmp_path / "out.json"
    options = argparse.Namespace(json=path, runs=3)
    common.write_json(path, options, common.machine(), [done.facts()])
    (row,) = json.loads(path.read_text())["rows"]
    assert row["rounds"] == [[1.0], [3.0], [2.0]] and row["probe_gflops"] == [9.0, 8.0, 7.0]
    assert (row["low"], row["median"], row["high"]) == (1.0, 2.0, 3.0)
