"""A speech side: recordings in, normalised frames out; what everything above sees of sound."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from os import cpu_count
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, TypeAlias

import numpy as np

from transduce.data.audio.augment import other_voice, spec_augment, with_edges
from transduce.data.audio.features import Accumulator, Frames, Statistics, log_mel, statistics
from transduce.data.audio.files import Waveform, is_silent, load, resampled
from transduce.data.audio.perturb import perturbed
from transduce.data.audio.segmentation import holds_speech
from transduce.disk import atomic_bytes
from transduce.errors import DataError

if TYPE_CHECKING:
    from transduce.recipe_speech import SpeechOptions

# A recording's name (`audio.files`), or samples (N,) or (N, channels) and their rate in Hz.
Sound: TypeAlias = str | Path | tuple[Any, int]


class Speech(NamedTuple):
    """A waveform that is known to hold speech, as the pieces of a recording that was searched for
    it: by themselves these may be too short to tell."""

    samples: Any
    rate: int


_LEARNT_FROM = 20_000  # recordings that global statistics are computed from, at most
_TOGETHER = 64  # recordings read at once, by several threads


@dataclass(frozen=True, eq=False)
class Heard:
    """One recording: (S, F) float32 frames, none where `reason` says why there is nothing to use.

    A reason may also tell that only the beginning was used. `seconds` is the whole length.
    """

    frames: Frames
    seconds: float
    reason: str | None = None


class SpeechSide:
    """A source that is speech: `options` say how frames are computed.

    `statistics` are those of the training data where the recipe normalises by them.
    """

    def __init__(self, options: SpeechOptions, statistics: Statistics | None = None) -> None:
        if options.normalize == "global" and statistics is None:
            raise DataError("speech that is normalised globally needs its statistics")
        self.options = options
        self.statistics = statistics
        self.views = 1  # of each recording in training, each with other masks

    @property
    def size(self) -> int:
        """F, the width of a frame."""
        return self.options.bins

    @property
    def samples(self) -> bool:
        """Whether texts are segmented anew in each epoch: there are none."""
        return False

    @property
    def versions(self) -> list[tuple[float, int]]:
        """Speed, and number of the perturbed copy (0: not perturbed), of every version that
        training data are prepared in; one is drawn for each example."""
        augment = self.options.augment
        return [(speed, copy) for copy in range(1 + augment.copies) for speed in augment.speed]

    @property
    def plain(self) -> int:
        """The version that is nearest to what was recorded; its frames are counted."""
        return int(np.argmin([abs(np.log(speed)) for speed in self.options.augment.speed]))

    def features(self, waveform: Waveform) -> Frames:
        """(N,) float32 samples at the side's rate -> (S, F) normalised frames, S perhaps 0."""
        return self.normalized(log_mel(waveform, self.options))

    def normalized(self, frames: Frames) -> Frames:
        """Log-mel frames as the recipe normalises them."""
        if self.options.normalize == "none" or not len(frames):
            return frames
        found = self.statistics if self.options.normalize == "global" else statistics(frames)
        assert found is not None
        return found.applied(frames)

    def augmented(self, frames: Frames, rng: np.random.Generator) -> Frames:
        """Training frames in the voice that `rng` draws, with what it hides of them.

        (S, F) -> (S, F), or (S, W, F) where there are W > 1 `views` of the same.
        """
        augment = self.options.augment
        least, most = augment.vocal_tract
        if least != most:
            frames = other_voice(frames, float(rng.uniform(least, most)), self.options.rate)
        if augment.edges:
            frames = with_edges(frames, round(1000 * augment.edges / self.options.shift_ms), rng)
            if self.options.normalize == "utterance":
                frames = self.normalized(frames)
        if self.views == 1:
            return spec_augment(frames, augment, rng)
        return np.stack([spec_augment(frames, augment, rng) for _ in range(self.views)], axis=1)

    def seconds_of(self, frames: int) -> float:
        """How long so many frames are."""
        options = self.options
        return (options.frame_ms + max(0, frames - 1) * options.shift_ms) / 1000

    def waveform(self, sound: Sound, longest: float | None = None) -> tuple[Waveform, float]:
        """Samples at the side's rate, of at most `longest` seconds, and the seconds there are.

        Errors: DataError for what cannot be read, as `audio.files.load`.
        """
        if not isinstance(sound, tuple):
            return load(str(sound), self.options.rate, longest=longest)
        samples, given = sound
        count = len(samples) if getattr(samples, "ndim", 1) else 0
        if longest is not None and longest * given < count:
            samples = samples[: int(np.ceil(longest * given))]
        return resampled(samples, given, self.options.rate, "the waveform"), count / given

    def read(self, sound: Sound, limit: int | None = None) -> Heard:
        """As `hear`, but what cannot be read is a reason and no error."""
        try:
            return self.hear(sound, limit)
        except DataError as error:
            return self._nothing(0.0, str(error))

    def hear(self, sound: Sound, limit: int | None = None) -> Heard:
        """One recording, of which at most `limit` frames are read.

        There are no frames, but a reason, for silence, for what is shorter than a frame, and for
        noise and held tones, of which a model would make words.
        Errors: DataError for what cannot be read.
        """
        longest = None if limit is None else self.seconds_of(limit)
        if isinstance(sound, str) and not sound.strip():
            return self._nothing(0.0, "blank input")
        wave, seconds = self.waveform(sound, longest)
        if is_silent(wave):
            return self._nothing(seconds, f"silence ({seconds:.2f} s)")
        frames = self.features(wave)[:limit]
        if not len(frames):
            return self._nothing(seconds, f"too short ({seconds:.3f} s)")
        if not isinstance(sound, Speech) and not holds_speech(wave, self.options.rate):
            return self._nothing(seconds, f"no speech found in {seconds:.1f} s")
        if longest is not None and seconds > longest + self.options.shift_ms / 1000:
            reason = f"input of {seconds:.1f} s cut to {self.seconds_of(len(frames)):.1f} s"
            return Heard(frames, seconds, reason)
        return Heard(frames, seconds)

    def _nothing(self, seconds: float, reason: str) -> Heard:
        return Heard(np.zeros((0, self.size), dtype=np.float32), seconds, reason)

    def read_all(self, sounds: Sequence[Sound], limit: int | None = None) -> list[Heard]:
        """Several recordings, in order, by several threads."""
        return in_threads(lambda sound: self.read(sound, limit), sounds)

    def prepared(self, name: str, limit: int) -> list[Frames]:
        """The frames of every version of a training recording; none at all for silence.

        Of one that is longer than `limit` frames no more is read than shows that it is. Errors:
        DataError for what cannot be read.
        """
        if not name:
            return [np.zeros((0, self.size), dtype=np.float32)] * len(self.versions)
        rate, augment = self.options.rate, self.options.augment
        waves = {}
        for speed in augment.speed:
            longest = self.seconds_of(limit + 2) / min(speed, 1.0)
            wave, _ = load(name, rate, speed=speed, longest=longest)
            waves[speed] = wave[:0] if is_silent(wave) else wave
        return [
            self.features(perturbed(waves[speed], rate, augment, copy) if copy else waves[speed])
            for speed, copy in self.versions
        ]

    # -------------------------------------------------------------------------- being kept

    def fingerprint(self) -> str:
        """A hash that differs whenever the same recording could get other frames."""
        tree = [self._description(), self.versions, _perturbing(self.options)]
        return hashlib.sha256(json.dumps(tree).encode()).hexdigest()

    def _description(self) -> dict[str, Any]:
        options = self.options
        found = {
            name: getattr(options, name)
            for name in ("kind", "rate", "bins", "frame_ms", "shift_ms", "normalize")
        }
        if self.statistics is not None:
            found["mean"] = [float(x) for x in self.statistics.mean]
            found["deviation"] = [float(x) for x in self.statistics.deviation]
        return found

    def save(self, folder: Path, stem: str) -> Path:
        """Write what frames depend on, statistics included, and return the path."""
        path = folder / f"{stem}.json"
        atomic_bytes(path, (json.dumps(self._description(), indent=1) + "\n").encode())
        return path

    @classmethod
    def load(cls, folder: Path, stem: str, options: SpeechOptions) -> SpeechSide:
        """Read what `save` wrote; DataError when it is missing, damaged or for other options."""
        path = folder / f"{stem}.json"
        try:
            kept = json.loads(path.read_text(encoding="utf-8"))
            found = None
            if options.normalize == "global":
                mean, deviation = (np.array(kept[k], np.float32) for k in ("mean", "deviation"))
                if mean.shape != (options.bins,) or deviation.shape != mean.shape:
                    raise ValueError("not as many numbers as bins")
                found = Statistics(mean, deviation)
            side = cls(options, found)
            same = kept == json.loads(json.dumps(side._description()))
        except FileNotFoundError:
            raise DataError(f"{path} is missing") from None
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise DataError(f"{path} is damaged: {error}") from None
        if not same:
            raise DataError(f"{path} is for other frames than the recipe says")
        return side


