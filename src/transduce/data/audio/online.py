"""Log-mel frames of sound that is still being recorded, the same as those of the whole.

A frame needs no more than its own window, so each is there as soon as its last sample is; only
normalisation by the mean of the whole utterance cannot be had before its end.
"""

from __future__ import annotations

import numpy as np

from transduce.data.audio.activity import Array
from transduce.data.audio.features import FLOOR, SCALE, Mel, kaldi_options


class OnlineLogMel:
    """The frames of one utterance, whose samples come in pieces of any length."""

    def __init__(self, options: Mel) -> None:
        from kaldi_native_fbank import OnlineFbank

        self.options = options
        self._bank = OnlineFbank(kaldi_options(options))
        self._given = 0

    def push(self, samples: Array) -> Array:
        """(n,) samples at `options.rate`, -1 … 1 -> (m, F) the frames that are now whole."""
        if len(samples):
            self._bank.accept_waveform(self.options.rate, samples * np.float32(SCALE))
        count = self._bank.num_frames_ready
        frames = np.empty((count - self._given, self.options.bins), dtype=np.float32)
        for k in range(len(frames)):
            frames[k] = self._bank.get_frame(self._given + k)
        self._given = count
        return np.maximum(frames, FLOOR, out=frames)
