"""A batch: examples padded to one length, ids or frames."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from transduce.data.frames import padded_frames
from transduce.data.tokenizers.base import BOS, EOS, PAD

Row = npt.NDArray[Any] | Sequence[int]  # ids; of a source that is speech (S, F) frames
Index = npt.NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class Batch:
    """B examples, padded with PAD = 0; every length counts the end symbol.

    Where the source is speech it is (B, S, F) float32 frames, padded with 0, and has no end symbol;
    (B, S, W, F) where training hears W views of each.
    """

    source: Tensor  # (B, S) int64: ids, EOS
    source_lengths: Tensor  # (B,) int64
    target_input: Tensor  # (B, T) int64: BOS, ids
    target_output: Tensor  # (B, T) int64: ids, EOS
    target_lengths: Tensor  # (B,) int64
    indices: Index  # (B,) of the store
    tokens: int = -1  # real target positions, EOS included; counted when not given

    def __post_init__(self) -> None:
        if self.tokens < 0:
            object.__setattr__(self, "tokens", int(self.target_lengths.sum()))

    @property
    def size(self) -> int:
        """B, the number of examples."""
        return self.source.shape[0]

    def to(self, device: torch.device | str) -> Batch:
        """The same batch with its tensors on `device`."""
        return replace(
            self,
            source=self.source.to(device, non_blocking=True),
            source_lengths=self.source_lengths.to(device, non_blocking=True),
            target_input=self.target_input.to(device, non_blocking=True),
            target_output=self.target_output.to(device, non_blocking=True),
            target_lengths=self.target_lengths.to(device, non_blocking=True),
        )

    def pinned(self) -> Batch:
        """The same batch in memory from which a GPU copies without being waited for."""
        return replace(
            self,
            source=self.source.pin_memory(),
            source_lengths=self.source_lengths.pin_memory(),
            target_input=self.target_input.pin_memory(),
            target_output=self.target_output.pin_memory(),
            target_lengths=self.target_lengths.pin_memory(),
        )


def collate(
    sources: Sequence[Row], targets: Sequence[Row], indices: Sequence[int] | Index
) -> Batch:
    """Pad ids (without BOS and EOS), or frames and ids, into a batch."""
    source, source_lengths = collate_source(sources)
    output, lengths = _padded(targets)
    entered = np.empty_like(output)  # the target one position later, BOS first
    entered[:, 0] = BOS
    entered[:, 1:] = np.where(output[:, :-1] == EOS, PAD, output[:, :-1])
    return Batch(
        source,
        source_lengths,
        torch.from_numpy(entered),
        torch.from_numpy(output),
        torch.from_numpy(lengths),
        np.asarray(indices, dtype=np.int64),
        int(lengths.sum()),
    )


def collate_source(rows: Sequence[Row]) -> tuple[Tensor, Tensor]:
    """Pad source ids (without EOS) -> ids with EOS (B, S) int64, lengths with EOS (B,) int64.

    Frames, B arrays (S, F) -> (B, S, F) float32 and (B,) int64: speech has no EOS.
    """
    padded, lengths = padded_frames(rows) if are_frames(rows) else _padded(rows)
    return torch.from_numpy(padded), torch.from_numpy(lengths)


def are_frames(rows: Sequence[Row]) -> bool:
    """Whether these rows of a source are frames of speech, not ids."""
    return bool(len(rows)) and isinstance(rows[0], np.ndarray) and rows[0].ndim > 1


def _padded(rows: Sequence[Row]) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Rows of ids -> (B, longest + 1) with EOS after each row, and lengths with EOS."""
    if len(rows) == 1:
        alone = np.array([[*rows[0], EOS]], dtype=np.int64)
        return alone, np.array([alone.shape[1]])
    lengths = np.fromiter(map(len, rows), dtype=np.int64, count=len(rows))
    padded = np.full((len(rows), int(lengths.max(initial=0)) + 1), PAD, dtype=np.int64)
    if lengths.any():
        real = np.arange(padded.shape[1]) < lengths[:, None]
        padded[real] = np.concatenate([row for row in rows if len(row)])
    padded[np.arange(len(rows)), lengths] = EOS
    return padded, lengths + 1
