"""Looking through corpora for pairs that are probably wrong, before a model learns them.

Two passes: a look at the beginning, to learn what is usual here (length ratio, scripts), and one
through everything. Memory is 16 bytes a pair, for the hashes that duplicates are found with.
"""

from __future__ import annotations

import itertools
import math
import re
import unicodedata
from array import array
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache

import numpy as np
import numpy.typing as npt

from transduce.data.corpus import Corpus
from transduce.data.formats import Example
from transduce.errors import DataError

EXAMPLES = 5  # shown of each kind
_LOOK = 20_000  # pairs of each corpus that what is usual is learnt from
_LONG_WORDS, _LONG_CHARACTERS = 200, 2000
_SHOWN = 120  # characters of a text in the report

KINDS = {
    "unreadable": "files that cannot be read to their end, or differ in length",
    "empty": "a side is blank",
    "misaligned": "the length ratio is far from what is usual here",
    "duplicate": "the same pair as an earlier one",
    "several targets": "a source that occurs with different targets",
    "over-long": f"more than {_LONG_WORDS} words or {_LONG_CHARACTERS:,} characters",
    "wrongly encoded": "not UTF-8, control characters, or UTF-8 read as Latin-1 (Ã¤)",
    "probably untranslated": "the target is the source, or nearly so",
    "wrong script": "most letters are of a script that this side does not use",
}

# Of speech (`audio.check`).
RECORDING_KINDS = {
    "unreadable": "files that are missing, no sound, cut short, hold no numbers; bad rows",
    "empty": "a recording without samples, or without text",
    "silent": "nothing can be heard",
    "clipped": "samples in a row lie at the limit of the scale",
    "too short": "nobody speaks its text in that time",
    "over-long": "more than 30 seconds",
    "rate mix": "another number of samples a second than most",
    "duplicate": "the same samples as an earlier one",
}


@dataclass(frozen=True, slots=True)
class Sighting:
    """One pair that looks wrong; texts are shortened."""

    file: str
    line: int
    source: str
    target: str
    note: str = ""


@dataclass(slots=True)
class Finding:
    """How many pairs look wrong in one way, and the first of them."""

    count: int = 0
    examples: list[Sighting] = field(default_factory=list)


@dataclass(slots=True)
class Report:
    """What `check_corpora` found, by the keys of `KINDS`, or of `RECORDING_KINDS` for speech."""

    corpora: list[str]
    pairs: int
    findings: dict[str, Finding]

    @property
    def clean(self) -> bool:
        """Nothing looks wrong."""
        return not any(finding.count for finding in self.findings.values())

    def add(self, kind: str, example: Example, note: str = "") -> None:
        """Count one more of a kind; the first few are shown."""
        finding = self.findings[kind]
        finding.count += 1
        if len(finding.examples) < EXAMPLES:
            source, target = _short(example.source), _short(example.target or "")
            finding.examples.append(Sighting(example.file, example.line, source, target, note))

    def heading(self) -> str:
        """What there is in all."""
        return f"{self.pairs:,} pairs in {', '.join(self.corpora)}"

    def __str__(self) -> str:
        about = KINDS if self.findings.keys() == KINDS.keys() else RECORDING_KINDS
        lines = [self.heading()]
        if self.clean:
            return lines[0] + "\nnothing looks wrong"
        for kind, finding in self.findings.items():
            if not finding.count:
                continue
            share = f" ({finding.count / self.pairs:.2%})" if self.pairs else ""
            lines += ["", f"{kind}: {finding.count:,}{share}: {about[kind]}"]
            for seen in finding.examples:
                place = f"{seen.file}:{seen.line}" if seen.line else seen.file
                lines.append(f"  {place}{': ' + seen.note if seen.note else ''}")
                if seen.source or seen.target:
                    lines.append(f"    {seen.source!r} -> {seen.target!r}")
        return "\n".join(lines)


