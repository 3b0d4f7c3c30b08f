"""CTC's loss is the sum over all ways to say a target, and counts those that cannot be said."""

from __future__ import annotations

import itertools
import math

import pytest
import torch

from transduce.model.ctc import ctc_loss, positions_needed


def said(path: tuple[int, ...]) -> list[int]:
    """Repetitions joined, then blanks dropped."""
    return [token for token, _ in itertools.groupby(path) if token]


@pytest.mark.parametrize("target", [[], [1], [1, 2], [2, 2], [1, 2, 1]])
def test_it_is_the_sum_over_all_paths(target: list[int]) -> None:
    torch.manual_seed(1)
    log_probs = torch.randn(1, 4, 3).log_softmax(-1)
    total = -math.inf
    for path in itertools.product(range(3), repeat=4):
        if said(path) == target:
            score = sum(float(log_probs[0, i, token]) for i, token in enumerate(path))
            total = float(torch.logaddexp(torch.tensor(total), torch.tensor(score)))
    ids = torch.tensor([[*target, 7, 7]])[:, : max(1, len(target))]  # what follows is not read
    loss, too_short = ctc_loss(log_probs, torch.tensor([4]), ids, torch.tensor([len(target)]))
    assert float(loss) == pytest.approx(-total, rel=1e-5)
    assert int(too_short) == 0


def test_what_cannot_be_said_is_counted_and_teaches_nothing() -> None:
    log_probs = torch.randn(2, 4, 3).log_softmax(-1).requires_grad_()
    targets = torch.tensor([[1, 1, 2, 2], [1, 2, 1, 2]])
    fine = torch.tensor([4, 4])
    loss, too_short = ctc_loss(log_probs, fine, targets, torch.tensor([4, 4]))
    loss.backward()
    assert int(too_short) == 1 and torch.isfinite(loss)
    assert log_probs.grad is not None
    assert not log_probs.grad[0].any() and log_probs.grad[1].any()
    assert positions_needed(targets, torch.tensor([4, 4])).tolist() == [6, 4]
    assert positions_needed(targets, torch.tensor([2, 0])).tolist() == [3, 0]
