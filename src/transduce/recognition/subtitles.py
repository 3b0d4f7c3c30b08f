"""Transcripts as subtitles: SubRip (.srt) and WebVTT (.vtt)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from transduce.evaluation.figures.tokens import columns_of
from transduce.recognition.transcript import Part, Transcript, Word

LINE = 42  # columns of a line, and how many lines a screen holds: the usual of broadcasters
LINES = 2
LONGEST = 7.0  # seconds that a subtitle stays
LEAST = 0.7  # … and the shortest that can be read, where the next one does not come sooner
PAUSE = 1.0  # seconds of silence between two words that end a subtitle


@dataclass(frozen=True, slots=True)
class Cue:
    """One subtitle: from when to when, in milliseconds, and its lines."""

    start: int
    end: int
    lines: Sequence[str]


def srt(transcript: Transcript) -> str:
    """The transcript as SubRip: numbered subtitles."""
    blocks = []
    for number, cue in enumerate(cues(transcript), start=1):
        times = f"{_clock(cue.start, ',')} --> {_clock(cue.end, ',')}"
        # The format has no escapes, and an arrow would be read as a line of times.
        lines = [line.replace("-->", "→") for line in cue.lines]
        blocks.append("\n".join([str(number), times, *lines]) + "\n")
    return "\n".join(blocks)


def vtt(transcript: Transcript) -> str:
    """The transcript as WebVTT."""
    blocks = ["WEBVTT\n"]
    for cue in cues(transcript):
        times = f"{_clock(cue.start, '.')} --> {_clock(cue.end, '.')}"
        blocks.append("\n".join([times, *map(_escaped, cue.lines)]) + "\n")
    return "\n".join(blocks)


def cues(transcript: Transcript) -> list[Cue]:
    """The subtitles of a transcript: in order, never overlapping, each at least 1 ms.

    Each has at most two lines of 42 columns and stays at most 7 s where words have times; where
    they have none, the time of a part is shared among its words by their length.
    """
    found: list[Cue] = []
    for part in transcript.parts:
        for words in _groups(_timed(part)):
            lines = folded([word.text for word in words])
            start, end = round(words[0].start * 1000), round(words[-1].end * 1000)
            start = max(start, found[-1].end if found else 0)
            found.append(Cue(start, max(end, start + 1), lines))
    for k, cue in enumerate(found):
        after = found[k + 1].start if k + 1 < len(found) else cue.end + round(LEAST * 1000)
        end = max(cue.end, min(cue.start + round(LEAST * 1000), after))
        found[k] = Cue(cue.start, end, cue.lines)
    return found


def folded(words: Sequence[str]) -> list[str]:
    """Words on lines of at most 42 columns; a word longer than a line is broken."""
    lines = [""]
    for word in words:
        for piece in _broken(word):
            joined = f"{lines[-1]} {piece}" if lines[-1] else piece
            if columns_of(joined) <= LINE:
                lines[-1] = joined
            else:
                lines.append(piece)
    return lines


def _timed(part: Part) -> list[Word]:
    """The words of a part with times, short enough each for a subtitle of its own."""
    words = list(part.words) or _shared(part.text.split(), part.start, part.end)
    room = LINE * LINES
    return [
        piece
        for word in words
        for piece in (
            [word]
            if columns_of(word.text) <= room
            else _shared(_broken(word.text), word.start, word.end)
        )
    ]


def _shared(texts: Sequence[str], start: float, end: float) -> list[Word]:
    """Texts one after another, each with a share of the time by its length."""
    total = sum(map(len, texts))
    words = []
    done = 0
    for text in texts:
        begin = start + (end - start) * done / total
        done += len(text)
        words.append(Word(text, begin, start + (end - start) * done / total))
    return words


def _groups(words: Sequence[Word]) -> Iterator[list[Word]]:
    """The words that are shown together."""
    group: list[Word] = []
    for word in words:
        if group and not _fits(group, word):
            yield group
            group = []
        group.append(word)
    if group:
        yield group


def _fits(group: Sequence[Word], word: Word) -> bool:
    quick = word.end - group[0].start <= LONGEST and word.start - group[-1].end < PAUSE
    return quick and len(folded([*(one.text for one in group), word.text])) <= LINES


def _broken(word: str) -> list[str]:
    """A word in pieces of at most a line."""
    pieces = [""]
    for character in word:
        if columns_of(pieces[-1] + character) > LINE:
            pieces.append("")
        pieces[-1] += character
    return pieces


def _clock(milliseconds: int, point: str) -> str:
    seconds, rest = divmod(milliseconds, 1000)
    hours, seconds = divmod(seconds, 3600)
    return f"{hours:02}:{seconds // 60:02}:{seconds % 60:02}{point}{rest:03}"


def _escaped(line: str) -> str:
    return line.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
