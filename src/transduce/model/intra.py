"""Intra-decoder attention: a decoder looks at what it has said itself.

Each step asks the outputs of all steps before it, so that it need not remember by its state alone
what is already written (Paulus, Xiong and Socher 2017, 1705.04304, section 2.2, equations 6 to 8):

    e_tj = h_t · W h_j,  j < t        weights: softmax over j        context: their mean of h_j

The first step has nothing before it, and its context is zeros.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from transduce import kernels
from transduce.model.attention import dot_scores, for_steps
from transduce.model.linear import Linear

# What is added to the score of what is not there. Finite, so that rows of nothing else are no NaN.
_ABSENT = -1e30


@dataclass(frozen=True)
class Earlier:
    """The decoder's outputs of the steps before, for N hypotheses.

    values: (N, t, D), the last step's last; zeros where a hypothesis began later than others.
    penalty: (N, t) float32, 0 at real steps and far below at those zeros; None without.
    """

    values: Tensor
    penalty: Tensor | None = None

    @classmethod
    def none(cls, like: Tensor) -> Earlier:
        """Before the first step of hypotheses whose states are (N, D)."""
        return cls(like.new_zeros(like.shape[0], 0, like.shape[1]))

    def rows(self, index: Tensor) -> Earlier:
        """Those of hypotheses `index` (N',) int64."""
        penalty = None if self.penalty is None else self.penalty.index_select(0, index)
        return Earlier(self.values.index_select(0, index), penalty)

    def then(self, output: Tensor) -> Earlier:
        """One step later, with its output (N, D)."""
        last = output.unsqueeze(1)
        if not self.values.shape[1]:
            return Earlier(last)
        penalty = self.penalty
        if penalty is not None:
            penalty = nn.functional.pad(penalty, (0, 1))
        return Earlier(torch.cat([self.values, last.to(self.values.dtype)], dim=1), penalty)

    def join(self, other: Earlier) -> Earlier:
        """The hypotheses of another after one's own; what is older than all of them is dropped."""
        one, other = self._without_absent(), other._without_absent()
        steps = max(one.values.shape[1], other.values.shape[1])
        longer = one if one.values.shape[1] == steps else other
        parts = [part._of(steps, longer.values.dtype) for part in (one, other)]
        return Earlier(
            torch.cat([values for values, _ in parts]), torch.cat([penalty for _, penalty in parts])
        )

    def _of(self, steps: int, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
        """Values and penalties of so many steps, those that are not there in front."""
        count, have, width = self.values.shape
        values = self.values.new_zeros(count, steps, width, dtype=dtype)
        penalty = torch.full((count, steps), _ABSENT, device=values.device)
        if have:
            values[:, steps - have :] = self.values
            penalty[:, steps - have :] = 0 if self.penalty is None else self.penalty
        return values, penalty

    def _without_absent(self) -> Earlier:
        if self.penalty is None or not self.values.shape[1]:
            return self
        there = (self.penalty == 0).any(dim=0)
        first = int((~there).sum())  # what is absent stands in front
        penalty = self.penalty[:, first:]
        return Earlier(self.values[:, first:], penalty)


class IntraAttention(nn.Module):
    """Queries and what they look at are the decoder's outputs (…, D), and so is the context."""

    def __init__(self, size: int) -> None:
        super().__init__()
        self.query = Linear(size, size, bias=False)

    def forward(self, outputs: Tensor) -> Tensor:
        """All steps at once: (B, T, D) -> the context of each (B, T, D)."""
        scores = dot_scores(self.query(outputs), outputs).float()
        steps = scores.shape[1]
        before = torch.ones(steps, steps, dtype=torch.bool, device=scores.device).tril(-1)
        weights = torch.softmax(scores.masked_fill(~before, _ABSENT), dim=-1) * before
        return torch.matmul(weights.to(outputs.dtype), outputs)

    def step(self, output: Tensor, earlier: Earlier) -> Tensor:
        """One step of N hypotheses: (N, D) -> its context (N, D)."""
        values, penalty = earlier.values, earlier.penalty
        if not values.shape[1]:
            return torch.zeros_like(output)
        query = self.query(output).unsqueeze(1)
        if not self.training and kernels.takes(query) and kernels.takes(values):
            context, _ = kernels.attend(query, values, values, penalty)
            return context.squeeze(1)
        scores = dot_scores(query, values).float()
        weights = torch.softmax(scores if penalty is None else scores + penalty.unsqueeze(1), -1)
        return torch.matmul(weights.to(values.dtype), values).squeeze(1).to(output.dtype)

    def keep(self, earlier: Earlier, output: Tensor) -> Earlier:
        """What the next step looks back at."""
        return earlier.then(for_steps(output, output, self.training)[0])
