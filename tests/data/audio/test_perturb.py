"""Perturbed copies: noise as strong as asked for, echoes that decay, the same each time."""

from __future__ import annotations

import numpy as np
import pytest

from transduce.data.audio.perturb import noisy, perturbed, reverberated
from transduce.recipe_speech import SpeechAugmentOptions

from .conftest import RATE, tone


@pytest.mark.parametrize("slope", [0.0, 1.0, 2.0])
@pytest.mark.parametrize("ratio", [0.0, 20.0])
def test_noise_is_as_strong_as_asked_for(ratio: float, slope: float) -> None:
    wave = tone(1.0)
    noise = noisy(wave, ratio, slope, np.random.default_rng(1)) - wave
    found = 10 * np.log10((wave**2).mean() / (noise**2).mean())
    assert found == pytest.approx(ratio, abs=0.1)
    power = np.abs(np.fft.rfft(noise)) ** 2
    octaves = power[1000:2000].mean() / power[2000:4000].mean()
    assert octaves == pytest.approx(2**slope, rel=0.2)


def test_echoes_decay_and_loudness_stays() -> None:
    click = np.zeros(RATE, np.float32)
    click[100] = 0.5
    heard = reverberated(click, RATE, 0.3, np.random.default_rng(1))
    assert not np.abs(heard[:100]).max() > 1e-6  # nothing before the sound
    assert np.abs(heard).argmax() == 100
    early, late = (np.square(heard[101 + k : 101 + k + 800]).mean() for k in (0, 2400))
    assert 10 * np.log10(early / late) == pytest.approx(60 * 2400 / RATE / 0.3, abs=6)
    assert np.square(heard).sum() == pytest.approx(np.square(click).sum(), rel=1e-3)


def test_copies_differ_and_are_the_same_each_time() -> None:
    wave, options = tone(0.5), SpeechAugmentOptions(noise=1.0, reverb=1.0)
    copies = [perturbed(wave, RATE, options, copy) for copy in (1, 2, 1)]
    assert np.array_equal(copies[0], copies[2]) and not np.array_equal(copies[0], copies[1])
    assert all(len(copy) == len(wave) and np.abs(copy).max() <= 1 for copy in copies)
    loud = SpeechAugmentOptions(noise=0.0, reverb=0.0, gain_db=(40.0, 40.0))
    clipped = perturbed(wave, RATE, loud, 1)
    assert np.abs(clipped).max() == 1.0 and clipped.dtype == np.float32
    assert len(perturbed(wave[:0], RATE, options, 1)) == 0


def test_ranges_are_in_order() -> None:
    with pytest.raises(ValueError, match="above the most"):
        SpeechAugmentOptions(noise_db=(9.0, 3.0))
    with pytest.raises(ValueError, match="between 0 and 5"):
        SpeechAugmentOptions(reverb_seconds=(0.0, 1.0))
