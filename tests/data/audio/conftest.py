"""Recordings made here: tones and noise, as files of several kinds."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import soundfile

RATE = 16_000


def tone(seconds: float, rate: int = RATE, *, pitch: float = 440.0, seed: int = 0) -> Any:
    """A tone that comes and goes as syllables do, in a little noise: (N,) float32."""
    time = np.arange(round(seconds * rate)) / rate
    swell = 0.4 * np.sin(np.pi * 3 * time) ** 2 * (time % 1 < 0.67)
    noise = np.random.default_rng(seed).normal(0, 0.003, len(time))
    return (swell * np.sin(2 * np.pi * pitch * time) + noise).astype(np.float32)


def write(path: Path, samples: Any, rate: int = RATE, subtype: str | None = None) -> Path:
    soundfile.write(str(path), samples, rate, subtype=subtype)
    return path
