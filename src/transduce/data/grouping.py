"""Which examples share a batch: those of like length, so that little of it is padding."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

Lengths = npt.NDArray[np.int64]
Index = npt.NDArray[np.int64]

_MULTIPLE = 8  # fewer shapes: kernels are made for each shape, kept, and like even sizes
_SMALLEST = 0.1  # share of the rows that a part has at least
_UNFILLED = 0.35  # what room that a batch leaves costs beside a padded position


def groups(
    source: npt.NDArray[np.integer], target: npt.NDArray[np.integer], budget: int, *, frames: bool
) -> list[Index]:
    """The rows of each batch, so that rows x the longest side (with EOS) stay within `budget`.

    source, target: (N,) lengths without EOS; sources that are `frames` have none. As a rule a batch
    has a multiple of 8 rows. A row longer than the budget is a batch of its own. Among rows of the
    same lengths the earlier ones stay together.
    """
    sides = source.astype(np.int64) + (0 if frames else 1), target.astype(np.int64) + 1
    if frames:
        return _in_order(*sides, budget)
    rest, found = [np.arange(len(source))], []
    while rest:
        rows = rest.pop()
        here = sides[0][rows], sides[1][rows]
        if len(rows) <= 1 or len(rows) * max(here[0].max(), here[1].max()) <= budget:
            found += [rows] if len(rows) else []
            continue
        order, at = min((_parted(*here, budget), _parted(*here[::-1], budget)), key=_cost)[1:]
        rest += [rows[order[at:]], rows[order[:at]]]
    return found


def _in_order(source: Lengths, target: Lengths, budget: int) -> list[Index]:
    """Frames are many times as many as target tokens: by source length, one batch after another."""
    order = np.lexsort((target, source))
    longer = np.maximum(source, target)[order].tolist()
    found, start = [], 0
    while start < len(longer):
        end, widest = start + 1, longer[start]
        while end < len(longer) and max(widest, longer[end]) * (end + 1 - start) <= budget:
            widest = max(widest, longer[end])
            end += 1
        if end < len(longer) and end - start > _MULTIPLE:
            end -= (end - start) % _MULTIPLE
        found.append(order[start:end])
        start = end
    return found


def _parted(one: Lengths, other: Lengths, budget: int) -> tuple[float, Index, int]:
    """Two parts of more rows than a batch may have: shorter and longer ones by one of the sides.

    The padded positions that the two would have as batches, and with them the room that is left
    when each is cut into whole batches, are what a cut costs: (cost, order, rows of the first).
    """
    order = np.lexsort((other, one))
    sides = one[order], other[order]
    count = len(order)
    step = _MULTIPLE if count > 2 * _MULTIPLE else 1
    least = max(step, int(count * _SMALLEST) // step * step)
    at = np.arange(least, max(count - least, least) + 1, step)
    at = at[at < count]
    below = [np.maximum.accumulate(side)[at - 1] for side in sides]
    above = [np.maximum.accumulate(side[::-1])[::-1][at] for side in sides]
    cost, room, batches = np.zeros(len(at)), np.zeros(len(at)), np.full(len(at), np.inf)
    for rows, widest in ((at, below), (count - at, above)):
        cost += rows * (widest[0] + widest[1])
        most = np.maximum(budget // np.maximum(*widest), 1)  # rows of a batch
        filled = rows / np.where(most > _MULTIPLE, most // _MULTIPLE * _MULTIPLE, most)
        room += np.ceil(filled) - filled
        batches = np.minimum(batches, np.maximum(filled, 1))
    # Batches share what they leave of the last one; of few, each leaves more.
    cost += _UNFILLED * budget * room / batches
    best = int(cost.argmin())
    return float(cost[best]), order, int(at[best])


def _cost(parted: tuple[float, Index, int]) -> float:
    return parted[0]
