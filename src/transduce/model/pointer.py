"""The distribution of words that are generated or copied, and of those that must not come next.

    P(w) = g P_vocab(w) + sum over source positions s that hold w of c_s

with c_s = (1 - p_gen) a_s and g = 1 - sum of c_s; see `copying`. Search on a CPU asks the kernel of
`kernels.choosing.survey_ruled`, which finds the best words without writing the distribution down.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from transduce.data.tokenizers.base import PAD
from transduce.model.picking import TINY


def mixed(
    logits: Tensor, gate: Tensor, attention: Tensor, columns: Tensor, first: Tensor, extended: bool
) -> Tensor:
    """The whole distribution.

    logits (B, Q, V), gate (B, Q) as of `gate.Gate`, attention (B, Q, S); columns, first (B, S) as
    of `state.Copies` -> logits (B, Q, V + E) float32, log-probabilities but for a constant in each
    row, with E = S if `extended`, else 0, and -inf for columns of no word.
    """
    real = columns >= 0
    _, log_copied, log_generated = shares(gate, attention, real)
    vocabulary, positions = logits.shape[2], attention.shape[2]
    width = vocabulary + (positions if extended else 0)
    whole = torch.empty(*logits.shape[:2], width, device=logits.device)
    whole[:, :, :vocabulary] = logits
    whole[:, :, vocabulary:] = -torch.inf
    norm = whole[:, :, :vocabulary].logsumexp(dim=2)
    # Attention to all positions of a word, at its first.
    where = first.unsqueeze(1).expand(attention.shape)
    attended = attention * real.unsqueeze(1)
    mass = torch.zeros_like(attended).scatter_add_(2, where, attended)
    column = columns.clamp(min=0).unsqueeze(1).expand(attention.shape)
    against = (norm + log_copied - log_generated).unsqueeze(2)
    both = torch.logaddexp(whole.gather(2, column), mass.clamp_min(TINY).log() + against)
    # Other positions than the first add nothing, so their sum is the smaller one.
    return whole.scatter_reduce_(2, column, both, "amax")


def shares(gate: Tensor, attention: Tensor, real: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """What is copied from each position, c (B, Q, S); log(1 - p_gen) and log g, both (B, Q).

    gate (B, Q): logit of p_gen; attention (B, Q, S); real (B, S): what can be copied. All float32.
    """
    gate, attention = gate.float(), attention.float()
    log_copied = nn.functional.logsigmoid(-gate)
    rest = (attention * ~real.unsqueeze(1)).sum(dim=2).clamp_min(TINY)
    log_generated = torch.logaddexp(nn.functional.logsigmoid(gate), log_copied + rest.log())
    copied = attention * real.unsqueeze(1) * log_copied.exp().unsqueeze(2)
    return copied, log_copied, log_generated


def without(logits: Tensor, forbidden: Tensor) -> Tensor:
    """Logits (B, K, V) in which the columns `forbidden` (B, K, N) are -inf.

    Their probability becomes that of PAD, which is never a continuation, so that a row's sum, and
    with it every other probability, stays as it was.
    """
    columns = torch.nn.functional.pad(forbidden, (1, 0), value=PAD).sort(dim=2).values
    taken = logits.gather(2, columns).float()
    again = columns[:, :, 1:] == columns[:, :, :-1]
    taken[:, :, 1:].masked_fill_(again, -torch.inf)
    logits = logits.scatter(2, columns, -torch.inf)
    logits[:, :, PAD] = taken.logsumexp(dim=2)
    return logits