def check_corpora(corpora: Sequence[Corpus]) -> Report:
    """Count pairs that look wrong, with the first few of each kind and where they are.

    Data that cannot be read is a finding, not an error; only missing files raise DataError.
    """
    checker = _Checker([corpus.label for corpus in corpora])
    for corpus in corpora:
        usual = _Usual(itertools.islice(_readable(corpus), _LOOK))
        for example in _readable(corpus, checker):
            checker.look(example, usual)
    checker.duplicates(corpora)
    return checker.report


def _readable(corpus: Corpus, checker: _Checker | None = None) -> Iterator[Example]:
    """The examples until one cannot be read; that is noted once, if there is a checker."""
    try:
        yield from replace(corpus.layout, errors="replace").read()
    except DataError as error:
        if checker is not None:
            checker.add("unreadable", Example("", "", corpus.label, 0), str(error))


# ------------------------------------------------------------------------------ one pair


class _Usual:
    """What is usual in a corpus: ratio of lengths, and the scripts of each side."""

    def __init__(self, examples: Iterator[Example]) -> None:
        ratios = []
        letters: tuple[Counter[str], Counter[str]] = (Counter(), Counter())
        for example in examples:
            texts = example.source, example.target or ""
            if all(text.strip() for text in texts):
                ratios.append(_log_ratio(*texts))
                for counts, text in zip(letters, texts, strict=True):
                    counts.update(_scripts(text))
        values = np.array(ratios or [0.0])
        self.ratio = float(np.median(values))
        spread = float(np.median(np.abs(values - self.ratio))) * 1.4826  # a deviation, if normal
        # Short texts differ much; what is flagged is beyond both five deviations and threefold.
        self.tolerance = max(5.0 * spread, math.log(3.0))
        self.scripts = tuple(
            {script for script, n in counts.items() if n >= 0.05 * counts.total()}
            for counts in letters
        )


def _log_ratio(source: str, target: str) -> float:
    # Ten characters more on both sides: so 3 to 10 characters is no outlier, 30 to 100 is.
    return math.log((len(target) + 10) / (len(source) + 10))


class _Checker:
    def __init__(self, labels: list[str]) -> None:
        self.report = Report(labels, 0, {kind: Finding() for kind in KINDS})
        self._pairs = array("Q")
        self._sources = array("Q")

    def add(self, kind: str, example: Example, note: str = "") -> None:
        self.report.add(kind, example, note)

    def look(self, example: Example, usual: _Usual) -> None:
        """Everything that a pair shows by itself; its hashes are kept for `duplicates`."""
        source, target = example.source.strip(), (example.target or "").strip()
        self.report.pairs += 1
        mask = 2**64 - 1
        self._sources.append(hash(source) & mask)
        self._pairs.append(hash((source, target)) & mask)
        for text in (example.source, example.target or ""):
            if note := _encoding_fault(text):
                self.add("wrongly encoded", example, note)
                break
        if not source or not target:
            self.add("empty", example)
            return
        longest = max(len(source), len(target))
        words = max(source.count(" "), target.count(" ")) + 1
        if words > _LONG_WORDS or longest > _LONG_CHARACTERS:
            self.add("over-long", example, f"{words:,} words, {longest:,} characters")
        if abs(_log_ratio(source, target) - usual.ratio) > usual.tolerance:
            self.add("misaligned", example, f"{len(source)} and {len(target)} characters")
        if _untranslated(source, target):
            self.add("probably untranslated", example)
        for side, text, scripts in zip(
            ("source", "target"), (source, target), usual.scripts, strict=True
        ):
            if stranger := _strange_script(text, scripts):
                self.add("wrong script", example, f"{side} is {stranger.lower()}")
                break

    def duplicates(self, corpora: Sequence[Corpus]) -> None:
        """Pairs that occur again, and sources with several targets, from the hashes."""
        pairs = np.frombuffer(self._pairs, dtype=np.uint64)
        sources = np.frombuffer(self._sources, dtype=np.uint64)
        if not len(pairs):
            return
        _, first = np.unique(pairs, return_index=True)
        again = np.ones(len(pairs), dtype=bool)
        again[first] = False
        # Among different pairs, a source that was there before has another target.
        distinct = np.sort(first)
        _, first_source = np.unique(sources[distinct], return_index=True)
        other = np.ones(len(distinct), dtype=bool)
        other[first_source] = False
        self._tell("duplicate", np.flatnonzero(again), corpora)
        self._tell("several targets", distinct[other], corpora)

    def _tell(self, kind: str, indices: npt.NDArray[np.int64], corpora: Sequence[Corpus]) -> None:
        shown = set(indices[:EXAMPLES].tolist())
        examples = itertools.chain.from_iterable(_readable(corpus) for corpus in corpora)
        stop = max(shown, default=-1) + 1
        for i, example in enumerate(itertools.islice(examples, stop)):
            if i in shown:
                self.add(kind, example)
        self.report.findings[kind].count = len(indices)


