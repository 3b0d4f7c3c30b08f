"""Recordings of any length and number to transcripts, in order, in bounded memory.

A recording no longer than `Cutting.longest` is recognised as a whole, as in `evaluate`; a longer
one is cut at its silences. The pieces of all recordings go through the model together.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from transduce.data.audio.activity import Array
from transduce.data.audio.blocks import sound_blocks
from transduce.data.audio.segmentation import Cutting, Piece, Segmenter
from transduce.data.speech import Speech
from transduce.errors import DataError
from transduce.output import Output
from transduce.recognition.times import word_times
from transduce.recognition.transcript import Choice, Part, Transcript

TOGETHER = 32  # pieces that are held, and decoded together


class Recognizer(Protocol):
    """Whatever answers waveforms, (samples, rate), each with one output, in order."""

    def stream(
        self, inputs: Iterable[Any], *, window: int = ..., **search: Any
    ) -> Iterator[Output]: ...


def transcripts(
    model: Recognizer,
    paths: Iterable[Path],
    *,
    rate: int,
    cutting: Cutting | None = None,
    window: int = TOGETHER,
    **search: Any,
) -> Iterator[Transcript]:
    """One transcript for each path, in order; what cannot be read has a reason and no text.

    `rate` is the model's; `window` pieces are read ahead; `search` goes to the model.
    """
    pending: deque[_Recording] = deque()

    def sounds() -> Iterator[Speech]:
        for path in paths:
            recording = _Recording(path)
            pending.append(recording)
            for piece in recording.pieces(rate, cutting or Cutting()):
                recording.waiting.append((piece.start, piece.end))
                yield Speech(piece.samples, rate)
            recording.read = True

    for output in model.stream(sounds(), window=window, **search):
        yield from _done(pending)  # those without speech, which get no output
        pending[0].answer(output)
        yield from _done(pending)
    yield from _done(pending)


def _done(pending: deque[_Recording]) -> Iterator[Transcript]:
    while pending and pending[0].done:
        yield pending.popleft().transcript()


class _Recording:
    """One recording on its way: what is read, which of its pieces are answered."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.waiting: deque[tuple[float, float]] = deque()
        self.read = False
        self._parts: list[Part] = []
        self._seconds = 0.0
        self._reason: str | None = None

    @property
    def done(self) -> bool:
        return self.read and not self.waiting

    def pieces(self, rate: int, cutting: Cutting) -> Iterator[Piece]:
        """The pieces to recognise; damage ends them early, and is the reason."""
        segmenter = Segmenter(rate, cutting)
        held: list[Array] = []  # the whole recording, as long as it is short
        early: list[Piece] = []
        blocks = sound_blocks(self.path, rate)
        found = False
        while (block := self._next(blocks)) is not None:
            ready = segmenter.push(block)
            if segmenter.seconds <= cutting.longest:
                held.append(block)
                early += ready
                continue
            held.clear()
            for piece in (*early, *ready):
                found = True
                yield piece
            early.clear()
        self._seconds = segmenter.seconds
        rest = [*early, *segmenter.finish()]
        if held and rest:
            yield Piece(0.0, self._seconds, np.concatenate(held))
        elif not held:
            yield from rest
        if not (found or rest) and self._reason is None:
            self._reason = f"no speech found in {self._seconds:.1f} s"

    def _next(self, blocks: Iterator[Array]) -> Array | None:
        try:
            return next(blocks, None)
        except DataError as error:
            self._reason = str(error).removeprefix(f"{self.path}: ")
            return None

    def answer(self, output: Output) -> None:
        """The output for the earliest piece that has none."""
        start, end = self.waiting.popleft()
        words = word_times(output, start, end - start)
        choices = [Choice(other.text, other.score) for other in output.n_best]
        said, score, reason = output.text, output.score, output.reason
        self._parts.append(Part(start, end, said, score, words, reason, choices))

    def transcript(self) -> Transcript:
        reason = self._reason
        if reason is None:
            reasons = dict.fromkeys(part.reason for part in self._parts if part.reason)
            reason = "; ".join(reasons) or None
        return Transcript(str(self.path), self._seconds, self._parts, reason)
