"""Sound files of any length, read in blocks: one rate, one channel, memory that does not grow."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from transduce.data.audio.activity import Array
from transduce.data.audio.containers import cut_short
from transduce.data.audio.files import fault, opened, said
from transduce.errors import DataError

BLOCK = 4.0  # seconds read at once


def sound_blocks(path: Path, rate: int) -> Iterator[Array]:
    """The samples of a file, (n,) float32 at `rate` Hz a block, channels averaged.

    Errors: DataError naming the file where it cannot be opened, holds nothing, or, on the way,
    where it is damaged or holds samples that are no numbers or far too large; what came before is
    good.
    """
    with opened(path) as file:
        if not len(file):
            raise DataError(f"{path}: holds no sound")
        stream = Resampled(file.samplerate, rate)
        size = max(1, round(BLOCK * file.samplerate))
        done = 0
        while True:
            try:
                block = file.read(size, dtype="float32", always_2d=True)
            except (RuntimeError, OSError) as error:  # libsndfile's are RuntimeErrors
                at = done / file.samplerate
                raise DataError(f"{path}: damaged after {at:.1f} s: {said(error)}") from None
            if wrong := fault(block):
                worst = int(np.argmax(np.abs(block).max(axis=1)))  # NaN counts as the largest
                at = (done + worst) / file.samplerate
                raise DataError(f"{path}: {wrong} at {at:.1f} s")
            done += len(block)
            last = len(block) < size
            samples = stream.push(block.mean(axis=1, dtype=np.float32), last=last)
            if len(samples):
                yield samples
            if last:
                break
        if done < len(file):
            seconds = done / file.samplerate, len(file) / file.samplerate
            raise DataError(f"{path}: cut short: {seconds[0]:.1f} of {seconds[1]:.1f} s")
    if missing := cut_short(path):
        raise DataError(f"{path}: cut short: {missing}")


class Resampled:
    """A waveform at another rate, in pieces, the same as if it were resampled as a whole."""

    def __init__(self, given: float, rate: int) -> None:
        self._stream: Any = None
        if given != rate:
            import soxr

            self._stream = soxr.ResampleStream(given, rate, 1, dtype="float32")

    def push(self, samples: Array, *, last: bool = False) -> Array:
        """(n,) samples more -> those at the new rate that are now known; `last`: all of them."""
        if self._stream is None:
            return samples
        return np.asarray(self._stream.resample_chunk(samples, last=last), dtype=np.float32)