# ------------------------------------------------------------------------------ one text

_CONTROL = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f]")
# The bytes of UTF-8 sequences as Windows-1252 shows them: a first byte, then others. Two bytes of
# Latin, Greek, Cyrillic, Hebrew or Arabic; three of punctuation or four of emoji; for other scripts
# at least two characters, since a letter, an ellipsis and a quotation mark do occur in a row.
_NEXT = (
    "[\u0080-\u00bf\u20ac\u201a\u0192\u201e\u2026\u2020\u2021\u02c6\u2030\u0160\u2039\u0152\u017d"
    "\u2018\u2019\u201c\u201d\u2022\u2013\u2014\u02dc\u2122\u0161\u203a\u0153\u017e\u0178]"
)
_MOJIBAKE = re.compile(
    f"[\u00c2-\u00c5\u00ce-\u00d1\u00d7-\u00d9]{_NEXT}|[\u00e2\u00f0]{_NEXT}{{2,3}}"
    f"|(?:[\u00e0-\u00ef]{_NEXT}{{2}}){{2,}}"
)


def _encoding_fault(text: str) -> str:
    """What is wrong with the characters of a text, or nothing."""
    if control := _CONTROL.search(text):
        return f"control character U+{ord(control[0]):04X}"
    if text.isascii():
        return ""
    if "\ufffd" in text:
        return "not UTF-8, or U+FFFD"
    for run in _MOJIBAKE.findall(text):
        for codec in ("cp1252", "latin-1"):
            try:
                meant = run.encode(codec).decode("utf-8")
            except UnicodeError:
                continue
            return f"{run!r} probably stands for {meant!r}"
    return ""


def _untranslated(source: str, target: str) -> bool:
    """Whether a target of several words repeats its source, or four fifths of its words."""
    left = [word for word in source.casefold().split() if any(map(str.isalpha, word))]
    right = [word for word in target.casefold().split() if any(map(str.isalpha, word))]
    if len(left) < 3 or len(right) < 3:
        return False
    if left == right:
        return True
    shared = sum((Counter(left) & Counter(right)).values())
    return min(len(left), len(right)) >= 5 and shared >= 0.8 * max(len(left), len(right))


def _scripts(text: str) -> Counter[str]:
    """How many letters of each script (the first word of a letter's Unicode name)."""
    if text.isascii():
        return Counter(LATIN=sum(map(str.isalpha, text)))
    return Counter(script for script in map(_script, text) if script)


@lru_cache(maxsize=65536)
def _script(character: str) -> str:
    if not character.isalpha():
        return ""
    name = unicodedata.name(character, "UNKNOWN").split()[0]
    return "LATIN" if name in ("MODIFIER", "FEMININE", "MASCULINE") else name


def _strange_script(text: str, usual: set[str]) -> str:
    counts = _scripts(text)
    letters = counts.total()
    strange = {script: n for script, n in counts.items() if script not in usual}
    if letters < 3 or sum(strange.values()) <= letters / 2:
        return ""
    return max(strange, key=lambda script: strange[script])


def _short(text: str) -> str:
    return text if len(text) <= _SHOWN else text[:_SHOWN] + "…"
