"""An output aligned with its reference: which units were substituted, deleted and inserted.

The alignment is rapidfuzz's of the reference and the output, in this order, as in jiwer, so counts
are jiwer's. Several alignments may cost equally little; their sum of edits is the same, but what of
it is called a substitution may differ between libraries.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

Kind = Literal["equal", "substitute", "delete", "insert"]


@dataclass(frozen=True, slots=True)
class Edit:
    """One column of an alignment: a unit of the reference over a unit of the output.

    `reference` is None where the output has one too many (insert), `output` is None where it has
    one too few (delete).
    """

    kind: Kind
    reference: str | None
    output: str | None


@dataclass(frozen=True, slots=True)
class Counts:
    """How many units of a reference were met, and how many edits the output is away from it."""

    hits: int
    substitutions: int
    deletions: int
    insertions: int

    @property
    def edits(self) -> int:
        return self.substitutions + self.deletions + self.insertions

    @property
    def length(self) -> int:
        """Units of the reference."""
        return self.hits + self.substitutions + self.deletions


def align(output: Sequence[str], reference: Sequence[str]) -> list[Edit]:
    """The columns of a shortest way from the reference to the output, left to right."""
    from rapidfuzz.distance import Levenshtein

    columns: list[Edit] = []
    for step in Levenshtein.opcodes(reference, output):
        wanted = reference[step.src_start : step.src_end]
        found = output[step.dest_start : step.dest_end]
        if step.tag in ("equal", "replace"):
            kind: Kind = "equal" if step.tag == "equal" else "substitute"
            columns += [Edit(kind, ref, out) for ref, out in zip(wanted, found, strict=True)]
        columns += [Edit("delete", ref, None) for ref in wanted if step.tag == "delete"]
        columns += [Edit("insert", None, out) for out in found if step.tag == "insert"]
    return columns


def nearest(output: Sequence[str], references: Sequence[Sequence[str]]) -> list[Edit]:
    """The alignment with the closest reference, of equally close ones with the longest."""
    found = [(align(output, reference), len(reference)) for reference in references]
    return min(found, key=lambda pair: (count(pair[0]).edits, -pair[1]))[0]


def count(columns: Sequence[Edit]) -> Counts:
    """The edits of an alignment by kind."""
    kinds = [column.kind for column in columns]
    return Counts(
        kinds.count("equal"),
        kinds.count("substitute"),
        kinds.count("delete"),
        kinds.count("insert"),
    )
