"""A gradient of few entries: on average the whole one, and its products those of a matrix."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from transduce import kernels
from transduce.kernels.sampling import LANES, Entries, sampled_entropy, sum_by_rows, sum_by_words
from transduce.kernels.training import cross_entropy
from transduce.model import sampled
from transduce.model.output import LinearCrossEntropy, OutputLayer, Room

from ..conftest import on_threads

pytestmark = pytest.mark.skipif(not kernels.available(), reason="no kernels on this machine")
sizes = st.integers(1, 90)


def whole(entries: Entries) -> Tensor:
    """Entries as a matrix."""
    matrix = torch.zeros(len(entries.words), entries.vocabulary)
    for row, count in enumerate(entries.counts.tolist()):
        words = entries.words[row, :count].long()
        matrix[row].index_add_(0, words, entries.values[row, :count])
    return matrix


def drawn(logits: Tensor, targets: Tensor, smoothing: float, threshold: float) -> Entries:
    entries = Entries.room(*logits.shape, threshold)
    sampled_entropy(logits, targets, smoothing, threshold, entries)
    return entries


def with_target(p: Tensor, targets: Tensor, smoothing: float) -> Tensor:
    one = torch.nn.functional.one_hot(targets, p.shape[1])
    return p - (1 - smoothing) * one


@settings(deadline=None, max_examples=40)
@given(
    rows=st.integers(1, 9),
    vocabulary=st.integers(1, 3000),
    smoothing=st.sampled_from([0.0, 0.1, 1.0]),
    scale=st.floats(0.0, 30.0),
    threshold=st.sampled_from([1 / 256, 1 / 64, 0.3]),
    half=st.booleans(),
)
def test_the_losses_are_exact_and_what_is_large_is_kept(
    rows: int, vocabulary: int, smoothing: float, scale: float, threshold: float, half: bool
) -> None:
    torch.manual_seed(rows * vocabulary)
    logits = scale * torch.randn(rows, vocabulary + 7)[:, :vocabulary]  # rows further apart
    logits = logits.bfloat16() if half else logits
    targets = torch.randint(0, vocabulary, (rows,))
    entries = Entries.room(rows, vocabulary, threshold)
    losses, nll = sampled_entropy(logits, targets, smoothing, threshold, entries)
    expected, expected_nll, _ = cross_entropy(logits.clone(), targets, smoothing)
    assert losses.equal(expected) and nll.equal(expected_nll)
    assert int(entries.counts.max()) <= 1 / threshold + 1e-3 + LANES + 1
    p = logits.float().softmax(dim=1)
    found = whole(entries)
    found[torch.arange(rows), targets] += 1 - smoothing
    large = p >= threshold * 1.0001
    torch.testing.assert_close(found[large], p[large], rtol=1e-4, atol=1e-6)
    small = p < threshold * 0.9999
    others = found[small]
    assert bool(((others.abs() < 1e-6) | ((others - threshold).abs() < 1e-6)).all())
    # each lane's sum is off by less than one entry
    missing = (found - p).sum(dim=1).abs()
    assert bool((missing < LANES * threshold + 1e-3).all())


@pytest.mark.parametrize("scale", [0.0, 1.0, 5.0])
def test_on_average_it_is_the_gradient(scale: float) -> None:
    torch.manual_seed(1)
    rows, threshold, smoothing = 4, 1 / 64, 0.1
    logits, targets = scale * torch.randn(rows, 500), torch.tensor([0, 7, 499, 250])
    expected = with_target(logits.softmax(dim=1), targets, smoothing)
    times = 4000
    mean = torch.zeros_like(expected, dtype=torch.float64)
    for _ in range(times):
        mean += whole(drawn(logits, targets, smoothing, threshold)) / times
    p = logits.softmax(dim=1)
    deviation = (p * (threshold - p).clamp(min=0) / times).sqrt()  # of drawing p / t times t
    few = 4 * threshold / times  # times that a word is drawn which hardly ever is
    assert bool(((mean - expected).abs() <= 5 * deviation + few).all())


def test_what_is_drawn_does_not_hang_on_threads() -> None:
    logits, targets = torch.randn(33, 700), torch.arange(33)

    def once(threads: int) -> tuple[Tensor, Tensor, Tensor]:
        with on_threads(threads):
            torch.manual_seed(3)
            entries = drawn(logits, targets, 0.1, 1 / 100)
            table = torch.arange(33 * 40).view(33, 40).sin().bfloat16()
            return whole(entries), *sum_by_words(entries, table, 0.01, 0.5)

    for one, other in zip(once(1), once(3), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-6)


@settings(deadline=None, max_examples=60)
@given(
    rows=st.integers(1, 60),
    vocabulary=sizes,
    width=st.one_of(sizes, st.sampled_from([128, 160, 256, 257, 300, 512])),
    threads=st.integers(1, 3),
    share=st.sampled_from([0.0, 0.02]),
)
def test_products_are_those_of_the_whole_matrix(
    rows: int, vocabulary: int, width: int, threads: int, share: float
) -> None:
    torch.manual_seed(rows + vocabulary)
    targets = torch.randint(0, vocabulary, (rows,))
    entries = drawn(2 * torch.randn(rows, vocabulary), targets, 0.1, 1 / 40)
    x = whole(entries) - share
    of_words, of_rows = (torch.randn(n, width).bfloat16() for n in (vocabulary, rows))
    with on_threads(threads):
        by_rows = sum_by_rows(entries, of_words, share, 0.5)
        by_words, sums = sum_by_words(entries, of_rows, share, 0.5)
    expected = 0.5 * x @ of_words.float()
    torch.testing.assert_close(by_rows.float(), expected, rtol=1e-2, atol=1e-3)
    torch.testing.assert_close(by_words, 0.5 * x.t() @ of_rows.float(), rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(sums, 0.5 * x.sum(dim=0), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -float("inf")])
def test_what_is_no_number_stays_inside(bad: float) -> None:
    """An update by it is left out, as its loss says; nothing is written elsewhere."""
    logits = torch.zeros(3, 600)
    logits[1, 5] = bad
    logits[2] = bad
    entries = Entries.room(3, 600, 1 / 64)
    losses, nll = sampled_entropy(logits, torch.tensor([1, 2, 3]), 0.1, 1 / 64, entries)
    assert bool(losses[0].isfinite()) and not bool(losses[2].isfinite())
    assert bool(nll[1].isfinite()) == (bad == -float("inf"))
    wanted = 64 if bad == -float("inf") else 0  # beside the target's
    assert int(entries.counts[1]) == pytest.approx(wanted + 1, abs=LANES)
    assert int(entries.counts[2]) == 1


# ------------------------------------------------------------------------------ the output layer


def layer(size: int, vocabulary: int) -> OutputLayer:
    output = OutputLayer(size, vocabulary)
    torch.nn.init.normal_(output.weight, std=2 / size**0.5)
    torch.nn.init.normal_(output.bias, std=0.1)
    return output


@pytest.mark.parametrize("rows", [1, 40, sampled.CHUNK + 9])
def test_the_layers_gradients_are_right_on_average(rows: int) -> None:
    torch.manual_seed(rows)
    output = layer(24, 2100)
    values = torch.randn(rows, 24, requires_grad=True)
    tensors, targets = (values, output.weight, output.bias), torch.randint(0, 2100, (rows,))

    def gradients(kind: type[torch.autograd.Function], *more: object) -> list[Tensor]:
        with torch.autocast("cpu", torch.bfloat16):
            loss, nll = kind.apply(*tensors, targets, 0.1, Room(), *more)
        assert not nll.requires_grad
        said.append((loss.item(), nll.item()))
        return list(torch.autograd.grad(loss / rows, tensors))

    said: list[tuple[float, float]] = []
    exact = gradients(LinearCrossEntropy, None)
    many = [gradients(sampled.SampledCrossEntropy) for _ in range(25)]
    assert said == [pytest.approx(said[0], rel=1e-5)] * len(said)
    for i, expected in enumerate(exact):
        alone = max(float((one[i] - expected).norm() / expected.norm()) for one in many)
        mean = torch.stack([one[i] for one in many]).mean(dim=0)
        together = float((mean - expected).norm() / expected.norm())
        assert alone < 0.15
        assert together < 0.35 * alone  # 1 / 5, if they are independent and about nothing else


def test_it_is_taken_where_it_pays() -> None:
    output, small = layer(8, sampled.LEAST), layer(8, sampled.LEAST - 1)
    values, targets = torch.randn(5, 8, requires_grad=True), torch.arange(5)

    def made_by(of: OutputLayer, bf16: bool, wanted: bool, counted: Tensor | None = None) -> str:
        with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
            loss, _ = of.loss(values, targets, 0.1, counted, wanted)
        return "none" if loss.grad_fn is None else type(loss.grad_fn).__name__

    assert made_by(output, True, True).startswith("Sampled")
    for exact in (
        made_by(output, True, False),
        made_by(output, False, True),
        made_by(small, True, True),
        made_by(output, True, True, torch.ones(5)),
    ):
        assert exact.startswith("Linear")
    with torch.no_grad():
        assert made_by(output, True, True) == "none"
