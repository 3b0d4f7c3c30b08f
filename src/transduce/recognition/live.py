"""Text that grows while somebody speaks: from raw samples to partial and final lines."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import BinaryIO, Protocol

import numpy as np

from transduce.data.audio.activity import Array
from transduce.data.audio.blocks import Resampled
from transduce.data.audio.segmentation import Cutting, Segmenter
from transduce.errors import UsageError

CHUNK = 0.1  # seconds that are read at most at once


class Listener(Protocol):
    """What recognises utterances one after another while they are spoken."""

    def hear(self, samples: Array) -> str:
        """The text so far, after (n,) samples more of the utterance."""
        ...

    def end(self) -> str:
        """The text of the utterance, which is over; what is heard next begins another."""
        ...


class Incremental(Protocol):
    """A model with an encoder that does not look far ahead, and carries its state."""

    def partial(self, frames: Array) -> str:
        """The text so far, after (n, F) frames more of the utterance."""
        ...

    def final(self) -> str:
        """The text of the utterance, which is over; the next frames begin another."""
        ...


class Extractor(Protocol):
    """Frames of samples that come in pieces, as `data.audio.online.OnlineLogMel`."""

    def push(self, samples: Array) -> Array: ...


class ByFrames:
    """A listener that makes frames of the samples and hands them to an incremental model."""

    def __init__(
        self,
        model: Incremental,
        extractor: Callable[[], Extractor],
        normalized: Callable[[Array], Array] = lambda frames: frames,
    ) -> None:
        self._model = model
        self._make = extractor
        self._normalized = normalized
        self._extractor = extractor()

    def hear(self, samples: Array) -> str:
        return self._model.partial(self._normalized(self._extractor.push(samples)))

    def end(self) -> str:
        self._extractor = self._make()
        return self._model.final()


class Again:
    """A listener that decodes the whole utterance again each time: for every other model.

    `decode` gets all its samples (N,), so a long utterance costs with the square of its length.
    """

    def __init__(self, decode: Callable[[Array], str]) -> None:
        self._decode = decode
        self._samples: list[Array] = []

    def hear(self, samples: Array) -> str:
        self._samples.append(samples)
        return self._decode(np.concatenate(self._samples))

    def end(self) -> str:
        text = self._decode(np.concatenate(self._samples)) if self._samples else ""
        self._samples = []
        return text


@dataclass(frozen=True, slots=True)
class Line:
    """What is known of an utterance, seconds from the beginning of the stream.

    A `final` line is followed by those of other utterances; one without text takes back what was
    said of sound that turned out to be no speech.
    """

    text: str
    start: float
    end: float
    final: bool


def listen(
    chunks: Iterable[Array],
    listener: Listener,
    *,
    rate: int,
    cutting: Cutting | None = None,
    every: float = 0.2,
) -> Iterator[Line]:
    """Lines of a stream of samples (n,) at `rate`: partial ones at most each `every` seconds.

    An utterance begins where a live `Segmenter` finds speech and ends after `Cutting.pause`.
    """
    utterances = _Utterances(Segmenter(rate, cutting, live=True), listener, every)
    for chunk in chunks:
        yield from utterances.push(chunk)
    yield from utterances.finish()


class _Utterances:
    def __init__(self, segmenter: Segmenter, listener: Listener, every: float) -> None:
        self._segmenter = segmenter
        self._listener = listener
        self._every = every
        self._start: float | None = None  # of the utterance that is being heard
        self._heard = 0  # samples of it
        self._shown = 0.0  # when its last line was made
        self._wait = every
        self._text = ""

    def push(self, chunk: Array) -> Iterator[Line]:
        for piece in self._segmenter.push(chunk):
            yield from self._ended(piece.start, piece.end, piece.samples)
        current = self._segmenter.current()
        now = self._segmenter.seconds
        if self._start is not None and (current is None or current[0] != self._start):
            yield self._dropped()
        if current is None:
            return
        start, samples = current
        if self._start is None:
            self._start, self._heard, self._text = start, 0, ""
            self._shown, self._wait = now - self._every, self._every
        if now - self._shown >= self._wait:
            yield from self._partial(samples, now)

    def _partial(self, samples: Array, now: float) -> Iterator[Line]:
        assert self._start is not None
        self._shown = now
        begin = time.perf_counter()
        text = self._listener.hear(samples[self._heard :])
        # Sound goes on while a model thinks: a slow one speaks more seldom rather than ever later.
        self._wait = max(self._every, 2.0 * (time.perf_counter() - begin))
        self._heard = len(samples)
        if text != self._text:
            self._text = text
            yield Line(text, self._start, now, final=False)

    def finish(self) -> Iterator[Line]:
        for piece in self._segmenter.finish():
            yield from self._ended(piece.start, piece.end, piece.samples)
        if self._start is not None:
            yield self._dropped()

    def _ended(self, start: float, end: float, samples: Array) -> Iterator[Line]:
        if self._start is not None and self._start != start:
            yield self._dropped()
        if self._start is None:
            self._heard = 0
        if self._heard < len(samples):
            self._listener.hear(samples[self._heard :])
        self._start = None
        yield Line(self._listener.end(), start, end, final=True)

    def _dropped(self) -> Line:
        assert self._start is not None
        start, self._start = self._start, None
        self._listener.end()
        return Line("", start, self._segmenter.seconds, final=True)


def pcm_chunks(stream: BinaryIO, given: int, rate: int) -> Iterator[Array]:
    """Raw 16-bit samples, little-endian, one channel at `given` Hz, as floats at `rate` Hz.

    Each read takes what is there, up to a tenth of a second, so nothing waits for more. Half a
    sample at the end is dropped. Errors: UsageError for a sound file in place of samples.
    """
    resampled = Resampled(given, rate)
    size = 2 * max(1, round(CHUNK * given))
    read = getattr(stream, "read1", stream.read)
    rest, begun = b"", False
    while data := read(size):
        rest += data
        if not begun and len(rest) < HEAD and rest[:1] in FIRST:
            continue  # not yet known
        if not begun:
            _no_file(rest, given)
            begun = True
        even = len(rest) // 2 * 2
        data, rest = rest[:even], rest[even:]
        yield resampled.push(_floats(data))
    if not begun:
        _no_file(rest, given)
    yield resampled.push(_floats(rest[: len(rest) // 2 * 2]), last=True)


# How sound files begin: at byte 0, and at a later byte.
FILES: dict[str, tuple[bytes, int, bytes]] = {
    "a WAV file (RIFF)": (b"RIFF", 8, b"WAVE"),
    "a WAV file (RF64)": (b"RF64", 8, b"WAVE"),
    "a FLAC file": (b"fLaC", 4, b"\x00"),
    "an Ogg or Opus file": (b"OggS", 4, b"\x00"),
    "an MP3 file": (b"ID3", 10, b""),
    "an AIFF file": (b"FORM", 8, b"AIF"),
}
HEAD = 12  # bytes that tell
FIRST = {begin[:1] for begin, _, _ in FILES.values()}


def _no_file(data: bytes, given: int) -> None:
    """Refuse what begins like a sound file: its header, or all of it, would be heard as noise."""
    for name, (begin, at, then) in FILES.items():
        if data.startswith(begin) and data[at : at + len(then)] == then:
            raise UsageError(
                f"standard input is {name}; --stream takes samples alone (16 bits, one channel, "
                f"{given} a second). Name the file instead of --stream, or take its samples out:\n"
                f"  ffmpeg -i FILE -f s16le -ac 1 -ar {given} - | transduce transcribe MODEL "
                f"--stream --rate {given}"
            )


def _floats(data: bytes) -> Array:
    return np.frombuffer(data, dtype="<i2").astype(np.float32) / np.float32(32768.0)
