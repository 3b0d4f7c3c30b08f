"""The errors of recognition: by kind, by speaker, the commonest ones, and the worst outputs.

errors = recognition_errors("wer", outputs, [[line] for line in references], speakers=names)
print(errors.total)       # Row(name='all', counts=Counts(hits=412, …), rate=12.1, …)
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from transduce.errors import DataError, UsageError
from transduce.evaluation.alignment import Counts, Edit, count, nearest
from transduce.evaluation.edits import Split, characters, symbols, words
from transduce.evaluation.metrics import METRICS, SEED
from transduce.evaluation.resampling import bootstrap_weights, interval
from transduce.evaluation.sacre import Array, rates

# The metrics that are sums of edits, with what they count and how they cut a text into it.
UNITS: dict[str, tuple[str, Split]] = {
    "wer": ("word", words),
    "cer": ("character", characters),
    "per": ("phone", symbols),
}


@dataclass(frozen=True, slots=True)
class Row:
    """The errors of `n` utterances: of all, or of one speaker.

    `wrong` is how many of the utterances have any error; `rate` is edits per unit of the
    references in percent, with its 95 % interval over the utterances where one was asked for.
    """

    name: str
    n: int
    wrong: int
    counts: Counts
    rate: float
    low: float | None
    high: float | None


@dataclass(frozen=True, slots=True)
class Aligned:
    """One utterance: its number (from 1), speaker and name if known, and its alignment."""

    number: int
    speaker: str | None
    where: str
    columns: Sequence[Edit]

    @property
    def counts(self) -> Counts:
        return count(self.columns)


@dataclass(frozen=True, slots=True)
class Confusion:
    """An edit and how often it occurs. None: nothing (see `Edit`)."""

    reference: str | None
    output: str | None
    times: int


@dataclass(frozen=True, slots=True)
class Errors:
    """All errors of a system by one metric; `speakers` is empty where none is known."""

    metric: str
    label: str
    unit: str
    total: Row
    speakers: Sequence[Row]
    confusions: Sequence[Confusion]
    utterances: Sequence[Aligned]

    def worst(self, most: int) -> list[Aligned]:
        """The utterances with the most edits that have any, the first of equals first."""
        wrong = [one for one in self.utterances if one.counts.edits]
        return sorted(wrong, key=lambda one: -one.counts.edits)[:most]


def recognition_errors(
    metric: str,
    outputs: Sequence[str],
    references: Sequence[Sequence[str]],
    *,
    speakers: Sequence[str | None] | None = None,
    names: Sequence[str] | None = None,
    bootstrap: int = 1000,
    seed: int = SEED,
) -> Errors:
    """Align N outputs with their references (one or more each) and count.

    `metric` is "wer", "cer" or "per"; the total rate and its interval are those of `compute`.
    `speakers` (N) may hold None where one is not known, `names` (N) says what an utterance is
    called. Errors: UsageError for another metric, DataError where numbers differ or nothing is
    there.
    """
    if metric not in UNITS:
        raise UsageError(f"errors are counted by {', '.join(UNITS)}, not by `{metric}`")
    _same_number(outputs, references, speakers, names)
    unit, split = UNITS[metric]
    known = speakers or [None] * len(outputs)
    called = names or [""] * len(outputs)
    utterances = [
        Aligned(number, speaker, name, nearest(split(text), [split(ref) for ref in refs]))
        for number, (text, refs, speaker, name) in enumerate(
            zip(outputs, references, known, called, strict=True), start=1
        )
    ]
    table = np.array([_numbers(one.counts) for one in utterances], dtype=np.float64)
    groups = sorted({speaker for speaker in known if speaker is not None})
    if groups and None in known:
        groups.append("")
    return Errors(
        metric,
        METRICS[metric].label,
        unit,
        _row("all", table, bootstrap, seed),
        [_row(group or "(unknown)", table[_of(known, group)], bootstrap, seed) for group in groups],
        _confusions(utterances),
        utterances,
    )


def _same_number(
    outputs: Sequence[str],
    references: Sequence[Sequence[str]],
    speakers: Sequence[str | None] | None,
    names: Sequence[str] | None,
) -> None:
    if not outputs:
        raise DataError("nothing to evaluate: there are no outputs")
    others = {"references": references, "speakers": speakers, "names": names}
    for what, values in others.items():
        if values is not None and len(values) != len(outputs):
            raise DataError(
                f"{len(outputs)} outputs but {len(values)} {what}: they must be in line"
            )


def _numbers(counts: Counts) -> tuple[int, int, int, int]:
    return counts.hits, counts.substitutions, counts.deletions, counts.insertions


def _of(speakers: Sequence[str | None], group: str) -> list[int]:
    return [k for k, speaker in enumerate(speakers) if (speaker or "") == group]


def _row(name: str, table: Array, bootstrap: int, seed: int) -> Row:
    """`table` (N, 4): hits, substitutions, deletions and insertions of each utterance."""
    edits, lengths = table[:, 1:].sum(axis=1), table[:, :3].sum(axis=1)
    low = high = None
    if bootstrap:
        pairs = np.stack([edits, lengths], axis=1)
        drawn = [weights @ pairs for weights in bootstrap_weights(len(pairs), bootstrap, seed)]
        sums = np.concatenate(drawn)
        low, high = interval(rates(sums[:, 0], sums[:, 1]))
    return Row(
        name,
        len(table),
        int((edits > 0).sum()),
        Counts(*(int(total) for total in table.sum(axis=0))),
        float(rates(edits.sum(keepdims=True), lengths.sum(keepdims=True))[0]),
        low,
        high,
    )


def _confusions(utterances: Sequence[Aligned]) -> list[Confusion]:
    """The edits by how often they occur; equally frequent ones in alphabetical order."""
    found = Counter(
        (column.reference, column.output)
        for one in utterances
        for column in one.columns
        if column.kind != "equal"
    )
    order = sorted(found.items(), key=lambda item: (-item[1], item[0][0] or "", item[0][1] or ""))
    return [Confusion(reference, output, times) for (reference, output), times in order]
