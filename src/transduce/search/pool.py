"""A search over sentences that come and go."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from transduce.hypotheses.hypothesis import Hypothesis
from transduce.recipe import SearchOptions
from transduce.search.history import History
from transduce.search.interface import SearchModel
from transduce.search.limits import Limits, remaining
from transduce.search.planned import search_running, search_sources
from transduce.search.running import Ended, Method, Running, begin


class Pool:
    """Sentences searched together, of whatever age: new ones join, done ones leave.

    What else is in the pool changes no answer.
    """

    def __init__(
        self, model: SearchModel, method: Method, options: SearchOptions, device: torch.device
    ) -> None:
        self.model, self.method, self.options, self.device = model, method, options, device
        self.running: Running | None = None
        self._t = 0  # the next step
        self._history = History()
        self._left: list[tuple[np.ndarray, Limits, Ended]] = []

    @property
    def size(self) -> int:
        """How many sentences are running."""
        return 0 if self.running is None else len(self.running.numbers)

    def admit(self, numbers: np.ndarray, source: Tensor, lengths: Tensor) -> None:
        """Add sentences. numbers (B,), source (B, S) int64 padded, lengths (B,) on the CPU."""
        running = self.running
        # Beside others they take their first step at once and alone, since it has K = 1.
        t = self._t if running is None else self._t - 1
        new = begin(self.model, self.method, self.options, numbers, source, lengths, t, self.device)
        if running is not None:
            self._advance(new, t)
            new = running.join(new)
        self.running = new

    def step(self) -> None:
        """Take every running sentence on by one position; who is done leaves, now or soon."""
        running = self.running
        assert running is not None
        t, self._t = self._t, self._t + 1
        self._advance(running, t)
        kept = remaining(running.ended.done, t) if t < running.limits.latest else _NOBODY
        if kept is None:
            return
        if not len(kept):
            self._left.append((running.numbers, running.limits, running.ended))
            self.running = None
            return
        left = np.setdiff1d(np.arange(len(running.numbers)), kept, assume_unique=True)
        rows = torch.from_numpy(left).to(self.device)
        limits, ended = running.limits.keep(left, rows), running.ended.keep(rows)
        self._left.append((running.numbers[left], limits, ended))
        self.running = running.keep(kept)

    def collect(self) -> list[tuple[int, list[Hypothesis]]]:
        """The number and hypotheses of every sentence that has left since the last time."""
        if not self._left:
            return []
        numbers, limits, ended = self._left[0]
        for more_numbers, more_limits, more_ended in self._left[1:]:
            numbers = np.concatenate([numbers, more_numbers])
            limits, ended = limits.join(more_limits), ended.join(more_ended)
        found = self._history.assemble(
            numbers, ended.chosen(), limits.spans[0], limits.sources.tolist(), self.options
        )
        self._left = []
        running = self.running
        self._history.forget(self._t if running is None else int(running.limits.spans[0].min()))
        return list(zip(numbers.tolist(), found, strict=True))

    def _advance(self, running: Running, t: int) -> None:
        record = self.method.step(self.model, running, self.options, t)
        self._history.record(t, running.numbers, record)


_NOBODY = np.empty(0, dtype=np.int64)


@torch.inference_mode()
def search_batch(
    model: SearchModel, method: Method, source: Tensor, lengths: Tensor, options: SearchOptions
) -> list[list[Hypothesis]]:
    """Search one batch to its end. source (B, S) int64 padded, lengths (B,) with EOS."""
    at_once = search_sources(model, source, lengths, options)
    if at_once is not None:
        return at_once
    pool = Pool(model, method, options, source.device)
    pool.admit(np.arange(len(lengths)), source, lengths.cpu())
    if len(lengths) == 1 and pool.running is not None:
        alone = search_running(model, pool.running, options)
        if alone is not None:
            return [alone]
    while pool.running is not None:
        pool.step()
    return [hypotheses for _, hypotheses in sorted(pool.collect(), key=lambda pair: pair[0])]
