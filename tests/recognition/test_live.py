"""Live sound: text grows, ends with the speaker, and frames are those of the whole recording."""

from __future__ import annotations

import io
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
import pytest

from transduce.data.audio.online import OnlineLogMel
from transduce.data.audio.segmentation import Cutting
from transduce.recognition.live import Again, ByFrames, Line, listen, pcm_chunks

RATE = 16000


@dataclass
class Mel:
    rate: int = RATE
    bins: int = 40
    frame_ms: float = 25.0
    shift_ms: float = 10.0


def in_chunks(wave: Any, size: int = 800) -> Iterator[Any]:
    return (wave[k : k + size] for k in range(0, len(wave), size))


class Counting:
    """An incremental model that says how many frames it has been given."""

    def __init__(self) -> None:
        self.frames: list[Any] = []
        self.ended: list[Any] = []

    def partial(self, frames: Any) -> str:
        self.frames.append(frames)
        return f"{sum(map(len, self.frames))} frames"

    def final(self) -> str:
        text = f"{sum(map(len, self.frames))} frames."
        self.ended.append(np.concatenate(self.frames))
        self.frames = []
        return text


@pytest.mark.parametrize("size", [160, 777, 16_000])
def test_frames_of_pieces_are_those_of_the_whole(waveform: Any, size: int) -> None:
    wave = waveform((0.2, 1.4), seconds=2.0)
    whole = OnlineLogMel(Mel()).push(wave)
    online = OnlineLogMel(Mel())
    parts = [online.push(part) for part in in_chunks(wave, size)]
    assert np.array_equal(np.concatenate(parts), whole)
    assert whole.shape == (1 + (len(wave) - 400) // 160, 40)
    assert online.push(wave[:0]).shape == (0, 40)


def test_text_grows_and_ends_with_each_utterance(waveform: Any) -> None:
    wave = waveform((2.5, 4.5), (6.5, 8.0), seconds=10.0)
    model = Counting()
    listener = ByFrames(model, lambda: OnlineLogMel(Mel()))
    lines = list(listen(in_chunks(wave), listener, rate=RATE, every=0.2))
    finals = [line for line in lines if line.final]
    assert [(round(line.start), round(line.end)) for line in finals] == [(2, 5), (6, 8)]
    for final in finals:
        partial = [line for line in lines if not line.final and line.start == final.start]
        counts = [int(line.text.split()[0]) for line in partial]
        assert counts == sorted(counts) and len(counts) >= 6
        ends = [line.end for line in partial]
        assert min(np.diff(ends)) >= 0.2 - 1e-6
    # What the model was given of an utterance are the frames of its sound, and of half a second
    # before it, of which 0.2 s count as its own.
    first = wave[round((finals[0].start - 0.3) * RATE) :]
    assert np.array_equal(model.ended[0], OnlineLogMel(Mel()).push(first)[: len(model.ended[0])])


def test_any_model_can_hear_by_decoding_again(waveform: Any) -> None:
    wave = waveform((2.5, 4.5), seconds=6.0)
    heard: list[int] = []

    def decode(samples: Any) -> str:
        heard.append(len(samples))
        return f"{len(samples) / RATE:.1f}"

    lines = list(listen(in_chunks(wave), Again(decode), rate=RATE, every=0.5))
    assert [line.final for line in lines].count(True) == 1
    assert heard == sorted(heard) and 2.0 <= float(lines[-1].text) <= 3.2
    assert Again(decode).end() == ""


def test_what_was_no_speech_is_taken_back(waveform: Any) -> None:
    wave = waveform(seconds=9.0)
    wave[4 * RATE : 6 * RATE] += 0.1 * np.random.default_rng(1).standard_normal(2 * RATE)
    lines = list(listen(in_chunks(wave.astype(np.float32)), Again(lambda _: "noise"), rate=RATE))
    assert lines[-1] == Line("", lines[0].start, lines[-1].end, final=True)
    assert [line.text for line in lines if line.final] == [""]
    silence = np.zeros(5 * RATE, dtype=np.float32)
    assert list(listen(in_chunks(silence), Again(lambda _: "x"), rate=RATE)) == []


def test_an_utterance_without_pause_is_cut_without_loss(waveform: Any) -> None:
    wave = waveform((2.0, 14.0), seconds=16.0)
    lines = list(
        listen(
            in_chunks(wave), Again(lambda s: str(len(s))), rate=RATE, cutting=Cutting(longest=4.0)
        )
    )
    finals = [line for line in lines if line.final]
    assert len(finals) >= 3 and finals[-1].end >= 14.0
    assert all(line.end - line.start <= 4.0 + 1e-6 for line in finals)
    for before, after in pairwise(finals[:-1]):
        assert before.end == after.start


def test_speech_at_the_end_of_the_stream_is_not_lost(waveform: Any) -> None:
    wave = waveform((2.0, 4.0), seconds=4.0)
    lines = list(listen(in_chunks(wave), Again(lambda _: "said"), rate=RATE))
    assert lines[-1].final and lines[-1].text == "said" and lines[-1].end == pytest.approx(4.0)


class Dripping(io.BytesIO):
    """A pipe that gives odd numbers of bytes."""

    def read1(self, size: int | None = -1, /) -> bytes:
        return super().read(min(size or 7, 7))


def test_samples_of_a_pipe(waveform: Any) -> None:
    wave = waveform((0.1, 0.9), seconds=1.0)
    data = (wave * 32767).astype("<i2")
    found = np.concatenate(list(pcm_chunks(Dripping(data.tobytes()[:-1]), RATE, RATE)))
    assert np.array_equal(found, data[:-1].astype(np.float32) / 32768)
    half = np.concatenate(list(pcm_chunks(io.BytesIO(data.tobytes()), 8000, RATE)))
    assert abs(len(half) - 2 * len(data)) <= 1
