"""Recordings are cut where nobody speaks; silence, noise and held tones give nothing."""

from __future__ import annotations

import tracemalloc
from collections.abc import Callable, Iterator
from itertools import pairwise
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest

from transduce.data.audio.blocks import Resampled, sound_blocks
from transduce.data.audio.segmentation import Cutting, Piece, Segmenter, pieces
from transduce.errors import DataError, UsageError

soundfile = pytest.importorskip("soundfile")
RATE = 16000
Wave = npt.NDArray[np.float32]
Make = Callable[..., Wave]


def talk(seconds: float, *, seed: int = 0, rate: int = RATE) -> Wave:
    """Syllables of a fifth of a second: a buzz at 120 Hz through formants that change, and hiss."""
    drawn = np.random.default_rng(seed)
    parts = []
    length = round(0.2 * rate)
    while sum(map(len, parts)) < seconds * rate:
        time = np.arange(length) / rate
        if drawn.random() < 0.25:  # a fricative: noise of high bands
            noise = drawn.standard_normal(length)
            sound = 0.15 * np.diff(noise, prepend=0.0)
        else:
            pitch = 120 * drawn.uniform(0.9, 1.2)
            formants = drawn.uniform((300, 900, 2200), (800, 2100, 3200))
            sound = np.zeros(length)
            for harmonic in range(1, 28):
                hertz = pitch * harmonic
                gain = sum(np.exp(-(((hertz - f) / 120) ** 2)) for f in formants) + 0.003
                sound += gain * np.sin(2 * np.pi * hertz * time)
        parts.append(0.1 * sound * np.sin(np.pi * np.arange(length) / length) ** 0.7)
    return np.concatenate(parts)[: round(seconds * rate)].astype(np.float32)


def noise(seconds: float, level: float = 0.001, *, seed: int = 1, rate: int = RATE) -> Wave:
    drawn = np.random.default_rng(seed)
    return (level * drawn.standard_normal(round(seconds * rate))).astype(np.float32)


def tones(seconds: float, *, rate: int = RATE) -> Wave:
    """A held chord."""
    time = np.arange(round(seconds * rate)) / rate
    chord = sum(np.sin(2 * np.pi * hertz * time) for hertz in (220.0, 277.2, 329.6, 440.0))
    return np.asarray(0.1 * chord, dtype=np.float32)


@pytest.fixture(scope="session")
def speech_like() -> Callable[..., Wave]:
    return talk


@pytest.fixture(scope="session")
def noise_like() -> Callable[..., Wave]:
    return noise


@pytest.fixture(scope="session")
def tone_like() -> Callable[..., Wave]:
    return tones


def cut(wave: Wave, cutting: Cutting | None = None, *, block: int = 16000) -> list[Piece]:
    return list(pieces(in_blocks(wave, block), RATE, cutting))


def in_blocks(wave: Wave, block: int) -> Iterator[Wave]:
    return (wave[k : k + block] for k in range(0, len(wave), block))


def times(found: list[Piece]) -> list[tuple[float, float]]:
    return [(piece.start, piece.end) for piece in found]


def with_speech(speech_like: Make, noise_like: Make, *spans: tuple[float, float]) -> Wave:
    """Noise until one second after the last of the spans, in which somebody speaks."""
    wave = noise_like(spans[-1][1] + 1.0)
    for number, (start, end) in enumerate(spans):
        part = speech_like(end - start, seed=number)
        wave[round(start * RATE) : round(start * RATE) + len(part)] += part
    return wave


def test_each_stretch_of_speech_is_a_piece(speech_like: Make, noise_like: Make) -> None:
    spans = [(1.0, 3.0), (4.5, 6.0), (9.0, 9.6), (14.0, 21.0)]
    wave = with_speech(speech_like, noise_like, *spans)
    found = cut(wave)
    assert len(found) == len(spans)
    for piece, (start, end) in zip(found, spans, strict=True):
        assert start - 0.4 <= piece.start <= start and end <= piece.end <= end + 0.4
        assert np.array_equal(
            piece.samples, wave[round(piece.start * RATE) : round(piece.end * RATE)]
        )


def test_blocks_change_nothing(speech_like: Make, noise_like: Make) -> None:
    wave = with_speech(speech_like, noise_like, (0.5, 2.0), (3.0, 12.0), (25.0, 26.0))
    cutting = Cutting(longest=5.0)
    whole = times(cut(wave, cutting, block=len(wave)))
    assert len(whole) >= 4
    assert times(cut(wave, cutting, block=777)) == whole
    assert times(cut(wave, cutting, block=40_000)) == whole


