"""The kernels against torch: shapes that do not divide, both dtypes, and what never happens."""

from __future__ import annotations

import copy
import math
import pickle

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from transduce import kernels
from transduce.kernels import Blocked, choosing

from ..conftest import on_threads

pytestmark = pytest.mark.skipif(not kernels.available(), reason="no kernels on this machine")
dtypes = st.sampled_from([torch.float32, torch.bfloat16])
sizes = st.integers(1, 70)


def close(found: Tensor, expected: Tensor, dtype: torch.dtype) -> bool:
    """Equal but for rounding to `dtype`."""
    within = 2e-2 if dtype == torch.bfloat16 else 2e-5
    return torch.allclose(found.float(), expected.float(), rtol=within, atol=within)


@settings(deadline=None, max_examples=60)
@given(st.integers(1, 20), sizes, sizes, st.booleans(), dtypes)
def test_a_product_of_few_rows_is_the_product(
    rows: int, inputs: int, outputs: int, with_bias: bool, dtype: torch.dtype
) -> None:
    torch.manual_seed(rows * inputs + outputs)
    weight = torch.randn(outputs, inputs).bfloat16()
    bias = torch.randn(outputs) if with_bias else None
    x = torch.randn(rows, inputs).bfloat16()
    found = Blocked(weight, bias)(x.to(dtype), dtype)
    assert found.dtype == dtype
    assert close(found, nn.functional.linear(x.float(), weight.float(), bias), dtype)


@settings(deadline=None, max_examples=60)
@given(st.integers(1, 20), sizes, sizes, st.integers(0, 1000))
def test_8_bits_are_summed_exactly(rows: int, inputs: int, outputs: int, seed: int) -> None:
    torch.manual_seed(seed)
    whole = torch.randint(-127, 128, (outputs, inputs), dtype=torch.int8)
    x = torch.randint(-127, 128, (rows, inputs)).float()
    x[:, 0] = 127  # then the scale of every row is 1, and nothing is rounded
    scales, bias = torch.rand(outputs), torch.randn(outputs)
    found = Blocked(whole, bias, scales)(x, torch.float32)
    expected = (x.double() @ whole.double().t()) * scales + bias
    assert torch.allclose(found.double(), expected, rtol=1e-6, atol=1e-6)


@settings(deadline=None, max_examples=30)
@given(st.integers(1, 20), sizes, dtypes)
def test_rows_in_8_bits_are_off_by_half_a_step_at_most(
    rows: int, inputs: int, dtype: torch.dtype
) -> None:
    x = (torch.randn(rows, inputs) * torch.logspace(-6, 6, rows).unsqueeze(1)).to(dtype)
    one = torch.eye(inputs, dtype=torch.int8)
    back = Blocked(one, None, torch.ones(inputs))(x, torch.float32)
    step = x.float().abs().amax(dim=1, keepdim=True).clamp_min(1e-8) / 127
    assert bool(((back - x.float()).abs() <= 0.501 * step).all())


@settings(deadline=None, max_examples=40)
@given(st.integers(1, 12), sizes, st.booleans(), dtypes)
def test_a_cell_is_an_lstms(rows: int, size: int, with_given: bool, dtype: torch.dtype) -> None:
    gates = (3 * torch.randn(rows, 4 * size)).to(dtype)
    given = torch.randn(rows, 4 * size).to(dtype) if with_given else None
    before = torch.randn(rows, size)
    hidden, cell = kernels.lstm_cell(gates, given, before, dtype)
    total = gates.float() + (0 if given is None else given.float())
    i, f, s, o = total.double().sigmoid().chunk(4, dim=1)
    expected = f * before + i * (2 * s - 1)
    assert torch.allclose(cell.double(), expected, atol=1e-6)
    assert close(hidden, o * expected.tanh(), dtype)


def test_a_cell_of_huge_gates_is_finite() -> None:
    gates = torch.tensor([[1e30, -1e30, 200.0, -200.0]]).repeat_interleave(5, dim=1)
    hidden, cell = kernels.lstm_cell(gates, None, torch.full((1, 5), 3.0), torch.float32)
    assert cell.tolist() == [[1.0] * 5]
    assert hidden.abs().max() < 1e-30


