"""Unknown words become the source words they were read from."""

from __future__ import annotations

import numpy as np

from transduce.search import replace_unknown

SOURCE = ["Frau", "Käsebier", "lacht"]
# The fourth column is the source's end symbol, the last row the target's.
ATTENTION = np.array(
    [[0.8, 0.1, 0.0, 0.1], [0.1, 0.3, 0.1, 0.5], [0.0, 0.1, 0.7, 0.2], [0.0, 0.0, 0.1, 0.9]]
)


def test_the_word_attended_most_is_copied_and_never_the_end_symbol() -> None:
    tokens = ["Mrs", "<unk>", "laughs"]
    assert replace_unknown(tokens, SOURCE, ATTENTION) == ["Mrs", "Käsebier", "laughs"]


def test_each_unknown_has_its_own_origin() -> None:
    assert replace_unknown(["<unk>"] * 3, SOURCE, ATTENTION) == SOURCE


def test_nothing_to_replace_with() -> None:
    assert replace_unknown(["a", "<unk>"], SOURCE, None) == ["a", "<unk>"]
    assert replace_unknown(["a", "<unk>"], [], ATTENTION[:, :1]) == ["a", "<unk>"]
    assert replace_unknown([], SOURCE, ATTENTION[-1:]) == []
