"""The kernels of training against torch: the same layer and loss, and the same gradients."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from transduce import kernels
from transduce.kernels import training
from transduce.model.embedding import Embedding
from transduce.model.lstm import WholeLSTM
from transduce.model.output import CHUNK, OutputLayer
from transduce.model.rnn import Dropout, RecurrentLayer, reverse_by_length

from ..conftest import on_threads

pytestmark = pytest.mark.skipif(not kernels.available(), reason="no kernels on this machine")
sizes = st.integers(1, 40)


def near(found: Tensor, expected: Tensor, within: float = 0.02) -> bool:
    """Equal but for rounding to bf16: relative to all numbers, and to the sums of about 1, whose
    differences some of them are."""
    error = (found - expected).norm()
    return bool(error <= within * expected.norm() + 0.01 * expected.numel() ** 0.5)


@settings(deadline=None, max_examples=40)
@given(st.integers(1, 20), st.integers(1, 6), sizes, sizes, st.booleans())
def test_the_lstm_layer_is_torchs(
    batch: int, positions: int, width: int, size: int, with_state: bool
) -> None:
    torch.manual_seed(batch * width + size)
    rnn = nn.LSTM(width, size, batch_first=True)
    x = torch.randn(batch, positions, width, requires_grad=True)
    states = [torch.randn(batch, size, requires_grad=True) for _ in range(2 * with_state)]
    tensors = (x, *rnn.parameters(), *states)
    first = (states[0].unsqueeze(0), states[1].unsqueeze(0)) if with_state else None
    pull, pull_cell = torch.randn(batch, positions, size), torch.randn(batch, size)

    def gradients(outputs: Tensor, cell: Tensor) -> tuple[Tensor, ...]:
        loss = (outputs.float() * pull).sum() + (cell * pull_cell).sum()
        return torch.autograd.grad(loss, tensors)

    outputs, (_, cell) = rnn(x, first)
    mine, my_cell = WholeLSTM.apply(x, *rnn.parameters(), *(states or (None, None)))
    assert near(mine, outputs) and near(my_cell, cell[0])
    pairs = zip(gradients(mine, my_cell), gradients(outputs, cell[0]), strict=True)
    assert all(near(found, expected, 0.04) for found, expected in pairs)


@settings(deadline=None, max_examples=25)
@given(st.lists(st.integers(1, 9), min_size=1, max_size=20), st.integers(0, 2), sizes, sizes)
def test_reading_from_the_end_is_turning_twice(
    ends: list[int], behind: int, width: int, size: int
) -> None:
    torch.manual_seed(width * size)
    layer = RecurrentLayer("lstm", width, size)
    lengths = (
        torch.tensor([ends, ends]).t().int()[:, 0]
    )  # neither in a row nor of the kernel's kind
    x = torch.randn(len(ends), max(ends) + behind, width, requires_grad=True)
    tensors, pull = (x, *layer.parameters()), torch.randn(*x.shape[:2], size)
    turned = reverse_by_length(layer(reverse_by_length(x, lengths.long()))[0], lengths.long())
    expected = torch.autograd.grad((turned * pull).sum(), tensors)
    with torch.autocast("cpu", torch.bfloat16):
        found = layer.from_the_end(x, lengths)
    assert near(found, turned)
    gradients = torch.autograd.grad((found.float() * pull).sum(), tensors)
    assert all(near(mine, torchs, 0.04) for mine, torchs in zip(gradients, expected, strict=True))


@pytest.mark.parametrize("rows", [1, 37, 2 * CHUNK + 5])
@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_the_loss_in_one_pass_is_torchs(rows: int, smoothing: float) -> None:
    torch.manual_seed(rows)
    output = OutputLayer(8, 45)
    nn.init.normal_(output.weight)
    nn.init.normal_(output.bias)
    values = torch.randn(rows, 8, requires_grad=True)
    targets = torch.randint(0, 45, (rows,))
    tensors = (values, output.weight, output.bias)
    with torch.autocast("cpu", torch.bfloat16):
        assert training.trains(values)
        loss, nll = output.loss(values, targets, smoothing)
    found = torch.autograd.grad(loss * 0.5, tensors)
    logits = values @ output.weight.t() + output.bias
    wanted = nn.functional.cross_entropy(
        logits, targets, label_smoothing=smoothing, reduction="sum"
    )
    expected = torch.autograd.grad(wanted * 0.5, tensors)
    torch.testing.assert_close(loss, wanted, rtol=1e-2, atol=1e-2)
    plain = nn.functional.cross_entropy(logits, targets, reduction="sum")
    torch.testing.assert_close(nll, plain.detach(), rtol=1e-2, atol=1e-2)
    assert all(near(mine, torchs) for mine, torchs in zip(found, expected, strict=True))


@settings(deadline=None, max_examples=30)
@given(st.integers(1, 20), sizes, st.sampled_from([0.0, 0.1, 1.0]), st.floats(0.1, 60))
def test_cross_entropy_in_float32_is_exact(
    rows: int, vocabulary: int, smoothing: float, scale: float
) -> None:
    torch.manual_seed(rows)
    logits = (scale * torch.randn(rows, vocabulary)).requires_grad_()
    bias, targets = torch.randn(vocabulary), torch.randint(0, vocabulary, (rows,))
    wanted = nn.functional.cross_entropy(
        logits + bias, targets, label_smoothing=smoothing, reduction="none"
    )
    (gradient,) = torch.autograd.grad(wanted.sum(), logits)
    found = torch.full((rows, vocabulary + 5), float("nan"))[:, :vocabulary]  # rows further apart
    found.copy_(logits.detach() + bias)
    losses, nll, sums = training.cross_entropy(found, targets, smoothing)
    torch.testing.assert_close(losses, wanted.detach(), rtol=1e-5, atol=1e-4)
    torch.testing.assert_close(found, gradient, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(sums, gradient.sum(0), rtol=1e-5, atol=1e-5)
    plain = nn.functional.cross_entropy(logits + bias, targets, reduction="none")
    torch.testing.assert_close(nll, plain.detach(), rtol=1e-5, atol=1e-4)


@settings(deadline=None, max_examples=30)
@given(st.integers(1, 100), st.integers(1, 255), st.sampled_from([torch.float32, torch.bfloat16]))
def test_dropping_is_by_the_bytes_drawn(count: int, threshold: int, dtype: torch.dtype) -> None:
    x, drawn = torch.randn(count).to(dtype), torch.randint(0, 256, (count,), dtype=torch.uint8)
    expected = torch.where(drawn >= threshold, x.float() * (256 / (256 - threshold)), 0.0)
    assert torch.equal(training.drop(x, drawn, threshold), expected.to(dtype))


def test_dropout_in_one_pass_is_the_mask_times_x() -> None:
    x = torch.randn(3, 5, 9, requires_grad=True)
    dropout, pull = Dropout(0.3), torch.randn(3, 5, 9)
    found = []
    for one_pass in (False, True):
        torch.manual_seed(1)
        with torch.autocast("cpu", torch.bfloat16, enabled=one_pass):
            dropped = dropout(x)
        found.append((dropped, *torch.autograd.grad((dropped * pull).sum(), x)))
    torch.testing.assert_close(found[0], found[1])
    assert 0 < (found[0][0] == 0).sum() < x.numel()


def test_the_gradients_of_a_batch_are_those_of_its_parts() -> None:
    """Numbers of sentences around how many are summed together agree."""
    torch.manual_seed(1)
    rnn = nn.LSTM(12, 20, batch_first=True)
    x, pull = torch.randn(33, 7, 12), torch.randn(33, 7, 20)

    def gradients(rows: slice) -> list[Tensor]:
        outputs, _ = WholeLSTM.apply(x[rows], *rnn.parameters(), None, None)
        loss = (outputs.float() * pull[rows]).sum()
        return list(torch.autograd.grad(loss, list(rnn.parameters())))

    whole = gradients(slice(0, 33))
    parts = zip(gradients(slice(0, 16)), gradients(slice(16, 33)), strict=True)
    assert all(near(a + b, c, 0.01) for (a, b), c in zip(parts, whole, strict=True))


@settings(deadline=None, max_examples=30)
@given(st.integers(0, 60), sizes, st.integers(1, 30), st.integers(1, 3), st.booleans())
def test_rows_are_added_up_by_index(
    count: int, size: int, rows: int, threads: int, half: bool
) -> None:
    torch.manual_seed(count * size)
    x, index = torch.randn(count, size), torch.randint(0, rows, (count,))
    x = x.to(torch.bfloat16) if half else x
    with on_threads(threads):
        found = training.add_by_index(x, index, rows)
    torch.testing.assert_close(found, torch.zeros(rows, size).index_add_(0, index, x.float()))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_an_embedding_has_torchs_gradient(dtype: torch.dtype) -> None:
    mine = Embedding(11, 6).to(dtype)
    torchs = nn.Embedding.from_pretrained(mine.weight.detach().clone(), freeze=False)
    ids, pull = torch.randint(0, 11, (4, 9)), torch.randn(4, 9, 6, dtype=dtype)
    for layer in (mine, torchs):
        (layer(ids) * pull).sum().backward()
    assert mine.weight.grad is not None and torchs.weight.grad is not None
    assert mine.weight.grad.dtype == dtype
    near_by = 2e-2 if dtype == torch.bfloat16 else 1e-5
    torch.testing.assert_close(mine.weight.grad, torchs.weight.grad, rtol=near_by, atol=near_by)
    for wrong in ([11], [-1]):
        with torch.autocast("cpu", torch.bfloat16), pytest.raises(IndexError):
            mine(torch.tensor(wrong), in_products=True)


@pytest.mark.parametrize("kind", [torch.int32, torch.int64])
def test_an_embedding_for_products_is_in_bf16(kind: torch.dtype) -> None:
    layer = Embedding(11, 37)
    ids = torch.tensor([[3, 10], [0, 3], [7, 7]]).to(kind).t()  # not in rows
    expected = layer.weight[ids.long()].detach()
    with torch.autocast("cpu", torch.bfloat16):
        found, plain = layer(ids, in_products=True), layer(ids)
    assert plain.dtype == torch.float32 and plain.equal(expected)
    assert found.dtype == (torch.bfloat16 if kind == torch.int64 else torch.float32)
    torch.testing.assert_close(found.float(), expected, rtol=1e-2, atol=0)
    assert layer(ids, in_products=True).equal(expected)


@settings(deadline=None, max_examples=30)
@given(st.lists(st.integers(0, 9000), max_size=4), st.integers(1, 3), st.floats(1e-6, 1e6))
def test_the_norm_is_exact(counts: list[int], threads: int, scale: float) -> None:
    tensors = [scale * torch.randn(count) for count in counts]
    with on_threads(threads):
        found = training.norm(tensors)
    wanted = torch.cat([torch.zeros(1), *tensors]).double().norm()
    assert found.dtype == torch.float32
    assert float(found) == pytest.approx(float(wanted), rel=1e-6)


def test_the_norm_of_what_is_not_finite_is_not() -> None:
    for bad in (float("nan"), float("inf")):
        assert not torch.isfinite(training.norm([torch.ones(5), torch.tensor([1.0, bad])]))
