"""Weights in 8 bits: rounding, products both ways, and layers whose products they are."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from transduce import kernels
from transduce.kernels.weights import Columns, Weight, eight_bits, round_rows
from transduce.model import sampled
from transduce.model.linear import Linear
from transduce.model.lstm import WholeLSTM
from transduce.model.output import OutputLayer
from transduce.model.room import CHUNK

from ..conftest import on_threads

pytestmark = pytest.mark.skipif(not kernels.available(), reason="no kernels on this machine")
BF16 = torch.bfloat16


def in_eight_bits(weight: Tensor) -> Weight:
    with eight_bits():
        return Weight(weight)


def rounded(x: Tensor) -> Tensor:
    """What is left of the rows of x: whole numbers up to 127, times a scale."""
    scales = x.abs().amax(dim=1, keepdim=True).clamp_min(1e-30) / 127
    return (x / scales).round() * scales


def close(found: Tensor, expected: Tensor) -> bool:
    """Equal but for what rounds to another whole number because of its float32 neighbours."""
    return bool((found - expected).norm() <= 2e-3 * expected.norm() + 1e-6)


def near(found: Tensor, expected: Tensor, within: float) -> bool:
    return bool((found.float() - expected).norm() <= within * expected.norm())


@given(st.integers(1, 50), st.integers(1, 70), st.integers(-20, 20))
@settings(deadline=None, max_examples=40)
def test_each_row_has_its_own_scale(outputs: int, inputs: int, exponent: int) -> None:
    torch.manual_seed(outputs * inputs)
    weight = torch.randn(outputs, inputs) * torch.logspace(0, exponent, outputs).unsqueeze(1)
    whole, scales = round_rows(weight)
    torch.testing.assert_close(scales, weight.abs().amax(dim=1) / 127)
    assert whole.dtype == torch.int8 and int(whole.abs().max()) == 127
    error = (whole.float() * scales.unsqueeze(1) - weight).abs()
    assert bool((error <= 0.5001 * scales.unsqueeze(1)).all())


def test_rows_of_zeros_and_rows_that_are_no_numbers() -> None:
    weight = torch.ones(4, 20)
    weight[0], weight[2, 3], weight[3, 5] = 0, float("nan"), float("inf")
    whole, scales = round_rows(weight)
    assert int(whole[0].abs().max()) == 0 and int(whole[1].min()) == 127
    assert scales[:2].isfinite().all() and not scales[2:].isfinite().any()


@pytest.mark.parametrize("rows", [1, 13, 257, 700])
@pytest.mark.parametrize(("outputs", "inputs"), [(1, 1), (33, 17), (96, 130), (600, 64)])
def test_products_are_those_of_the_rounded_factors(rows: int, outputs: int, inputs: int) -> None:
    torch.manual_seed(rows)
    x, grads = torch.randn(rows, inputs).to(BF16), torch.randn(rows, outputs).to(BF16)
    matrix, bias = torch.randn(outputs, inputs), torch.randn(outputs)
    weight, kept = in_eight_bits(matrix), rounded(matrix)
    y = torch.full((rows, outputs + 3), float("nan"))
    for threads in (1, 2, 3):
        with on_threads(threads):
            weight.forward(x, y[:, :outputs], bias)
        assert close(y[:, :outputs], rounded(x.float()) @ kept.t() + bias)
        assert y[:, outputs:].isnan().all()  # rows are further apart than they are long
    scales = matrix.abs().amax(dim=1) / 127
    expected = rounded(grads.float() * scales) @ (kept / scales.unsqueeze(1))
    assert near(weight.backward(grads).float(), expected, 0.005)


def test_rounding_takes_little_away() -> None:
    torch.manual_seed(1)
    x, matrix = torch.randn(300, 256).to(BF16), torch.randn(512, 256)
    y = in_eight_bits(matrix).forward(x, torch.empty(300, 512))
    assert near(y, x.float() @ matrix.t(), 0.02)
    assert not near(y, x.float() @ matrix.t(), 0.002)  # which the products of bf16 are


def test_outside_the_block_products_are_in_bf16() -> None:
    torch.manual_seed(1)
    x, matrix = torch.randn(30, 64).to(BF16), torch.randn(40, 64)
    expected = x.float() @ matrix.to(BF16).float().t()
    inside = in_eight_bits(matrix)
    with eight_bits(), eight_bits(False):
        weight = Weight(matrix)
    torch.testing.assert_close(weight.forward(x, torch.empty(30, 40)), expected)
    torch.testing.assert_close(Weight(matrix).forward(x, torch.empty(30, 40)), expected)
    assert not inside.forward(x, torch.empty(30, 40)).equal(expected)


def test_what_is_no_number_stays_none() -> None:
    """So that an update with such a gradient is noticed and skipped."""
    x, weight = torch.ones(20, 40).to(BF16), in_eight_bits(torch.ones(50, 40))
    x[3, 7] = float("nan")
    y = weight.forward(x, torch.empty(20, 50))
    assert y[3].isnan().all() and y[:3].isfinite().all() and y[4:].isfinite().all()
    broken = torch.ones(50, 40)
    broken[5, 5] = float("nan")
    y = in_eight_bits(broken).forward(torch.ones(20, 40).to(BF16), torch.empty(20, 50))
    assert y[:, 5].isnan().all() and y[:, :5].isfinite().all()


def test_weights_too_wide_for_whole_sums_are_in_bf16() -> None:
    assert in_eight_bits(torch.zeros(2, kernels.WIDEST)).scales is not None
    assert in_eight_bits(torch.zeros(2, kernels.WIDEST + 1)).scales is None
    weight = in_eight_bits(torch.ones(kernels.WIDEST + 1, 2))
    assert weight.scales is not None
    found = weight.backward(torch.full((3, kernels.WIDEST + 1), 0.5).to(BF16))
    assert found.float().allclose(torch.tensor((kernels.WIDEST + 1) / 2), rtol=0.01)


@settings(deadline=None, max_examples=25)
@given(st.integers(1, 20), st.integers(1, 6), st.integers(8, 40), st.integers(8, 40))
def test_a_layer_in_eight_bits_is_nearly_torchs(
    batch: int, positions: int, width: int, size: int
) -> None:
    torch.manual_seed(batch * width + size)
    rnn = nn.LSTM(width, size, batch_first=True)
    x, pull = torch.randn(batch, positions, width), torch.randn(batch, positions, size)
    tensors = (x.requires_grad_(), *rnn.parameters())
    outputs, _ = rnn(x)
    with eight_bits():
        mine, _ = WholeLSTM.apply(x, *rnn.parameters(), None, None)
    assert near(mine, outputs, 0.05)
    found = torch.autograd.grad((mine.float() * pull).sum(), tensors)
    expected = torch.autograd.grad((outputs * pull).sum(), tensors)
    assert all(near(one, other, 0.1) for one, other in zip(found, expected, strict=True))


def test_the_backward_pass_is_in_the_precision_of_its_forward_pass() -> None:
    """Wherever it takes place."""
    torch.manual_seed(1)
    layer, x = Linear(64, 96), torch.randn(600, 64, requires_grad=True)
    pull, found = torch.randn(600, 96), []
    with torch.autocast("cpu", BF16):
        with eight_bits():
            y = layer(x)
        found.append(torch.autograd.grad((y.float() * pull).sum(), (x, layer.weight)))
        plain = layer(x)
    with eight_bits():
        found.append(torch.autograd.grad((plain.float() * pull).sum(), (x, layer.weight)))
    exact = pull @ layer.weight
    assert near(found[0][0], exact, 0.03) and not near(found[0][0], exact, 0.006)
    assert near(found[1][0], exact, 0.006)
    of_weight = pull.t() @ x
    assert near(found[0][1], of_weight, 0.03) and not near(found[0][1], of_weight, 0.006)
    assert near(found[1][1], of_weight, 0.006)


@settings(deadline=None, max_examples=40)
@given(st.integers(1, 200), st.integers(1, 70))
def test_columns_are_rounded_to_one_of_their_neighbours(count: int, width: int) -> None:
    torch.manual_seed(count * width)
    x = (torch.randn(count, width) * torch.logspace(-3, 3, width)).to(BF16)
    found = Columns(x)
    whole = found.whole.view(width, -1)
    torch.testing.assert_close(found.scales, x.float().abs().amax(dim=0) / 127)
    kept = whole[:, :count].float().t() * found.scales
    assert bool(((kept - x.float()).abs() <= 1.001 * found.scales).all())
    assert not whole[:, count : -(-count // 4) * 4].any()  # what a group of four is filled up with
    assert found.excess.equal(128 * whole[:, :count].int().sum(dim=1).int())


def test_rounding_by_chance_is_right_on_average() -> None:
    torch.manual_seed(1)
    x, draws = torch.randn(70, 50).to(BF16), 400
    found = [Columns(x) for _ in range(draws)]
    kept = [c.whole.view(50, -1)[:, :70].float().t() * c.scales for c in found]
    error = torch.stack(kept).mean(dim=0) - x.float()
    # of one draw it is half a step in its standard deviation at most, and of the mean a twentieth
    assert float((error / found[0].scales).norm() / error.numel() ** 0.5) < 0.6 / draws**0.5
    small = torch.full((3000, 1), 1 / 600).to(BF16)
    small[0] = 127  # the step is 1, of which each of the others is next to nothing
    sums = torch.stack([Columns(small).whole[1:3000].sum() for _ in range(draws)]).float()
    expected = float(small[1:].float().sum())
    assert abs(float(sums.mean()) - expected) < 4 * (expected / draws) ** 0.5
    whole = torch.arange(-127, 128).to(BF16).unsqueeze(1)
    for _ in range(10):  # whole numbers have no other neighbour
        assert Columns(whole).whole[:255].float().equal(whole.float().squeeze(1))


def test_the_largest_number_of_a_column_keeps_its_sign() -> None:
    """Half a step more would be 128, which in 8 bits is less than nothing."""
    torch.manual_seed(1)
    for _ in range(20):
        x = torch.randn(1, 1 << 16).to(BF16)
        whole = Columns(x).whole.view(1 << 16, -1)[:, 0]
        assert int((whole.int() * x[0].sign().int()).min()) >= 126


@settings(deadline=None, max_examples=40)
@given(st.integers(1, 700), st.integers(1, 70), st.integers(1, 70))
def test_gradients_by_weights_are_right_on_average(count: int, outputs: int, inputs: int) -> None:
    torch.manual_seed(count * outputs + inputs)
    grads, x = torch.randn(count, outputs).to(BF16), torch.randn(count, inputs).to(BF16)
    weight, expected = in_eight_bits(torch.ones(outputs, inputs)), grads.float().t() @ x.float()
    found = []
    for threads in (1, 3):
        torch.manual_seed(1)  # nothing else decides
        with on_threads(threads):
            found.append(weight.gradients(grads, x)[0])
    assert found[0].equal(found[1])
    size = expected.norm() + count**0.5  # which of few numbers may be near nothing
    mean = torch.stack([weight.gradients(grads, x)[0] for _ in range(16)]).mean(dim=0)
    assert (found[0] - expected).norm() < 0.06 * size and (mean - expected).norm() < 0.02 * size


def test_gradients_of_two_weights_share_what_is_rounded() -> None:
    torch.manual_seed(1)
    grads, one, other = (torch.randn(300, size).to(BF16) for size in (40, 20, 30))
    weight = in_eight_bits(torch.ones(40, 20))
    for x, found in zip((one, other), weight.gradients(grads, one, other), strict=True):
        assert near(found, grads.float().t() @ x.float(), 0.05)


def test_gradients_of_what_is_no_number_are_none() -> None:
    grads, x = torch.ones(20, 6).to(BF16), torch.ones(20, 5).to(BF16)
    grads[3, 2], x[4, 1] = float("nan"), float("inf")
    (found,) = in_eight_bits(torch.ones(6, 5)).gradients(grads, x)
    broken = ~found.isfinite()
    assert broken[2].all() and broken[:, 1].all() and int(broken.sum()) == 5 + 6 - 1


def test_without_rows_gradients_are_zero() -> None:
    weight = in_eight_bits(torch.ones(6, 5))
    (found,) = weight.gradients(torch.ones(0, 6).to(BF16), torch.ones(0, 5).to(BF16))
    assert found.equal(torch.zeros(6, 5))


@pytest.mark.parametrize("kind", ["sampled", "exact"])
def test_logits_of_a_loss_are_in_eight_bits_and_its_gradient_is_not(
    kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The gradient's many small numbers would be nothing: it is that of the rounded logits."""
    monkeypatch.setattr(sampled, "LEAST", 1)
    monkeypatch.setattr(sampled, "THRESHOLD", 1 / 2000)  # little is left to chance
    torch.manual_seed(1)
    output = OutputLayer(64, 300)
    nn.init.normal_(output.weight, std=0.3)
    values, targets = torch.randn(2 * CHUNK + 5, 64), torch.randint(0, 300, (2 * CHUNK + 5,))
    values.requires_grad_()
    losses = []
    for wanted in (False, True):
        with torch.autocast("cpu", BF16), eight_bits(wanted):
            loss, _ = output.loss(values, targets, 0.1, sampled=kind == "sampled")
        losses.append(float(loss.detach()))
    assert losses[0] != losses[1] and abs(losses[1] / losses[0] - 1) < 0.01
    tensors = (values, output.weight, output.bias)
    found = torch.autograd.grad(loss, tensors)
    logits = rounded(values.to(BF16).float()) @ rounded(output.weight).t() + output.bias
    share = torch.softmax(logits, dim=1) - 0.1 / 300
    share[torch.arange(len(share)), targets] -= 0.9
    expected = share @ output.weight, share.t() @ values, share.sum(dim=0)
    assert all(near(one, other, 0.01) for one, other in zip(found, expected, strict=True))
