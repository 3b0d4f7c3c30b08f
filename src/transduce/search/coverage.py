"""How much each source position was attended to, for scores that ask about it."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from transduce.hypotheses.scoring import LEAST_COVERED
from transduce.model.state import join_rows
from transduce.recipe import SearchOptions


@dataclass(frozen=True)
class Coverage:
    """totals (B, K, S): the sum of each live hypothesis' attention so far, plus 1 at padding, where
    it never counts."""

    totals: Tensor

    @classmethod
    def start(cls, lengths: Tensor) -> Coverage:
        """Nothing yet, K = 1, for sources with so many real positions; lengths (B,)."""
        places = torch.arange(int(lengths.max()), device=lengths.device)
        return cls((places >= lengths[:, None, None]).float())

    def add(self, attention: Tensor) -> Coverage:
        """With one step's attention (B, K, S) more."""
        width = min(attention.shape[2], self.totals.shape[2])
        return Coverage(self.totals[:, :, :width] + attention[:, :, :width])

    def score(self, options: SearchOptions) -> Tensor:
        """(B, K): what `scoring.coverage_score` is for hypotheses that end here."""
        if options.coverage_kind == "gnmt":
            total = self.totals.clamp(LEAST_COVERED, 1.0).log().sum(dim=2)
        else:
            total = (1.0 - self.totals.clamp(min=1.0)).sum(dim=2)
        return options.coverage_penalty * total

    def select(self, hypotheses: Tensor) -> Coverage:
        """New hypothesis k of sentence b continues old `hypotheses[b, k]`; (B, K') int64."""
        index = hypotheses.unsqueeze(2).expand(-1, -1, self.totals.shape[2])
        return Coverage(self.totals.gather(1, index))

    def keep(self, rows: Tensor) -> Coverage:
        """Only the sentences `rows` (B',) int64."""
        return Coverage(self.totals[rows])

    def join(self, other: Coverage, width: int) -> Coverage:
        """The sentences of another, of equal K, after one's own, S cut or padded to `width`."""
        return Coverage(join_rows([self.totals, other.totals], 2, width, fill=1.0))
