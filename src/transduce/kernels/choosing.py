"""Kernels of choosing words: looks at the logits of a step, and what search wants of them."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from transduce.kernels import KINDS, compiled

MOST_BEST = 64  # most words of a row that `survey` finds


def survey(
    logits: Tensor, first: int, count: int, allowed: Tensor | None = None
) -> tuple[Tensor, Tensor, Tensor]:
    """What a search wants to know of logits (N, V), for 1 <= count <= MOST_BEST, V - first words.

    allowed (B, V) boolean: which words there are for each N / B rows in turn; None for all.

    Returns the logarithm of each row's sum of exponentials (N,) float32, and the `count` largest
    logits of the words from `first` on, best first: their values (N, count) float32 and which words
    they are (N, count) int64.
    """
    logits = logits.contiguous()
    rows, vocabulary = logits.shape
    norm = torch.empty(rows)
    values = torch.empty(rows, count)
    words = torch.empty(rows, count, dtype=torch.int64)
    allowed = None if allowed is None else allowed.contiguous()
    compiled.survey(
        logits.data_ptr(), KINDS[logits.dtype], 0 if allowed is None else allowed.data_ptr(),
        1 if allowed is None else rows // len(allowed), rows, vocabulary, first, count,
        norm.data_ptr(), values.data_ptr(), words.data_ptr(),
    )  # fmt: skip
    return norm, values, words


class Copying(NamedTuple):
    """What is copied beside what is generated: gate (B, K) float32, the logit of generating;
    attention (B, K, S) float32; columns, first (B, S) int64, as of `model.state.Copies`; extended:
    whether columns V to V + S are words of the source."""

    gate: Tensor
    attention: Tensor
    columns: Tensor
    first: Tensor
    extended: bool


def survey_ruled(
    logits: Tensor, first: int, count: int, forbidden: Tensor | None, copying: Copying | None
) -> tuple[Tensor, Tensor, Tensor]:
    """Like `survey`, of words that are generated or copied and some of which must not follow.

    logits (B, K, V): what is generated. forbidden (B, K, N) int64: columns that are not to be
    found; those before `first` do not count. Returns norm (B, K), so that logits - norm are
    log-probabilities of the words that cannot be copied; values and words (B, K, count), where the
    former less norm are log-probabilities of the latter.
    """
    batch, beam, vocabulary = logits.shape
    # Kept until the kernel is done with them.
    parts = [logits.contiguous()]
    addresses = [0] * 5
    each = sources = extended = 0
    if forbidden is not None and forbidden.numel():
        each = forbidden.shape[2]
        parts.append(forbidden.contiguous())
        addresses[0] = parts[-1].data_ptr()
    if copying is not None:
        sources, extended = copying.attention.shape[2], int(copying.extended)
        given = [copying.gate.float(), copying.attention.float(), copying.columns, copying.first]
        given = [one.contiguous() for one in given]
        parts += given
        addresses[1:] = [one.data_ptr() for one in given]
    norm, values = torch.empty(batch, beam), torch.empty(batch, beam, count)
    words = torch.empty(batch, beam, count, dtype=torch.int64)
    # In the order of the fields of Ruled in kernels.h.
    ruled = np.array(
        [
            parts[0].data_ptr(), KINDS[logits.dtype], batch * beam, vocabulary, first, count,
            addresses[0], each, sources, beam, extended, *addresses[1:],
            norm.data_ptr(), values.data_ptr(), words.data_ptr(),
        ],
        np.int64,
    )  # fmt: skip
    compiled.survey_ruled(ruled.ctypes.data)
    return norm, values, words


def copied_share(
    attention: Tensor, gate: Tensor, columns: Tensor, parents: Tensor, words: Tensor, gains: Tensor
) -> Tensor:
    """The share (B, C), 0 to 1, that was copied of the probability of words.

    attention (B, K, S), gate (B, K) and columns (B, S) as of `Copying`; parents, words (B, C)
    int64, gains (B, C): whose words, which, and their log-probabilities.
    """
    attention, gate, gains = (one.float().contiguous() for one in (attention, gate, gains))
    columns, parents, words = (one.contiguous() for one in (columns, parents, words))
    share = torch.empty(words.shape)
    compiled.copied_share(
        attention.data_ptr(), gate.data_ptr(), columns.data_ptr(), parents.data_ptr(),
        words.data_ptr(), gains.data_ptr(), share.data_ptr(), *attention.shape[:2],
        words.shape[1], attention.shape[2],
    )  # fmt: skip
    return share


def choose(
    scores: Tensor, norm: Tensor, best: Tensor, words: Tensor, count: int
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """The `count` best continuations of K <= MOST_BEST hypotheses of each of B sentences.

    scores, norm (B, K): score so far, and what `survey` found; best, words (B, K x C): likewise,
    K x C at least `count`. Returns the new scores, the words' log-probabilities, the hypotheses
    that they continue, and the words: all (B, count), best first, of equals the first.
    """
    scores, norm = scores.float().contiguous(), norm.contiguous()
    best, words = best.contiguous(), words.contiguous()
    sentences, beam = norm.shape
    values, gains = torch.empty(sentences, count), torch.empty(sentences, count)
    parents = torch.empty(sentences, count, dtype=torch.int64)
    chosen = torch.empty(sentences, count, dtype=torch.int64)
    compiled.choose(
        scores.data_ptr(), norm.data_ptr(), best.data_ptr(), words.data_ptr(), sentences, beam,
        best.shape[1] // beam, count, values.data_ptr(), gains.data_ptr(), parents.data_ptr(),
        chosen.data_ptr(),
    )  # fmt: skip
    return values, gains, parents, chosen
