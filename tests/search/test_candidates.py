"""The two-stage selection finds what a full sort finds."""

from __future__ import annotations

import math

import pytest
import torch

from transduce.search.candidates import WORDS, Survey, best_continuations


@pytest.mark.parametrize("vocabulary", [5, 1023, 1024, 1025, 1090, 1091, 3000])
@pytest.mark.parametrize(("beam", "count"), [(1, 1), (1, 5), (5, 5), (3, 40)])
def test_equals_a_full_sort(vocabulary, beam, count) -> None:
    torch.manual_seed(vocabulary + beam)
    logits = torch.randn(4, beam, vocabulary) * 3
    scores = torch.randn(4, beam)
    scores[:, beam - 1] = -math.inf if beam > 1 else 0.0
    count = min(count, (vocabulary - WORDS) * max(1, beam - 1))
    best = best_continuations(Survey.of(logits), scores, count)
    log_probs = logits.log_softmax(dim=2)
    words = log_probs.clone()
    words[:, :, :WORDS] = -math.inf
    expected = (words + scores[:, :, None]).flatten(1).sort(dim=1, descending=True)
    torch.testing.assert_close(best.values, expected.values[:, :count])
    assert torch.equal(best.parents * vocabulary + best.tokens, expected.indices[:, :count])
    gains = log_probs.flatten(1).gather(1, expected.indices[:, :count])
    torch.testing.assert_close(best.gains, gains)


def test_the_last_words_of_a_vocabulary_are_found() -> None:
    logits = torch.full((1, 2, 1100), -9.0)
    logits[0, 0, 1099] = logits[0, 1, 1098] = 11.0
    best = best_continuations(Survey.of(logits), torch.tensor([[0.0, -0.5]]), 2)
    assert best.parents.tolist() == [[0, 1]]
    assert best.tokens.tolist() == [[1099, 1098]]


def test_no_more_than_there_are() -> None:
    best = best_continuations(Survey.of(torch.randn(2, 1, 1030)), torch.zeros(2, 1), 2000)
    assert best.values.shape == (2, 1030 - WORDS)
    assert sorted(best.tokens[0].tolist()) == list(range(WORDS, 1030))


@pytest.mark.parametrize("shift", [0.0, 200.0, -500.0])
def test_normalisers_of_logits_of_any_size(shift) -> None:
    logits = torch.randn(3, 2, 1500) * 4 + shift
    torch.testing.assert_close(Survey.of(logits).log_norm, logits.logsumexp(dim=2))
    small = logits[:, :, :90]
    torch.testing.assert_close(Survey.of(small).log_norm, small.logsumexp(dim=2))


def test_pieces_make_the_whole() -> None:
    logits = torch.randn(70, 3, 5000)  # several pieces
    survey, alone = Survey.of(logits), Survey.of(logits[40:41])
    assert survey.maxima is not None and alone.maxima is not None
    torch.testing.assert_close(survey.log_norm, logits.logsumexp(dim=2))
    assert torch.equal(survey.maxima[40:41], alone.maxima)
