"""Making training speech more varied: other voices, hidden stripes of frames, and warped time.

Every change is a function of the frames and a seeded generator, so that a training that goes on
sees what it would have seen.
"""

from __future__ import annotations

from typing import Protocol

import numpy as np
import numpy.typing as npt

from transduce.data.audio.features import Frames

LOWEST = 20.0  # Hz, where Kaldi's mel filters begin
_BACKGROUND = 10  # frames that are taken for it
_BEND = 4800 / 8000  # of the highest frequency: above it the stretching gives way


class Masks(Protocol):
    """What is hidden: a part of `recipe.SpeechAugmentOptions`."""

    @property
    def frequency_masks(self) -> int: ...
    @property
    def frequency_width(self) -> int: ...
    @property
    def time_masks(self) -> int: ...
    @property
    def time_width(self) -> int: ...
    @property
    def time_share(self) -> float: ...
    @property
    def time_warp(self) -> int: ...


def spec_augment(frames: Frames, options: Masks, rng: np.random.Generator) -> Frames:
    """(S, F) -> the same number of frames, warped and masked (1904.08779, section 2).

    What is hidden becomes the mean of the frames. All time masks together cover at most
    `time_share` of the recording, so that the words of a short one stay.
    """
    count, bins = frames.shape
    fill = np.float32(frames.mean()) if frames.size else np.float32(0.0)
    # `warped` makes a copy, and so does `array`: what is stored stays as it is.
    frames = warped(frames, options.time_warp, rng) if options.time_warp else np.array(frames)
    for _ in range(options.frequency_masks):
        width = int(rng.integers(0, min(options.frequency_width, bins) + 1))
        start = int(rng.integers(0, bins - width + 1))
        frames[:, start : start + width] = fill
    if options.time_masks:
        share = int(count * options.time_share) // options.time_masks
        widest = min(options.time_width, share)
        for _ in range(options.time_masks):
            width = int(rng.integers(0, widest + 1))
            start = int(rng.integers(0, count - width + 1))
            frames[start : start + width] = fill
    return frames


def warped(frames: Frames, most: int, rng: np.random.Generator) -> Frames:
    """Time is stretched before some frame and squeezed after it, or the other way round.

    The frame is moved by at most `most`; recordings of less than 2 x most + 2 frames stay as they
    are. In between two frames the new ones are interpolated.
    """
    count = len(frames)
    if count < 2 * most + 2:
        return np.array(frames)
    centre = int(rng.integers(most + 1, count - most))
    moved = centre + int(rng.integers(-most, most + 1))
    # Where in the old frames each new frame lies.
    at = np.interp(np.arange(count), [0, moved, count - 1], [0, centre, count - 1])
    before = np.minimum(at.astype(np.int64), count - 2)
    share = (at - before).astype(np.float32)[:, None]
    return frames[before] * (1 - share) + frames[before + 1] * share


def with_edges(frames: Frames, most: int, rng: np.random.Generator) -> Frames:
    """(S, F) -> up to `most` frames of background more at each end, for half of the recordings.

    Background is where the recording is quietest for a tenth of a second, there and back again.
    """
    if rng.random() < 0.5 or not len(frames):
        return frames
    wide = min(_BACKGROUND, len(frames))
    energy = np.convolve(frames.mean(axis=1, dtype=np.float64), np.ones(wide), "valid")
    start = int(energy.argmin())
    piece = frames[start : start + wide]
    there_and_back = np.concatenate([piece, piece[::-1]])
    before, after = (
        np.resize(there_and_back, (int(rng.integers(0, most + 1)), frames.shape[1])) for _ in "ba"
    )
    return np.concatenate([before, frames, after])


def other_voice(frames: Frames, factor: float, rate: int) -> Frames:
    """(S, F) log-mel frames -> those of a speaker whose formants lie `factor` times as high.

    Frequencies are scaled, and above a bend so that the highest stays where it is: vocal tract
    length perturbation (Jaitly & Hinton 2013), of the frames instead of the filters, whose values
    between two bins are interpolated. `rate` is that of the samples.
    """
    if factor == 1:
        return frames
    bins, highest = frames.shape[1], rate / 2
    # The filters' centres lie evenly between the ends of the mel scale.
    ends = _mel(np.array([LOWEST, highest]))
    centres = _hertz(np.linspace(ends[0], ends[1], bins + 2)[1:-1])
    bend = _BEND * highest * min(factor, 1.0)
    heard_at = np.interp(centres, [0.0, bend, highest], [0.0, bend / factor, highest])
    at = (_mel(heard_at) - ends[0]) / (ends[1] - ends[0]) * (bins + 1) - 1
    at = np.clip(at, 0, bins - 1)
    before = np.minimum(at.astype(np.int64), bins - 2)
    share = (at - before).astype(np.float32)
    made: Frames = frames[:, before] * (1 - share) + frames[:, before + 1] * share
    return made


def _mel(hertz: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    return 1127.0 * np.log1p(hertz / 700.0)


def _hertz(mel: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    return 700.0 * np.expm1(mel / 1127.0)
