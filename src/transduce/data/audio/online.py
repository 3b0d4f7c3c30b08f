"""Log-mel frames of sound that is still being recorded, the same as those of the whole.

A frame needs no more than its own window, so each is there as soon as its last sample is; only
normalisation by the mean of the whole utterance cannot be had before its end.
"""

from __future__ import annotations

from typing import Any, Protocol

import numpy as np

from transduce.data.audio.activity import Array

_SCALE = 32768.0  # Kaldi's samples are 16-bit integers
_FLOOR = 0.0


class Mel(Protocol):
    """How frames are cut and filtered."""

    @property
    def rate(self) -> int: ...
    @property
    def bins(self) -> int: ...
    @property
    def frame_ms(self) -> float: ...
    @property
    def shift_ms(self) -> float: ...


class OnlineLogMel:
    """The frames of one utterance, whose samples come in pieces of any length."""

    def __init__(self, options: Mel) -> None:
        from kaldi_native_fbank import OnlineFbank

        self.options = options
        self._bank = OnlineFbank(_kaldi(options))
        self._given = 0

    def push(self, samples: Array) -> Array:
        """(n,) samples at `options.rate`, -1 … 1 -> (m, F) the frames that are now whole."""
        if len(samples):
            self._bank.accept_waveform(self.options.rate, samples * np.float32(_SCALE))
        count = self._bank.num_frames_ready
        frames = np.empty((count - self._given, self.options.bins), dtype=np.float32)
        for k in range(len(frames)):
            frames[k] = self._bank.get_frame(self._given + k)
        self._given = count
        return np.maximum(frames, _FLOOR, out=frames)


def _kaldi(options: Mel) -> Any:
    from kaldi_native_fbank import FbankOptions

    made = FbankOptions()
    made.frame_opts.samp_freq = options.rate
    made.frame_opts.frame_length_ms = options.frame_ms
    made.frame_opts.frame_shift_ms = options.shift_ms
    made.frame_opts.dither = 0.0
    made.frame_opts.snip_edges = True
    made.mel_opts.num_bins = options.bins
    return made
