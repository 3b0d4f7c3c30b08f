"""The fused output layer against torch's own loss."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from transduce.model.output import CHUNK, OutputLayer
from transduce.model.rnn import keep_mask, reverse_by_length


def layer(size: int, vocabulary: int) -> OutputLayer:
    output = OutputLayer(size, vocabulary)
    torch.nn.init.normal_(output.weight)
    torch.nn.init.normal_(output.bias)
    return output


@settings(max_examples=25, deadline=None)
@given(
    rows=st.sampled_from([1, 2, 7, CHUNK, CHUNK + 3]),
    vocabulary=st.integers(2, 40),
    smoothing=st.sampled_from([0.0, 0.1, 0.9]),
    seed=st.integers(0, 1000),
)
def test_loss_and_gradients_equal_torchs(
    rows: int, vocabulary: int, smoothing: float, seed: int
) -> None:
    torch.manual_seed(seed)
    output = layer(5, vocabulary)
    values = torch.randn(rows, 5, requires_grad=True)
    targets = torch.randint(0, vocabulary, (rows,))
    tensors = (values, output.weight, output.bias)

    loss, nll = output.loss(values, targets, smoothing)
    ours = torch.autograd.grad(loss * 0.5, tensors)
    logits = values @ output.weight.t() + output.bias
    reference = torch.nn.functional.cross_entropy(
        logits, targets, label_smoothing=smoothing, reduction="sum"
    )
    theirs = torch.autograd.grad(reference * 0.5, tensors)

    torch.testing.assert_close(loss, reference, rtol=1e-4, atol=1e-4)
    plain = torch.nn.functional.cross_entropy(logits, targets, reduction="sum")
    torch.testing.assert_close(nll, plain.detach(), rtol=1e-4, atol=1e-4)
    for mine, other in zip(ours, theirs, strict=True):
        torch.testing.assert_close(mine, other, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("rows", [1, 9, CHUNK // 2 + 1])
def test_consistent_loss_equals_its_formula(rows: int) -> None:
    torch.manual_seed(rows)
    output = layer(5, 11)
    values = torch.randn(2, rows, 5, requires_grad=True)
    targets = torch.randint(0, 11, (rows,))
    tensors = (values, output.weight, output.bias)

    loss, nll = output.consistent_loss(values, targets, 0.1, 3.0)
    ours = torch.autograd.grad(loss, tensors)
    logits = values @ output.weight.t() + output.bias
    both = [
        torch.nn.functional.cross_entropy(one, targets, label_smoothing=0.1, reduction="sum")
        for one in logits
    ]
    first, second = torch.log_softmax(logits, dim=-1)
    kl = torch.nn.functional.kl_div
    divergence = kl(first, second, log_target=True, reduction="sum")
    divergence = divergence + kl(second, first, log_target=True, reduction="sum")
    reference = sum(both) / 2 + 3.0 * divergence / 2
    theirs = torch.autograd.grad(reference, tensors)

    torch.testing.assert_close(loss, reference, rtol=1e-4, atol=1e-4)
    for mine, other in zip(ours, theirs, strict=True):
        torch.testing.assert_close(mine, other, rtol=1e-4, atol=1e-4)
    plain = [torch.nn.functional.cross_entropy(one, targets, reduction="sum") for one in logits]
    torch.testing.assert_close(nll, sum(plain).detach() / 2, rtol=1e-4, atol=1e-4)


def test_large_logits_stay_finite() -> None:
    output = layer(4, 6)
    loss, _ = output.loss(torch.full((3, 4), 1e4), torch.tensor([0, 1, 2]), 0.1)
    assert torch.isfinite(loss)


def test_bf16_autocast_is_close_and_keeps_dtypes() -> None:
    torch.manual_seed(0)
    output = layer(16, 50)
    values = torch.randn(30, 16, requires_grad=True)
    targets = torch.randint(0, 50, (30,))
    exact, _ = output.loss(values, targets, 0.1)
    with torch.autocast("cpu", torch.bfloat16):
        close, _ = output.loss(values, targets, 0.1)
    close.backward()
    assert values.grad is not None and values.grad.dtype == torch.float32
    assert output.weight.grad is not None and output.weight.grad.dtype == torch.float32
    assert close.item() == pytest.approx(exact.item(), rel=0.02)


def test_consistency_under_bf16_is_close() -> None:
    torch.manual_seed(0)
    output = layer(16, 50)
    values = torch.randn(2, 30, 16, requires_grad=True)
    targets = torch.randint(0, 50, (30,))
    exact, _ = output.consistent_loss(values, targets, 0.1, 2.0)
    with torch.autocast("cpu", torch.bfloat16):
        close, _ = output.consistent_loss(values, targets, 0.1, 2.0)
    close.backward()
    assert values.grad is not None and values.grad.dtype == torch.float32
    assert close.item() == pytest.approx(exact.item(), rel=0.02)


def test_log_probs_are_normalised() -> None:
    log_probs = layer(4, 9).log_probs(torch.randn(2, 3, 4))
    torch.testing.assert_close(log_probs.exp().sum(-1), torch.ones(2, 3))


@given(lengths=st.lists(st.integers(1, 6), min_size=1, max_size=5))
@settings(deadline=None)
def test_reversing_twice_is_nothing(lengths: list[int]) -> None:
    x = torch.arange(len(lengths) * 6 * 2).view(len(lengths), 6, 2)
    ends = torch.tensor(lengths)
    once = reverse_by_length(x, ends)
    assert torch.equal(reverse_by_length(once, ends), x)
    for row, length in enumerate(lengths):
        assert torch.equal(once[row, :length], x[row, :length].flip(0))
        assert torch.equal(once[row, length:], x[row, length:])


@pytest.mark.parametrize("probability", [0.1, 0.3, 0.5])
def test_dropout_keeps_the_mean_and_its_share(probability: float) -> None:
    torch.manual_seed(0)
    mask = keep_mask(torch.Size((400, 1001)), probability, torch.ones(1))
    assert mask.mean().item() == pytest.approx(1.0, abs=0.01)
    assert (mask == 0).float().mean().item() == pytest.approx(probability, abs=0.005)
    # Neighbouring elements come from one random word and must still be independent.
    both = ((mask[:, :-1] == 0) & (mask[:, 1:] == 0)).float().mean().item()
    assert both == pytest.approx(probability**2, abs=0.005)


def test_dropping_nearly_all_keeps_something() -> None:
    mask = keep_mask(torch.Size((64, 256)), 0.999, torch.ones(1))
    assert torch.isfinite(mask).all() and mask.any()
