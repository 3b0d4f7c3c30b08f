"""Products of matrices against exact ones, and the layers made of them against torch's."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from transduce import kernels
from transduce.kernels import training
from transduce.model import linear
from transduce.model.linear import Linear, LinearByKernels

from ..conftest import on_threads

BF16 = torch.bfloat16
CPU = Path("/proc/cpuinfo").read_text() if Path("/proc/cpuinfo").exists() else ""
needs_kernels = pytest.mark.skipif(not kernels.available(), reason="no kernels on this machine")
# Around the edges of tiles, of two of them, and of what is laid out at a time.
sizes = st.sampled_from([1, 2, 15, 16, 17, 31, 32, 33, 64, 65, 100, 200])
depths = st.sampled_from([1, 2, 31, 32, 33, 64, 100, 639, 640, 641, 1300])


def in_memory(x: Tensor, turned: bool, gap: int) -> Tensor:
    """x, its rows (or, turned, its columns) so far apart in memory, with NaN in the gaps."""
    if turned:
        return in_memory(x.t(), False, gap).t()
    wide = torch.full((x.shape[0], x.shape[1] + gap), float("nan"), dtype=x.dtype)
    wide[:, : x.shape[1]] = x
    return wide[:, : x.shape[1]]


@needs_kernels
@settings(deadline=None, max_examples=150)
@given(
    st.tuples(sizes, sizes, depths), st.tuples(st.booleans(), st.booleans()), st.booleans(),
    st.sampled_from([torch.float32, BF16]), st.integers(1, 3), st.integers(0, 3),
)  # fmt: skip
def test_a_product_is_the_exact_one(
    shape: tuple[int, int, int], turned: tuple[bool, bool], with_bias: bool, dtype: torch.dtype,
    threads: int, gap: int,
) -> None:  # fmt: skip
    m, n, k = shape
    torch.manual_seed(m * n * k)
    left, right, bias = torch.randn(m, k).to(BF16), torch.randn(k, n).to(BF16), torch.randn(n)
    around = torch.full((m * n + 64,), 7.0, dtype=dtype)
    y = around[32:-32].view(m, n)
    with on_threads(threads):
        training.product(
            in_memory(left, turned[0], gap), in_memory(right, turned[1], gap), y,
            bias if with_bias else None,
        )  # fmt: skip
    exact = left.double() @ right.double() + (bias.double() if with_bias else 0)
    rounding = 2.0**-8 * exact.abs() if dtype == BF16 else 0
    assert ((y.double() - exact).abs() <= rounding + 1e-5 * k**0.5).all()
    assert (around[:32] == 7).all() and (around[-32:] == 7).all()


@needs_kernels
def test_a_sum_of_many_parts_is_rounded_once() -> None:
    left, right = torch.randn(40, 3000).to(BF16), torch.randn(3000, 50).to(BF16)
    exactly = training.product(left, right, torch.empty(40, 50))
    rounded = training.product(left, right, torch.empty(40, 50, dtype=BF16))
    assert torch.equal(exactly.to(BF16), rounded)


@needs_kernels
@pytest.mark.parametrize("turned", [(True, False), (False, True)])
@pytest.mark.parametrize("depth", [5, 5000])
def test_products_are_added_up_in_rows_that_are_apart(
    depth: int, turned: tuple[bool, bool]
) -> None:
    left, right = torch.randn(45, depth).to(BF16), torch.randn(depth, 70).to(BF16)
    around = torch.full((45, 96), 3.0)
    y = around[:, 10:80]
    given = in_memory(left, turned[0], 3), in_memory(right, turned[1], 1)
    training.product(*given, y)
    training.product(*given, y, add=True)
    exact = 2 * (left.double() @ right.double())
    assert ((y.double() - exact).abs() <= 2e-5 * depth**0.5).all()
    assert (around[:, :10] == 3).all() and (around[:, 80:] == 3).all()


@needs_kernels
@pytest.mark.parametrize("rows", [0, 1, 37, 700])
def test_the_gradient_of_weights(rows: int) -> None:
    grads, inputs = torch.randn(rows, 30).to(BF16), torch.randn(rows, 20).to(BF16)
    found = training.weight_gradient(grads, inputs)
    exact = grads.double().t() @ inputs.double()
    assert found.dtype == torch.float32
    assert ((found - exact).abs() <= 2.0**-8 * exact.abs() + 1e-4 * rows**0.5).all()


@needs_kernels
@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("shape", [(3, 5, 24), (7, 24), (24,)])
def test_a_linear_layer_is_torchs(
    shape: tuple[int, ...], bias: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(linear, "MANY", 1)
    torch.manual_seed(1)
    mine, torchs = Linear(24, 40, bias), nn.Linear(24, 40, bias)
    torchs.load_state_dict(mine.state_dict())
    x, pull = torch.randn(shape), torch.randn(*shape[:-1], 40)

    def run(layer: nn.Linear) -> list[Tensor]:
        given = x.clone().requires_grad_()
        with torch.autocast("cpu", BF16):
            y = layer(given)
        assert y.dtype == BF16 and y.shape == pull.shape
        return [y.float(), *torch.autograd.grad((y * pull).sum(), [given, *layer.parameters()])]

    for found, expected in zip(run(mine), run(torchs), strict=True):
        assert found.dtype == expected.dtype
        assert (found - expected).norm() <= 0.01 * expected.norm()


@needs_kernels
def test_kernels_are_for_many_rows_and_gradients() -> None:
    layer, by_kernels = Linear(8, 4), LinearByKernels._backward_cls
    with torch.autocast("cpu", BF16):
        y = layer(torch.randn(2, linear.MANY // 2, 8))
        assert isinstance(y.grad_fn, by_kernels)
        assert not isinstance(layer(torch.randn(linear.MANY - 1, 8)).grad_fn, by_kernels)
        assert layer(torch.randn(0, 8)).shape == (0, 4)
        with torch.no_grad():
            assert layer(torch.randn(linear.MANY, 8)).grad_fn is None
    y.sum().backward()
    assert layer.weight.grad is not None and layer.weight.grad.abs().sum() > 0


@needs_kernels
@settings(deadline=None, max_examples=60)
@given(
    st.integers(1, 5), st.tuples(sizes, sizes, st.sampled_from([1, 2, 31, 64, 100])),
    st.tuples(st.booleans(), st.booleans()), st.integers(1, 3),
)  # fmt: skip
def test_many_small_products_are_each_the_exact_one(
    count: int, shape: tuple[int, int, int], turned: tuple[bool, bool], threads: int
) -> None:
    m, n, k = shape
    torch.manual_seed(m * n * k)
    left, right = torch.randn(count, m, k).to(BF16), torch.randn(count, k, n).to(BF16)
    exact = left.double() @ right.double()
    given = (
        x.transpose(1, 2).contiguous().transpose(1, 2) if turn else x
        for x, turn in zip((left, right), turned, strict=True)
    )
    with on_threads(threads):
        y = training.products(*given)
    assert ((y.double() - exact).abs() <= 2.0**-8 * exact.abs() + 1e-5 * k**0.5).all()


@needs_kernels
@pytest.mark.parametrize("heads", [(), (3,)])
def test_products_of_attention_have_torchs_gradients(heads: tuple[int, ...]) -> None:
    torch.manual_seed(2)
    left = torch.randn(2, *heads, 7, 24, requires_grad=True)
    right = torch.randn(2, *heads, 9, 24, requires_grad=True)
    pull = torch.randn(2, *heads, 7, 9)

    def run(product: Callable[[Tensor, Tensor], Tensor]) -> list[Tensor]:
        with torch.autocast("cpu", BF16):
            y = product(left, right.transpose(-1, -2))
        assert y.dtype == BF16
        return [y.float(), *torch.autograd.grad((y * pull).sum(), [left, right])]

    for found, expected in zip(run(linear.batched), run(torch.matmul), strict=True):
        assert found.dtype == expected.dtype
        assert (found - expected).norm() <= 0.01 * expected.norm()


@needs_kernels
@settings(deadline=None, max_examples=30)
@given(st.integers(0, 5000), st.integers(1, 4))
def test_drawn_bytes_do_not_depend_on_threads(count: int, threads: int) -> None:
    torch.manual_seed(count)
    with on_threads(threads):
        some = training.draw(count)
    torch.manual_seed(count)
    with on_threads(1):
        again = training.draw(count + 100)
    assert torch.equal(some, again[:count])


@needs_kernels
def test_drawn_bytes_are_uniform_and_new_each_time() -> None:
    torch.manual_seed(0)
    count = 1 << 20
    first, second = training.draw(count), training.draw(count)
    expected = count / 256
    for drawn in (first, second, first ^ second, first[1:] ^ first[:-1], first[64:] ^ first[:-64]):
        found = torch.bincount(drawn.long(), minlength=256)
        chi_squared = float(((found - expected) ** 2 / expected).sum())
        assert 150 < chi_squared < 380  # 255 degrees of freedom: mean 255, deviation 22.6


@pytest.mark.skipif("amx_bf16" not in CPU, reason="no tiles on this machine")
def test_products_are_right_without_tiles() -> None:
    """What other processors do, on one that has tiles: these tests once more."""
    here = Path(__file__).parent
    files = [here / "test_kernels.py", here / "test_training.py", here / "test_matrices.py"]
    names = "(product or rows or layer or gradient) and not without_tiles"
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-k", names, *files],
        env=os.environ | {"TRANSDUCE_TILES": "0"}, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout
