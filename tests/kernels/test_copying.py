"""The look at what is generated or copied: what torch finds in the whole distribution."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from transduce import kernels
from transduce.model.state import Copied, Copies, Draft, Pointer, Step
from transduce.search.candidates import Survey, best_continuations, copied_share

pytestmark = pytest.mark.skipif(not kernels.available(), reason="no kernels on this machine")
dtypes = st.sampled_from([torch.float32, torch.bfloat16])
BEAM, BATCH = 3, 2


def copies_of(vocabulary: int, positions: int, extended: bool) -> Copies:
    """Words that stand at several positions, some that cannot be copied, some beyond V."""
    codes = torch.randint(3, vocabulary + (4 if extended else 0), (BATCH, positions))
    codes[:, -1] = -1
    first = (codes.unsqueeze(1) == codes.unsqueeze(2)).int().argmax(dim=2)
    return Copies(codes.where(codes < vocabulary, vocabulary + first), first, extended)


def step_of(logits: Tensor, pointer: Pointer | None, forbidden: Tensor | None) -> Step:
    return Step(Draft(logits, pointer, forbidden), None, None, copied=pointer)


@settings(deadline=None, max_examples=80)
@given(
    st.integers(20, 90), st.integers(1, 40), st.integers(1, 5), st.booleans(), st.booleans(),
    st.booleans(), dtypes, st.integers(0, 1000),
)  # fmt: skip
def test_the_best_words_are_those_of_the_whole_distribution(
    vocabulary: int, positions: int, count: int, extended: bool, copying: bool, ruling: bool,
    dtype: torch.dtype, seed: int,
) -> None:  # fmt: skip
    torch.manual_seed(seed)
    logits = (4 * torch.randn(BATCH, BEAM, vocabulary)).to(dtype)
    pointer = forbidden = None
    if copying:
        gate = torch.randn(BATCH, BEAM) * (30.0 if seed % 3 == 0 else 2.0)
        attention = torch.softmax(2 * torch.randn(BATCH, BEAM, positions), dim=2)
        pointer = Pointer(gate, attention, copies_of(vocabulary, positions, extended))
    if ruling:
        width = vocabulary + (positions if copying and extended else 0)
        forbidden = torch.randint(0, width, (BATCH, BEAM, 9))
        forbidden[forbidden < 3] = 0
    scores = torch.randn(BATCH, BEAM)
    step = step_of(logits, pointer, forbidden)
    with torch.inference_mode():
        survey = Survey.of_step(step, count)
        found = best_continuations(survey, scores, count)
        # In float32: torch would round what stands in for the forbidden words to bf16.
        whole = step_of(logits.float(), pointer, forbidden).logits.log_softmax(dim=2)
    torch.testing.assert_close(survey.end, whole[:, :, 2], atol=2e-5, rtol=1e-5)
    words = whole.clone()
    words[:, :, :3] = -math.inf
    expected = (words + scores.unsqueeze(2)).flatten(1).sort(dim=1, descending=True, stable=True)
    torch.testing.assert_close(found.values, expected.values[:, :count], atol=2e-5, rtol=1e-5)
    index = found.parents * whole.shape[2] + found.tokens
    gains = whole.flatten(1).gather(1, index)  # of the words that are named, not of their likes
    torch.testing.assert_close(found.gains, gains, atol=2e-5, rtol=1e-5)
    assert all(len(set(row)) == count for row in index.tolist())
    if pointer is not None:
        share = copied_share(step, found)
        by_torch = Copied(pointer.weights, pointer.columns)
        asked = by_torch.share(found.parents, found.tokens, found.gains)
        torch.testing.assert_close(share, asked, atol=1e-4, rtol=1e-4)


def test_what_is_only_copied_wins_however_sure_the_gate_is() -> None:
    """The gate closed: nothing is generated, and no number leaves its range."""
    logits, columns = torch.full((1, 1, 30), -5.0), torch.tensor([[30, 30, 7, -1]])
    pointer = Pointer(
        torch.tensor([[-400.0]]),
        torch.tensor([[[0.3, 0.3, 0.4, 0.0]]]),
        Copies(columns, torch.tensor([[0, 0, 2, 3]]), True),
    )
    with torch.inference_mode():
        step = step_of(logits, pointer, None)
        found = best_continuations(Survey.of_step(step, 2), torch.zeros(1, 1), 2)
    assert found.tokens.tolist() == [[30, 7]]
    assert found.gains.exp().tolist() == [pytest.approx([0.6, 0.4], abs=1e-5)]


def test_a_survey_makes_no_logits(monkeypatch) -> None:
    """Writing the distribution down is what is spared."""
    monkeypatch.setattr(Draft, "logits", lambda self: pytest.fail("logits were made"))
    pointer = Pointer(
        torch.zeros(1, 1), torch.ones(1, 1, 1), Copies(*[torch.zeros(1, 1).long()] * 2)
    )
    with torch.inference_mode():
        Survey.of_step(step_of(torch.randn(1, 1, 40), pointer, None), 4)


@pytest.mark.parametrize("count", [1, 3, 4, 8, 11])
def test_a_query_gets_the_same_whatever_is_asked_beside_it(count: int) -> None:
    torch.manual_seed(count)
    memory = torch.randn(2, 13, 150).bfloat16()
    queries = torch.randn(2, count, 150).bfloat16()
    with torch.inference_mode():
        context, weights = kernels.attend(queries, memory, memory, None)
        for k in range(count):
            alone, its_weights = kernels.attend(queries[:, k : k + 1], memory, memory, None)
            assert torch.equal(alone[:, 0], context[:, k])
            assert torch.equal(its_weights[:, 0], weights[:, k])
