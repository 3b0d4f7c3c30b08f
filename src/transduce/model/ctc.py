"""Connectionist temporal classification: the target without an alignment to the memory.

Graves et al. 2006 (ICML). Every memory position says one token or the blank; a target's
probability is the sum over all ways to say it. The blank is id 0, which no target holds.
"""

from __future__ import annotations

import torch
from torch import Tensor

BLANK = 0


def ctc_loss(
    log_probs: Tensor, lengths: Tensor, targets: Tensor, target_lengths: Tensor
) -> tuple[Tensor, Tensor]:
    """Summed over sentences: negative log-likelihood in nats, and how many have too short a memory.

    log_probs (B, S, V) float32 normalised, lengths (B,) real memory positions, targets (B, T) ids
    without end symbol, target_lengths (B,) of them. A target needs a position for each token and
    one between equal neighbours; where there are fewer, its probability is zero, its loss infinite
    and of no gradient: it counts as 0 here, and is counted.
    """
    losses = torch.nn.functional.ctc_loss(
        log_probs.transpose(0, 1),
        targets,
        lengths,
        target_lengths,
        blank=BLANK,
        reduction="none",
        zero_infinity=True,
    )
    return losses.sum(), (positions_needed(targets, target_lengths) > lengths).sum()


def positions_needed(targets: Tensor, target_lengths: Tensor) -> Tensor:
    """The fewest memory positions that can say each target: (B, T), (B,) -> (B,).

    >>> positions_needed(torch.tensor([[5, 5, 7]]), torch.tensor([3])).tolist()
    [4]
    """
    follows = torch.arange(1, targets.shape[1], device=targets.device)
    real = follows < target_lengths.unsqueeze(1)
    return target_lengths + ((targets[:, 1:] == targets[:, :-1]) & real).sum(dim=1)
