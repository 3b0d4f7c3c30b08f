"""Standard input of `transcribe --stream`: what is no sound, where it ends, how long it may be."""

from __future__ import annotations

import io
import os
import signal
import sys
import threading
import tracemalloc
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import soundfile

from transduce.commands.listening import UntilInterrupted, run_listen
from transduce.data.audio.segmentation import Cutting
from transduce.errors import UsageError
from transduce.recognition.live import Again, Line, listen, pcm_chunks

RATE = 16000


def pcm(wave: Any) -> bytes:
    return (wave * 32767).astype("<i2").tobytes()


class Pipe(io.BytesIO):
    """Gives a few bytes at a time, and may be told to do something when it is empty."""

    def __init__(self, data: bytes, size: int = 3001, at_end: Any = None) -> None:
        super().__init__(data)
        self.size, self.at_end = size, at_end

    def read1(self, size: int | None = -1, /) -> bytes:
        data = super().read(min(size or self.size, self.size))
        if not data and self.at_end is not None:
            self.at_end()
        return data


@pytest.mark.parametrize("form", ["WAV", "FLAC", "OGG", "AIFF", "MP3"])
@pytest.mark.parametrize("size", [1, 5, 4000])
def test_a_sound_file_in_place_of_samples_is_told(form: str, size: int) -> None:
    held = io.BytesIO()
    if form == "MP3":
        held.write(b"ID3\x04\x00\x00\x00\x00\x00\x00" + bytes(200))
    else:
        soundfile.write(held, np.zeros(2000), RATE, format=form)
    with pytest.raises(UsageError, match=f"(?i){form}.*samples alone.*16000 a second"):
        list(pcm_chunks(Pipe(held.getvalue(), size), RATE, RATE))


@pytest.mark.parametrize("data", [b"", b"R", b"RI", b"RIFFED is no", b"RIFF" + bytes(30)])
def test_samples_that_begin_like_a_file_are_samples(data: bytes) -> None:
    found = np.concatenate(list(pcm_chunks(Pipe(data, 1), RATE, RATE)))
    assert len(found) == len(data) // 2 and np.isfinite(found).all()
    assert np.array_equal(np.round(found * 32768), np.frombuffer(data[: len(data) // 2 * 2], "<i2"))


def test_no_bytes_make_anything_but_numbers_within_full_scale() -> None:
    data = np.random.default_rng(1).bytes(20_001)
    found = np.concatenate(list(pcm_chunks(Pipe(data, 7), 44_100, RATE)))
    assert found.dtype == np.float32 and np.isfinite(found).all() and np.abs(found).max() < 2.0


def printed(monkeypatch: Any, capsys: Any, clock: Any, pipe: Pipe, given: int = RATE) -> str:
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(pipe))
    run_listen(clock, RATE, {}, given=given, every=0.5, cutting=Cutting(), json=False)
    return str(capsys.readouterr().out)


def test_the_end_in_a_word_and_another_rate(
    monkeypatch: Any, capsys: Any, clock: Any, waveform: Any
) -> None:
    wave = waveform((2.4, 4.0), seconds=4.0)
    said = printed(monkeypatch, capsys, clock, Pipe(pcm(wave)[:-1]))
    assert said.startswith("heard 2.") and said.count("\n") == 1
    halved = printed(monkeypatch, capsys, clock, Pipe(pcm(wave[::2])), RATE // 2)
    assert halved.startswith("heard 2.") and halved.count("\n") == 1


def test_ctrl_c_while_waiting_makes_the_last_line_final(
    monkeypatch: Any, capsys: Any, clock: Any, waveform: Any
) -> None:
    def interrupt() -> None:
        os.kill(os.getpid(), signal.SIGINT)
        threading.Event().wait(10)  # as a read would, until the signal is there

    wave = waveform((2.4, 4.0), seconds=4.0)
    before = signal.getsignal(signal.SIGINT)
    said = printed(monkeypatch, capsys, clock, Pipe(pcm(wave), at_end=interrupt))
    assert said.startswith("heard 2.") and said.count("\n") == 1
    assert signal.getsignal(signal.SIGINT) is before


def test_ctrl_c_while_the_model_thinks_lets_it_and_a_second_one_does_not() -> None:
    seen = []
    with UntilInterrupted(iter([np.zeros(1, np.float32)] * 3)) as chunks:
        for chunk in chunks:
            os.kill(os.getpid(), signal.SIGINT)
            seen.append(chunk)
    assert len(seen) == 1
    with (
        pytest.raises(KeyboardInterrupt),
        UntilInterrupted(iter([np.zeros(1, np.float32)] * 3)) as chunks,
    ):
        for _ in chunks:
            os.kill(os.getpid(), signal.SIGINT)
            os.kill(os.getpid(), signal.SIGINT)


def test_silence_however_long_costs_no_memory(waveform: Any) -> None:
    quiet = (0.0005 * np.random.default_rng(3).standard_normal(RATE)).astype(np.float32)
    held: list[int] = []

    def chunks() -> Iterator[Any]:
        for second in range(160):
            if second in (40, 159):
                held.append(tracemalloc.get_traced_memory()[0])
            yield quiet
        yield waveform((0.0, 1.6), seconds=1.6)

    tracemalloc.start()
    try:
        lines = list(listen(chunks(), Again(lambda samples: f"{len(samples)}"), rate=RATE))
    finally:
        tracemalloc.stop()
    assert held[1] - held[0] < 50_000  # two minutes of samples would be 7.6 MB
    assert isinstance(lines[-1], Line) and lines[-1].final and lines[-1].start > 159
