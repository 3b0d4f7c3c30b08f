"""Prepared corpora: ids of every kept example in memory-mapped files, reused by content hash.

Preparing streams through the corpora in chunks, so that memory does not grow with them; reading
touches only the pages of the examples asked for, and `release` lets go of those.

A prepared folder holds, for each side, ids in a row (uint16 or uint32), the offset of each example
(int64, one more than examples) and its length; where segmentation is sampled in training, also the
normalised text and its offsets; and the line each example came from. Where the source is speech it
has frames instead (float16), one file for each version that training draws from.
"""

from __future__ import annotations

import bisect
import json
import mmap
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from transduce.errors import DataError

FORMAT_VERSION = 1
META = "meta.json"
Indices = npt.NDArray[np.int64] | Sequence[int]


@dataclass(frozen=True)
class Part:
    """The examples `start` to `stop` came from one corpus, drawn `weight` times per epoch.

    Sources of a `noisy` one are damaged anew each time.
    """

    label: str
    start: int
    stop: int
    weight: float
    noisy: bool = False


class Ragged:
    """Rows of different length in one memory-mapped file, with an offset file beside it.

    With a `width`, what a row has several of is no number but so many.
    """

    def __init__(self, folder: Path, name: str, dtype: str, rows: int, width: int = 0) -> None:
        self._offsets = _map(folder / f"{name}.offsets", "int64", rows + 1)
        values = _map(folder / name, dtype, int(self._offsets[-1]) * max(1, width))
        self._values = values.reshape(-1, width) if width else values

    def lengths(self, indices: Indices) -> npt.NDArray[np.int64]:
        """How long the rows are."""
        index = np.asarray(indices, dtype=np.int64)
        return np.asarray(self._offsets[index + 1] - self._offsets[index])

    def rows(self, indices: Indices) -> list[npt.NDArray[Any]]:
        """Copies of the rows, so that no page stays in use."""
        index = np.asarray(indices, dtype=np.int64)
        starts, stops = self._offsets[index].tolist(), self._offsets[index + 1].tolist()
        values = self._values
        return [np.array(values[a:b]) for a, b in zip(starts, stops, strict=True)]

    def release(self) -> None:
        """Give the mapped pages back to the system."""
        _release(self._offsets)
        _release(self._values)


