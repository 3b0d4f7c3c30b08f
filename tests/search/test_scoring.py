"""Length normalisation and length bounds."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from transduce.hypotheses.scoring import length_norm, max_tokens, min_tokens, normalise
from transduce.recipe import SearchOptions


def test_values_of_the_papers() -> None:
    assert length_norm(4, "average", 1.0) == 4
    assert length_norm(4, "average", 0.5) == 2
    assert length_norm(1, "gnmt", 0.7) == 1  # (5 + 1) / 6
    assert length_norm(13, "gnmt", 1.0) == 3
    assert length_norm(9, "gnmt", 0.0) == length_norm(9, "average", 0.0) == 1


@given(st.integers(1, 500), st.sampled_from(["average", "gnmt"]), st.floats(0, 3))
def test_longer_targets_are_divided_by_more(length, kind, penalty) -> None:
    """The search relies on it when it gives up live hypotheses."""
    assert length_norm(length + 1, kind, penalty) >= length_norm(length, kind, penalty)


def test_normalise_uses_the_options() -> None:
    options = SearchOptions(normalization="gnmt", length_penalty=1.0)
    assert normalise(-6.0, 13, options) == -2.0
    rewarded = options.model_copy(update={"length_bonus": 0.25})
    assert normalise(-6.0, 13, rewarded) == -2.0 + 12 * 0.25  # the end symbol has none


@pytest.mark.parametrize(
    ("tokens", "ratio", "extra", "most"),
    [(10, 2.0, 10, 30), (3, 1.5, 0, 4), (30, 0.1, 0, 3), (1, 0.01, 0, 1), (0, 2.0, 0, 1)],
)
def test_longest_target(tokens, ratio, extra, most) -> None:
    assert max_tokens(tokens, SearchOptions(max_ratio=ratio, max_extra=extra)) == most


@pytest.mark.parametrize(("tokens", "ratio", "fewest"), [(10, 0, 0), (30, 0.1, 3), (3, 0.5, 2)])
def test_shortest_target(tokens, ratio, fewest) -> None:
    assert min_tokens(tokens, SearchOptions(min_ratio=ratio)) == fewest


def test_shortest_is_never_above_longest() -> None:
    options = SearchOptions(min_ratio=3.0, max_ratio=1.0, max_extra=0)
    assert min_tokens(5, options) == max_tokens(5, options) == 5
