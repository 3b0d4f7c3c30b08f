"""The output layer: from decoder features to log-probabilities and to the loss.

The loss never keeps a (tokens, vocabulary) matrix: it works in chunks, and computes the gradient
of each chunk while its logits are at hand.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple, Protocol, TypeAlias

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from transduce.kernels.training import cross_entropy, product, trains
from transduce.kernels.weights import Weight
from transduce.model.consistency import ConsistentCrossEntropy
from transduce.model.picking import TINY, add, pick, places
from transduce.model.room import CHUNK, Room
from transduce.model.sampled import SampledCrossEntropy, pays


def compute_dtype(device: torch.device) -> torch.dtype | None:
    """The dtype of products under autocast on this device; None outside autocast."""
    if torch.is_autocast_enabled(device.type):
        return torch.get_autocast_dtype(device.type)
    return None


class Rows(NamedTuple):
    """Rows to be projected, and their targets: values (N, E), weight (V, E), bias (V,), targets
    (N,), and how much the targets are smoothed; counted (N,), 1 or 0: which rows are there at all,
    None for all of them."""

    values: Tensor
    weight: Tensor
    bias: Tensor
    targets: Tensor
    smoothing: float
    counted: Tensor | None = None


# Loss, negative log-likelihood, and the loss's gradients by values, weight and bias, if wanted.
Found: TypeAlias = tuple[Tensor, Tensor, tuple[Tensor, Tensor, Tensor] | None]


class LinearCrossEntropy(torch.autograd.Function):
    """Projection to the vocabulary and label-smoothed cross-entropy, as one chunked operation.

    With p = softmax(x W^T + b), target t and smoothing e, the loss of a row is
    -(1 - e) log p_t - e / V sum_v log p_v (Szegedy et al. 2016, 1512.00567, section 7),
    whose gradient by the logits is p - (1 - e) onehot(t) - e / V.
    """

    @staticmethod
    def forward(
        ctx: Any,
        values: Tensor,
        weight: Tensor,
        bias: Tensor,
        targets: Tensor,
        smoothing: float,
        room: Room,
        counted: Tensor | None,
    ) -> tuple[Tensor, Tensor]:
        given = Rows(values, weight, bias, targets, smoothing, counted)
        with_grad = any(ctx.needs_input_grad[:3])
        one_pass = with_grad and counted is None and trains(values)
        dtype = compute_dtype(values.device) or weight.dtype
        with torch.autocast(values.device.type, enabled=False):
            if one_pass:
                loss, nll, grads = _one_pass(given, room)
            else:
                cast = given._replace(values=values.to(dtype), weight=weight.to(dtype))
                loss, nll, grads = _in_chunks(cast, with_grad)
        ctx.grads = None if grads is None else (grads[0].to(values.dtype), *grads[1:])
        ctx.mark_non_differentiable(nll)
        return loss, nll

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_loss: Tensor, _: Tensor) -> tuple[Tensor | None, ...]:
        if ctx.grads is None:
            raise RuntimeError("this loss was propagated back before: its gradients are used up")
        grads, ctx.grads = ctx.grads, None  # used up, since they are as large as the weights
        return *(grad.mul_(grad_loss) for grad in grads), None, None, None, None


def _one_pass(given: Rows, room: Room) -> Found:
    """With the kernel, where the gradient takes the place of the logits: twice as many rows."""
    values, weight, bias, targets, smoothing, _ = given
    rows, project = values.to(torch.bfloat16).contiguous(), Weight(weight)
    words, layer = project.half(), project.layer(bias)
    grad_values, grad_weight = torch.empty_like(rows), torch.empty(weight.shape)
    loss, nll, grad_bias = torch.zeros(()), torch.zeros(()), torch.zeros_like(bias)
    for start in range(0, len(rows), 2 * CHUNK):
        part = slice(start, start + 2 * CHUNK)
        grad = room.take(len(rows[part]), len(words))
        layer(rows[part], grad)
        found = cross_entropy(grad, targets[part], smoothing)
        loss, nll, grad_bias = loss + found[0].sum(), nll + found[1].sum(), grad_bias + found[2]
        product(grad, words, grad_values[part])
        product(grad.t(), rows[part], grad_weight, add=start > 0)
    if not len(rows):
        grad_weight.zero_()
    return loss, nll, (grad_values, grad_weight, grad_bias)


def _in_chunks(given: Rows, with_grad: bool) -> Found:
    """With torch, some rows at a time, in the dtype of values and weight."""
    values, weight, bias, targets, smoothing, counted = given
    uniform = smoothing / weight.shape[0]
    # The uniform part of the target is the same for every row, so its share of loss and
    # gradient comes from sums over the vocabulary, not from passes over the logits.
    weight_sum, bias_sum = weight.float().sum(dim=0), bias.float().sum()
    loss = torch.zeros((), dtype=torch.float32, device=values.device)
    nll = torch.zeros_like(loss)
    if with_grad:
        grad_values = torch.empty_like(values)
        grad_weight = torch.zeros(weight.shape, dtype=torch.float32, device=values.device)
        grad_bias = torch.zeros_like(bias, dtype=torch.float32)
    for start in range(0, values.shape[0], CHUNK):
        part = slice(start, start + CHUNK)
        x = values[part]
        logits = torch.addmm(bias.to(x.dtype), x, weight.t())
        at = places(logits, targets[part])
        picked = pick(logits, at)
        if with_grad:
            # One fused pass, in the dtype of the products that follow: the gradient is made in
            # place of the probabilities. The clamp is for reporting only.
            grad = torch.softmax(logits, dim=1)
            losses = -pick(grad, at).clamp_min(TINY).log()
        else:
            losses = logits.float().logsumexp(dim=1) - picked
        rows: Tensor | int = x.shape[0]
        if counted is None:
            x_sum = x.float().sum(dim=0)
        else:
            there = counted[part]
            column = there.unsqueeze(1)
            rows, x_sum = there.sum(), (x.float() * column).sum(dim=0)
            losses, picked = losses * there, picked * there
        mean_logits = (torch.dot(x_sum, weight_sum) + rows * bias_sum) / weight.shape[0]
        nll += losses.sum()
        # smoothing x (log Z - mean logit), where log Z = loss + picked logit
        loss += losses.sum() + smoothing * (picked.sum() - mean_logits)
        if with_grad:
            add(grad, at, smoothing - 1)
            each = (uniform * weight_sum).to(x.dtype)
            if counted is not None:
                grad, each = grad.mul_(column), column.to(x.dtype) * each
            grad_values[part] = grad @ weight - each
            # A product with ones, since a sum over rows is slow in half precision.
            grad_bias += (grad.t() @ x.new_ones(x.shape[0], 1)).squeeze(1).float()
            grad_bias -= rows * uniform
            grad_weight += grad.t() @ x
            grad_weight -= uniform * x_sum
    return loss, nll, (grad_values, grad_weight, grad_bias) if with_grad else None


class Product(Protocol):
    """A linear layer in its inference form (`packed`)."""

    def __call__(self, x: Tensor) -> Tensor: ...
    def part(self, outputs: Tensor) -> Product: ...


class OutputLayer(nn.Module):
    """Projection to the vocabulary; `weight` may be shared with an embedding.

    Press and Wolf 2017 (1608.05859), section 3.
    """

    def __init__(self, size: int, vocabulary: int, weight: Tensor | None = None) -> None:
        super().__init__()
        own = weight if weight is not None else nn.Parameter(torch.empty(vocabulary, size))
        self.weight: Tensor = own  # a Parameter, registered as such
        self.bias = nn.Parameter(torch.zeros(vocabulary))
        self.product: Product | None = None  # the inference form (`packing`)
        self.room = Room()

    def logits(self, values: Tensor) -> Tensor:
        """values (..., E) -> (..., V), not normalised, in the dtype of the product."""
        if self.product is not None:
            return self.product(values)
        return nn.functional.linear(values, self.weight, self.bias)

    @property
    def vocabulary(self) -> int:
        return self.bias.shape[0]

    def part(self, words: Tensor) -> Callable[[Tensor], Tensor]:
        """The product for some words (U,) int64 only: (..., E) -> logits (..., U)."""
        if self.product is not None:
            return self.product.part(words)
        weight, bias = self.weight[words], self.bias[words]
        return partial(nn.functional.linear, weight=weight, bias=bias)

    def log_probs(self, values: Tensor) -> Tensor:
        """values (..., E) -> (..., V), float32, normalised."""
        return torch.log_softmax(self.logits(values).float(), dim=-1)

    def loss(
        self,
        values: Tensor,
        targets: Tensor,
        smoothing: float,
        counted: Tensor | None = None,
        sampled: bool = False,
    ) -> tuple[Tensor, Tensor]:
        """Summed over rows: label-smoothed loss (differentiable), negative log-likelihood.

        values (N, E), targets (N,) int64 -> two float32 scalars, in nats. counted (N,) float32: 0
        for rows that are not there, else 1; they have no loss and no gradient. The gradient may be
        `sampled` where that is faster (`model.sampled`).
        """
        given = values, self.weight, self.bias, targets, smoothing, self.room
        result: tuple[Tensor, Tensor]
        if sampled and counted is None and pays(values, self.vocabulary):
            result = SampledCrossEntropy.apply(*given)
        else:
            result = LinearCrossEntropy.apply(*given, counted)
        return result

    def consistent_loss(
        self,
        values: Tensor,
        targets: Tensor,
        smoothing: float,
        strength: float,
        counted: Tensor | None = None,
    ) -> tuple[Tensor, Tensor]:
        """Like `loss` for two passes over the same targets, with `strength` x their divergence.

        values (2, N, E), targets (N,) -> two float32 scalars, summed over N, means of the passes.
        """
        dtype = compute_dtype(values.device) or self.weight.dtype
        how = smoothing, strength, dtype, CHUNK // 2
        result: tuple[Tensor, Tensor] = ConsistentCrossEntropy.apply(
            values, self.weight, self.bias, targets, *how, counted
        )
        return result
