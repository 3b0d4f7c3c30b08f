"""Looking through recordings for those that are probably wrong, before a model learns them."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from transduce.data.audio.files import clipped_share, is_silent, load, look
from transduce.data.audio.manifest import BadRow, read_rows
from transduce.data.check import EXAMPLES, RECORDING_KINDS, Finding, Report
from transduce.data.corpus import Corpus
from transduce.data.formats import Example
from transduce.data.speech import chunks, in_threads
from transduce.errors import DataError

_LONGEST = 600.0  # seconds of a recording that are looked at: memory stays flat
_OVER_LONG = 30.0  # seconds; the 3,000 frames of the default data.max_source_length
_FASTEST = 30.0  # characters that nobody speaks in a second
_CLIPPED = 0.001  # share of samples at the limit of the scale


@dataclass(slots=True)
class SpeechReport(Report):
    """What `check_recordings` found; `rates` are recordings by Hz."""

    seconds: float = 0.0
    rates: dict[int, int] = field(default_factory=dict)

    def heading(self) -> str:
        """What there is in all."""
        rates = ", ".join(f"{rate:,} Hz" for rate in self.rates) or "none that can be read"
        return (
            f"{self.pairs:,} recordings in {', '.join(self.corpora)}: "
            f"{self.seconds / 60:,.1f} minutes, {rates}"
        )


@dataclass(frozen=True, slots=True)
class _Seen:
    """One recording: seconds, rate, a hash of its samples, and what is wrong with it, by kind."""

    seconds: float = 0.0
    rate: int = 0
    content: int = 0
    wrong: tuple[tuple[str, str], ...] = ()


def check_recordings(corpora: Sequence[Corpus]) -> SpeechReport:
    """Count recordings that look wrong, with the first few of each kind and where they are.

    Data that cannot be read is a finding, not an error.
    """
    labels = [corpus.label for corpus in corpora]
    report = SpeechReport(labels, 0, {kind: Finding() for kind in RECORDING_KINDS})
    rates: Counter[int] = Counter()
    of_rate: dict[int, list[Example]] = {}
    known: set[int] = set()
    for corpus in corpora:
        for chunk in chunks(_rows(corpus)):
            for row, found in zip(chunk, in_threads(_look, chunk), strict=True):
                example = Example("", "", row.file, row.line) if isinstance(row, BadRow) else row
                report.pairs += row.line > 0
                report.seconds += found.seconds
                for kind, note in found.wrong:
                    report.add(kind, example, note)
                if not found.rate:
                    continue
                rates[found.rate] += 1
                first = of_rate.setdefault(found.rate, [])
                if len(first) < EXAMPLES:
                    first.append(example)
                if found.content in known:
                    report.add("duplicate", example)
                known.add(found.content)
    report.rates = dict(rates.most_common())
    usual = next(iter(report.rates), 0)
    others = [(rate, example) for rate in list(report.rates)[1:] for example in of_rate[rate]]
    for rate, example in others:
        report.add("rate mix", example, f"{rate:,} Hz, where most have {usual:,} Hz")
    report.findings["rate mix"].count = sum(rates.values()) - rates[usual]
    return report


def _rows(corpus: Corpus) -> Iterator[Example | BadRow]:
    """All rows of a corpus; what ends them early is a row too, which has no line."""
    try:
        yield from read_rows(replace(corpus.layout, errors="replace"))
    except DataError as error:
        yield BadRow(corpus.label, 0, error)


def _look(example: Example | BadRow) -> _Seen:
    """Everything that a recording and its text show by themselves."""
    if isinstance(example, BadRow):
        reason = str(example.error).removeprefix(f"{example.file}:{example.line}: ")
        return _Seen(wrong=(("unreadable", reason),))
    if "\ufffd" in example.source + (example.target or ""):
        return _Seen(wrong=(("unreadable", "the row is not UTF-8, or has U+FFFD"),))
    text = (example.target or "").strip()
    if not example.source.strip():
        return _Seen(wrong=(("empty", "the row names no file"),))
    try:
        sound = look(example.source)
        wave, seconds = load(example.source, sound.rate, longest=_LONGEST)
    except DataError as error:
        empty = "holds no sound" in str(error) or "is empty" in str(error)
        return _Seen(wrong=(("empty" if empty else "unreadable", str(error)),))
    wrong = []
    if not text:
        wrong.append(("empty", "no text"))
    if is_silent(wave):
        wrong.append(("silent", f"{seconds:.2f} s"))
    elif (share := clipped_share(wave)) >= _CLIPPED:
        wrong.append(("clipped", f"{share:.1%} of the samples"))
    letters = len(text.replace(" ", ""))
    if letters > _FASTEST * seconds:
        wrong.append(("too short", f"{seconds:.2f} s for {letters} characters"))
    if seconds > _OVER_LONG:
        wrong.append(("over-long", f"{seconds:.1f} s"))
    digest = hashlib.blake2b(np.ascontiguousarray(wave).tobytes(), digest_size=8).digest()
    return _Seen(seconds, sound.rate, int.from_bytes(digest, "big"), tuple(wrong))
