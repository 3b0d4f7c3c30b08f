"""Self-attentive encoders: each position looks at all the others.

Layers are pre-norm (Xiong et al. 2020, 2002.04745): what a module adds is computed from a
normalised input, so that deep stacks learn without care at the start.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from transduce.model.attention import padding_penalty
from transduce.model.conformer import Convolution
from transduce.model.linear import Linear
from transduce.model.rnn import Dropout
from transduce.model.state import Memory
from transduce.model.subsampling import real_mask
from transduce.recipe import EncoderOptions

LONGEST = 10_000.0  # positions of the slowest wave, 2 pi times


def waves(positions: int, size: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """Sine and cosine (positions, size / 2) of frequencies from 1 to 1 / LONGEST.

    Vaswani et al. 2017 (1706.03762), section 3.5.
    """
    steps = torch.arange(size // 2, dtype=torch.float32, device=device)
    frequencies = torch.exp(steps * (-2 * math.log(LONGEST) / size))
    angles = torch.arange(positions, dtype=torch.float32, device=device).unsqueeze(1) * frequencies
    return angles.sin(), angles.cos()


def rotate(x: Tensor, sine: Tensor, cosine: Tensor) -> Tensor:
    """Turn pairs of components by their position: the product of two such vectors knows their
    distance, whatever their places. x (..., S, H, D), sine and cosine (S, 1, D / 2), same dtype.

    Su et al. 2021 (2104.09864), section 3.2.
    """
    first, second = x.chunk(2, dim=-1)
    return torch.cat([first * cosine - second * sine, second * cosine + first * sine], dim=-1)


class SelfAttention(nn.Module):
    """Multi-head attention of a sequence to itself (1706.03762, section 3.2.2)."""

    def __init__(self, size: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.project = Linear(size, 3 * size)  # queries, keys and values in one product
        self.output = Linear(size, size)

    def forward(
        self, x: Tensor, penalty: Tensor | None, turns: tuple[Tensor, Tensor] | None
    ) -> Tensor:
        """x (B, S, D) -> (B, S, D). penalty (B, 1, S) as of `padding_penalty`; turns: sine and
        cosine of `rotate`, or None."""
        projected = self.project(x).unflatten(2, (3, self.heads, -1))  # (B, S, 3, H, D / H)
        query, key, value = projected.unbind(2)
        if turns is not None:
            sine, cosine = (part.to(query.dtype).unsqueeze(1) for part in turns)
            query, key = rotate(query, sine, cosine), rotate(key, sine, cosine)
        query, key, value = (part.transpose(1, 2) for part in (query, key, value))
        found = _attend(query, key, value, penalty)
        result: Tensor = self.output(found.transpose(1, 2).flatten(2))
        return result


def _attend(query: Tensor, key: Tensor, value: Tensor, penalty: Tensor | None) -> Tensor:
    """query, key, value (B, H, S, D / H) -> (B, H, S, D / H)."""
    if penalty is not None:
        penalty = penalty.unsqueeze(1).to(query.dtype)
    with torch.autocast(query.device.type, enabled=False):
        if query.requires_grad and query.device.type == "cpu" and query.dtype == torch.bfloat16:
            # Half the time of torch's fused kernel, whose backward is not fast in bf16.
            query = query / math.sqrt(query.shape[-1])
            scores = torch.matmul(query, key.transpose(2, 3))
            weights = torch.softmax(scores if penalty is None else scores + penalty, dim=-1)
            return torch.matmul(weights, value)
        return nn.functional.scaled_dot_product_attention(query, key, value, attn_mask=penalty)


class FeedForward(nn.Module):
    """Two linear layers, the inner one wide (1706.03762, section 3.3), with Swish between."""

    def __init__(self, options: EncoderOptions) -> None:
        super().__init__()
        wide = options.feed_forward or 4 * options.size
        self.widen = Linear(options.size, wide)
        self.narrow = Linear(wide, options.size)
        self.dropout = Dropout(options.dropout)

    def forward(self, x: Tensor) -> Tensor:
        """(B, S, D) -> (B, S, D)."""
        result: Tensor = self.narrow(self.dropout(nn.functional.silu(self.widen(x))))
        return result


class TransformerLayer(nn.Module):
    """Self-attention, then feed-forward (1706.03762, section 3.1)."""

    def __init__(self, options: EncoderOptions) -> None:
        super().__init__()
        self.attention = SelfAttention(options.size, options.heads)
        self.feed_forward = FeedForward(options)
        self.norms = nn.ModuleList(nn.LayerNorm(options.size) for _ in range(2))
        self.dropout = Dropout(options.dropout)

    def forward(
        self,
        x: Tensor,
        mask: Tensor,
        penalty: Tensor | None,
        turns: tuple[Tensor, Tensor] | None,
    ) -> Tensor:
        """x (B, S, D), mask (B, S) -> (B, S, D)."""
        x = x + self.dropout(self.attention(self.norms[0](x), penalty, turns))
        return x + self.dropout(self.feed_forward(self.norms[1](x)))


class ConformerLayer(nn.Module):
    """Half a feed-forward, self-attention, convolution, half a feed-forward.

    Gulati et al. 2020 (2005.08100), section 2.4.
    """

    def __init__(self, options: EncoderOptions) -> None:
        super().__init__()
        self.before, self.after = FeedForward(options), FeedForward(options)
        self.attention = SelfAttention(options.size, options.heads)
        self.convolution = Convolution(options.size, options.kernel)
        self.norms = nn.ModuleList(nn.LayerNorm(options.size) for _ in range(5))
        self.dropout = Dropout(options.dropout)

    def forward(
        self,
        x: Tensor,
        mask: Tensor,
        penalty: Tensor | None,
        turns: tuple[Tensor, Tensor] | None,
    ) -> Tensor:
        """x (B, S, D), mask (B, S) -> (B, S, D)."""
        norms = self.norms
        x = torch.add(x, self.dropout(self.before(norms[0](x))), alpha=0.5)
        x = x + self.dropout(self.attention(norms[1](x), penalty, turns))
        x = x + self.dropout(self.convolution(norms[2](x), mask))
        x = torch.add(x, self.dropout(self.after(norms[3](x))), alpha=0.5)
        result: Tensor = norms[4](x)
        return result


# A decoder needs to know where it looks: a convolution tells, attention by distance alone does not.
POSITIONS = {"transformer": "sinusoidal", "conformer": "rotary"}
LAYERS = {"transformer": TransformerLayer, "conformer": ConformerLayer}


class SelfAttentiveEncoder(nn.Module):
    """A stack of transformer or conformer layers: any sequence in, memory out."""

    def __init__(self, options: EncoderOptions, input_size: int) -> None:
        super().__init__()
        self.memory_size, self.heads = options.size, options.heads
        self.tells_lengths = False
        self.rotary = (options.positions or POSITIONS[options.kind]) == "rotary"
        self.enter = Linear(input_size, options.size) if input_size != options.size else None
        self.layers = nn.ModuleList(LAYERS[options.kind](options) for _ in range(options.layers))
        self.norms = nn.LayerNorm(options.size)
        self.dropout = Dropout(options.dropout)

    def memory_lengths(self, lengths: Tensor) -> Tensor:
        """How many memory positions so many positions become. lengths (B,) int64 -> the same."""
        return lengths

    def forward(self, embedded: Tensor, lengths: Tensor) -> Memory:
        """embedded (B, S, E), lengths (B,) at least 1 -> Memory with D = the encoder's size."""
        x = embedded if self.enter is None else self.enter(embedded)
        if torch.is_autocast_enabled(x.device.type):
            x = x.float()  # what many layers add to, half precision would forget
        positions = x.shape[1]
        turns = None
        if self.rotary:
            turns = waves(positions, self.memory_size // self.heads, x.device)
        else:
            x = x + torch.cat(waves(positions, self.memory_size, x.device), dim=1).to(x.dtype)
        x = self.dropout(x)
        mask = real_mask(lengths, positions)
        penalty = padding_penalty(mask)
        for layer in self.layers:
            x = layer(x, mask, penalty, turns)
        return Memory(values=self.norms(x) * mask.unsqueeze(2), mask=mask)
