"""Sound files of every kind become one waveform; what is broken is said, and by name."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest

from transduce.data.audio.blocks import sound_blocks
from transduce.data.audio.files import is_silent, load, look, named, parts, resampled
from transduce.errors import DataError

from .conftest import RATE, tone, write


@pytest.mark.parametrize(
    ("suffix", "subtype"),
    [(".wav", None), (".flac", None), (".ogg", None), (".ogg", "OPUS"), (".mp3", None)],
)
def test_formats_give_the_same_sound(tmp_path: Path, suffix: str, subtype: str | None) -> None:
    wave = tone(1.0)
    path = write(tmp_path / f"Käse und Brot{suffix}", wave, RATE, subtype)
    found, seconds = load(str(path), RATE)
    assert seconds == pytest.approx(1.0, abs=0.1)  # MP3 is padded to whole blocks
    lag = 0 if suffix in (".wav", ".flac") else max(0, len(found) - len(wave))
    assert max(_alike(found[k : k + 12_000], wave[:12_000]) for k in range(lag + 1)) > 0.98
    assert look(str(path)).rate == RATE


def _alike(a: np.ndarray, b: np.ndarray) -> float:
    return float(np.corrcoef(a, b)[0, 1])


def test_rate_and_channels_do_not_matter(tmp_path: Path) -> None:
    wide = tone(1.0, 44_100)
    stereo = np.stack([wide * 1.5, wide * 0.5], axis=1)
    path = write(tmp_path / "stereo.wav", stereo, 44_100, "PCM_24")
    found, _ = load(str(path), RATE)
    assert len(found) == RATE and found.dtype == np.float32
    expected = resampled(wide, 44_100, RATE, "tone")
    assert np.abs(found - expected).max() < 1e-4
    low = write(tmp_path / "low.wav", tone(1.0, 8000), 8000)
    assert len(load(str(low), RATE)[0]) == RATE


def test_samples_of_any_number_type(tmp_path: Path) -> None:
    wave = tone(0.1)
    whole = np.round(wave * 32767).astype(np.int16)
    assert np.abs(resampled(whole, RATE, RATE, "x") - wave).max() < 1e-3
    unsigned = np.round(wave * 127 + 128).astype(np.uint8)
    assert np.abs(resampled(unsigned, RATE, RATE, "x") - wave).max() < 0.02
    assert resampled(wave.astype(np.float64), RATE, RATE, "x").dtype == np.float32
    with pytest.raises(DataError, match="not numbers"):
        resampled(np.array([0.0, np.nan, np.inf]), RATE, RATE, "x")
    with pytest.raises(DataError, match="samples are"):
        resampled(np.zeros((2, 2, 2)), RATE, RATE, "x")
    with pytest.raises(DataError, match="these have 1,600 channels"):  # channels come last
        resampled(np.stack([wave, wave]), RATE, RATE, "x")
    assert len(resampled(np.zeros((0, 2)), RATE, RATE, "x")) == 0
    with pytest.raises(DataError, match="rate"):
        resampled(wave, 0, RATE, "x")


def test_part_of_a_file(tmp_path: Path) -> None:
    wave = tone(2.0)
    path = write(tmp_path / "long.flac", wave)
    found, seconds = load(named(path, 0.5, 1.25), RATE)
    assert seconds == 0.75
    assert np.abs(found - wave[8000:20_000]).max() < 1e-3
    assert len(load(named(path, 1.5), RATE)[0]) == 8000
    with pytest.raises(DataError, match="has only 2"):
        load(named(path, 2.5, 3.0), RATE)
    with pytest.raises(DataError, match="before it starts"):
        load(f"{path}#t=1.0,0.5", RATE)
    almost_all = named(path, 2e-5, 1.25)  # which Python writes as 2e-05
    assert parts(almost_all) == (path, 2e-5, 1.25) and load(almost_all, RATE)[1] == 1.25
    odd = write(tmp_path / "take.wav#t=1,2.wav", wave[:100])
    assert parts(str(odd)) == (odd, 0.0, None)


def test_only_as_much_is_read_as_is_wanted(tmp_path: Path) -> None:
    path = write(tmp_path / "long.wav", tone(5.0))
    found, seconds = load(str(path), RATE, longest=1.0)
    assert (len(found), seconds) == (RATE, 5.0)


def test_speed_changes_length(tmp_path: Path) -> None:
    path = write(tmp_path / "a.wav", tone(1.0))
    assert len(load(str(path), RATE, speed=0.8)[0]) == pytest.approx(RATE / 0.8, abs=2)
    assert len(load(str(path), RATE, speed=1.25)[0]) == pytest.approx(RATE / 1.25, abs=2)


def test_broken_files_are_named(tmp_path: Path) -> None:
    good = write(tmp_path / "good.wav", tone(1.0)).read_bytes()
    flac = write(tmp_path / "good.flac", tone(1.0)).read_bytes()
    broken = {
        "missing.wav": (None, "does not exist"),
        "empty.wav": (b"", "is empty"),
        "header.wav": (good[:44], "holds no sound|cut short"),
        "cut.wav": (good[:20_000], "cut short"),
        "cut.flac": (flac[: len(flac) // 2], "cannot be read to its end|cut short"),
        "text.wav": (b"this is no sound at all\n" * 20, "not a sound file"),
        "zeros.mp3": (bytes(5000), "zeros.mp3: not a sound file that can be read$"),
        "noise.raw": (bytes(range(256)) * 20, "not a sound file"),
    }
    for name, (data, message) in broken.items():
        path = tmp_path / name
        if data is not None:
            path.write_bytes(data)
        with pytest.raises(DataError, match=message) as raised:
            load(str(path), RATE)
        assert name in str(raised.value)
    with pytest.raises(DataError, match="a folder"):
        load(str(tmp_path), RATE)
    not_numbers = tone(0.1)
    not_numbers[7] = np.nan
    with pytest.raises(DataError, match="1 samples are not numbers"):
        load(str(write(tmp_path / "nan.wav", not_numbers, RATE, "FLOAT")), RATE)


@pytest.mark.parametrize("channels", [1, 2])
def test_samples_far_beyond_full_scale_are_no_sound(tmp_path: Path, channels: int) -> None:
    wave = np.stack([tone(1.0)] * channels, axis=1)
    loud = write(tmp_path / "loud.wav", wave * 30, RATE, "FLOAT")  # recorded badly, but finite
    assert len(load(str(loud), RATE)[0]) == RATE
    wave[5000, :] = 3e38  # whose sum over channels is infinite
    path = write(tmp_path / "huge.wav", wave, RATE, "FLOAT")
    for read in (lambda: load(str(path), RATE), lambda: list(sound_blocks(path, 8000))):
        with pytest.raises(DataError, match=r"far beyond full scale.*\(peak 3e\+38\)") as raised:
            read()
        assert str(raised.value).startswith(f"{path}: ")
    with pytest.raises(DataError, match="the waveform: samples far beyond"):
        resampled(wave.astype(np.float64) * 1e9, RATE, RATE, "the waveform")


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no pipes with names here")
def test_pipes_and_devices_are_told_and_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.wav")
    for path in (tmp_path / "pipe.wav", Path(os.devnull)):
        with pytest.raises(DataError, match="is not a regular file: "):
            load(str(path), RATE)


def test_the_extension_does_not_decide(tmp_path: Path) -> None:
    path = write(tmp_path / "a.flac", tone(0.5))
    wrong = path.rename(tmp_path / "a.wav")
    assert len(load(str(wrong), RATE)[0]) == RATE // 2


def test_silence_is_what_does_not_move() -> None:
    assert is_silent(np.full(RATE, 0.3, np.float32))
    assert is_silent(np.random.default_rng(0).normal(0, 2e-5, RATE).astype(np.float32))
    assert not is_silent(tone(0.5) * 0.01 + 0.3)
