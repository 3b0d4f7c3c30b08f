"""Copying: a word is generated from the vocabulary, or copied from where attention is.

    P(w) = g P_vocab(w) + sum over source positions s that hold w of c_s

See et al. 2017 (1704.04368), section 2.2: c_s = (1 - p_gen) a_s with attention a and the gate p_gen
(`gate`, equation 8), and g = p_gen. Here the source's end symbol has attention too but is never
copied, and some tokens have no like in the target's vocabulary: what is attended there is
generated, so that g = 1 - sum of c_s, and P always sums to 1.

Words that the vocabulary lacks are columns of their own behind it, one a source position: V + s is
the word that position s is the first to hold, whatever else is in the batch.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn

from transduce.data.copying import NEVER, Codes
from transduce.data.tokenizers.base import PAD, UNK
from transduce.model.mixture import PointerCrossEntropy
from transduce.model.output import OutputLayer, compute_dtype
from transduce.model.picking import TINY
from transduce.model.pointer import shares
from transduce.model.room import CHUNK
from transduce.model.state import Copies, Features


class Copying(nn.Module):
    """As what source tokens are copied: no weights, only what both vocabularies say."""

    table: Tensor

    def __init__(self, codes: Codes) -> None:
        super().__init__()
        table = torch.from_numpy(np.array(codes.table, dtype=np.int64))
        # The vocabularies' to keep, not the weights'.
        self.register_buffer("table", table, persistent=False)
        self.source_size, self.target_size = len(codes.table), codes.target_size
        self.extends = codes.extends

    def source_ids(self, source: Tensor) -> Tensor:
        """Ids of the source vocabulary: words that it does not know are UNK."""
        return source.where(source < self.source_size, UNK)

    def target_ids(self, target: Tensor) -> Tensor:
        """Ids of the target vocabulary: words that it does not know are UNK."""
        return target.where(target < self.target_size, UNK)

    def codes(self, source: Tensor) -> Tensor:
        """source (B, S) int64 -> codes (B, S), see `data.copying`."""
        known = source < self.source_size
        of_known = self.table[source.where(known, PAD)]
        beyond = source - self.source_size  # t < V where only the target knows the word
        unknown = beyond.where(beyond < self.target_size, self.target_size + source)
        return of_known.where(known, unknown)

    def copies(self, source: Tensor) -> Copies:
        """The column of each position's word, and the first position that holds it."""
        codes = self.codes(source)
        ordered, order = codes.sort(dim=1, stable=True)
        place = torch.arange(codes.shape[1], device=codes.device).expand_as(codes)
        again = torch.zeros_like(codes, dtype=torch.bool)
        again[:, 1:] = ordered[:, 1:] == ordered[:, :-1]
        # Equal codes stand together, in the order of their positions.
        begin = place.masked_fill(again, 0).cummax(dim=1).values
        first = torch.empty_like(codes).scatter_(1, order, order.gather(1, begin))
        columns = codes.where(codes < self.target_size, self.target_size + first)
        # Asked of a CPU only: an accelerator would have to be waited for.
        asked = self.extends and codes.device.type == "cpu"
        extended = bool((columns >= self.target_size).any()) if asked else self.extends
        return Copies(columns, first, extended)

    def held(self, source: Tensor, target: Tensor) -> Tensor:
        """Which source positions (B, S) hold which target token (B, T): (B, T, S) boolean."""
        return self.codes(source).unsqueeze(1) == target.unsqueeze(2)

    def columns(self, source: Tensor, target: Tensor) -> Tensor:
        """The columns of target tokens (B, T), codes among them, for sources (B, S): (B, T)."""
        held = self.held(source, target)
        place = self.target_size + held.int().argmax(dim=2)
        known = target < self.target_size
        # What is not there (any more) to be copied is unknown.
        return target.where(known, place.where(held.any(dim=2), UNK))


def pointer_loss(
    output: OutputLayer,
    copying: Copying,
    features: Features,
    source: Tensor,
    targets: Tensor,
    positions: Tensor,
    smoothing: float,
) -> tuple[Tensor, Tensor]:
    """Summed over real positions: smoothed loss (differentiable), negative log-likelihood.

    features of T positions; source (B, S); targets (B, T); positions (N,) into B x T.
    """
    assert features.gate is not None and features.attention is not None
    codes = copying.codes(source)
    held = codes.unsqueeze(1) == targets.unsqueeze(2)
    attention = features.attention.float()
    _, log_copied, log_generated = shares(features.gate, attention, codes != NEVER)
    attended = (attention * held).sum(dim=2).clamp_min(TINY).log()
    lost = (targets >= copying.target_size) & ~held.any(dim=2)
    targets = targets.masked_fill(lost, UNK)

    def real(x: Tensor) -> Tensor:
        return x.flatten(0, 1).index_select(0, positions)

    values = real(features.values)
    result: tuple[Tensor, Tensor] = PointerCrossEntropy.apply(
        values,
        output.weight,
        output.bias,
        real(targets),
        real(log_generated),
        real(log_copied + attended),
        smoothing,
        compute_dtype(values.device) or output.weight.dtype,
        CHUNK,
    )
    return result
