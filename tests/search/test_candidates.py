"""The two-stage selection finds what a full sort finds."""

from __future__ import annotations

import math

import pytest
import torch

from transduce.search.candidates import best_continuations


@pytest.mark.parametrize("vocabulary", [5, 1023, 1024, 1025, 1087, 1088, 3000])
@pytest.mark.parametrize(("beam", "count"), [(1, 1), (1, 5), (5, 5), (3, 40)])
def test_equals_a_full_sort(vocabulary, beam, count) -> None:
    torch.manual_seed(vocabulary + beam)
    log_probs = torch.randn(4, beam, vocabulary).log_softmax(dim=2)
    log_probs[:, :, :3] = -math.inf
    scores = torch.randn(4, beam)
    scores[:, beam - 1] = -math.inf if beam > 1 else 0.0
    count = min(count, (vocabulary - 3) * max(1, beam - 1))
    values, index = best_continuations(log_probs, scores, count)
    expected = (log_probs + scores[:, :, None]).flatten(1).sort(dim=1, descending=True)
    assert torch.equal(values, expected.values[:, :count])
    assert torch.equal(index, expected.indices[:, :count])


def test_the_last_words_of_a_vocabulary_are_found() -> None:
    log_probs = torch.full((1, 2, 1100), -9.0)
    log_probs[0, 0, 1099] = log_probs[0, 1, 1098] = -1.0
    values, index = best_continuations(log_probs, torch.tensor([[0.0, -0.5]]), 2)
    assert values.tolist() == [[-1.0, -1.5]]
    assert index.tolist() == [[1099, 1100 + 1098]]


def test_no_more_than_there_are() -> None:
    log_probs = torch.randn(2, 1, 1030).log_softmax(dim=2)
    values, index = best_continuations(log_probs, torch.zeros(2, 1), 2000)
    assert values.shape == (2, 1030)
    assert sorted(index[0].tolist()) == list(range(1030))
