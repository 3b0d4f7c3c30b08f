"""Every example is in exactly one length span, and a span's score is that of its examples."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from transduce.errors import DataError
from transduce.evaluation.buckets import length_spans, score_by_length
from transduce.evaluation.metrics import compute


@settings(deadline=None)
@given(st.lists(st.integers(0, 300), min_size=1, max_size=200))
def test_spans_cover_all_lengths_once_and_are_not_thin(lengths: list[int]) -> None:
    spans = length_spans(np.array(lengths))
    assert len(spans) <= 8
    assert spans[0][0] == min(lengths) and spans[-1][1] == max(lengths)
    assert all(b[0] == a[1] + 1 for a, b in pairwise(spans))
    inside = [sum(low <= n <= high for n in lengths) for low, high in spans]
    assert sum(inside) == len(lengths)
    assert len(spans) == 1 or min(inside) >= 10


def test_one_enormous_sentence_does_not_swallow_the_others() -> None:
    lengths = np.array([*range(1, 41)] * 10 + [100_000])
    spans = length_spans(lengths)
    assert len(spans) == 8
    assert spans[0] == (1, 5) and spans[-1] == (36, 100_000)


def test_scores_are_those_of_the_examples_inside() -> None:
    lengths = [3] * 20 + [12] * 20
    outputs = ["right"] * 20 + ["right", "wrong"] * 10
    references = [["right"]] * 40
    rows = score_by_length("accuracy", outputs, references, lengths, bootstrap=100)
    assert [(row.shortest, row.longest, row.n, row.value) for row in rows] == [
        (3, 4, 20, 100.0),
        (5, 12, 20, 50.0),
    ]
    assert rows[0].low == rows[0].high == 100.0
    assert rows[1].low is not None and rows[1].low < 50.0
    (alone,) = compute(["accuracy"], outputs[20:], references[20:], bootstrap=100)
    assert (alone.low, alone.high) == (rows[1].low, rows[1].high)
    assert rows[1].span == "5–12"


def test_lengths_must_be_as_many_as_outputs() -> None:
    with pytest.raises(DataError, match="2 source lengths for 1 outputs"):
        score_by_length("accuracy", ["a"], [["a"]], [1, 2])
