"""Log-mel frames of a waveform, as Kaldi computes them, and their normalisation."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol, TypeAlias

import numpy as np
import numpy.typing as npt

from transduce.data.audio.files import Waveform

Frames: TypeAlias = npt.NDArray[np.float32]  # (S, F)

SCALE = 32768.0  # Kaldi's samples are 16-bit integers
# A log energy below that of rounding to 16 bits says nothing; digital silence would be -16, far
# from everything else, and decide mean and deviation alone.
FLOOR = 0.0
_LEAST_DEVIATION = 0.1  # a bin that hardly changes holds nothing; it is not to be blown up


class Mel(Protocol):
    """How frames are cut and filtered: a part of `recipe.SpeechOptions`."""

    @property
    def rate(self) -> int: ...
    @property
    def bins(self) -> int: ...
    @property
    def frame_ms(self) -> float: ...
    @property
    def shift_ms(self) -> float: ...


def log_mel(wave: Waveform, options: Mel) -> Frames:
    """(N,) samples at `options.rate`, -1 … 1 -> (S, F) natural logarithms of mel energies.

    A frame is a whole window: S = 1 + (N - window) // shift, or 0. Windows are Povey's, with
    pre-emphasis 0.97 and without their mean, as in Kaldi; no dither.
    """
    from kaldi_native_fbank import OnlineFbank

    bank = OnlineFbank(kaldi_options(options))
    bank.accept_waveform(options.rate, wave * np.float32(SCALE))
    bank.input_finished()
    count = bank.num_frames_ready
    frames = np.empty((count, options.bins), dtype=np.float32)
    for i in range(count):
        frames[i] = bank.get_frame(i)
    return np.maximum(frames, FLOOR, out=frames)


def kaldi_options(options: Mel) -> Any:
    """The options of kaldi-native-fbank for ours."""
    from kaldi_native_fbank import FbankOptions

    made = FbankOptions()
    made.frame_opts.samp_freq = options.rate
    made.frame_opts.frame_length_ms = options.frame_ms
    made.frame_opts.frame_shift_ms = options.shift_ms
    made.frame_opts.dither = 0.0
    made.frame_opts.snip_edges = True
    made.mel_opts.num_bins = options.bins
    return made


@dataclass(frozen=True, eq=False)
class Statistics:
    """Mean and deviation of each bin, (F,) float32 each."""

    mean: npt.NDArray[np.float32]
    deviation: npt.NDArray[np.float32]

    def applied(self, frames: Frames) -> Frames:
        """(S, F) -> frames of mean 0 and deviation 1 in each bin."""
        return (frames - self.mean) / self.deviation


def statistics(frames: Frames) -> Statistics:
    """Of the frames of one recording, (S, F) with S of at least 1."""
    mean = frames.mean(axis=0, dtype=np.float64)
    deviation = frames.std(axis=0, dtype=np.float64)
    return _statistics(mean, deviation)


class Accumulator:
    """Statistics of frames that come one recording at a time."""

    def __init__(self, bins: int) -> None:
        self.count = 0
        self._sum = np.zeros(bins)
        self._squares = np.zeros(bins)

    def add(self, frames: Frames) -> None:
        """(S, F) frames of one more recording."""
        wide = frames.astype(np.float64)
        self.count += len(frames)
        self._sum += wide.sum(axis=0)
        self._squares += (wide * wide).sum(axis=0)

    def statistics(self) -> Statistics:
        """Of everything added, at least one frame."""
        mean = self._sum / self.count
        return _statistics(mean, np.sqrt(np.maximum(self._squares / self.count - mean**2, 0.0)))


def _statistics(mean: npt.NDArray[Any], deviation: npt.NDArray[Any]) -> Statistics:
    return Statistics(
        mean.astype(np.float32), np.maximum(deviation, _LEAST_DEVIATION).astype(np.float32)
    )
