"""The terminal figure keeps its columns whatever the characters, and stays within the width."""

from __future__ import annotations

import unicodedata

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rich.cells import cell_len

from transduce.errors import UsageError
from transduce.evaluation.figures import attention_text
from transduce.evaluation.figures.terminal import SHADES, cut
from transduce.evaluation.figures.tokens import columns_of

MARK = "\u200e"


def test_letters_and_phones_side_by_side() -> None:
    weights = np.eye(4) * 0.9 + 0.02
    assert attention_text(weights, ["c", "a", "t"], ["K", "AE", "T"], width=60).split("\n") == [
        "      c   a   t  </s>",
        "   K ███",
        "  AE     ███",
        "   T         ███",
        "</s>             ████",
        "",
        "     ░ 0.05  ▒ 0.20  ▓ 0.40  █ 0.70 and more",
    ]


def test_shades_follow_the_weights() -> None:
    text = attention_text([[0.04, 0.05, 0.3, 0.5, 0.7]], list("abcde"), ["x"], width=40)
    assert text.split("\n")[1] == "x     ░░░ ▒▒▒ ▓▓▓ ███"


def test_wide_and_combining_characters_keep_their_columns() -> None:
    source = ["オレンジ", "色", "e\u0301", "ก็", "각"]
    for width in (80, 26):
        lines = attention_text(np.eye(5), source, ["a", "帽子", "o\u0308", "x", "y"], width).split(
            "\n"
        )
        cells = [line for line in lines if "█" in line and "0.05" not in line]
        heads = lines[: lines.index(cells[0])]
        # Cells begin under the label of their column: measured by rich, not by our own rule.
        for k, line in enumerate(cells):
            start = cell_len(line[: line.index("█")])
            under = [_from_column(head, start)[: line.count("█")] for head in heads]
            assert any(part.strip() for part in under), (k, line, heads)
    assert max(cell_len(line) for line in lines[:-1]) <= 26


def _from_column(text: str, column: int) -> str:
    for index in range(len(text) + 1):
        if cell_len(text[:index]) >= column:
            return text[index:]
    return ""


def test_what_does_not_fit_is_written_downwards_and_then_in_blocks() -> None:
    source = ["▁nineteen", "▁long", "▁words"] * 6
    down = attention_text(np.eye(18), source, ["▁w"] * 18, width=70)
    assert max(map(cell_len, down.split("\n"))) <= 70
    assert down.split("\n")[0].split() == ["n"] * 6
    blocks = attention_text(np.eye(18), source, ["▁w"] * 18, width=34)
    assert max(map(cell_len, blocks.split("\n")[:-1])) <= 34
    assert blocks.count("██") == 18
    assert len(blocks.split("\n\n")) == 3  # two blocks and the key


def test_arabic_rows_are_kept_from_being_reordered() -> None:
    text = attention_text(np.eye(3), ["رجل", "قبعة"], ["قط", "a"], width=60)
    lines = text.split("\n")
    assert lines[0].count(MARK) == 2 and lines[1].startswith(f"  قط{MARK} ███")
    assert MARK not in lines[2]


def test_pieces_that_go_on_a_word_are_dotted() -> None:
    text = attention_text(np.eye(4), ["▁star", "ing", "▁man", "."], ["a", "b", "c", "d"], width=60)
    assert text.split("\n")[0].split() == ["star", "·ing", "man", "."]


def test_sizes_must_agree() -> None:
    with pytest.raises(UsageError, match="positions"):
        attention_text(np.eye(3), ["a"], ["b", "c", "d"])
    with pytest.raises(UsageError, match=r"must be \(T, S\)"):
        attention_text(np.ones(3), ["a"], ["b", "c", "d"])


TOKENS = st.lists(
    st.text(st.characters(codec="utf-8"), max_size=6).filter(
        lambda s: not any(unicodedata.category(c) in ("Cf", "Mn", "Me") for c in s)
    ),
    min_size=1,
    max_size=8,
)


@settings(deadline=None, max_examples=60)
@given(source=TOKENS, target=TOKENS, width=st.integers(30, 120))
def test_every_cell_is_drawn_within_the_width(
    source: list[str], target: list[str], width: int
) -> None:
    weights = np.full((len(target), len(source)), 0.5)
    text = attention_text(weights, source, target, width)
    *lines, _, _ = text.split("\n")
    assert all(columns_of(line) <= width for line in lines)
    per_row = [line.count(SHADES[3]) for line in lines if SHADES[3] in line]
    assert sum(per_row) >= 2 * weights.size


def test_cutting_counts_columns() -> None:
    assert cut("abc", 3) == "abc"
    assert cut("abcd", 3) == "ab…"
    assert cut("帽子帽子", 5) == "帽子…"
    assert columns_of(cut("帽子帽子", 4)) <= 4