@pytest.mark.parametrize("sentences", [1, 3, 8, 21])
def test_a_layer_over_a_sequence_is_its_cells_in_turn(sentences: int) -> None:
    torch.manual_seed(0)
    weight = torch.randn(4 * 24, 24).bfloat16() * 0.2
    inputs = torch.randn(7, sentences, 4 * 24).bfloat16()
    product = Blocked(weight, None)
    hidden, cell = kernels.lstm_sequence(product, inputs)
    state, stored = torch.zeros(sentences, 24).bfloat16(), torch.zeros(sentences, 24)
    for t in range(7):
        gates = product(state, torch.bfloat16)
        state, stored = kernels.lstm_cell(gates, inputs[t], stored, torch.bfloat16)
        assert torch.equal(hidden[t], state)
    assert torch.equal(cell, stored)


@settings(deadline=None, max_examples=60)
@given(st.integers(1, 6), st.integers(8, 90), st.integers(1, 5), dtypes, st.integers(0, 1000))
def test_a_survey_finds_what_sorting_finds(
    rows: int, vocabulary: int, count: int, dtype: torch.dtype, seed: int
) -> None:
    torch.manual_seed(seed)
    logits = (4 * torch.randn(rows, vocabulary)).to(dtype)
    if seed % 2:
        logits[:, ::3] = -math.inf
    norm, values, words = choosing.survey(logits, 3, count)
    assert torch.allclose(norm, logits.float().logsumexp(dim=1), atol=1e-5)
    # In bf16 many are equal: the first of equals, which a stable sort puts first too.
    order = logits[:, 3:].float().sort(dim=1, descending=True, stable=True)
    assert torch.equal(values, order.values[:, :count])
    real = values > -math.inf
    assert torch.equal(words[real], (order.indices[:, :count] + 3)[real])


def test_a_survey_of_nothing_still_names_words_that_exist() -> None:
    for fill in (-math.inf, math.nan):
        _, values, words = choosing.survey(torch.full((2, 20), fill), 3, 4)
        assert bool((values == -math.inf).all())
        assert words.tolist() == [[3, 4, 5, 6]] * 2


