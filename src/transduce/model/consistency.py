"""R-Drop: the same targets predicted under two dropout masks must agree.

Wu et al. 2021 (2106.14448), section 2. As in `output`, no (tokens, vocabulary) matrix outlives a
chunk, and gradients are computed while the chunk's probabilities are at hand.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor


class ConsistentCrossEntropy(torch.autograd.Function):
    """Projection, label-smoothed cross-entropy of two passes, and the divergence between them.

    With l = log softmax(x W^T + b) and p = exp(l) of either pass, a position's loss is the mean of
    the two cross-entropies plus a / 2 (KL(p1, p2) + KL(p2, p1)). The divergence's gradient by the
    logits of pass 1 is a / 2 (p1 (l1 - l2 - KL(p1, p2)) + p1 - p2), and likewise for pass 2.
    """

    @staticmethod
    def forward(
        ctx: Any,
        values: Tensor,
        weight: Tensor,
        bias: Tensor,
        targets: Tensor,
        smoothing: float,
        strength: float,
        dtype: torch.dtype,
        chunk: int,
        counted: Tensor | None,
    ) -> tuple[Tensor, Tensor]:
        """values (2, N, E), targets (N,) -> summed loss and mean negative log-likelihood; counted
        as for `OutputLayer.loss`."""
        with torch.autocast(values.device.type, enabled=False):
            x, w = values.to(dtype), weight.to(dtype)
            loss = torch.zeros((), dtype=torch.float32, device=values.device)
            nll = torch.zeros_like(loss)
            grad_values = torch.empty_like(x)
            grad_weight = torch.zeros(weight.shape, dtype=torch.float32, device=values.device)
            grad_bias = torch.zeros_like(bias, dtype=torch.float32)
            for start in range(0, x.shape[1], chunk):
                rows = slice(start, start + chunk)
                both = x[:, rows].flatten(0, 1)
                logits = torch.addmm(bias.to(dtype), both, w.t()).float()
                log_p = torch.log_softmax(logits, dim=1).unflatten(0, (2, -1))
                there = None if counted is None else counted[rows]
                found = _pair(log_p, targets[rows], smoothing, strength, there)
                chunk_loss, chunk_nll, grad = found
                loss += chunk_loss
                nll += chunk_nll
                grad_bias += grad.sum(dim=0)
                grad = grad.to(dtype)
                grad_values[:, rows] = (grad @ w).unflatten(0, (2, -1))
                grad_weight += grad.t() @ both
        ctx.save_for_backward(grad_values.to(values.dtype), grad_weight, grad_bias)
        ctx.mark_non_differentiable(nll)
        return loss, nll

    @staticmethod
    def backward(ctx: Any, grad_loss: Tensor, _: Tensor) -> tuple[Tensor | None, ...]:
        grads = tuple(grad * grad_loss for grad in ctx.saved_tensors)
        return (*grads, None, None, None, None, None, None)


def _pair(
    log_p: Tensor, targets: Tensor, smoothing: float, strength: float, there: Tensor | None
) -> tuple[Tensor, Tensor, Tensor]:
    """Loss, negative log-likelihood and gradient by the logits (2N, V) of one chunk.

    log_p (2, N, V), targets (N,), there (N,): which rows count.
    """
    vocabulary = log_p.shape[2]
    target = targets.view(1, -1, 1).expand(2, -1, 1)
    p = log_p.exp()
    picked, said = log_p.gather(2, target), log_p
    if there is not None:
        each = there.unsqueeze(1)
        picked, said = picked * each, log_p * each
    nll = -picked.sum() / 2
    loss = (1 - smoothing) * nll - smoothing / vocabulary * said.sum() / 2
    ratio = log_p[0] - log_p[1]
    forwards = (p[0] * ratio).sum(dim=1, keepdim=True)  # KL(p1, p2)
    backwards = -(p[1] * ratio).sum(dim=1, keepdim=True)  # KL(p2, p1)
    if there is not None:
        forwards, backwards = forwards * each, backwards * each
    loss = loss + strength / 2 * (forwards.sum() + backwards.sum())
    apart = p[0] - p[1]
    half = strength / 2
    grad_0 = p[0] * (0.5 + half * (ratio - forwards)) + half * apart
    grad_1 = p[1] * (0.5 - half * (ratio + backwards)) - half * apart
    grad = torch.stack([grad_0, grad_1])
    grad -= smoothing / vocabulary / 2
    grad.scatter_add_(2, target, grad.new_full(target.shape, (smoothing - 1) / 2))
    if there is not None:
        grad *= each
    return loss, nll, grad.flatten(0, 1)