def _perturbing(options: SpeechOptions) -> Any:
    """The options that copies depend on, if there are copies."""
    wanted = {"noise", "noise_db", "gain_db", "reverb", "reverb_seconds"}
    return options.augment.model_dump(include=wanted) if options.augment.copies else None


def learn_speech(options: SpeechOptions, recordings: Iterable[str]) -> SpeechSide:
    """The side for training recordings, of which the first 20,000 give global statistics.

    Errors: DataError for recordings that cannot be read, and when there is nothing in them.
    """
    if options.normalize != "global":
        return SpeechSide(options)
    total = Accumulator(options.bins)

    def frames(name: str) -> Frames:
        wave, _ = load(name, options.rate)
        return log_mel(wave[:0] if is_silent(wave) else wave, options)

    for _, chunk in zip(range(0, _LEARNT_FROM, _TOGETHER), chunks(recordings), strict=False):
        for found in in_threads(frames, chunk):
            total.add(found)
    if not total.count:
        raise DataError("there is nothing to hear in the training recordings")
    return SpeechSide(options, total.statistics())


def chunks(items: Iterable[Any], size: int = _TOGETHER) -> Iterable[list[Any]]:
    """Items, so many at a time."""
    chunk = []
    for item in items:
        chunk.append(item)
        if len(chunk) == size:
            yield chunk
            chunk = []
    if chunk:
        yield chunk


def in_threads(work: Any, items: Sequence[Any]) -> list[Any]:
    """What `work` makes of each item, in their order; an error is raised as it was."""
    if len(items) < 2:
        return [work(item) for item in items]
    with ThreadPoolExecutor(max_workers=min(8, cpu_count() or 1, len(items))) as pool:
        return list(pool.map(work, items))