@pytest.mark.parametrize("level", [0.0, 1e-5, 0.001, 0.1])
def test_five_minutes_without_speech_give_nothing(noise_like: Make, level: float) -> None:
    minute = noise_like(60.0, level)
    assert cut(np.concatenate([minute] * 5), block=RATE * 10) == []


def test_tones_hum_offset_and_bursts_of_noise_give_nothing(
    tone_like: Make, noise_like: Make
) -> None:
    time = np.arange(30 * RATE) / RATE
    assert cut(tone_like(30.0)) == []
    assert cut((0.5 + 0.3 * np.sin(2 * np.pi * 50 * time)).astype(np.float32)) == []
    gate = (np.sin(2 * np.pi * 0.25 * time) > 0).astype(np.float32)
    assert cut(noise_like(30.0, 0.1) * gate) == []
    assert cut(tone_like(30.0) * gate + noise_like(30.0)) == []


def test_speech_is_found_in_noise_and_beside_an_offset(speech_like: Make, noise_like: Make) -> None:
    wave = noise_like(20.0, 0.01)
    wave[5 * RATE : 8 * RATE] += speech_like(3.0)
    wave += np.float32(0.3)
    (piece,) = cut(wave)
    assert 4.5 <= piece.start <= 5.1 and 7.8 <= piece.end <= 8.5


def test_speech_is_found_in_noise_hardly_quieter(speech_like: Make, noise_like: Make) -> None:
    speech = speech_like(4.0, seed=2)
    power = float(np.sqrt((speech**2).mean()))
    wave = noise_like(12.0, power * 10 ** (-5 / 20))  # 5 dB below
    wave[4 * RATE : 8 * RATE] += speech
    found = cut(wave)
    assert found and 3.5 <= found[0].start <= 4.6 and 7.4 <= found[-1].end <= 8.5


def test_no_piece_is_too_long_and_no_speech_is_lost(speech_like: Make, noise_like: Make) -> None:
    wave = with_speech(speech_like, noise_like, (1.0, 41.0))
    found = cut(wave, Cutting(longest=6.0))
    assert all(piece.end - piece.start <= 6.0 + 1e-6 for piece in found)
    for before, after in pairwise(found):
        assert 0 <= after.start - before.end <= 0.3  # silence between may be left out
    assert found[0].start <= 1.0 and found[-1].end >= 41.0


def test_long_speech_is_cut_in_its_pauses(speech_like: Make, noise_like: Make) -> None:
    # Pauses of 0.3 s are too short to end a piece, but the right place to cut one.
    spans = [(0.5 + 2.3 * k, 2.5 + 2.3 * k) for k in range(10)]
    wave = with_speech(speech_like, noise_like, *spans)
    found = cut(wave, Cutting(longest=6.0))
    for piece in found[:-1]:
        assert any(end - 0.1 <= piece.end <= end + 0.4 for _, end in spans), piece.end


