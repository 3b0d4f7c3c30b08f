"""The transducer's loss: the sum over all ways through a lattice of memory and target.

Graves 2012 (1211.3711), section 2.4. At node (t, u) position t of the memory is read and u tokens
are written; the blank goes on to t + 1, a token to u + 1. All nodes of an anti-diagonal t + u = n
follow from those of n - 1 at once, so the loop is over S + U diagonals and over nothing else.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor


class LatticeLoss(torch.autograd.Function):
    """Negative log-likelihoods in nats, with gradients from forward and backward variables."""

    @staticmethod
    def forward(
        ctx: Any, blank: Tensor, token: Tensor, lengths: Tensor, target_lengths: Tensor
    ) -> Tensor:
        """blank (B, S, U + 1) and token (B, S, U), log-probabilities of both ways on from each
        node; lengths (B,) of memories, at least 1; target_lengths (B,) -> (B,)."""
        ctx.dtype, ctx.positions = blank.dtype, blank.shape[1]
        # In double precision: sums of thousands of logarithms differ by what a gradient is.
        pair = blank.double(), token.double()
        blank, token = _possible(*pair, lengths, target_lengths)
        blanks, tokens = skewed(blank), skewed(token)
        alpha = _forward(blanks, tokens)
        beta = _backward(blanks, tokens, lengths, target_lengths)
        total = beta[0, :, 0]
        ctx.save_for_backward(blanks, tokens, alpha, beta, total)
        return -total.to(ctx.dtype)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        blanks, tokens, alpha, beta, total = ctx.saved_tensors
        # The share of all ways that take a step (Graves, section 2.5, by log-probabilities).
        before = alpha[:-1] - total.view(1, -1, 1)
        by_blank = (before + blanks[:-1] + beta[1:]).exp()
        by_token = (before[..., :-1] + tokens[:-1, :, :-1] + beta[1:, :, 1:]).exp()
        scale = -grad.view(-1, 1, 1)
        grad_blank = unskewed(by_blank, ctx.positions) * scale
        grad_token = unskewed(by_token, ctx.positions) * scale
        return grad_blank.to(ctx.dtype), grad_token.to(ctx.dtype), None, None


def lattice_loss(blank: Tensor, token: Tensor, lengths: Tensor, target_lengths: Tensor) -> Tensor:
    """See `LatticeLoss.forward`."""
    result: Tensor = LatticeLoss.apply(blank, token, lengths, target_lengths)
    return result


def _possible(
    blank: Tensor, token: Tensor, lengths: Tensor, target_lengths: Tensor
) -> tuple[Tensor, Tensor]:
    """Both of width U + 1, and -inf where a step leads out of a sentence's own lattice, save for
    the blank that ends it."""
    t = torch.arange(blank.shape[1], device=blank.device).view(1, -1, 1)
    u = torch.arange(blank.shape[2], device=blank.device).view(1, 1, -1)
    ends, written = lengths.view(-1, 1, 1) - 1, target_lengths.view(-1, 1, 1)
    goes_on = (t < ends) | ((t == ends) & (u == written))
    blank = blank.masked_fill(~goes_on, -math.inf)
    token = torch.nn.functional.pad(token, (0, 1))
    return blank, token.masked_fill((t > ends) | (u >= written), -math.inf)


def skewed(x: Tensor) -> Tensor:
    """Nodes by anti-diagonal: x (B, S, W) -> (S + W, B, W), z[t + u, :, u] = x[:, t, u], else -inf.

    >>> skewed(torch.tensor([[[1.0, 2.0]]]))[:, 0].tolist()
    [[1.0, -inf], [-inf, 2.0], [-inf, -inf]]
    """
    _, positions, width = x.shape
    diagonals = positions + width
    padded = torch.nn.functional.pad(x, (0, 0, 0, width), value=-math.inf)
    n = torch.arange(diagonals, device=x.device).unsqueeze(1)
    # What lies before the first position is found in the padding behind the last.
    t = (n - torch.arange(width, device=x.device)) % diagonals
    return padded.gather(1, t.expand(len(x), -1, -1)).transpose(0, 1).contiguous()


def unskewed(z: Tensor, positions: int) -> Tensor:
    """The inverse of `skewed`, for what has at least S + W - 1 diagonals: -> (B, S, W)."""
    width = z.shape[2]
    n = torch.arange(positions, device=z.device).unsqueeze(1)
    n = n + torch.arange(width, device=z.device)
    return z.transpose(0, 1).gather(1, n.expand(z.shape[1], -1, -1))


def _forward(blanks: Tensor, tokens: Tensor) -> Tensor:
    """log-probability to come to each node: (N, B, W)."""
    alpha = torch.full_like(blanks, -math.inf)
    alpha[0, :, 0] = 0
    for n in range(1, len(blanks)):
        by_token = (alpha[n - 1] + tokens[n - 1])[:, :-1]
        by_blank = alpha[n - 1] + blanks[n - 1]
        alpha[n, :, 0] = by_blank[:, 0]
        torch.logaddexp(by_blank[:, 1:], by_token, out=alpha[n, :, 1:])
    return alpha


def _backward(blanks: Tensor, tokens: Tensor, lengths: Tensor, target_lengths: Tensor) -> Tensor:
    """log-probability to come from each node to the end, beyond the last blank: (N, B, W)."""
    beta = torch.full_like(blanks, -math.inf)
    rows = torch.arange(len(lengths), device=lengths.device)
    beta[lengths + target_lengths, rows, target_lengths] = 0
    for n in range(len(blanks) - 2, -1, -1):
        by_blank = blanks[n] + beta[n + 1]
        # Beyond the last width a token has probability 0, and what it would lead to is moot.
        by_token = tokens[n] + beta[n + 1].roll(-1, dims=1)
        on = torch.logaddexp(by_blank, by_token)
        beta[n] = torch.logaddexp(beta[n], on)  # the end of a short sentence is there already
    return beta
