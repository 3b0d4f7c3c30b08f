"""The best continuations of K hypotheses among K x V, without a pass that is not needed.

The output layer's product is as large as all others together, so what follows it must not cost
as much again. Logits stay as the model gave them: one pass, a piece at a time that fits into the
processor's cache, yields each row's normaliser (a sum of exponentials) and the maximum of every
block of words. The selection then goes in two stages: within the best blocks only, outside which
no candidate can be among the best.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from transduce import kernels
from transduce.data.tokenizers.base import EOS, UNK
from transduce.kernels import choosing
from transduce.search.interface import SearchStep

BLOCK = 64  # words looked at together; about the square root of a vocabulary
MANY = 1024  # vocabularies from this size on are searched in two stages
PIECE = 1 << 18  # logits looked at together on a CPU: 1 MiB as float32
LEAST = -80.0  # the exponential of anything less is nothing, and slow to compute
WORDS = UNK  # words begin here, so that PAD, BOS and EOS are never continuations


@dataclass(frozen=True)
class Survey:
    """What one step's logits (B, K, V) show at a glance.

    log_norm: (B, K) float32, so that logits - log_norm are log-probabilities. maxima: (B, K,
    blocks) float32, the largest logit of every whole block of words from WORDS on, or None for
    small vocabularies. best: (B, K x C) float32 and int64, where a kernel looked for them, the C
    largest logits of each hypothesis and the words they belong to.
    """

    logits: Tensor
    log_norm: Tensor
    maxima: Tensor | None
    best: tuple[Tensor, Tensor] | None = None

    @classmethod
    def of(
        cls, logits: Tensor, holes: bool = False, count: int = 0, allowed: Tensor | None = None
    ) -> Survey:
        """logits (B, K, V) of any floating dtype, not normalised; with `holes`, some are -inf.

        `count` is how many continuations will be asked for, where that is known. Words that are not
        `allowed` (B, V) are left out; of these, columns up to EOS are.
        """
        if _for_kernels(logits, count):
            batch, beam, _ = logits.shape
            norm, values, words = choosing.survey(logits.flatten(0, 1), WORDS, count, allowed)
            best = values.view(batch, -1), words.view(batch, -1)
            return cls(logits, norm.view(batch, beam), None, best)
        if logits.shape[2] < MANY:
            logits = logits.float()
            return cls(logits, logits.logsumexp(dim=2), None)
        rows = logits.flatten(0, 1)
        size = max(1, PIECE // rows.shape[1]) if logits.device.type == "cpu" else len(rows)
        parts = [_look(rows[start : start + size], holes) for start in range(0, len(rows), size)]
        norm, maxima = parts[0] if len(parts) == 1 else map(torch.cat, zip(*parts, strict=True))
        batch, beam, _ = logits.shape
        return cls(logits, norm.view(batch, beam), maxima.view(batch, beam, -1))

    @classmethod
    def of_step(cls, step: SearchStep, count: int) -> Survey:
        """The same of a step's logits, which are not made where a kernel does without them."""
        draft = getattr(step, "draft", None)
        ruled = draft is not None and not (draft.pointer is None and draft.forbidden is None)
        # An ensemble's copied words leave holes, too.
        holes = ruled or step.words is not None or getattr(step, "copied", None) is not None
        if draft is None or not _for_kernels(draft.own, count):
            return cls.of(step.logits, holes, count)
        if not ruled:
            return cls.of(draft.own, holes, count, draft.allowed)
        draft = draft.of_all()
        own, pointer = draft.own, draft.pointer
        copying = None
        if pointer is not None:
            copies = pointer.copies
            copying = choosing.Copying(
                pointer.gate, pointer.attention, copies.columns, copies.first, copies.extended
            )
        norm, values, words = choosing.survey_ruled(own, WORDS, count, draft.forbidden, copying)
        # The end symbol is neither copied nor forbidden: its logit is the output layer's.
        return cls(own, norm, None, (values.flatten(1), words.flatten(1)))

    @property
    def end(self) -> Tensor:
        """The log-probability (B, K) of EOS."""
        return self.logits[:, :, EOS] - self.log_norm


