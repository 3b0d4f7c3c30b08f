"""The probability that CTC gives to targets that begin in a certain way.

A CTC model puts a label or a blank on every frame; equal neighbours and then blanks are removed
(Graves et al. 2006, section 3.1). How probable a beginning of the target (a prefix) is, whatever
follows, is a sum over all labellings of the frames, and it can be extended label by label: Graves
2008 (Supervised sequence labelling, section 7.5.1); Watanabe et al. 2017 (Hybrid CTC/attention
architecture for end-to-end speech recognition, algorithm 2); Hori et al. 2017 (1706.02737).

With `gamma_n(t)` and `gamma_b(t)`, the probabilities that the first t frames read exactly prefix g
and end in its last label or in a blank, and `phi(t)` what of them may be continued by label c,

    probability of the prefix g c     = sum over t of phi(t - 1) y_t(c)
    gamma_n'(t) = y_t(c) (gamma_n'(t - 1) + phi(t - 1))
    gamma_b'(t) = y_t(blank) (gamma_b'(t - 1) + gamma_n'(t - 1)).

The first line is a matrix product, so that all V labels are scored for all hypotheses at once: it
costs S / D of the output layer's product. The other two, needed for chosen labels only, are linear
recurrences. Divided by the running product of the y they are plain sums, so that `logcumsumexp`
runs over all frames at once; in double precision, because the products get very small.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from transduce.data.tokenizers.base import BOS, EOS

BLANK = 0  # the id of the blank, which is PAD where tokens are meant
LEAST = -1000.0  # log-probabilities below this are taken for it: sums with -inf are not numbers
TINY = 1e-37  # the least sum of probabilities, relative to a row's largest, that is told from none


@dataclass(frozen=True)
class Frames:
    """CTC's log-probabilities for B sentences, ready for being searched.

    log_probs, probs: (B, V, S), by label so that one label's course is one row; at padding the
    blank is certain, which lets every path end there unchanged. blank: (B, S) float64, running sum
    of the blank's log-probabilities. padding: (B, 1, S) boolean. lengths: (B,) int64, real frames.
    """

    log_probs: Tensor
    probs: Tensor
    blank: Tensor
    padding: Tensor
    lengths: Tensor

    @classmethod
    def of(cls, log_probs: Tensor, lengths: Tensor) -> Frames:
        """log_probs (B, S, V) normalised, blank 0; lengths (B,) real frames of each."""
        exact = log_probs if log_probs.dtype == torch.float64 else log_probs.float()
        lengths = lengths.to(exact.device)
        padding = torch.arange(exact.shape[1], device=exact.device) >= lengths.unsqueeze(1)
        exact = exact.clamp(min=LEAST).masked_fill(padding.unsqueeze(2), LEAST)
        exact = exact.transpose(1, 2).contiguous()
        exact[:, BLANK].masked_fill_(padding, 0.0)
        blank = exact[:, BLANK].double().cumsum(dim=1)
        return cls(exact, exact.exp(), blank, padding.unsqueeze(1), lengths)

    def keep(self, rows: Tensor) -> Frames:
        """Only the sentences `rows` (B',) int64."""
        return Frames(
            self.log_probs[rows],
            self.probs[rows],
            self.blank[rows],
            self.padding[rows],
            self.lengths[rows],
        )

    def join(self, other: Frames, width: int) -> Frames:
        """The sentences of another after one's own, S cut or padded to `width` (no less than any
        sentence's length)."""
        log_probs = torch.cat([fitted(x.log_probs, width, LEAST) for x in (self, other)])
        lengths = torch.cat([self.lengths, other.lengths])
        return Frames.of(log_probs.transpose(1, 2), lengths)

    def courses(self, rows: Tensor, labels: Tensor) -> Tensor:
        """How probable labels are over time: rows, labels broadcast to (...) -> (..., S) float64.

        rows: which sentence each label is asked of.
        """
        return self.log_probs[rows, labels].double()


@dataclass(frozen=True)
class PrefixState:
    """What K prefixes of each of B sentences leave for their continuations, in float64.

    labels, blanks: (B, K, S + 1), logarithms of gamma_n and gamma_b after 0 to S frames.
    log_prob: (B, K), that of the prefix. last: (B, K) int64, its last token; BOS if it is empty.
    """

    labels: Tensor
    blanks: Tensor
    log_prob: Tensor
    last: Tensor

    @classmethod
    def start(cls, frames: Frames) -> PrefixState:
        """The empty prefix, K = 1."""
        blanks = torch.nn.functional.pad(frames.blank, (1, 0)).unsqueeze(1)
        certain = blanks[:, :, 0]
        last = torch.full(certain.shape, BOS, dtype=torch.int64, device=certain.device)
        return cls(torch.full_like(blanks, -math.inf), blanks, certain, last)

    def select(self, hypotheses: Tensor) -> PrefixState:
        index = hypotheses.unsqueeze(2).expand(-1, -1, self.labels.shape[2])
        return PrefixState(
            self.labels.gather(1, index),
            self.blanks.gather(1, index),
            self.log_prob.gather(1, hypotheses),
            self.last.gather(1, hypotheses),
        )

    def keep(self, rows: Tensor) -> PrefixState:
        return PrefixState(
            self.labels[rows], self.blanks[rows], self.log_prob[rows], self.last[rows]
        )

    def join(self, other: PrefixState, width: int) -> PrefixState:
        """The sentences of another, of equal K, after one's own; `width` as for `Frames`."""
        pairs = [state._fitted(width) for state in (self, other)]
        return PrefixState(*(torch.cat(parts) for parts in zip(*pairs, strict=True)))

    def _fitted(self, width: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        labels = fitted(self.labels, width + 1, -math.inf)
        blanks = fitted(self.blanks, width + 1, -math.inf)
        # Padding is a certain blank: all paths go on there and stay as probable as they were.
        blanks[:, :, self.blanks.shape[2] :] = self.whole.unsqueeze(2)
        return labels, blanks, self.log_prob, self.last

    @property
    def whole(self) -> Tensor:
        """(B, K): the log-probability that the target is this prefix and nothing more."""
        return torch.logaddexp(self.labels[..., -1], self.blanks[..., -1])

    def advance(self, frames: Frames, tokens: Tensor) -> PrefixState:
        """Every prefix with one more token (B, K) int64; BOS leaves a prefix as it is."""
        rows = torch.arange(len(tokens), device=tokens.device).unsqueeze(1)
        course = frames.courses(rows, tokens)
        before = before_label(self.labels, self.blanks, tokens == self.last, frames.padding)
        labels, blanks = extend(course, frames.blank.unsqueeze(1), before)
        log_prob = (before + course).logsumexp(dim=2)
        same = tokens == BOS
        return PrefixState(
            torch.where(same.unsqueeze(2), self.labels, labels),
            torch.where(same.unsqueeze(2), self.blanks, blanks),
            torch.where(same, self.log_prob, log_prob),
            torch.where(same, self.last, tokens),
        )

    def scores(self, frames: Frames) -> Tensor:
        """Log-probability of each next token given the prefix, (B, K, V) float32 (or float64).

        A token's is that of the longer prefix, EOS's that of the target being complete, both
        relative to the prefix; -inf for BOS, the blank, and where nothing can follow. Without BOS
        and EOS among the labels their probabilities sum to 1.
        """
        dtype = frames.probs.dtype
        before = torch.logaddexp(self.labels, self.blanks)[..., :-1]
        before = before.masked_fill(frames.padding, -math.inf)
        largest = before.amax(dim=2)
        weights = (before - largest.unsqueeze(2)).exp().nan_to_num(0.0).to(dtype)
        mass = torch.bmm(weights, frames.probs.transpose(1, 2)).clamp_min_(TINY)
        scores = mass.log_().add_(self._given(largest).to(dtype).unsqueeze(2))
        # A label that repeats the last one needs a blank between them.
        rows = torch.arange(len(self.last), device=self.last.device).unsqueeze(1)
        again = self.blanks[..., :-1] + frames.courses(rows, self.last)
        again = again.masked_fill(frames.padding, -math.inf).logsumexp(dim=2)
        scores.scatter_(2, self.last.unsqueeze(2), self._given(again).to(dtype).unsqueeze(2))
        scores[:, :, [BLANK, BOS]] = -math.inf
        scores[:, :, EOS] = self._given(self.whole).to(dtype)
        return scores

    def _given(self, log_prob: Tensor) -> Tensor:
        """log_prob (B, K) relative to the prefix's; -inf for prefixes that are impossible."""
        possible = self.log_prob > -math.inf
        return torch.where(possible, log_prob - self.log_prob, -math.inf)


def fitted(x: Tensor, width: int, fill: float) -> Tensor:
    """(..., S) cut or padded to (..., width), as a copy."""
    missing = max(0, width - x.shape[-1])
    return torch.nn.functional.pad(x[..., :width], (0, missing), value=fill).clone()


def before_label(labels: Tensor, blanks: Tensor, repeats: Tensor, padding: Tensor) -> Tensor:
    """log phi (..., S): what may be continued by a label on the next frame, after 0 to S - 1.

    labels, blanks: (..., S + 1); repeats: (...) boolean, whether the label equals the one before;
    padding: boolean, broadcast to (..., S), frames that no label can be on.
    """
    free = torch.logaddexp(labels, blanks)
    before = torch.where(repeats.unsqueeze(-1), blanks, free)[..., :-1]
    return before.masked_fill(padding, -math.inf)


def extend(course: Tensor, blank: Tensor, before: Tensor) -> tuple[Tensor, Tensor]:
    """log gamma_n and gamma_b (..., S + 1) of a prefix with one more label.

    course: (..., S), the label's log-probabilities; blank: (..., S), running sum of the blank's;
    before: (..., S), as `before_label` gives it.
    """
    labels = _recur(course.cumsum(dim=-1), before)
    return labels, _recur(blank, labels[..., :-1])


def _recur(run: Tensor, enter: Tensor) -> Tensor:
    """x(t) = y_t (x(t - 1) + enter(t)), x(0) = 0, in logarithms; run: running sums of log y."""
    earlier = torch.nn.functional.pad(run[..., :-1], (1, 0))
    found = run + (enter - earlier).logcumsumexp(dim=-1)
    return torch.nn.functional.pad(found, (1, 0), value=-math.inf)
