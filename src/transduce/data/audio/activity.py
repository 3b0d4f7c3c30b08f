"""Where in a recording somebody may be speaking: energy over a tracked floor of noise.

Three steps, all of them on frames of 10 ms. Levels: the energy of each frame in bands where speech
has its own. Decision: a frame is active when its level rises above the noise by some decibels, and
stays so until it falls to fewer (hysteresis); the noise is the minimum of the smoothed level over
the seconds around, after Martin 2001 ("Noise power spectral density estimation based on optimal
smoothing and minimum statistics", section III). Change: in speech the energy of every band moves up
and down with the syllables, in noise, hum and held tones it does not; this tells them apart where
they are loud (after the long-term variability of Ghosh, Tsiartas and Narayanan 2011).
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float32]

SHIFT = 0.01  # seconds between two frames
WINDOW = 0.025  # seconds of a frame
BANDS = 16
LOWEST, HIGHEST = 150.0, 3800.0  # Hz: telephone speech has all of it, hum and rumble little
CELL = 25  # frames whose minimum and maximum are kept as one number each
PAST = 40  # cells, 10 s: a speaker who never pauses so long is not taken for noise
SILENT = -75.0  # dB of full scale: nothing below is a floor, so zeros make no noise of the rest
START = -50.0  # dB: the floor that is assumed while a live signal is not yet known
LEARNT = 8  # cells after which it no longer is

# Decibels over the floor: the share of the range between floor and loudest, within bounds.
ENTER = (0.35, 9.0, 15.0)
STAY = (0.20, 5.0, 9.0)


class Levels:
    """Band energies of a waveform that comes in pieces of any length."""

    def __init__(self, rate: int) -> None:
        self.shift = max(1, round(rate * SHIFT))
        self.window = max(2, round(rate * WINDOW))
        self.size = 1 << (self.window - 1).bit_length()
        shape = np.hanning(self.window + 2)[1:-1]
        self._shape = (shape / np.sqrt((shape**2).sum())).astype(np.float32)
        self._filters = _filters(rate, self.size)
        self._rest: Array = np.zeros(0, dtype=np.float32)

    def push(self, samples: Array) -> Array:
        """(n,) samples, -1 … 1 -> (m, BANDS) dB of full scale, of the windows now whole."""
        wave = np.concatenate([self._rest, samples]) if len(self._rest) else samples
        count = max(0, (len(wave) - self.window) // self.shift + 1)
        self._rest = wave[count * self.shift :].copy()
        if not count:
            return np.zeros((0, BANDS), dtype=np.float32)
        frames = np.lib.stride_tricks.sliding_window_view(wave, self.window)[:: self.shift][:count]
        # A microphone's constant offset would leak into the lowest bands.
        frames = (frames - frames.mean(axis=1, keepdims=True)) * self._shape
        spectrum = np.fft.rfft(frames, self.size, axis=1)
        power = (spectrum.real**2 + spectrum.imag**2).astype(np.float32) @ self._filters
        return np.asarray(10.0 * np.log10(power + 1e-10), dtype=np.float32)


def _filters(rate: int, size: int) -> Array:
    """(size / 2 + 1, BANDS): which bins belong to which band; bands are even on the mel scale.

    Scaled so that the levels of all bands together are those of the samples.
    """

    def mel(hertz: float) -> float:
        return float(1127.0 * np.log1p(hertz / 700.0))

    top = min(HIGHEST, 0.475 * rate)
    edges = 700.0 * np.expm1(np.linspace(mel(min(LOWEST, top / 4)), mel(top), BANDS + 1) / 1127.0)
    bins = np.arange(size // 2 + 1) * rate / size
    # Between bands a bin is shared, so that none is empty however narrow the lowest are.
    centres = np.clip((bins[:, None] - edges[:-1]) / np.diff(edges), -1.0, 2.0)
    inside = np.clip(1.5 - np.abs(centres - 0.5), 0.0, 1.0) * (bins[:, None] > LOWEST / 2)
    return np.asarray(2.0 / size * inside, dtype=np.float32)


@dataclass(frozen=True, slots=True)
class Decided:
    """What is decided about some consecutive frames: (n,) each but `bands`, (n, BANDS) dB.

    `level` is the energy of all bands, dB, smoothed over 50 ms; `floor` that of the noise.
    """

    active: NDArray[np.bool_]
    level: Array
    floor: Array
    bands: Array


class Detector:
    """Decides about frames of `Levels`, in order, as soon as what is ahead of them is known.

    `ahead` is in seconds: with 10 s, a floor is that of the sound around; with 0 (for live signals)
    that of the sound before, and each frame is decided at once.
    """

    def __init__(self, ahead: float = 10.0) -> None:
        self._ahead = round(ahead / SHIFT / CELL)
        self._cells: deque[tuple[float, float]] = deque(maxlen=PAST + self._ahead + 1)
        self._seen = 0  # cells begun, the last of them perhaps in part
        self._decided = 0  # cells decided in whole
        self._waiting: deque[tuple[Array, Array]] = deque()  # levels and bands of cells
        self._cell: tuple[Array, Array] | None = None  # the cell that is not yet whole
        self._history: Array = np.zeros(0, dtype=np.float32)
        self._active = False

    def push(self, bands: Array) -> list[Decided]:
        """More frames (n, BANDS); gives what can be decided now."""
        found: list[Decided] = []
        level = self._smoothed(bands)
        while len(level):
            room = CELL if self._cell is None else CELL - len(self._cell[0])
            self._put(level[:room], bands[:room])
            found += self._ready(len(level[:room]))
            level, bands = level[room:], bands[room:]
        return found

    def finish(self) -> list[Decided]:
        """What was still waiting for the sound ahead of it."""
        if self._ahead == 0:
            return []
        if self._cell is not None:
            self._waiting.append(self._cell)
        found = []
        while self._waiting:
            found.append(self._decide(*self._waiting.popleft()))
            self._decided += 1
        return found

    def _smoothed(self, bands: Array) -> Array:
        """The mean power of the last 5 frames, dB: single clicks and gaps of voices are less."""
        if not len(bands):
            return np.zeros(0, dtype=np.float32)
        power = (10.0 ** (bands.astype(np.float64) / 10.0)).sum(axis=1).astype(np.float32)
        if not len(self._history):  # a recording that began in silence would have that as its floor
            self._history = np.repeat(power[:1], 4)
        wave = np.concatenate([self._history, power])
        self._history = wave[-4:]
        mean = np.lib.stride_tricks.sliding_window_view(wave, 5).mean(axis=1, dtype=np.float64)
        return np.asarray(10.0 * np.log10(np.maximum(mean, 1e-10)), dtype=np.float32)

    def _put(self, level: Array, bands: Array) -> None:
        low, high = float(level.min()), float(level.max())
        if self._cell is None:
            self._cell = level, bands
            self._cells.append((low, high))
            self._seen += 1
        else:
            self._cell = (
                np.concatenate([self._cell[0], level]),
                np.concatenate([self._cell[1], bands]),
            )
            before = self._cells[-1]
            self._cells[-1] = min(low, before[0]), max(high, before[1])

    def _ready(self, new: int) -> list[Decided]:
        assert self._cell is not None
        level, bands = self._cell
        whole = len(level) == CELL
        found: list[Decided] = []
        if self._ahead == 0:
            found.append(self._decide(level[-new:], bands[-new:]))
            self._decided += whole
        elif whole:
            self._waiting.append(self._cell)
            if len(self._waiting) > self._ahead:
                found.append(self._decide(*self._waiting.popleft()))
                self._decided += 1
        if whole:
            self._cell = None
        return found

    def _decide(self, level: Array, bands: Array) -> Decided:
        first = self._seen - len(self._cells)  # number of the oldest cell that is kept
        around = list(self._cells)[max(0, self._decided - PAST - first) :]
        floor = min(low for low, _ in around)
        top = max(high for _, high in around)
        if self._ahead == 0 and self._decided < LEARNT:
            floor = min(floor, START)
        floor = max(floor, SILENT)
        enter, stay = (
            floor + float(np.clip(share * (top - floor), least, most))
            for share, least, most in (ENTER, STAY)
        )
        active = np.zeros(len(level), dtype=np.bool_)
        now = self._active
        for k, value in enumerate(level.tolist()):
            now = value > (stay if now else enter)
            active[k] = now
        self._active = now
        return Decided(active, level, np.full(len(level), floor, dtype=np.float32), bands)


class Change:
    """How much the energies of the bands move within some frames, counted as they come."""

    def __init__(self) -> None:
        self.frames = 0
        self._sum = np.zeros(BANDS)
        self._squares = np.zeros(BANDS)

    def add(self, decided: Decided) -> None:
        """Frames more. What lies below the floor is not heard, and counts as the floor."""
        # The floor is that of all bands together; each has its part.
        part = decided.floor[:, None] - np.float32(10.0 * np.log10(BANDS))
        # Smoothing lets frames be active that are only beside sound: they would be the change.
        own = 10.0 * np.log10((10.0 ** (decided.bands / 10.0)).sum(axis=1))
        wide = np.maximum(decided.bands, part).astype(np.float64)[own > decided.floor + STAY[1]]
        wide -= wide.mean(axis=1, keepdims=True)
        self.frames += len(wide)
        self._sum += wide.sum(axis=0)
        self._squares += (wide**2).sum(axis=0)

    def decibels(self) -> float:
        """The deviation of a band's level over time, dB, the median of all bands; 0 of nothing."""
        if not self.frames:
            return 0.0
        mean = self._sum / self.frames
        return float(np.median(np.sqrt(np.maximum(self._squares / self.frames - mean**2, 0.0))))
