"""Sounds made by formula: what is like speech in its levels and bands, and what is not."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import numpy.typing as npt
import pytest

Wave = npt.NDArray[np.float32]
RATE = 16000


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