class Store:
    """The prepared examples of one or more corpora, in the order of the files.

    `counts` has "kept" and, for each reason, how many were dropped. Raises DataError when the
    folder's files are not those that were written.
    """

    def __init__(
        self,
        folder: Path,
        *,
        weights: Sequence[float] | None = None,
        noisy: Sequence[bool] | None = None,
    ) -> None:
        self.folder = folder
        meta = read_meta(folder)
        self._meta = meta
        self.counts: dict[str, int] = meta["counts"]
        self._size: int = meta["size"]
        given = [1.0] * len(meta["parts"]) if weights is None else weights
        damaged = [False] * len(meta["parts"]) if noisy is None else noisy
        self.parts = [
            Part(part["label"], part["start"], part["stop"], weight, noise)
            for part, weight, noise in zip(meta["parts"], given, damaged, strict=True)
        ]
        self._file_starts = [start for start, _ in meta["files"]]
        self._file_names = [name for _, name in meta["files"]]
        ids = meta["ids"]
        self._ids = {s: Ragged(folder, f"{s}.ids", ids[s], self._size) for s in SIDES if s in ids}
        self._texts = {s: Ragged(folder, f"{s}.text", "uint8", self._size) for s in meta["texts"]}
        frames = meta.get("frames") or {"bins": 0, "versions": 0}
        self._frames = [
            Ragged(folder, name, "float16", self._size, frames["bins"])
            for name in frame_files(frames["versions"])
        ]
        self._lengths = {s: _map(folder / f"{s}.lengths", "int32", self._size) for s in SIDES}
        self._lines = _map(folder / "lines", "int32", self._size)

    def __len__(self) -> int:
        return self._size

    @property
    def padded_tokens(self) -> int:
        """Sum over examples of the longer side's length with its end symbol: size of an epoch."""
        return int(self._meta["padded_tokens"])

    @property
    def target_tokens(self) -> int:
        """Target tokens, end symbols included."""
        return int(self._meta["target_tokens"])

    @property
    def source_lengths(self) -> npt.NDArray[np.int32]:
        """(N,) tokens of each source, without EOS, or frames; memory-mapped."""
        return self._lengths["source"]

    @property
    def target_lengths(self) -> npt.NDArray[np.int32]:
        """(N,) tokens of each target, without EOS; memory-mapped."""
        return self._lengths["target"]

    def source_ids(self, indices: Indices) -> list[npt.NDArray[Any]]:
        """Ids of the best segmentation of each source, without BOS and EOS."""
        return self._ids["source"].rows(indices)

    def target_ids(self, indices: Indices) -> list[npt.NDArray[Any]]:
        """Ids of the best segmentation of each target, without BOS and EOS."""
        return self._ids["target"].rows(indices)

    @property
    def versions(self) -> int:
        """How many versions of each recording there are; 0 where the source is text."""
        return len(self._frames)

    def frames(self, index: int, version: int) -> npt.NDArray[np.float16]:
        """(S, F) frames of a version of a recording."""
        return self._frames[version].rows([index])[0]

    def frame_counts(
        self, indices: Indices, versions: npt.NDArray[np.int64]
    ) -> npt.NDArray[np.int64]:
        """How many frames these versions of these recordings have."""
        counts = np.zeros(len(indices), dtype=np.int64)
        index = np.asarray(indices, dtype=np.int64)
        for version, ragged in enumerate(self._frames):
            chosen = versions == version
            counts[chosen] = ragged.lengths(index[chosen])
        return counts

    def source_text(self, indices: Indices) -> list[str]:
        """Normalised sources; only where the source's segmentation is sampled in training."""
        return self._text("source", indices)

    def target_text(self, indices: Indices) -> list[str]:
        """Normalised targets; only where the target's segmentation is sampled in training."""
        return self._text("target", indices)

    def _text(self, side: str, indices: Indices) -> list[str]:
        return [row.tobytes().decode("utf-8") for row in self._texts[side].rows(indices)]

    def where(self, index: int) -> tuple[str, int]:
        """File and line (from 1) that an example came from."""
        if not 0 <= index < self._size:
            raise IndexError(f"example {index} of {self._size}")
        file = self._file_names[bisect.bisect_right(self._file_starts, index) - 1]
        return file, int(self._lines[index])

    def dropped(self) -> dict[str, int]:
        """How many examples were left out, by reason."""
        return {reason: n for reason, n in self.counts.items() if reason != "kept"}

    def truncated(self) -> dict[str, int]:
        """How many of the examples were cut, by side."""
        found: dict[str, int] = self._meta.get("truncated", {})
        return found

    def release(self) -> None:
        """Give mapped pages back, so that resident memory stays flat over an epoch."""
        for ragged in (*self._ids.values(), *self._texts.values(), *self._frames):
            ragged.release()
        for array in (*self._lengths.values(), self._lines):
            _release(array)


SIDES = ("source", "target")


def frame_files(versions: int) -> list[str]:
    """The names of the files of frames, one for each version."""
    return [f"source.frames-{version}" for version in range(versions)]


def read_meta(folder: Path) -> dict[str, Any]:
    """The description of a prepared folder, once every file has the size written there."""
    try:
        meta: dict[str, Any] = json.loads((folder / META).read_text(encoding="utf-8"))
        sizes: dict[str, int] = meta["bytes"]
        version = meta["format"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DataError(f"{folder} is not a prepared corpus, or is damaged ({error})") from None
    if version != FORMAT_VERSION:
        raise DataError(f"{folder} is a prepared corpus of format {version}, not {FORMAT_VERSION}")
    for name, size in sizes.items():
        path = folder / name
        if not path.is_file() or path.stat().st_size != size:
            raise DataError(f"{path} is missing, or altered since it was written; delete {folder}")
    return meta


def _map(path: Path, dtype: str, count: int) -> npt.NDArray[Any]:
    if count == 0:  # an empty file cannot be mapped
        return np.empty(0, dtype=dtype)
    return np.memmap(path, dtype=dtype, mode="r", shape=(count,))


def _release(array: npt.NDArray[Any]) -> None:
    mapped = getattr(array, "_mmap", None)
    if isinstance(mapped, mmap.mmap) and hasattr(mapped, "madvise"):
        mapped.madvise(mmap.MADV_DONTNEED)


def flatten(
    rows: Iterable[Sequence[int]], lengths: npt.NDArray[Any], dtype: str
) -> npt.NDArray[Any]:
    """Rows in a row, as one array."""
    return np.fromiter(chain.from_iterable(rows), dtype=dtype, count=int(lengths.sum()))
