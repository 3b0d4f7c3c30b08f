"""When a sentence begins, may end and must, and when done sentences leave the others."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
import torch
from torch import Tensor

from transduce.hypotheses.scoring import length_norms, max_tokens, min_tokens
from transduce.recipe import SearchOptions

CHECK_EVERY = 8  # steps between looks at an accelerator's results, each of which waits for it


@dataclass(frozen=True)
class Limits:
    """The spans of B sentences, in steps of the whole search, which they may begin at any time.

    spans: (3, B) int64, on the CPU: the step of each one's first token, the first step at which it
    may choose EOS, and the last. sources: (B,) real memory positions, a text's EOS counted, on the
    CPU. steps: the spans on the search's device. widest: (B,) the length norm of each one's longest
    target. norms: the length norm of a target with 0, 1, 2, … tokens and its EOS, as far as needed.
    bonus: what is added to the score for each token.
    """

    spans: np.ndarray
    sources: np.ndarray
    steps: Tensor
    widest: Tensor
    norms: list[float]
    bonus: float = 0.0

    @classmethod
    def of(cls, lengths: Tensor, options: SearchOptions, t: int, device: torch.device) -> Limits:
        """Sentences that begin at step t; lengths: (B,) real memory positions, on the CPU."""
        sources: list[int] = lengths.tolist()
        least = [t + min_tokens(length - 1, options) for length in sources]
        most = [t + max_tokens(length - 1, options) for length in sources]
        spans = np.array([[t] * len(sources), least, most])
        norms = length_norms(max(most) - t, options)
        return cls(
            spans=spans,
            sources=np.array(sources),
            steps=torch.from_numpy(spans).to(device),
            # The longest target allowed is the most favourable to a live hypothesis.
            widest=torch.tensor([norms[last - t] for last in most], device=device),
            norms=norms,
            bonus=options.length_bonus,
        )

    def keep(self, kept: np.ndarray, rows: Tensor) -> Limits:
        """Only the sentences `kept` (B',), which are `rows` on the device."""
        return replace(
            self,
            spans=self.spans[:, kept],
            sources=self.sources[kept],
            steps=self.steps[:, rows],
            widest=self.widest[rows],
        )

    def join(self, other: Limits) -> Limits:
        """The sentences of another after one's own."""
        return Limits(
            np.concatenate([self.spans, other.spans], axis=1),
            np.concatenate([self.sources, other.sources]),
            torch.cat([self.steps, other.steps], dim=1),
            torch.cat([self.widest, other.widest]),
            max(self.norms, other.norms, key=len),
            self.bonus,
        )

    def score(self, log_probs: Tensor, t: int) -> Tensor:
        """The scores of targets that end at step t; log_probs (B, K) -> (B, K)."""
        scores = log_probs / self.norm(t)
        if not self.bonus:
            return scores
        return scores + self.bonus * (t - self.steps[0]).unsqueeze(1)

    def hope(self, log_probs: Tensor) -> Tensor:
        """What live hypotheses may score in the end at most; log_probs (B,) -> (B,)."""
        hope = log_probs / self.widest
        return hope + self.bonus * (self.steps[2] - self.steps[0]) if self.bonus > 0 else hope

    def norm(self, t: int) -> float | Tensor:
        """What the score of a target that ends at step t is divided by; (B, 1) if ages differ."""
        first, last = self._ages
        if first == last:
            return self.norms[t - first]
        # Who is done and waits for company to leave may be older than any target.
        ages = (t - self.steps[0]).clamp_(max=len(self.norms) - 1)
        return self._norms[ages].unsqueeze(1)

    @cached_property
    def latest(self) -> int:
        """The step at which all sentences are done."""
        return int(self.spans[2].max())

    @cached_property
    def bound(self) -> int:
        """The step from which on every sentence may choose EOS."""
        return int(self.spans[1].max())

    @cached_property
    def closing(self) -> frozenset[int]:
        """The only steps at which a sentence is cut off."""
        return frozenset(self.spans[2].tolist())

    @cached_property
    def _ages(self) -> tuple[int, int]:
        return int(self.spans[0].min()), int(self.spans[0].max())

    @cached_property
    def _norms(self) -> Tensor:
        return torch.tensor(self.norms, device=self.steps.device)


def memory_lengths(model: object, lengths: Tensor) -> Tensor:
    """Real memory positions (B,) of sources of these lengths; they differ where a model subsamples.

    A model that does not say has one for each source position.
    """
    counted = getattr(model, "memory_lengths", None)
    return lengths if counted is None else counted(lengths)


def remaining(done: Tensor, t: int) -> np.ndarray | None:
    """The rows that go on after step t, or None to go on with all of them.

    done: (B,) boolean -> (B',) int64, empty when all are done. What is returned changes how much
    work is done, never a result: a sentence that is done takes no further part in anything.
    """
    if done.device.type != "cpu" and t % CHECK_EVERY != CHECK_EVERY - 1:
        return None
    ended: list[bool] = done.tolist()
    count = sum(ended)
    # Dropping a sentence copies the memory of the others, so a few of them wait for company.
    if count == 0 or (count < len(ended) and count * CHECK_EVERY < len(ended)):
        return None
    return np.flatnonzero(~np.array(ended))
