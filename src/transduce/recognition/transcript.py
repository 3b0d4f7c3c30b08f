"""What is known of a recording once it is transcribed: text, times, words, reasons."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True, slots=True)
class Word:
    """A word and when it is spoken, seconds from the beginning of the recording."""

    text: str
    start: float
    end: float


@dataclass(frozen=True, slots=True)
class Choice:
    """One of several texts that a stretch of speech may be, with the score of its output."""

    text: str
    score: float


@dataclass(frozen=True, slots=True)
class Part:
    """A stretch of speech, seconds from the beginning of the recording, and what was said.

    `words` is empty where a model gives no times. `score` is the output's; `reason` says why the
    text is empty or may be incomplete. `n_best` is the best N, of which `text` is the first,
    where more than one was asked for.
    """

    start: float
    end: float
    text: str
    score: float = 0.0
    words: Sequence[Word] = ()
    reason: str | None = None
    n_best: Sequence[Choice] = ()


@dataclass(frozen=True, slots=True)
class Transcript:
    """One recording: what it is called, how long it is, and its parts in order of time.

    `reason` says why there is no text, or why there may be more than was read; None: all is well.
    """

    audio: str
    seconds: float
    parts: list[Part] = field(default_factory=list)
    reason: str | None = None

    @property
    def text(self) -> str:
        """All that was said, on one line."""
        return " ".join(part.text for part in self.parts if part.text)

    def as_dict(self) -> dict[str, Any]:
        """Everything as plain JSON values; times in seconds, to the millisecond."""
        return {
            "audio": self.audio,
            "seconds": round(self.seconds, 3),
            "text": self.text,
            "segments": [_part(part) for part in self.parts],
            "reason": self.reason,
        }


def _part(part: Part) -> dict[str, Any]:
    fields: dict[str, Any] = {
        "start": round(part.start, 3),
        "end": round(part.end, 3),
        "text": part.text,
        "score": round(part.score, 6),
        "words": [
            {"word": word.text, "start": round(word.start, 3), "end": round(word.end, 3)}
            for word in part.words
        ],
        "reason": part.reason,
    }
    if part.n_best:
        fields["n_best"] = [
            {"text": choice.text, "score": round(choice.score, 6)} for choice in part.n_best
        ]
    return fields
