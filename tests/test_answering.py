"""What every model that answers does: a failure belongs to one input, and inputs may be others."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from transduce.answering import Answering, Options, each
from transduce.errors import DataError, UsageError
from transduce.hypotheses import Hypothesis
from transduce.inputs import Source
from transduce.recipe import SearchOptions


@given(fails=st.lists(st.booleans(), max_size=20))
def test_every_item_has_its_own_answer_or_failure(fails: list[bool]) -> None:
    def answer(part: list[int]) -> list[str]:
        if any(fails[i] for i in part):
            raise RuntimeError(f"cannot do {next(i for i in part if fails[i])}\nat all")
        return [f"done {i}" for i in part]

    found = each([*range(len(fails))], answer, lambda i, message: f"{i}: {message}")
    assert found == [
        f"{i}: cannot do {i} at all" if bad else f"done {i}" for i, bad in enumerate(fails)
    ]


@pytest.mark.parametrize("error", [MemoryError(), DataError("too long")])
def test_a_failure_without_words_is_told_by_its_name(error: Exception) -> None:
    def answer(part: list[int]) -> list[str]:
        raise error

    expected = str(error) or "MemoryError"
    assert each([1, 2], answer, lambda _, message: message) == [expected, expected]


def test_mistakes_of_the_user_are_no_failures_of_an_input() -> None:
    def answer(part: list[int]) -> list[str]:
        raise UsageError("no shortlist")

    with pytest.raises(UsageError):
        each([1, 2], answer, lambda _, message: message)


class Counting(Answering[SearchOptions]):
    """Reads numbers and not texts; the target is so many of token 3."""

    class target:
        size = 4
        tokens = staticmethod(lambda ids: ["x"] * len(ids))
        decode = staticmethod(lambda ids: "x" * len(ids))

    def search_options(self, /, **overrides: object) -> SearchOptions:
        return SearchOptions.model_validate(overrides)

    def _read(self, taken: Sequence[object], options: Options) -> list[Source]:
        return [
            Source(
                [min(int(str(one)), options.max_source)],
                [str(one)],
                "cut" if int(str(one)) > options.max_source else None,
            )
            for one in taken
        ]

    def _decode(self, sources: list[Source], options: SearchOptions) -> list[list[Hypothesis]]:
        return [[Hypothesis([3] * source.ids[0], -1.0, -2.0, [])] for source in sources]


def test_inputs_may_be_read_in_another_way() -> None:
    outputs = list(Counting().stream(iter([1, 7, 2]), max_source=3))  # type: ignore[list-item]
    assert [out.text for out in outputs] == ["x", "xxx", "xx"]
    assert [out.reason for out in outputs] == [None, "cut", None]
