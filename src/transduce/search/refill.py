"""Continuous refilling: whenever enough sentences of a pool are done, the next ones take over.

A batch that is decoded to its end runs its last steps with the few sentences that are longest, and
products of few rows use little of a processor. Here the queue's next sentences join the running
ones instead, as servers of language models do it (Yu et al. 2022, Orca, OSDI, section 3.1).
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch

from transduce.data.batches import Row, collate_source
from transduce.hypotheses.hypothesis import Hypothesis
from transduce.recipe import SearchOptions
from transduce.search.batching import fitting, in_batches, out_of_memory, positions
from transduce.search.interface import SearchModel
from transduce.search.pool import Pool
from transduce.search.running import Method

SHARE = 2  # an encoding has its price, so one in so many places must be free for it

Answer = Callable[[list[Row]], list[list[Hypothesis]]]


class Refill:
    """A queue of sources, none of them empty and the longest first, and a pool of `budget` padded
    positions for them."""

    def __init__(
        self,
        model: SearchModel,
        method: Method,
        options: SearchOptions,
        sources: list[Row],
        budget: int,
        device: torch.device | str,
    ) -> None:
        self.sources = sources
        self._search = model, method, options, torch.device(device)
        self._budget = budget
        self._found: list[list[Hypothesis] | None] = [None] * len(sources)
        self._next = 0

    def run(self, answer: Answer) -> list[list[Hypothesis]]:
        """The hypotheses of each source. Where memory does not suffice, `answer` is asked for
        those in the pool, in batches and halves of them, and the pool is half as large for the
        others."""
        while not self._drained():
            self._budget //= 2
            left = [i for i, found in enumerate(self._found[: self._next]) if found is None]
            sources = [self.sources[i] for i in left]
            answers = in_batches(sources, answer, positions, self._budget)
            for i, hypotheses in zip(left, answers, strict=True):
                self._found[i] = hypotheses
        return [hypotheses for hypotheses in self._found if hypotheses is not None]

    @torch.inference_mode()
    def _drained(self) -> bool:
        """Search until nothing is left to do; False if memory did not suffice."""
        pool = Pool(*self._search)
        try:
            while self._next < len(self.sources) or pool.size:
                if count := self._room(pool):
                    self._admit(pool, count)
                pool.step()
            self._collect(pool)
        except (torch.OutOfMemoryError, MemoryError, RuntimeError) as error:
            if not out_of_memory(error):
                raise
            return False
        return True

    def _room(self, pool: Pool) -> int:
        """How many sources are to join now."""
        waiting = len(self.sources) - self._next
        if not waiting:
            return 0
        widest = positions(self.sources[self._next])
        if pool.running is not None:
            widest = max(widest, pool.running.width)
        places = fitting(widest, self._budget)
        count = min(waiting, places - pool.size)
        return count if count == waiting or count * SHARE >= places else 0

    def _admit(self, pool: Pool, count: int) -> None:
        numbers = np.arange(self._next, self._next + count)
        self._next += count
        source, lengths = collate_source([self.sources[i] for i in numbers])
        pool.admit(numbers, source, lengths)
        self._collect(pool)

    def _collect(self, pool: Pool) -> None:
        for i, hypotheses in pool.collect():
            self._found[i] = hypotheses
