"""One picture of an utterance: any parts of it, any tokens, always the same bytes."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from matplotlib.image import imread

from transduce.errors import UsageError
from transduce.evaluation.figures import Spikes, speech_figure, speech_png

FRAMES = np.random.default_rng(0).normal(8.0, 3.0, (240, 80)).astype(np.float32)
NAMES = ["<blank>", "G", "O", "␣", "N", "日", "$x^2$"]
SAID = [1, 2, 3, 2, 4]


@pytest.fixture(autouse=True)
def no_warnings() -> Iterator[None]:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        yield


def spikes() -> Spikes:
    probabilities = np.full((60, len(NAMES)), 0.002)
    probabilities[:, 0] = 0.988
    for number, label in enumerate(SAID):
        probabilities[8 + 10 * number, [0, label]] = 0.05, 0.94
    return Spikes(np.log(probabilities / probabilities.sum(axis=1, keepdims=True)), NAMES)


def attention(rows: int) -> np.ndarray:
    return np.random.default_rng(1).dirichlet(np.full(60, 0.1), size=rows)


def test_all_of_it_in_every_format(tmp_path: Path) -> None:
    for suffix, start in ((".png", b"\x89PNG"), (".svg", b"<?xml"), (".pdf", b"%PDF")):
        path = speech_png(
            FRAMES, 2.4, tmp_path / f"a{suffix}", tokens=list("GO ON"), attention=attention(6),
            ctc=spikes(), title="GO ON",
        )  # fmt: skip
        assert path.read_bytes().startswith(start)
    again = speech_png(
        FRAMES, 2.4, tmp_path / "b.png", tokens=list("GO ON"), attention=attention(6),
        ctc=spikes(), title="GO ON",
    )  # fmt: skip
    assert again.read_bytes() == (tmp_path / "a.png").read_bytes()


def test_panels_share_their_time_and_say_what_ctc_says() -> None:
    figure = speech_figure(FRAMES, 2.4, tokens=list("GO ON"), attention=attention(6), ctc=spikes())
    sound, looked, said = figure.axes
    assert sound.get_xlim() == looked.get_xlim() == said.get_xlim() == (0.0, 2.4)
    assert [text.get_text() for text in looked.get_yticklabels()] == [
        "G",
        "O",
        "␣",
        "O",
        "N",
        "</s>",
    ]
    written = sorted((note.xy[0], note.get_text()) for note in said.texts)
    assert [text for _, text in written] == ["G", "O", "␣", "O", "N"]
    assert written[0][0] == pytest.approx((8 + 0.5) * 2.4 / 60)
    assert [text.get_text() for text in sound.get_yticklabels()] == ["250", "500", "1k", "2k", "4k"]


def test_parts_may_be_missing() -> None:
    assert len(speech_figure(FRAMES, 2.4).axes) == 1
    assert len(speech_figure(FRAMES, 2.4, ctc=spikes()).axes) == 2
    assert len(speech_figure(FRAMES, 2.4, tokens=["▁GO"], attention=attention(1)).axes) == 2


def test_extreme_utterances_have_bounded_pictures(tmp_path: Path) -> None:
    tokens = [f"t{k}" for k in range(150)]
    path = speech_png(
        np.zeros((3000, 80)), 30.0, tmp_path / "a.png", tokens=tokens, attention=attention(150)
    )
    height, width = imread(path).shape[:2]
    assert width <= 3500 and height <= 7000
    speech_png(np.zeros((1, 2)), 0.025, tmp_path / "b.png", tokens=["x"], attention=attention(1))


def test_wrong_shapes_are_told() -> None:
    with pytest.raises(UsageError, match="V names"):
        speech_figure(FRAMES, 1.0, ctc=Spikes(np.zeros((5, 3)), NAMES))
    with pytest.raises(UsageError, match="6 positions, but there are 2 tokens"):
        speech_figure(FRAMES, 1.0, tokens=["a", "b"], attention=attention(6))
    with pytest.raises(UsageError, match="cannot be drawn"):
        speech_figure(FRAMES, 0.0)
