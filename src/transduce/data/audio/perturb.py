"""Perturbed copies of training recordings: noise, loudness, rooms. On samples, so before frames.

What a copy is like is drawn from a seed that is a function of the sound itself, so that a corpus is
prepared the same way wherever its files lie.
"""

from __future__ import annotations

import hashlib
from typing import Protocol

import numpy as np

from transduce.data.audio.files import Waveform


class Perturbing(Protocol):
    """What is done to copies: a part of `recipe.SpeechAugmentOptions`."""

    @property
    def noise(self) -> float: ...
    @property
    def noise_db(self) -> tuple[float, float]: ...
    @property
    def gain_db(self) -> tuple[float, float]: ...
    @property
    def reverb(self) -> float: ...
    @property
    def reverb_seconds(self) -> tuple[float, float]: ...


def perturbed(wave: Waveform, rate: int, options: Perturbing, copy: int) -> Waveform:
    """The copy number `copy` of a recording: (N,) -> (N,), full scale -1 … 1.

    In this order, as in the world: a room, noise, and the gain of a recorder that clips.
    """
    if not len(wave):
        return wave
    content = hashlib.blake2b(np.ascontiguousarray(wave).tobytes(), digest_size=8).digest()
    rng = np.random.default_rng([int.from_bytes(content, "big"), copy])
    if rng.random() < options.reverb:
        wave = reverberated(wave, rate, rng.uniform(*options.reverb_seconds), rng)
    if rng.random() < options.noise:
        wave = noisy(wave, rng.uniform(*options.noise_db), rng.uniform(0.0, 2.0), rng)
    gain = 10 ** (rng.uniform(*options.gain_db) / 20)
    return np.clip(wave * np.float32(gain), -1.0, 1.0, dtype=np.float32)


def noisy(wave: Waveform, ratio: float, slope: float, rng: np.random.Generator) -> Waveform:
    """With noise `ratio` dB below the recording's mean power.

    The noise's power falls with frequency ** `slope`: 0 is white, 1 pink, 2 brown.
    """
    spectrum = np.fft.rfft(rng.standard_normal(len(wave)))
    frequency = np.arange(len(spectrum), dtype=np.float64)
    # A constant is no sound, and all of them below 1/500 of the band would be one.
    least = max(1.0, len(spectrum) / 500)
    spectrum *= np.maximum(frequency, least) ** (-slope / 2) * (frequency > 0)
    noise = np.fft.irfft(spectrum, len(wave))
    power = float((noise**2).mean())
    if power == 0.0:
        return wave
    wanted = float((wave.astype(np.float64) ** 2).mean()) / 10 ** (ratio / 10)
    return (wave + noise * np.sqrt(wanted / power)).astype(np.float32)


def reverberated(wave: Waveform, rate: int, seconds: float, rng: np.random.Generator) -> Waveform:
    """As heard in a room where sound falls by 60 dB in so many `seconds`.

    The room's answer is the sound itself, then noise that decays exponentially (Polack's model),
    3 to 12 dB below it in all. Loudness stays.
    """
    count = max(1, round(seconds * rate))
    time = np.arange(1, count + 1) / rate
    tail = rng.standard_normal(count) * 10 ** (-3 * time / seconds)
    tail *= 10 ** (-rng.uniform(3.0, 12.0) / 20) / np.sqrt((tail**2).sum())
    answer = np.concatenate([[1.0], tail])
    size = len(wave) + len(answer) - 1
    heard = np.fft.irfft(np.fft.rfft(wave, size) * np.fft.rfft(answer, size), size)[: len(wave)]
    before, after = float((wave.astype(np.float64) ** 2).mean()), float((heard**2).mean())
    return (heard * np.sqrt(before / after) if after else heard).astype(np.float32)
