"""Pre-training on the texts of a corpus themselves: pairs made of one text each.

denoise: the text is the target, and the source is the same text damaged, anew in each epoch (BART:
Lewis et al. 2019, 1910.13461, section 2.2). gap: the target is the sentences that say most of the
text, and the source is the text without them (PEGASUS: Zhang et al. 2019, 1912.08777, section 3.1).
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from transduce.data.formats import Example
from transduce.data.text import TextSide
from transduce.data.tokenizers.base import MASK_SYMBOL, UNK
from transduce.data.truncation import sentences

Ids = npt.NDArray[Any]


class NoiseOptions(Protocol):
    """`recipe.NoiseOptions`."""

    @property
    def mask(self) -> float: ...
    @property
    def span(self) -> float: ...
    @property
    def delete(self) -> float: ...
    @property
    def permute(self) -> bool: ...
    @property
    def gap(self) -> float: ...


def posed(example: Example, objective: str, gap: float) -> Example:
    """The pair that an objective makes of an example's source; `pairs` leaves it as it is."""
    if objective == "denoise":
        return replace(example, target=example.source, references=())
    if objective == "gap":
        source, target = without_gaps(example.source, gap)
        return replace(example, source=source, target=target, references=())
    return example


# -------------------------------------------------------------------------------- gap sentences

_WORD = re.compile(r"\w+")


def without_gaps(text: str, share: float) -> tuple[str, str]:
    """A raw text with a mask for each of its most important sentences, and those sentences.

    Importance is ROUGE-1 F of a sentence against all others, each for itself (Ind-Uniq of the
    paper). At least one sentence of two is taken; of a single sentence nothing, and the target is
    blank.
    """
    parts = sentences(text)
    if len(parts) < 2:
        return text, ""
    words = [Counter(map(str.lower, set(_WORD.findall(part.lower())))) for part in parts]
    whole: Counter[str] = Counter()
    for found in words:
        whole.update(found)
    scores = [_overlap(own, {w for w, n in whole.items() if n > own[w]}) for own in words]
    count = min(max(1, round(share * len(parts))), len(parts) - 1)
    # The first of equals: a stable sort.
    chosen = set(sorted(range(len(parts)), key=lambda i: -scores[i])[:count])
    left = [MASK_SYMBOL if i in chosen else part for i, part in enumerate(parts)]
    return "\n".join(left), " ".join(parts[i] for i in sorted(chosen))


def _overlap(own: Counter[str], others: set[str]) -> float:
    """ROUGE-1 F of two sets of words."""
    shared = sum(word in others for word in own)
    return 2 * shared / (len(own) + len(others)) if shared else 0.0


# --------------------------------------------------------------------------------------- noise


class Noise:
    """Damages ids of texts as BART does: sentences permuted, spans replaced by a mask, deletion."""

    def __init__(self, side: TextSide, options: NoiseOptions) -> None:
        self._options = options
        self._mask = mask_id(side)
        tokens = side.tokens(range(side.size))
        marks = re.compile(r"[.!?。！？।]+[\"'”’»)\]]*$")
        self._ends = np.array([bool(marks.search(token)) for token in tokens])

    def __call__(self, ids: Sequence[int] | Ids, rng: np.random.Generator) -> Ids:
        """One text damaged; never empty. Ids beyond the vocabulary are words like others."""
        row = np.asarray(ids)
        if not len(row):
            return row
        options = self._options
        if options.permute:
            row = self._permuted(row, rng)
        if options.delete:
            kept = rng.random(len(row)) >= options.delete
            row = row[kept] if kept.any() else row
        return self._infilled(row, rng) if options.mask else row

    def _permuted(self, row: Ids, rng: np.random.Generator) -> Ids:
        known = np.where(row < len(self._ends), row, UNK)
        stops = np.flatnonzero(self._ends[known]) + 1
        parts = [part for part in np.split(row, stops) if len(part)]
        return np.concatenate([parts[i] for i in rng.permutation(len(parts))])

    def _infilled(self, row: Ids, rng: np.random.Generator) -> Ids:
        """Spans with Poisson lengths, `mask` of all tokens together, each as one mask."""
        budget = math.floor(self._options.mask * len(row) + rng.random())
        hidden = np.zeros(len(row), dtype=bool)
        begins = np.zeros(len(row) + 1, dtype=bool)  # a mask stands before these
        for _ in range(len(row)):
            if budget <= 0:
                break
            length = min(int(rng.poisson(self._options.span)), budget)
            start = int(rng.integers(0, len(row) - length + 1))
            if hidden[max(0, start - 1) : start + length + 1].any():
                continue  # spans do not touch
            hidden[start : start + length] = True
            begins[start] = True
            budget -= max(length, 1)  # a mask for nothing counts, or there would be no end
        out: list[int] = []
        for i, token in enumerate(row.tolist()):
            if begins[i]:
                out.append(self._mask)
            if not hidden[i]:
                out.append(token)
        if begins[len(row)]:
            out.append(self._mask)
        return np.array(out, dtype=row.dtype)


def mask_id(side: TextSide) -> int:
    """The id of the mask. It is there because the recipe's objectives ask for it."""
    return next(i for i in range(side.size) if side.tokens([i]) == [MASK_SYMBOL])