@dataclass(frozen=True)
class Continuations:
    """The best continuations of each sentence's hypotheses by one word, best first.

    values (B, C): the new scores. gains: the words' log-probabilities. parents: which hypothesis
    each continues. tokens: the words, int64. There are fewer than asked for if there are no more.
    """

    values: Tensor
    gains: Tensor
    parents: Tensor
    tokens: Tensor


def best_continuations(survey: Survey, scores: Tensor, count: int) -> Continuations:
    """The `count` best of scores (B, K) + log-probabilities for each sentence."""
    if survey.best is not None:
        best, words_of = survey.best
        count = min(count, best.shape[1])
        values, gains, parents, tokens = choosing.choose(
            scores, survey.log_norm, best, words_of, count
        )
        return Continuations(values, gains, parents, tokens)
    before = scores - survey.log_norm
    logits, maxima = survey.logits, survey.maxima
    _, beam, vocabulary = logits.shape
    if maxima is None:
        words = vocabulary - WORDS
        total = (logits[:, :, WORDS:] + before.unsqueeze(2)).flatten(1)
        values, index = total.topk(min(count, beam * words))
        parents = torch.div(index, words, rounding_mode="floor")
        tokens = index - parents * words + WORDS
    else:
        index = _in_best_blocks(maxima + before.unsqueeze(2), count, vocabulary)
        parents = torch.div(index, vocabulary, rounding_mode="floor")
        total = logits.flatten(1).gather(1, index) + before.gather(1, parents)
        values, picked = total.topk(min(count, total.shape[1]))
        index, parents = index.gather(1, picked), parents.gather(1, picked)
        tokens = index - parents * vocabulary
    index = parents * vocabulary + tokens
    gains = logits.flatten(1).gather(1, index) - survey.log_norm.gather(1, parents)
    return Continuations(values, gains, parents, tokens)


def _for_kernels(logits: Tensor, count: int) -> bool:
    """Whether a kernel looks for the `count` best of logits (B, K, V)."""
    fits = 0 < count <= min(choosing.MOST_BEST, logits.shape[2] - WORDS)
    return fits and kernels.takes(logits)


def copied_share(step: SearchStep, best: Continuations) -> Tensor | None:
    """How much (B, C), 0 to 1, of each continuation's probability came from copying; None where
    nothing is copied."""
    copied = getattr(step, "copied", None)
    if copied is None:
        return None
    share: Tensor = copied.share(best.parents, best.tokens, best.gains)
    return share


def _in_best_blocks(maxima: Tensor, count: int, vocabulary: int) -> Tensor:
    """All words of the `count` best blocks, and those after the last whole block: (B, C) in K * V.

    maxima: (B, K, blocks), the best score that any word of a block gives.
    """
    batch, beam, blocks = maxima.shape
    best = maxima.flatten(1).topk(min(count, beam * blocks)).indices
    parent = torch.div(best, blocks, rounding_mode="floor")
    first = parent * (vocabulary - blocks * BLOCK) + best * BLOCK + WORDS
    index = (first.unsqueeze(2) + torch.arange(BLOCK, device=first.device)).flatten(1)
    rest = vocabulary - WORDS - blocks * BLOCK
    if not rest:
        return index
    ends = torch.arange(1, beam + 1, device=first.device).unsqueeze(1) * vocabulary
    tail = (ends - torch.arange(rest, 0, -1, device=first.device)).flatten()
    return torch.cat([index, tail.expand(batch, -1)], dim=1)


def _look(rows: Tensor, holes: bool) -> tuple[Tensor, Tensor]:
    """log_norm (N,) and block maxima (N, blocks) of logits (N, V)."""
    original, rows = rows, rows.to(torch.float32, copy=rows.device.type == "cpu")
    blocks = (rows.shape[1] - WORDS) // BLOCK
    words = rows[:, WORDS : WORDS + blocks * BLOCK]
    maxima = words.unflatten(1, (blocks, BLOCK)).amax(dim=2)
    if rows.device.type != "cpu":
        return rows.logsumexp(dim=1), maxima
    # Without the usual subtraction of the maximum, which would be two more passes: a float32 is as
    # precise at any size, and what leaves its range is seen and done again.
    if holes:  # exp is slow where it underflows
        rows.clamp_(min=LEAST)
    norm = rows.exp_().sum(dim=1).log()
    if not LEAST / 2 < float(norm.min()) <= float(norm.max()) < -LEAST:
        norm = original.float().logsumexp(dim=1)
    return norm, maxima