def test_a_clip_without_any_silence_is_a_piece(speech_like: Make) -> None:
    clip = speech_like(0.4, seed=3)
    (piece,) = cut(clip)
    assert (piece.start, piece.end) == (0.0, 0.4) and len(piece.samples) == len(clip)
    (word,) = cut(clip[: RATE // 5])
    assert len(word.samples) == RATE // 5
    assert cut(np.zeros(6400, dtype=np.float32)) == []
    assert cut(np.zeros(0, dtype=np.float32)) == []
    assert cut(clip[:50]) == []


def test_a_live_signal_gives_the_piece_while_it_is_spoken(
    speech_like: Make, noise_like: Make
) -> None:
    wave = with_speech(speech_like, noise_like, (3.0, 5.0), (7.0, 8.0))
    segmenter = Segmenter(RATE, Cutting(margin=0.2, lead=0.6), live=True)
    begun: dict[float, float] = {}
    ended: list[tuple[Piece, float]] = []
    for block in in_blocks(wave, 800):
        ended += [(piece, segmenter.seconds) for piece in segmenter.push(block)]
        if (current := segmenter.current()) is not None:
            begun.setdefault(current[0], segmenter.seconds)
            first = round((current[0] - 0.4) * RATE)  # what came before the start is heard too
            assert np.array_equal(current[1], wave[first : round(segmenter.seconds * RATE)])
    assert [round(start) for start in begun] == [3, 7]
    for start, known in begun.items():
        assert known - start < 0.5
    assert len(ended) == 2 and ended[0][1] - 5.0 < 0.8  # half a second of pause, and little more
    for piece, _ in ended:
        first, last = round((piece.start - 0.4) * RATE), round(piece.end * RATE)
        assert np.array_equal(piece.samples, wave[first:last])
    assert segmenter.finish() == []


def test_a_live_piece_hears_nothing_that_an_earlier_one_had(speech_like: Make) -> None:
    """However long the lead: a word at the end of one would be written twice."""
    silence = np.zeros(RATE * 7 // 10, dtype=np.float32)
    wave = np.concatenate([silence, speech_like(2.0), silence, speech_like(2.0), silence])
    segmenter = Segmenter(RATE, Cutting(lead=9.0), live=True)
    found = [piece for block in in_blocks(wave, 800) for piece in segmenter.push(block)]
    one, other = [*found, *segmenter.finish()]
    assert np.array_equal(one.samples, wave[: round(one.end * RATE)])
    assert np.array_equal(other.samples, wave[round(one.end * RATE) : round(other.end * RATE)])


def test_memory_does_not_grow_with_the_recording(speech_like: Make, noise_like: Make) -> None:
    rate = 8000
    part = np.concatenate([speech_like(25.0, rate=rate), noise_like(5.0, rate=rate)])

    def peak(minutes: int) -> int:
        tracemalloc.start()
        count = sum(1 for _ in pieces((part for _ in range(2 * minutes)), rate))
        held = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert count >= 2 * minutes
        return held

    assert peak(12) < 1.2 * peak(3)


# --------------------------------------------------------------------------------- reading


@pytest.mark.parametrize(("rate", "channels", "name"), [
    (8000, 2, "a b.wav"), (44100, 1, "Größe 日本.flac"), (16000, 1, "c.wav")
])  # fmt: skip
def test_files_are_read_in_blocks_at_one_rate(
    tmp_path: Path, speech_like: Make, rate: int, channels: int, name: str
) -> None:
    wave = speech_like(9.0, rate=rate)
    soundfile.write(tmp_path / name, np.stack([wave] * channels, axis=1), rate, subtype="PCM_24")
    blocks = list(sound_blocks(tmp_path / name, RATE))
    assert len(blocks) > 1 and all(block.dtype == np.float32 for block in blocks)
    found = np.concatenate(blocks)
    expected = Resampled(rate, RATE).push(wave, last=True)
    assert abs(len(found) - 9 * RATE) <= 1
    assert np.abs(found - expected[: len(found)]).max() < 1e-4


def test_what_cannot_be_read_is_told(tmp_path: Path, speech_like: Make) -> None:
    text, empty, none = tmp_path / "t.wav", tmp_path / "e.wav", tmp_path / "n.wav"
    text.write_text("not a sound")
    empty.write_bytes(b"")
    soundfile.write(none, np.zeros(0, dtype=np.float32), RATE)
    for path, told in ((text, "not a sound file"), (empty, "file is empty"),
                       (none, "holds no sound"), (tmp_path, "is a folder"),
                       (tmp_path / "x.wav", "does not exist")):  # fmt: skip
        with pytest.raises(DataError, match=told) as caught:
            list(sound_blocks(path, RATE))
        assert str(path) in str(caught.value)


def test_what_comes_before_damage_is_kept(tmp_path: Path, speech_like: Make) -> None:
    path = tmp_path / "a.wav"
    wave = speech_like(12.0)
    wave[10 * RATE] = np.nan
    soundfile.write(path, wave, RATE, subtype="FLOAT")
    blocks = sound_blocks(path, RATE)
    good = [next(blocks), next(blocks)]
    assert sum(map(len, good)) == 8 * RATE
    with pytest.raises(DataError, match=r"not numbers \(NaN or infinite\) at 10\.0 s"):
        next(blocks)
    flac = tmp_path / "a.flac"
    soundfile.write(flac, speech_like(30.0), RATE)
    flac.write_bytes(flac.read_bytes()[: flac.stat().st_size // 2])
    found = 0
    with pytest.raises(DataError, match=r"damaged after|cut short"):
        for block in sound_blocks(flac, RATE):
            found += len(block)
    assert found >= 8 * RATE


def test_wrong_values_are_told() -> None:
    for values in (
        {"longest": 0.5},
        {"longest": float("inf")},
        {"longest": float("nan")},
        {"longest": 1e308},
        {"margin": float("inf")},
        {"lead": float("inf")},
        {"pause": 0.0},
        {"longest": 5.0, "pause": 9.0},
        {"margin": -1.0},
        {"lead": -1.0},
    ):
        with pytest.raises(UsageError):
            Cutting(**values)
    never = Segmenter(RATE, Cutting(longest=1e9))
    assert not never.push(np.zeros(RATE, np.float32)) and not never.finish()
