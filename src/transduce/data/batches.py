"""Batches: padded examples that go through the model together, and the order they come in.

An epoch is a permutation of the examples, cut into pools of many batches' worth. Within a pool
examples of like lengths are put into batches by a budget of padded tokens, and the batches
shuffled: so padding is small, yet every epoch mixes the corpus anew, what is of like lengths
most of all. Everything is a function of (seed, epoch, pool), so that a position is three numbers
and seeking is exact.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch

from transduce.data.ahead import Ahead
from transduce.data.batch import Batch, Index, Row, are_frames, collate, collate_source
from transduce.data.frames import PooledFrames
from transduce.data.grouping import groups
from transduce.data.objectives import Noise, NoiseOptions
from transduce.data.speech import SpeechSide
from transduce.data.store import Store
from transduce.data.text import TextSide

__all__ = [
    "Batch",
    "BatchStream",
    "Index",
    "Row",
    "are_frames",
    "collate",
    "collate_source",
]

# A larger pool pads less, and costs memory, and time before its first batch.
_POOL_TOKENS = 1_000_000
_POOL_BATCHES = 64  # at least
_SEGMENT = 8192  # texts segmented at once
_PROBE = 1000  # examples that the growth of a sampled segmentation is measured on
_AHEAD = 64  # batches made ahead of the model: enough to hide the making of the next pool
_AHEAD_FRAMES = 4  # of speech, which has no pool to make, and whose batches are large


# ---------------------------------------------------------------------------------- training

_Made = tuple[Batch, tuple[int, int, int], float]  # a batch, the position after it, the progress


@dataclass(frozen=True, eq=False)
class _Pool:
    indices: Index
    sources: Sequence[Row] | PooledFrames
    targets: list[Row]
    batches: list[Index]  # rows of this pool, shuffled batches


class BatchStream:
    """Training batches without end, epoch after epoch; `position` and `seek` are exact.

    `batch_tokens` bounds size x the longer side, padding and end symbols included; of speech, that
    is frames. Where a side's segmentation is sampled (BPE-dropout), each pool is segmented anew in
    every epoch; so is drawn which version of a recording is heard, and what of it is hidden, and
    what `noise` does to the texts of noisy corpora. A background thread makes batches ahead;
    `close` ends it, and what goes wrong in it is raised by `next`.

    With `share` = (r, n) this is one of n streams among which the batches are dealt out in rounds:
    each `next` is batch r of a round of n, and `position` and `epoch` are after the whole round.
    Batches for a GPU, named by `pin`, lie in memory from which it copies (see `Batch.pinned`).
    """

    def __init__(
        self,
        store: Store,
        source: TextSide | SpeechSide,
        target: TextSide,
        *,
        batch_tokens: int,
        seed: int,
        share: tuple[int, int] = (0, 1),
        pin: torch.device | None = None,
        noise: NoiseOptions | None = None,
    ) -> None:
        self._store = store
        self._speech = source if isinstance(source, SpeechSide) else None
        sides = (("source", source), ("target", target))
        self._sides = {name: side for name, side in sides if isinstance(side, TextSide)}
        damaged = any(part.noisy for part in store.parts) and isinstance(source, TextSide)
        self._noise = Noise(self._sides["source"], noise) if damaged and noise else None
        self._batch_tokens = batch_tokens
        self._seed = seed
        self._share = share
        self._pin = pin
        drawn = sum((part.stop - part.start) * part.weight for part in store.parts)
        epoch_tokens = self._mean_width() * drawn
        pool_tokens = max(_POOL_TOKENS, _POOL_BATCHES * batch_tokens)
        self._pools = max(1, round(epoch_tokens / pool_tokens))
        self._position = (0, 0, 0)
        self._progress = 0.0
        self._worker: Ahead[_Made] | None = None

    def _mean_width(self) -> float:
        """Mean length of an example's longer side, with EOS.

        Sampled segmentations are longer than the stored ones, so a few are drawn.
        """
        store = self._store
        tokens = store.padded_tokens / len(store)
        if any(side.samples for side in self._sides.values()):
            probe = np.linspace(0, len(store) - 1, min(_PROBE, len(store))).astype(np.int64)
            rows = [self._rows(name, probe, self._seed) for name in self._sides]
            longer = np.max([[len(row) for row in side] for side in rows], axis=0)
            if self._speech:
                longer = np.maximum(longer, store.source_lengths[probe])
            tokens = 1.0 + float(longer.mean())
        return tokens

    @property
    def epoch(self) -> float:
        """Epochs consumed so far, with fraction."""
        return self._progress

    def position(self) -> dict[str, float]:
        """Where the next batch comes from; JSON keeps it exactly, and `seek` goes on from there."""
        epoch, pool, batch = self._position
        return {"epoch": epoch, "pool": pool, "batch": batch, "progress": self._progress}

    def seek(self, position: Mapping[str, float]) -> None:
        """Go to a position of a stream with the same store, seed and budget, in any share."""
        self.close()
        epoch, pool, batch = (int(position[key]) for key in ("epoch", "pool", "batch"))
        self._position = (epoch, pool, batch)
        self._progress = float(position["progress"])

    def __iter__(self) -> Iterator[Batch]:
        return self

    def __next__(self) -> Batch:
        if self._worker is None:
            start = self._position
            ahead = _AHEAD_FRAMES if self._speech else _AHEAD
            self._worker = Ahead(lambda: self._from(start), ahead)
        batch, self._position, self._progress = self._worker.get()
        return batch

    next = __next__

    def close(self) -> None:
        """End the background thread; iterating again starts another."""
        if self._worker is not None:
            self._worker.close()
            self._worker = None

    # ------------------------------------------------------------ in the background thread

    def _from(self, start: tuple[int, int, int]) -> Iterator[_Made]:
        epoch, pool, batch = start
        if self._pin is not None:  # a thread begins on the first GPU, whichever its parent is on
            torch.cuda.set_device(self._pin)
        own, sharers = self._share
        turn = 0  # whose the next batch is
        while True:
            order = self._epoch_order(epoch)
            bounds = np.linspace(0, len(order), self._pools + 1).astype(np.int64).tolist()
            while pool < self._pools:
                made = self._pool(epoch, pool, order[bounds[pool] : bounds[pool + 1]])
                count = len(made.batches)
                for i in range(batch, count):
                    if turn == own:
                        ours = self._collate(made, i)
                    turn = (turn + 1) % sharers
                    if turn:
                        continue
                    after = (epoch, pool, i + 1) if i + 1 < count else self._following(epoch, pool)
                    progress = epoch + (pool + (i + 1) / count) / self._pools
                    yield ours, after, progress
                pool, batch = pool + 1, 0
            epoch, pool = epoch + 1, 0

    def _following(self, epoch: int, pool: int) -> tuple[int, int, int]:
        return (epoch, pool + 1, 0) if pool + 1 < self._pools else (epoch + 1, 0, 0)

    def _epoch_order(self, epoch: int) -> npt.NDArray[np.int32]:
        """The examples of an epoch, shuffled: each `weight` times, fractions drawn anew."""
        rng = np.random.default_rng([self._seed, epoch])
        drawn = []
        for part in self._store.parts:
            whole = int(part.weight)
            all_of = np.arange(part.start, part.stop, dtype=np.int32)
            drawn += [all_of] * whole
            extra = round((part.weight - whole) * len(all_of))
            if whole == 0 and len(all_of):
                extra = max(1, extra)  # no corpus of the recipe is left out altogether
            if extra:
                drawn.append(rng.choice(all_of, extra, replace=False))
        order = drawn[0] if len(drawn) == 1 else np.concatenate(drawn)
        rng.shuffle(order)
        return order

    def _pool(self, epoch: int, pool: int, indices: npt.NDArray[np.int32]) -> _Pool:
        entropy = np.random.SeedSequence([self._seed, epoch, pool])
        seeds = entropy.generate_state(3, np.uint64).tolist()
        # The file's order, so that its pages are read once and forwards.
        index = np.sort(indices).astype(np.int64)
        sources: Sequence[Row] | PooledFrames
        if self._speech is None:
            sources = self._damaged(self._rows("source", index, seeds[0]), index, (epoch, pool))
        else:
            sources = PooledFrames(self._store, self._speech, index, seeds[0])
        targets = self._rows("target", index, seeds[1])
        self._store.release()
        rng = np.random.default_rng(seeds[2])
        # Shuffled before they are sorted by length: neighbours of one length differ by epoch.
        shuffled = rng.permutation(len(index))
        source = _lengths(sources)[shuffled]
        target = _lengths(targets)[shuffled]
        found = groups(source, target, self._batch_tokens, frames=self._speech is not None)
        batches = [shuffled[found[i]] for i in rng.permutation(len(found))]
        return _Pool(index, sources, targets, batches)

    def _damaged(self, rows: list[Row], index: Index, at: tuple[int, int]) -> list[Row]:
        """The same sources, those of noisy corpora damaged, as a function of seed and place."""
        if self._noise is None:
            return rows
        rng = np.random.default_rng([self._seed, *at, 1])
        for part in self._store.parts:
            if part.noisy:
                first, last = np.searchsorted(index, [part.start, part.stop])
                rows[first:last] = [self._noise(row, rng) for row in rows[first:last]]
        return rows

    def _rows(self, name: str, index: Index, seed: int) -> list[Row]:
        side = self._sides[name]
        if side.samples:
            text = self._store.source_text if name == "source" else self._store.target_text
            rows: list[Row] = []
            for part, start in enumerate(range(0, len(index), _SEGMENT)):
                texts = text(index[start : start + _SEGMENT])
                # Arrays: lists of a pool's ids would take ten times the memory.
                rows += [np.array(ids, np.int32) for ids in side.segment(texts, seed=seed + part)]
            return rows
        ids = self._store.source_ids if name == "source" else self._store.target_ids
        return list(ids(index))

    def _collate(self, pool: _Pool, batch: int) -> Batch:
        rows = pool.batches[batch].tolist()
        made = collate(
            [pool.sources[i] for i in rows], [pool.targets[i] for i in rows], pool.indices[rows]
        )
        if self._speech is not None:
            self._store.release()
        return made if self._pin is None else made.pinned()


def _lengths(rows: Sequence[Row] | PooledFrames) -> npt.NDArray[np.int64]:
    if isinstance(rows, PooledFrames):
        return rows.lengths
    return np.fromiter(map(len, rows), np.int64, len(rows))
