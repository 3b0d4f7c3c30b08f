"""Recordings made by formula, and a recogniser without a model that says how long a sound is."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from transduce.output import Output

RATE = 16000


class Clock:
    """Answers a sound of 2.4 s with `heard 2.4`; attention runs along the sound."""

    def __init__(self) -> None:
        self.lengths: list[float] = []
        self.most = 0  # inputs held at once
        self.search: dict[str, Any] = {}

    def stream(self, inputs: Iterable[Any], *, window: int = 8, **search: Any) -> Iterator[Output]:
        self.search = search
        rest = iter(inputs)
        while taken := list(islice(rest, window)):
            self.most = max(self.most, len(taken))
            for samples, rate in taken:
                assert samples.dtype == np.float32 and samples.ndim == 1
                seconds = len(samples) / rate
                self.lengths.append(seconds)
                attention = np.zeros((3, 10))
                attention[0, 2] = attention[1, 7] = attention[2, 9] = 1.0
                said = ["▁heard", f"▁{seconds:.1f}"]
                text = " ".join(token[1:] for token in said)
                out = Output(text, score=-0.5, tokens=said, attention=attention)
                if search.get("n_best", 1) > 1:
                    others = [Output(f"{text} {k}", score=-k) for k in range(1, search["n_best"])]
                    out = replace(out, n_best=[out, *others])
                yield out


@pytest.fixture
def clock() -> Clock:
    return Clock()


def syllables(seconds: float, seed: int = 0) -> Any:
    """Bursts that change their pitch and colour: what the detector takes for speech."""
    drawn = np.random.default_rng(seed)
    time = np.arange(round(0.2 * RATE)) / RATE
    parts = []
    for _ in range(round(seconds / 0.2)):
        formants = drawn.uniform((300, 900, 2200), (800, 2100, 3200))
        hertz = 130.0 * np.arange(1, 26)[:, None]
        gain = np.exp(-(((hertz - formants) / 120) ** 2)).sum(axis=1) + 0.003
        sound = (gain[:, None] * np.sin(2 * np.pi * hertz * time)).sum(axis=0)
        parts.append(0.1 * sound * np.sin(np.pi * np.arange(len(time)) / len(time)))
    return np.concatenate(parts)


def _recording(path: Path, *spans: tuple[float, float], seconds: float) -> Path:
    import soundfile

    path.parent.mkdir(parents=True, exist_ok=True)
    soundfile.write(path, _wave(*spans, seconds=seconds), RATE)
    return path


def _wave(*spans: tuple[float, float], seconds: float) -> Any:
    """Quiet noise with speech, or what the detector takes for it, in some spans of seconds."""
    wave = 0.0005 * np.random.default_rng(5).standard_normal(round(seconds * RATE))
    for start, end in spans:
        said = syllables(end - start)
        wave[round(start * RATE) : round(start * RATE) + len(said)] += said
    return wave.astype(np.float32)


@pytest.fixture(scope="session")
def recording() -> Callable[..., Path]:
    return _recording


@pytest.fixture(scope="session")
def waveform() -> Callable[..., Any]:
    return _wave
