"""Classes of target length: a symbol before the source says how long its target is to be.

The classes are the thirds of the training targets. A model trained so is told the wanted one in
prediction (the idea of control by tokens: Fan et al. 2018, 1711.05217, section 2.1).
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from transduce.data.text import Segmented, TextSide
from transduce.data.tokenizers.base import LENGTH_SYMBOLS
from transduce.disk import atomic_bytes
from transduce.errors import DataError, UsageError
from transduce.folder import LENGTHS

UNSAID = "medium"  # what a source is marked with whose target nobody chose


@dataclass(frozen=True)
class LengthClasses:
    """Target tokens of the longest short target, and of the shortest long one."""

    short: int
    long: int

    def of(self, tokens: int) -> str:
        """The class of a target with so many tokens."""
        return "short" if tokens <= self.short else "long" if tokens >= self.long else "medium"

    def symbol(self, tokens: int) -> str:
        """What stands before the source of such a target."""
        return LENGTH_SYMBOLS[self.of(tokens)]

    def save(self, folder: Path) -> Path:
        path = folder / LENGTHS
        atomic_bytes(path, (json.dumps(asdict(self)) + "\n").encode())
        return path

    @classmethod
    def load(cls, folder: Path) -> LengthClasses:
        """What `save` wrote. Errors: DataError when it is missing or damaged."""
        path = folder / LENGTHS
        try:
            tree = json.loads(path.read_text(encoding="utf-8"))
            return cls(int(tree["short"]), int(tree["long"]))
        except FileNotFoundError:
            raise DataError(f"{path} is missing") from None
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise DataError(f"{path} is damaged: {error}") from None


def learn_lengths(target: TextSide, texts: Iterable[str]) -> LengthClasses:
    """The thirds of raw training targets, read as a stream; blank ones count for nothing.

    Errors: DataError when there is no target.
    """
    counts: list[np.ndarray] = []
    chunk: list[str] = []

    def count() -> None:
        counts.append(np.array([len(one.ids) for one in target.read(chunk)], dtype=np.int32))
        chunk.clear()

    for text in texts:
        chunk.append(text)
        if len(chunk) == 8192:
            count()
    count()
    lengths = np.concatenate(counts)
    lengths = np.sort(lengths[lengths > 0])
    if not len(lengths):
        raise DataError("source.length_control: there is no training target to learn from")
    first, second = (int(lengths[len(lengths) * k // 3]) for k in (1, 2))
    return LengthClasses(first, max(second, first + 1))


def mark_length(side: TextSide) -> int:
    """How many ids at most a mark adds to a source."""
    if side.lengths is None:
        return 0
    return max(map(len, side.segment(list(LENGTH_SYMBOLS.values())))) + 1


def marked_for_training(
    side: TextSide, sources: Sequence[Segmented], target_tokens: Sequence[int]
) -> list[Segmented]:
    """Sources with the symbol of their targets' class; as they are where there are no classes."""
    if side.lengths is None:
        return list(sources)
    return side.marked(sources, [side.lengths.symbol(count) for count in target_tokens])


def marked_for_search(
    side: TextSide, sources: Sequence[Segmented], length: str | None
) -> list[Segmented]:
    """Sources with the symbol of the wanted class; as they are for a model without classes."""
    if not side.options.length_control:
        return list(sources)
    return side.marked(sources, [LENGTH_SYMBOLS[length or UNSAID]] * len(sources))


def check_length(side: object, length: str | None) -> None:
    """Errors: UsageError where a length is wanted of a model that was not trained for it."""
    controlled = isinstance(side, TextSide) and side.options.length_control
    if length is not None and not controlled:
        raise UsageError(
            "search.length: this model was trained without `source.length_control: true`; leave "
            "it out, or see search.max_ratio, which limits targets of any model"
        )
