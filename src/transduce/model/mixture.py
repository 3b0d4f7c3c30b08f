"""The loss of words that are generated or copied, without a (tokens, vocabulary) matrix."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from transduce.model.picking import TINY, add, pick, places


class PointerCrossEntropy(torch.autograd.Function):
    """Projection to the vocabulary, and cross-entropy of its mixture with what is copied.

    With p = softmax(x W^T + b), the probability of a row's target t is P = g p_t + c, and
    r = g p_t / P the share that was generated. The loss is -log P, whose gradient by the logits is
    r (p - onehot(t)), by log g -r, and by log c r - 1. Label smoothing e concerns what is
    generated: to each row it adds r e (log p_t - mean over v of log p_v), r as a constant, so that
    the gradient by the logits is r times that of a smoothed cross-entropy without copying (see
    `output.LinearCrossEntropy`). Targets from V on can only be copied.

    Chunk by chunk; gradients are computed while the logits are at hand. Logarithms of mixtures are
    float32, whatever the dtype of the products.
    """

    @staticmethod
    def forward(
        ctx: Any,
        values: Tensor,
        weight: Tensor,
        bias: Tensor,
        targets: Tensor,
        log_g: Tensor,
        log_c: Tensor,
        smoothing: float,
        dtype: torch.dtype,
        chunk: int,
    ) -> tuple[Tensor, Tensor]:
        """values (N, E), targets, log_g, log_c (N,) -> summed loss and negative log-likelihood."""
        with torch.autocast(values.device.type, enabled=False):
            x, w = values.to(dtype), weight.to(dtype)
            vocabulary = weight.shape[0]
            weight_sum, bias_sum = weight.float().sum(dim=0), bias.float().sum()
            generable = targets < vocabulary
            target = targets.where(generable, 0)
            log_g = log_g.float().masked_fill(~generable, -torch.inf)
            with_grad = any(ctx.needs_input_grad[:6])
            loss = torch.zeros((), dtype=torch.float32, device=values.device)
            nll = torch.zeros_like(loss)
            grad_values = torch.empty_like(x)
            grad_weight = torch.zeros(weight.shape, dtype=torch.float32, device=values.device)
            grad_bias = torch.zeros(vocabulary, dtype=torch.float32, device=values.device)
            generated = torch.empty_like(log_g)  # r
            for start in range(0, len(x), chunk):
                rows = slice(start, start + chunk)
                part = x[rows]
                logits = torch.addmm(bias.to(dtype), part, w.t())
                at = places(logits, target[rows])
                picked = pick(logits, at)
                if with_grad:
                    p = torch.softmax(logits, dim=1)
                    log_p = pick(p, at).clamp_min(TINY).log()
                else:
                    log_p = picked - logits.float().logsumexp(dim=1)
                total = torch.logaddexp(log_g[rows] + log_p, log_c[rows].float())
                r = generated[rows] = torch.exp(log_g[rows] + log_p - total)
                mean = (part.float() @ weight_sum + bias_sum) / vocabulary
                nll -= total.sum()
                # log p_t - mean log p_v, from which the normaliser falls out
                loss += smoothing * torch.dot(r, picked - mean)
                if with_grad:
                    add(p, at, smoothing - 1)
                    scaled = r.to(dtype).unsqueeze(1)
                    uniform = smoothing / vocabulary
                    grad_values[rows] = ((p @ w) - (uniform * weight_sum).to(dtype)) * scaled
                    weighed = part * scaled
                    grad_weight += p.t() @ weighed
                    grad_weight -= uniform * weighed.float().sum(dim=0)
                    grad_bias += (p.t() @ scaled).squeeze(1).float()
                    grad_bias -= uniform * r.sum()
            loss += nll
            if with_grad:
                saved = grad_values.to(values.dtype), grad_weight, grad_bias, generated
                ctx.save_for_backward(*saved)
            ctx.mark_non_differentiable(nll)
            return loss, nll

    @staticmethod
    def backward(ctx: Any, grad_loss: Tensor, _: Tensor) -> tuple[Tensor | None, ...]:
        values, weight, bias, generated = ctx.saved_tensors
        return (
            values * grad_loss,
            weight * grad_loss,
            bias * grad_loss,
            None,
            -generated * grad_loss,
            (generated - 1) * grad_loss,
            None,
            None,
            None,
        )
