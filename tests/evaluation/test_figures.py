"""Figures can be drawn of any tokens, in any script, without warnings, always the same."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from matplotlib.image import imread

from transduce.errors import FolderError, UsageError
from transduce.evaluation.buckets import LengthRow
from transduce.evaluation.figures import (
    attention_figure,
    attention_png,
    curves_figure,
    curves_png,
    lengths_png,
)
from transduce.evaluation.figures.charts import smoothed
from transduce.evaluation.figures.fonts import BASE, BOX, Typesetting
from transduce.evaluation.figures.tokens import labels, word_starts

GERMAN = ["▁Ein", "▁Mann", "▁starr", "t", "▁auf", "▁etwas", "."]
ENGLISH = ["▁A", "▁man", "▁star", "ing", "▁at", "▁something", "."]
ARABIC = ["رجل", "يرتدي", "قبعة", "برتقالية", "."]
JAPANESE = ["▁", "オレンジ", "色", "の", "帽子", "。"]
ODD = [
    "$5",
    "$x^2$",
    "a_b",
    "e\u0301",
    "\x00",
    "😀",
    "한국",
    "<unk>",
    "\u200d",
    "ก",
    "x" * 90,
    "",
    "\n",
]


@pytest.fixture(autouse=True)
def no_warnings() -> Iterator[None]:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        yield


def attention(target: int, source: int) -> np.ndarray:
    weights = np.random.default_rng(1).dirichlet(np.full(source, 0.2), size=target)
    return weights.astype(np.float32)


@pytest.mark.parametrize("source", [GERMAN, ARABIC, JAPANESE, ODD], ids=["de", "ar", "ja", "odd"])
@pytest.mark.parametrize("target", [ENGLISH, ODD], ids=["en", "odd"])
def test_any_tokens_can_be_drawn(source: list[str], target: list[str], tmp_path: Path) -> None:
    weights = attention(len(target) + 1, len(source) + 1)
    scores = np.log(np.linspace(0.2, 1.0, len(target) + 1)).tolist()
    path = attention_png(
        weights, source, target, tmp_path / "a.png", token_scores=scores, title=" ".join(source)
    )
    picture = imread(path)
    assert picture.shape[0] > 300 and picture.shape[1] > 300
    # Nothing touches the edge: every label is inside the picture.
    white = picture[..., :3].min(axis=2) > 0.99
    assert white[:8].all() and white[-8:].all() and white[:, :8].all() and white[:, -8:].all()


@pytest.mark.parametrize("size", [(1, 1), (2, 60), (60, 2), (90, 130)])
def test_extreme_sizes(size: tuple[int, int], tmp_path: Path) -> None:
    target, source = size
    path = attention_png(
        attention(target, source), ["▁word"] * source, ["▁Wort"] * target, tmp_path / "a.png"
    )
    assert path.stat().st_size > 1000


def test_the_heaviest_weight_is_the_darkest_and_in_its_place(tmp_path: Path) -> None:
    weights = np.full((3, 4), 0.02)
    weights[1, 2] = 0.9
    figure = attention_figure(weights, list("abcd"), list("xyz"))
    mesh = figure.axes[0].collections[0]
    shown = np.ma.filled(mesh.get_array(), np.nan).reshape(5, 7)[::2, ::2]
    assert np.array_equal(shown, weights)
    assert mesh.norm.vmax == 0.9
    names = [text.get_text() for text in figure.axes[0].texts]
    assert [name for name in names if name in "abcdxyz"] == list("abcdxyz")


def test_a_missing_end_symbol_is_named_and_other_sizes_are_refused() -> None:
    assert labels(["▁a", "b"], 3) == ["a", "b", "</s>"]
    assert labels(["▁", "▁▁a", "\t"], 3) == ["␣", "␣a", "␣"]
    with pytest.raises(UsageError, match="the attention has 5 positions, but there are 2 tokens"):
        attention_figure(np.ones((5, 3)), ["a", "b", "c"], ["x", "y"])
    with pytest.raises(UsageError, match="2 target positions, but 1 token scores"):
        attention_figure(np.ones((2, 1)), ["a"], ["x", "y"], token_scores=[0.0])
    with pytest.raises(UsageError, match="not empty"):
        attention_figure(np.ones((0, 3)), ["a", "b", "c"], [])
    with pytest.raises(UsageError, match="not finite"):
        attention_figure(np.full((1, 1), np.nan), ["a"], ["x"])


def test_pieces_of_a_word_belong_together_where_the_script_has_words() -> None:
    assert word_starts(GERMAN, 8) == [True, True, True, False, True, True, False, True]
    assert all(word_starts(JAPANESE, 7))
    assert all(word_starts(["K", "AE", "T"], 4))


def test_the_same_figure_is_the_same_file(tmp_path: Path) -> None:
    weights = attention(8, 8)
    first, second = (
        attention_png(weights, GERMAN, ENGLISH, tmp_path / name).read_bytes()
        for name in ("a.png", "b.png")
    )
    assert first == second


@pytest.mark.parametrize("suffix", [".svg", ".pdf"])
def test_vector_formats(suffix: str, tmp_path: Path) -> None:
    path = attention_png(attention(8, 8), GERMAN, ENGLISH, tmp_path / f"new/folder/a{suffix}")
    assert path.stat().st_size > 1000


def test_where_a_figure_cannot_be_written(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"a\.gif: a figure is written as \.png, \.svg, \.pdf"):
        attention_png(np.ones((1, 1)), ["a"], ["x"], tmp_path / "a.gif")
    (tmp_path / "file").write_text("")
    with pytest.raises(FolderError, match="cannot be written"):
        attention_png(np.ones((1, 1)), ["a"], ["x"], tmp_path / "file" / "a.png")


def test_without_a_font_a_box_and_a_note_stand_for_a_character() -> None:
    plain = Typesetting(["Straße", "Ελλάδα", "кот", "قطة", "ŋʃʒ"])
    assert plain.families == [BASE] and plain.note is None
    unassigned = "\U0003fffd"
    some = Typesetting([f"a{unassigned}\U000e0001"])
    assert some.text(f"a{unassigned}\U000e0001") == f"a{BOX}"
    assert some.note is not None and "U+3FFFD" in some.note


def rows(count: int, *, scores: bool = True) -> list[dict[str, object]]:
    found: list[dict[str, object]] = []
    for update in range(50, 50 * count + 1, 50):
        found.append({"update": update, "loss": 7.0 / (1 + update / 500), "learning_rate": 1e-3})
        if scores and update % 200 == 0:
            values = {"bleu": 40 - 8000 / (200 + update), "ter": 30 + 8000 / (200 + update)}
            found.append({"update": update, "loss": 3.0, "scores": values, "best": True})
    return found


def test_curves_show_loss_scores_and_rate(tmp_path: Path) -> None:
    figure = curves_figure(rows(80))
    assert [axes.get_ylabel() for axes in figure.axes] == [
        "loss (nats per token)",
        "BLEU",
        "TER",
        "",
    ]
    written = [text.get_text() for axes in figure.axes for text in axes.texts]
    assert "38.10" in written  # the best BLEU, the last
    assert "31.90" in written  # the best TER, the lowest
    assert curves_png(rows(80), tmp_path / "c.png").stat().st_size > 1000


def test_curves_of_little_and_of_broken_runs(tmp_path: Path) -> None:
    curves_png(rows(1), tmp_path / "one.png")
    curves_png(rows(30, scores=False), tmp_path / "reports.png")
    curves_png([row for row in rows(4) if "scores" in row], tmp_path / "validation.png")
    broken = [*rows(8), {"update": 450, "loss": None, "learning_rate": float("nan")}]
    broken.append({"update": 460, "loss": float("inf"), "scores": {"bleu": None, "own": 1.0}})
    curves_png(broken, tmp_path / "broken.png")
    with pytest.raises(UsageError, match="no training curves yet"):
        curves_png([{"kind": "start"}], tmp_path / "none.png")


def test_smoothing_keeps_constants_and_ends() -> None:
    assert np.allclose(smoothed(np.full(500, 3.0)), 3.0)
    ramp = smoothed(np.arange(400.0))
    assert ramp[0] < 10 and ramp[-1] > 389 and np.all(np.diff(ramp) > 0)
    assert np.array_equal(smoothed(np.array([1.0, 5.0])), [1.0, 5.0])


def test_lengths_with_and_without_intervals(tmp_path: Path) -> None:
    spans = [
        LengthRow(k, k + 4, 10 * k, "bleu", "BLEU", 40.0 - k, 38.0 - k, 42.0 - k) for k in (1, 6)
    ]
    assert lengths_png(spans, tmp_path / "a.png").stat().st_size > 1000
    lengths_png([LengthRow(1, 9, 5, "bleu", "BLEU", 0.0, None, None)], tmp_path / "b.png")
    with pytest.raises(UsageError, match="no scores by length"):
        lengths_png([], tmp_path / "c.png")
