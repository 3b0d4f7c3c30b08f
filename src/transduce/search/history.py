"""What search remembers of its steps, and how hypotheses are put together from it afterwards.

During the search nothing is copied or reordered but the decoder's state: each step leaves its
choices, back-pointers and attention as they are. When sentences are done, their chosen hypotheses
are followed backwards, all together.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from transduce.hypotheses.assembling import Chosen, Paths, Trace, assemble, follow
from transduce.hypotheses.hypothesis import Hypothesis
from transduce.recipe import SearchOptions


class Record(NamedTuple):
    """One step of the sentences still searched, B of them, K hypotheses each.

    ends (B, K): log-probability of EOS after each live hypothesis. tokens, parents, gains (B, K):
    the hypotheses that live on: their new token, which old one each continues, and the token's
    log-probability. attention (B, K, S) belongs to the old ones, as `ends` does;
    copied (B, K), how much of each new token's probability came from copying, to the new ones.
    """

    ends: Tensor
    tokens: Tensor
    parents: Tensor | None  # None: hypothesis k continues hypothesis k
    gains: Tensor
    attention: Tensor | None
    copied: Tensor | None = None


# ends, tokens, parents, gains and copied of a record
Arrays = tuple[np.ndarray, np.ndarray, np.ndarray | None, np.ndarray, np.ndarray | None]


@dataclass
class _Noted:
    """A record: its step, the numbers (B,) of its sentences, and its arrays once on the CPU."""

    step: int
    numbers: np.ndarray
    record: Record
    arrays: Arrays | None = None


class History:
    """The steps of a search, as long as any of its sentences needs them."""

    def __init__(self) -> None:
        self._noted: list[_Noted] = []

    def record(self, step: int, numbers: np.ndarray, record: Record) -> None:
        """Add what step `step` chose for the sentences `numbers` (B,); steps never go backwards."""
        self._noted.append(_Noted(step, numbers, record))

    def forget(self, before: int) -> None:
        """Let go of all steps before this one."""
        self._noted = [noted for noted in self._noted if noted.step >= before]

    def assemble(
        self,
        numbers: np.ndarray,
        chosen: Chosen,
        first: np.ndarray,
        sources: list[int],
        options: SearchOptions,
    ) -> list[list[Hypothesis]]:
        """The hypotheses of the sentences `numbers` (B,), all of whose steps are recorded.

        first (B,): the step at which each began; sources: real source positions of each.
        """
        start, stop = int(first.min()), int(chosen.step.max()) + 1
        noted = [one for one in self._noted if start <= one.step < stop]
        _fetch(noted)
        traces, records = [], []
        place = {number: i for i, number in enumerate(numbers.tolist())}
        seen = which = rows = np.empty(0, dtype=np.int64)
        for one in noted:
            if one.numbers is not seen:  # the same as in the step before, mostly
                seen = one.numbers
                which = np.array([place.get(number, -1) for number in seen.tolist()])
                rows = np.flatnonzero(which >= 0)
            if len(rows) and one.arrays is not None:
                traces.append(Trace(one.step - start, which[rows], rows, *one.arrays))
                records.append(one.record)
        chosen = Chosen(chosen.step - start, chosen.slot, chosen.finished, chosen.real)
        paths = follow(traces, chosen, stop - start)
        attention = _attention(records, traces, paths, max(sources))
        coverage = options if options.coverage_penalty else None
        begun = (first - start).tolist()
        return assemble(paths, chosen, attention, begun, sources, options, coverage)


def _fetch(noted: list[_Noted]) -> None:
    """Bring what is not there yet to the CPU: one transfer of integers, one of floats."""
    new = [one for one in noted if one.arrays is None]
    if not new:
        return
    whole = [t for one in new for t in (one.record.tokens, one.record.parents) if t is not None]
    records = [one.record for one in new]
    real = [t for one in records for t in (one.ends, one.gains, one.copied) if t is not None]
    integers, floats = iter(_on_cpu(whole)), iter(_on_cpu(real))
    for one in new:
        tokens = next(integers)
        parents = None if one.record.parents is None else next(integers)
        ends, gains = next(floats), next(floats)
        copied = None if one.record.copied is None else next(floats)
        one.arrays = ends, tokens, parents, gains, copied


def _on_cpu(tensors: list[Tensor]) -> list[np.ndarray]:
    """All of them as arrays, waiting for an accelerator at most once."""
    if tensors[0].device.type == "cpu":
        return [tensor.numpy() for tensor in tensors]
    flat = torch.cat([tensor.flatten() for tensor in tensors]).numpy(force=True)
    parts = np.split(flat, np.cumsum([tensor.numel() for tensor in tensors])[:-1])
    return [part.reshape(tensor.shape) for part, tensor in zip(parts, tensors, strict=True)]


def _attention(
    records: list[Record], traces: list[Trace], paths: Paths, width: int
) -> np.ndarray | None:
    """Attention along the paths, (B, N, T, width); None without attention."""
    given = [record.attention for record in records if record.attention is not None]
    if not given:
        return None
    index = [
        (trace.rows[:, None] * attention.shape[1] + slots).ravel()
        for trace, attention, slots in zip(traces, given, paths.slots, strict=True)
    ]
    # Picked before the transfer: what is not chosen never leaves the device.
    wanted = torch.from_numpy(np.concatenate(index)).to(given[0].device)
    pairs = zip(given, wanted.split([len(part) for part in index]), strict=True)
    picked = _on_cpu([attention.flatten(0, 1)[rows].float() for attention, rows in pairs])
    whole = np.zeros((*paths.tokens.shape, width), dtype=np.float32)
    for trace, slots, part in zip(traces, paths.slots, picked, strict=True):
        part = part.reshape(*slots.shape, -1)[:, :, :width]
        whole[trace.sentences, :, trace.step, : part.shape[2]] = part
    return whole
