"""Which hypotheses have come to an end, and whether a sentence needs more."""

from __future__ import annotations

import math
from dataclasses import dataclass, fields, replace

import torch
from torch import Tensor

from transduce.hypotheses.assembling import Chosen, choose


@dataclass
class Tables:
    """The n best ended hypotheses of each of B sentences.

    finished, unfinished: (B, n) normalised scores, best first, -inf where there is none: those
    that chose EOS, and those cut off at the longest target. finished_at, unfinished_at: (B, n)
    where each stood: step * beam + slot. count: (B,) finished so far, n or more. done: (B,).
    """

    finished: Tensor
    finished_at: Tensor
    unfinished: Tensor
    unfinished_at: Tensor
    count: Tensor
    done: Tensor
    beam: int

    @classmethod
    def empty(cls, batch: int, n_best: int, beam: int, t: int, device: torch.device) -> Tables:
        """For sentences that begin at step t."""
        nothing = torch.full((batch, n_best), -math.inf, device=device)
        nowhere = torch.full((batch, n_best), t * beam, device=device)
        count = torch.zeros(batch, dtype=torch.int64, device=device)
        return cls(
            nothing, nowhere, nothing.clone(), nowhere.clone(), count, count.bool(), beam=beam
        )

    def finish(self, scores: Tensor, ends: Tensor, t: int) -> None:
        """Enter the hypotheses of step t that chose EOS; scores normalised, ends: both (B, K)."""
        new = scores.masked_fill(~ends | self.done.unsqueeze(1), -math.inf)
        self.count += (new > -math.inf).sum(dim=1)
        self.finished, self.finished_at = self._merge(self.finished, self.finished_at, new, t)

    def close(self, scores: Tensor, ends: Tensor, rows: Tensor, t: int) -> None:
        """Enter all others of the sentences `rows` (B,) boolean, which may not go on."""
        new = scores.masked_fill(ends | ~(rows & ~self.done).unsqueeze(1), -math.inf)
        self.unfinished, self.unfinished_at = self._merge(
            self.unfinished, self.unfinished_at, new, t
        )

    def settle(self, best_live: Tensor, at_end: Tensor | None) -> None:
        """Decide which sentences are done.

        best_live: (B,) the highest score that any live hypothesis can still reach, -inf without
        live ones. at_end: (B,) boolean, at the longest target; None for nobody.
        """
        beaten = best_live <= self.finished[:, -1]
        self.done = self.done | beaten | (self.count >= self.beam)
        if at_end is not None:
            self.done |= at_end

    def _merge(self, old: Tensor, old_at: Tensor, new: Tensor, t: int) -> tuple[Tensor, Tensor]:
        at = torch.arange(t * self.beam, t * self.beam + new.shape[1], device=new.device)
        scores, picked = torch.cat([old, new], dim=1).topk(old.shape[1])
        return scores, torch.cat([old_at, at.expand_as(new)], dim=1).gather(1, picked)

    # --------------------------------------------------------------- sentences leave the batch

    def keep(self, rows: Tensor) -> Tables:
        """Only the sentences `rows` (B',) int64."""
        return replace(self, **{name: getattr(self, name)[rows] for name in _TENSORS})

    def join(self, other: Tables) -> Tables:
        """The sentences of another after one's own."""
        both = {name: torch.cat([getattr(x, name) for x in (self, other)]) for name in _TENSORS}
        return replace(self, **both)  # type: ignore[arg-type]  # none of them is the beam

    def chosen(self) -> Chosen:
        """The n best of each sentence, finished before unfinished; always at least one."""
        scores = torch.stack([self.finished, self.unfinished]).numpy(force=True)
        at = torch.stack([self.finished_at, self.unfinished_at]).numpy(force=True)
        return choose(scores[0], at[0], scores[1], at[1], self.beam)


_TENSORS = [field.name for field in fields(Tables) if field.name != "beam"]
