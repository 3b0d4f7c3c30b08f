"""Long recordings as pieces that a model can take: cut at silences, without what is no speech.

A recording is read once, in blocks; what is held is a piece and the seconds that decide about it,
however long it is. Silence, noise, hum and held tones are left out. Music with a beat may pass as
speech: energy alone cannot tell.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from transduce.data.audio.activity import SHIFT, Array, Change, Decided, Detector, Levels
from transduce.errors import UsageError

SHORT = 1.0  # seconds: in a recording so short there may be no silence to know the noise from
AUDIBLE = -70.0  # dB of full scale, smoothed over 50 ms
LEAST_CHANGE = 2.0  # dB; speech has 4.7 and more, 2.2 in noise 5 dB below it; noise has 1.7
CLICK = 0.08  # seconds that must be active in a piece
_MOST = 1e9  # seconds, 31 years: "never", in numbers that can be counted with


@dataclass(frozen=True, slots=True)
class Cutting:
    """How recordings are cut: all in seconds.

    No piece is longer than `longest`. A silence of `pause` ends a piece; `margin` of the silence
    before and after is left to it. What is live hears up to `lead` before a piece, as far as no
    other piece has it: models are trained on recordings, few of which begin with the first word.
    Errors: UsageError for values that cannot be.
    """

    longest: float = 20.0
    pause: float = 0.5
    margin: float = 0.2
    lead: float = 0.5

    def __post_init__(self) -> None:
        if not 1.0 <= self.longest <= _MOST:
            raise UsageError(
                f"pieces of at most {self.longest:g} s: a number from 1 to {_MOST:g} is needed"
            )
        if not 0.1 <= self.pause <= self.longest:
            raise UsageError(
                f"a pause of {self.pause:g} s: from 0.1 up to the longest piece, {self.longest:g}"
            )
        if not 0 <= self.margin <= _MOST:
            raise UsageError(
                f"a margin of {self.margin:g} s: a number from 0 to {_MOST:g} is needed"
            )
        if not 0 <= self.lead <= _MOST:
            raise UsageError(f"a lead of {self.lead:g} s: a number from 0 to {_MOST:g} is needed")


@dataclass(frozen=True, slots=True, eq=False)
class Piece:
    """A part of a recording with speech: its times in seconds, and its samples (N,) float32.

    Of a live piece there are samples from `Cutting.lead` before its start on.
    """

    start: float
    end: float
    samples: Array


def holds_speech(samples: Array, rate: int) -> bool:
    """Whether a `Segmenter` finds any in samples (N,); no more is looked at than it takes."""
    segmenter, block = Segmenter(rate), 20 * rate
    blocks = (samples[start : start + block] for start in range(0, len(samples), block))
    return any(segmenter.push(block) for block in blocks) or bool(segmenter.finish())


class _Open:
    """A piece that has begun: what is known of it so far, by frames of the recording."""

    def __init__(self, start: int) -> None:
        self.start = start  # its first active frame, or where the last one was cut
        self.last = start  # one after its latest active frame
        self.active = 0
        self.change = Change()
        self.levels: list[Array] = []  # from `start` on


class Segmenter:
    """Pieces of a waveform that comes in blocks of any length.

    `live` decides about each frame as it comes, with what was heard before, and cuts a piece that
    becomes too long where it is; otherwise 10 s of what follows are waited for, and the cut is
    where it is quietest. Pieces come in order and never overlap.
    """

    def __init__(self, rate: int, cutting: Cutting | None = None, *, live: bool = False) -> None:
        self.rate = rate
        self.cutting = cutting or Cutting()
        self._levels = Levels(rate)
        self._live = live
        self._detector = Detector(0.0 if live else 10.0)
        self._pause = round(self.cutting.pause / SHIFT)
        self._margin = min(round(self.cutting.margin / SHIFT), self._pause // 2)
        self._lead = max(self._margin, round(self.cutting.lead / SHIFT)) if live else self._margin
        self._longest = round(self.cutting.longest / SHIFT)
        self._blocks: deque[Array] = deque()
        self._first = 0  # sample that the first of the blocks begins with
        self._total = 0  # samples so far
        self._frames = 0  # decided so far
        self._loudest = -np.inf
        self._free = 0  # frame before which all belongs to earlier pieces
        self._open: _Open | None = None
        self._found = False  # whether there was a piece

    @property
    def seconds(self) -> float:
        """How much has come so far."""
        return self._total / self.rate

    def push(self, samples: Array) -> list[Piece]:
        """(n,) samples more; gives the pieces that are now finished."""
        self._keep(samples)
        found = []
        for decided in self._detector.push(self._levels.push(samples)):
            found += self._take(decided)
        self._forget()
        return found

    def finish(self) -> list[Piece]:
        """The pieces that only the end of the recording finishes."""
        found = []
        for decided in self._detector.finish():
            found += self._take(decided)
        if self._open is not None:
            found += self._close()
        if not found and not self._found and self.seconds < SHORT and self._loudest > AUDIBLE:
            found.append(Piece(0.0, self.seconds, self._samples(0, self._total)))
        return found

    def current(self) -> tuple[float, Array] | None:
        """The piece that is being spoken: its start in seconds and all samples of it."""
        if self._open is None:
            return None
        start, heard = self._sample(self._begin(self._open)), self._sample(self._hears(self._open))
        return start / self.rate, self._samples(heard, self._total)

    # -------------------------------------------------------------------------------- frames

    def _take(self, decided: Decided) -> list[Piece]:
        found: list[Piece] = []
        if len(decided.level):
            self._loudest = max(self._loudest, float(decided.level.max()))
        for part in _runs(decided):
            begin, self._frames = self._frames, self._frames + len(part.level)
            if part.active[0] and self._open is None:
                self._open = _Open(begin)
            if self._open is None:
                continue
            piece = self._open
            piece.levels.append(part.level)
            if part.active[0]:
                piece.last = self._frames
                piece.active += len(part.level)
                piece.change.add(part)
            elif self._frames - piece.last >= self._pause:
                found += self._close()
                continue
            while self._open is not None and self._frames - self._open.start > self._longest:
                found += self._cut()
        return found

    def _close(self) -> list[Piece]:
        """The open piece ends with its last active frame."""
        assert self._open is not None
        piece, self._open = self._open, None
        return self._made(piece, piece.last + self._margin)

    def _cut(self) -> list[Piece]:
        """The open piece is too long: it is cut where its second half is quietest."""
        assert self._open is not None
        piece = self._open
        levels = np.concatenate(piece.levels)
        room = self._longest - (piece.start - self._begin(piece))
        at = room if self._live else room // 2 + _quietest(levels[room // 2 : room])
        rest = _Open(piece.start + at)
        rest.levels = [levels[at:]]
        rest.last = max(piece.last, rest.start)
        # Which of the active frames come after the cut is not known any more, nor does it matter:
        # a piece so long is speech or is not, as a whole.
        rest.active, rest.change = piece.active, piece.change
        self._open = rest if piece.last > rest.start else None
        return self._made(piece, rest.start)

    def _made(self, piece: _Open, end: int) -> list[Piece]:
        begin, hears = self._begin(piece), self._hears(piece)
        end = min(end, begin + self._longest)
        self._free = end
        long = piece.active * SHIFT >= SHORT
        if piece.active * SHIFT < CLICK or (long and piece.change.decibels() < LEAST_CHANGE):
            return []
        start, stop = self._sample(begin), min(self._total, self._sample(end))
        if stop <= start:
            return []
        self._found = True
        samples = self._samples(self._sample(hears), stop)
        return [Piece(start / self.rate, stop / self.rate, samples)]

    def _begin(self, piece: _Open) -> int:
        return max(self._free, piece.start - self._margin, 0)

    def _hears(self, piece: _Open) -> int:
        """The frame that its samples begin with."""
        return max(self._free, piece.start - self._lead, 0)

    # ------------------------------------------------------------------------------- samples

    def _sample(self, frame: int) -> int:
        # The level of a frame is smoothed over the 50 ms before it, so its sound came earlier.
        return max(0, frame * self._levels.shift)

    def _keep(self, samples: Array) -> None:
        if len(samples):
            self._blocks.append(samples)
            self._total += len(samples)

    def _forget(self) -> None:
        """Drop the blocks that no piece can need any more."""
        frame = self._frames - self._lead
        if self._open is not None:
            frame = min(frame, self._hears(self._open))
        needed = self._sample(frame)
        while self._blocks and self._first + len(self._blocks[0]) <= needed:
            self._first += len(self._blocks.popleft())

    def _samples(self, start: int, stop: int) -> Array:
        parts = []
        at = self._first
        for block in self._blocks:
            if at < stop and at + len(block) > start:
                parts.append(block[max(0, start - at) : stop - at])
            at += len(block)
        return np.concatenate(parts) if parts else np.zeros(0, dtype=np.float32)


def pieces(blocks: Iterable[Array], rate: int, cutting: Cutting | None = None) -> Iterator[Piece]:
    """The pieces of a recording that is read in blocks (n,) of samples at `rate`."""
    segmenter = Segmenter(rate, cutting)
    for block in blocks:
        yield from segmenter.push(block)
    yield from segmenter.finish()


def _quietest(levels: Array) -> int:
    """The middle of the 150 ms that are quietest."""
    width = max(1, round(0.15 / SHIFT))
    means = np.convolve(levels, np.full(width, 1.0 / width), mode="valid")
    return int(np.argmin(means)) + width // 2


def _runs(decided: Decided) -> Iterator[Decided]:
    """The frames in runs that are all active or all not."""
    edges = np.flatnonzero(np.diff(decided.active)) + 1
    bounds = [0, *edges.tolist(), len(decided.active)]
    for begin, end in pairwise(bounds):
        if end > begin:
            part = slice(begin, end)
            yield Decided(
                decided.active[part], decided.level[part], decided.floor[part], decided.bands[part]
            )
