"""Frames of speech as batches need them: drawn versions, what is hidden of them, padding."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any, overload

import numpy as np
import numpy.typing as npt

from transduce.data.audio.features import Frames
from transduce.data.speech import SpeechSide
from transduce.data.store import Store


class PooledFrames:
    """The sources of one pool, each read when it is asked for: a pool of frames fills the memory.

    Which version of a recording is used, and what is hidden of it, is a function of `seed` and the
    recording's place in the pool.
    """

    def __init__(
        self, store: Store, side: SpeechSide, indices: npt.NDArray[np.int64], seed: int
    ) -> None:
        self._store = store
        self._side = side
        self._indices = indices
        self._seed = seed
        rng = np.random.default_rng(seed)
        self._versions = rng.integers(0, store.versions, len(indices))
        self.lengths = store.frame_counts(indices, self._versions)

    def __len__(self) -> int:
        return len(self._indices)

    def __getitem__(self, row: int) -> Frames:
        """(S, F) float32 frames as the model is to see them; (S, W, F) of several views."""
        frames = self._store.frames(int(self._indices[row]), int(self._versions[row]))
        rng = np.random.default_rng([self._seed, row])
        return self._side.augmented(frames.astype(np.float32), rng)


def padded_frames(
    rows: Sequence[Any],
) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.int64]]:
    """B arrays (S, …) -> (B, longest, …) float32 with 0 after each, and lengths (B,)."""
    lengths = np.fromiter(map(len, rows), dtype=np.int64, count=len(rows))
    longest = int(lengths.max(initial=0))
    padded = np.zeros((len(rows), longest, *rows[0].shape[1:]), dtype=np.float32)
    for place, row in zip(padded, rows, strict=True):
        place[: len(row)] = row
    return padded, lengths


class Spool:
    """Frames of recordings, float16 in a file without a name, so that they are not in memory."""

    def __init__(self, folder: Path, bins: int) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._file = tempfile.TemporaryFile(dir=folder)  # noqa: SIM115  # gone when this is
        self._bins = bins
        self._starts = [0]  # in frames

    def append(self, frames: Frames) -> None:
        """One more recording, (S, F)."""
        self._file.write(frames.astype(np.float16).tobytes())
        self._starts.append(self._starts[-1] + len(frames))

    def lengths(self) -> list[int]:
        """S of each recording."""
        return np.diff(self._starts).tolist()

    def read(self, row: int) -> Frames:
        """(S, F) float32 frames of a recording."""
        self._file.flush()
        first, last = self._starts[row : row + 2]
        width = 2 * self._bins  # bytes of a frame
        found = os.pread(self._file.fileno(), (last - first) * width, first * width)
        return np.frombuffer(found, np.float16).reshape(-1, self._bins).astype(np.float32)


class Spooled(Sequence[Frames]):
    """Some recordings of a spool, read when they are asked for."""

    def __init__(self, spool: Spool, rows: Sequence[int]) -> None:
        self._spool = spool
        self._rows = list(rows)
        lengths = spool.lengths()
        self.lengths = np.array([lengths[row] for row in self._rows], dtype=np.int64)

    def some(self, places: Sequence[int]) -> Spooled:
        """Those at these places."""
        return Spooled(self._spool, [self._rows[place] for place in places])

    def __len__(self) -> int:
        return len(self._rows)

    @overload
    def __getitem__(self, at: int) -> Frames: ...
    @overload
    def __getitem__(self, at: slice) -> Spooled: ...

    def __getitem__(self, at: int | slice) -> Frames | Spooled:
        if isinstance(at, slice):
            return Spooled(self._spool, self._rows[at])
        return self._spool.read(self._rows[at])