@settings(deadline=None, max_examples=60)
@given(st.integers(1, 4), st.integers(1, 6), st.integers(1, 6), st.integers(0, 1000))
def test_the_chosen_continuations_are_the_best_of_all(
    sentences: int, beam: int, each: int, seed: int
) -> None:
    torch.manual_seed(seed)
    count = min(beam, each * beam)
    best = torch.randn(sentences, beam, each).sort(dim=2, descending=True).values
    words = torch.randint(3, 100, (sentences, beam * each))
    scores, norm = torch.randn(sentences, beam), torch.randn(sentences, beam)
    values, gains, parents, chosen = choosing.choose(scores, norm, best.flatten(1), words, count)
    total = ((scores - norm).unsqueeze(2) + best).flatten(1)
    expected, index = total.topk(count)
    assert torch.allclose(values, expected, atol=1e-6)
    assert torch.equal(parents, index // each)
    assert torch.equal(chosen, words.gather(1, index))
    assert torch.allclose(gains, values - scores.gather(1, parents), atol=1e-5)


@settings(deadline=None, max_examples=60)
@given(
    st.integers(1, 3), st.integers(1, 19), st.integers(1, 3), sizes, sizes, st.integers(1, 40),
    st.booleans(), dtypes, dtypes,
)  # fmt: skip
def test_attention_is_a_softmax_of_scores(
    sentences: int, beam: int, heads: int, width: int, depth: int, sources: int, across: bool,
    dtype: torch.dtype, memory_dtype: torch.dtype,
) -> None:  # fmt: skip
    torch.manual_seed(beam * width + depth)
    heads = heads if across else 1
    query = torch.randn(sentences, beam, heads * width).to(dtype)
    keys = (torch.randn(sentences, heads, width, sources) / math.sqrt(width)).to(memory_dtype)
    values = torch.randn(sentences, heads, sources, depth).to(memory_dtype)
    penalty = torch.zeros(sentences, sources)
    penalty[0, (sources + 1) // 2 :] = -math.inf
    shape = keys if across else keys.squeeze(1).transpose(1, 2).contiguous()
    context, weights = kernels.attend(
        query, shape, values if across else values.squeeze(1), penalty
    )
    split = query.float().unflatten(2, (heads, width)).transpose(1, 2)
    keys, values = keys.float(), values.float()
    expected = torch.softmax(split @ keys + penalty[:, None, None], dim=-1)
    assert torch.allclose(weights, expected.mean(dim=1), atol=1e-5)
    assert close(context, (expected @ values).transpose(1, 2).flatten(2), dtype)


def test_a_copy_of_a_product_has_weights_of_its_own() -> None:
    """Else it would read memory that was freed with the first."""
    weight, x = torch.randn(40, 24).bfloat16(), torch.randn(3, 24)
    product = Blocked(weight, torch.randn(40), None)
    for same in (copy.deepcopy(product), pickle.loads(pickle.dumps(product))):
        assert not set(same.addresses) & {product.weight.data_ptr(), product.addresses[2]}
        assert same.addresses[0] == same.weight.data_ptr()
        assert torch.equal(same(x, torch.float32), product(x, torch.float32))


@pytest.mark.parametrize(
    ("rows", "inputs", "outputs"), [(9, 31, 70), (33, 64, 32), (300, 130, 17), (130, 300, 200)]
)
@pytest.mark.parametrize("threads", [1, 2])
def test_many_rows_are_multiplied_as_few_are(rows, inputs, outputs, threads) -> None:
    """Each to the bit as beside others, by tiles where there are some."""
    torch.manual_seed(rows)
    x, bias = torch.randn(rows, inputs), torch.randn(outputs)
    weight = torch.randn(outputs, inputs).bfloat16()
    whole = torch.randint(-127, 128, (outputs, inputs), dtype=torch.int8)
    scales = torch.rand(outputs) / 100
    with on_threads(threads):
        for product in (Blocked(weight, bias), Blocked(whole, bias, scales)):
            found = product(x, torch.float32)
            for count in (1, 3, 8, rows - 1):
                few = torch.cat([product(part, torch.float32) for part in x.split(count)])
                assert torch.equal(found, few)
            louder = torch.cat([x, torch.full((5, inputs), 1e4)])
            assert torch.equal(product(louder, torch.float32)[:rows], found)


def test_chosen_outputs_are_those_of_the_whole() -> None:
    torch.manual_seed(1)
    x, chosen = torch.randn(20, 45), torch.tensor([3, 4, 40, 9] * 10)
    weight = torch.randn(41, 45).bfloat16()
    some, all_ = Blocked(weight, None, None, chosen), Blocked(weight, None)
    assert torch.equal(some(x, torch.float32), all_(x, torch.float32)[:, chosen])


def test_bending_is_the_hyperbolic_tangent() -> None:
    x = torch.cat([torch.linspace(-12, 12, 1001), torch.tensor([-1e30, 1e30, 0.0])])
    with torch.inference_mode():
        torch.testing.assert_close(kernels.bend(x.clone()), x.tanh(), rtol=0, atol=3e-7)
        assert kernels.bend(torch.tensor([math.nan])).isnan().all()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_survey_sees_only_what_is_allowed(dtype: torch.dtype) -> None:
    torch.manual_seed(3)
    logits, allowed = torch.randn(6, 90).to(dtype), torch.rand(2, 90) < 0.3
    allowed[:, :12] = True
    left = logits.view(2, 3, 90).masked_fill(~allowed.unsqueeze(1), -math.inf).view(6, 90)
    with torch.inference_mode():
        expected = choosing.survey(left, 3, 4)
        found = choosing.survey(logits, 3, 4, allowed)
    assert all(torch.equal(a, b) for a, b in zip(found, expected, strict=True))


def test_weights_of_another_type_are_refused() -> None:
    with pytest.raises(TypeError, match="float32"):
        Blocked(torch.zeros(4, 4), None)


def test_what_kernels_are_not_for_is_left_to_torch() -> None:
    assert not kernels.takes(torch.zeros(2, dtype=torch.float64))
    assert not kernels.takes(torch.zeros(2))  # a gradient might be wanted
    with torch.inference_mode():
        assert kernels.takes(torch.zeros(2))
