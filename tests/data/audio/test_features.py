"""Log-mel frames: against the formula, and what normalisation and masks leave as it is."""

from __future__ import annotations

import numpy as np
import pytest

from transduce.data.audio.augment import other_voice, spec_augment, warped
from transduce.data.audio.features import FLOOR, Accumulator, log_mel, statistics
from transduce.recipe import SpeechOptions
from transduce.recipe_speech import SpeechAugmentOptions

from .conftest import RATE, tone

OPTIONS = SpeechOptions()


def expected_frames(wave: np.ndarray, bins: int = 80) -> np.ndarray:
    """Kaldi's filter bank written out: Povey window, pre-emphasis, mel triangles, logarithm."""
    window, shift, size = 400, 160, 512
    count = 1 + (len(wave) - window) // shift
    povey = (0.5 - 0.5 * np.cos(2 * np.pi * np.arange(window) / (window - 1))) ** 0.85

    def mel(hertz: np.ndarray | float) -> np.ndarray:
        return 1127.0 * np.log(1.0 + np.asarray(hertz) / 700.0)

    edges = np.linspace(mel(20.0), mel(RATE / 2), bins + 2)
    at = mel(np.arange(size // 2) * RATE / size)
    up = (at[None] - edges[:-2, None]) / (edges[1:-1] - edges[:-2])[:, None]
    down = (edges[2:, None] - at[None]) / (edges[2:] - edges[1:-1])[:, None]
    filters = np.clip(np.minimum(up, down), 0.0, None)
    rows = []
    for i in range(count):
        frame = wave[i * shift : i * shift + window].astype(np.float64) * 32768
        frame = frame - frame.mean()
        frame = frame - 0.97 * np.concatenate([frame[:1], frame[:-1]])
        power = np.abs(np.fft.rfft(frame * povey, size))[: size // 2] ** 2
        rows.append(np.log(np.maximum(filters @ power, 1e-10)))
    return np.maximum(np.array(rows), FLOOR)


def test_frames_are_those_of_the_formula() -> None:
    wave = tone(0.5)
    found = log_mel(wave, OPTIONS)
    assert found.shape == (48, 80) and found.dtype == np.float32
    assert np.abs(found - expected_frames(wave)).max() < 0.02


def test_a_frame_is_a_whole_window() -> None:
    assert log_mel(tone(0.0249), OPTIONS).shape == (0, 80)
    assert log_mel(tone(0.025), OPTIONS).shape == (1, 80)
    assert log_mel(tone(0.035), OPTIONS).shape == (2, 80)


def test_digital_silence_and_offsets_do_no_harm() -> None:
    wave = tone(0.5)
    gap = np.concatenate([wave, np.zeros(8000, np.float32), wave])
    assert log_mel(gap, OPTIONS).min() >= FLOOR
    assert np.abs(log_mel(wave * 0.5 + 0.4, OPTIONS) - log_mel(wave * 0.5, OPTIONS)).max() < 0.05


def test_the_same_sound_has_the_same_frames() -> None:
    assert np.array_equal(log_mel(tone(0.3), OPTIONS), log_mel(tone(0.3), OPTIONS))


def test_normalised_frames_have_mean_zero_and_deviation_one() -> None:
    frames = log_mel(tone(1.0), OPTIONS)
    found = statistics(frames).applied(frames)
    assert np.abs(found.mean(axis=0)).max() < 1e-4
    assert np.abs(found.std(axis=0) - 1).max() < 1e-2


def test_statistics_of_parts_are_those_of_the_whole() -> None:
    frames = log_mel(tone(1.0), OPTIONS)
    total = Accumulator(80)
    total.add(frames[:10])
    total.add(frames[10:])
    whole = statistics(frames)
    assert np.allclose(total.statistics().mean, whole.mean, atol=1e-4)
    assert np.allclose(total.statistics().deviation, whole.deviation, atol=1e-3)


def test_masks_keep_their_bounds() -> None:
    options = SpeechAugmentOptions(
        frequency_masks=1, frequency_width=5, time_masks=2, time_width=8, time_share=0.2
    )
    frames = np.random.default_rng(1).normal(3.0, 1.0, (50, 20)).astype(np.float32)
    widest = 0
    for seed in range(60):
        made = spec_augment(frames, options, np.random.default_rng(seed))
        assert made.shape == frames.shape
        changed = made != frames
        bins = changed.all(axis=0)
        times = changed[:, ~bins].all(axis=1)
        assert bins.sum() <= 5 and times.sum() <= 10  # 20 % of 50
        assert not changed[~times][:, ~bins].any()
        assert np.allclose(made[changed], frames.mean())
        widest = max(widest, int(bins.sum()))
    assert widest == 5
    assert np.array_equal(
        spec_augment(frames, options, np.random.default_rng(3)),
        spec_augment(frames, options, np.random.default_rng(3)),
    )


@pytest.mark.parametrize("count", [1, 2, 5, 12, 40])
def test_short_recordings_can_be_masked_and_warped(count: int) -> None:
    options = SpeechAugmentOptions(time_masks=4, time_warp=5)
    frames = np.random.default_rng(count).normal(size=(count, 80)).astype(np.float32)
    for seed in range(10):
        made = spec_augment(frames, options, np.random.default_rng(seed))
        assert made.shape == frames.shape and np.isfinite(made).all()


def test_warping_moves_time_and_keeps_both_ends() -> None:
    ramp = np.tile(np.arange(60, dtype=np.float32)[:, None], (1, 3))
    moved = 0
    for seed in range(20):
        made = warped(ramp, 8, np.random.default_rng(seed))
        assert made[0, 0] == 0 and made[-1, 0] == 59
        assert (np.diff(made[:, 0]) > 0).all()  # time never goes back
        assert np.abs(made - ramp).max() <= 8 + 1e-3
        moved += not np.array_equal(made, ramp)
    assert moved > 10


@pytest.mark.parametrize("tone", [500.0, 1500.0, 2500.0])
@pytest.mark.parametrize("factor", [0.8, 0.9, 1.15, 1.25])
def test_another_voice_is_the_same_tone_higher_or_lower(factor: float, tone: float) -> None:
    options = SpeechOptions()
    seconds = np.arange(16_000) / 16_000

    def heard(tone: float) -> np.ndarray:
        wave = 0.1 * np.sin(2 * np.pi * tone * seconds)
        return log_mel(wave.astype(np.float32), options)

    made = other_voice(heard(tone), factor, options.rate)
    assert made.dtype == np.float32
    loudest = made.mean(axis=0).argmax()
    assert abs(loudest - heard(factor * tone).mean(axis=0).argmax()) <= 1
    assert abs(loudest - heard(tone).mean(axis=0).argmax()) > 1


def test_another_voice_keeps_both_ends_of_the_scale() -> None:
    ramp = np.tile(np.arange(80, dtype=np.float32), (4, 1))
    for factor in (0.5, 0.9, 1.1, 2.0):
        made = other_voice(ramp, factor, 16_000)
        assert (np.diff(made, axis=1) >= 0).all() and made.min() >= 0 and made.max() <= 79
        assert abs(made[0, -1] - 79) < 1.5
    assert other_voice(ramp, 1.0, 16_000) is ramp
