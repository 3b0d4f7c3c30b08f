"""Cutting long texts to a budget of tokens: their start, their end or both, by words or sentences.

Texts are cut, not ids, so that what a sampled segmentation or a figure shows is the same text that
was counted.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Callable, Sequence
from typing import Protocol

Segment = Callable[[Sequence[str]], list[list[int]]]  # normalised texts -> ids of each


class Truncation(Protocol):
    """How to cut: `recipe.TruncationOptions`, or what an exported folder keeps of them."""

    @property
    def tokens(self) -> int: ...
    @property
    def keep(self) -> str: ...
    @property
    def sentences(self) -> bool: ...


# A sentence ends with its line, or with a mark, closing quotation marks or brackets, and a space;
# the marks of Chinese, Japanese and Hindi need no space.
_END = re.compile(r"(?<=[.!?…])[\"'”’»)\]]*\s+|(?<=[。！？।])|\n+")
_ABBREVIATION = re.compile(
    r"(?:^|[\s(])(?:[^\W\d_]|Mr|Mrs|Ms|Dr|Prof|St|Jr|Sr|vs|etc|e\.g|i\.e|cf|No|Inc|Corp|Ltd|Co)\.$"
)


def sentences(text: str) -> list[str]:
    """The sentences of a raw text, stripped, none of them blank."""
    found: list[str] = []
    start = 0
    for end in _END.finditer(text):
        sentence = text[start : end.end()]
        if "\n" not in end[0] and _ABBREVIATION.search(text[start : end.start()]):
            continue
        found.append(sentence.strip())
        start = end.end()
    found.append(text[start:].strip())
    return [sentence for sentence in found if sentence]


def truncated(text: str, units: Sequence[str], options: Truncation, segment: Segment) -> str:
    """A normalised text cut to at most `options.tokens` tokens.

    `units` are its sentences or words, normalised, in order; where not even one of them fits, it
    is cut by words, and a single word by characters.
    """
    budget = options.tokens
    counts = [len(ids) for ids in segment(units)] if units else []
    if options.keep != "both":
        return _one_end(text, units, counts, budget, options.keep == "end", segment)
    first = _one_end(text, units, counts, (budget + 1) // 2, False, segment)
    rest = budget // 2
    while rest > 0:
        both = f"{first} {_one_end(text, units, counts, rest, True, segment)}".strip()
        excess = len(segment([both])[0]) - budget  # the space between them may be a token
        if excess <= 0:
            return both
        rest -= excess
    return first


def _one_end(
    text: str,
    units: Sequence[str],
    counts: Sequence[int],
    budget: int,
    end: bool,
    segment: Segment,
) -> str:
    """counts: the tokens of each unit."""
    for parts, joint in ((units, " "), (text.split(), " "), (text, "")):
        if parts is not units:
            counts = [len(ids) for ids in segment(parts)] if joint else [1] * len(parts)
        step = -1 if end else 1
        kept = sum(total <= budget for total in itertools.accumulate(counts[::step]))
        # Each was counted by itself: together they may be some tokens more, such as the spaces
        # between words where those are tokens. Mostly they are not.
        low, high, middle = 0, kept, kept
        while low < high:
            if len(segment([_joined(parts, middle, end, joint)])[0]) <= budget:
                low = middle
            else:
                high = middle - 1
            middle = (low + high + 1) // 2
        if low:
            return _joined(parts, low, end, joint)
    return ""


def _joined(parts: Sequence[str], count: int, end: bool, joint: str) -> str:
    return joint.join(parts[len(parts) - count :] if end else parts[:count])
