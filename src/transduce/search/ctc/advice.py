"""What is said of CTC's prefixes beside CTC: a language model's opinion, and a bonus for length.

The score of a prefix g is `log p_ctc(g) + w log p_lm(g) + b |g|` (Hannun, Maas, Jurafsky, Ng 2014,
1408.2873, where the bonus counts words; here it counts tokens). Frame after frame most
prefixes stay as they are. So the language model's states lie in a table, to which each prefix
points, and only prefixes that are new take a step, all sentences' together.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from transduce.data.tokenizers.base import BOS, EOS
from transduce.recipe import SearchOptions
from transduce.search.ctc.prefix import BLANK
from transduce.search.forced import force_score
from transduce.search.language import Language


@dataclass(frozen=True)
class Adviser:
    """The language model, if there is one, with its weight, and the bonus for each token."""

    language: Language | None
    weight: float
    bonus: float

    @classmethod
    def asked_for(cls, model: object, options: SearchOptions) -> Adviser | None:
        """Who has a say beside a model's CTC head; None if nobody has."""
        language = getattr(model, "language", None) if options.language_weight else None
        if language is None and not options.length_bonus:
            return None
        return cls(language, options.language_weight, options.length_bonus)

    def scores(self, targets: Sequence[Sequence[int]], device: torch.device) -> list[list[float]]:
        """What is said of each token of whole targets and, last, of their ends."""
        said = [[self.bonus] * len(ids) + [0.0] for ids in targets]
        if self.language is None:
            return said
        sources = [self.language.prompt[:-1]] * len(targets)  # scoring adds EOS itself
        opinions = force_score(self.language.model, sources, targets, device=device)
        return [
            [
                own + self.weight * theirs
                for own, theirs in zip(one, opinion.token_scores, strict=True)
            ]
            for one, opinion in zip(said, opinions, strict=True)
        ]


@dataclass(frozen=True)
class Opinions:
    """The language model after N prefixes: what it says of the next token, and its state.

    log_probs: (N, V) float64. memory: that of one target. width: its positions.
    """

    language: Language
    memory: Any  # a SearchMemory
    state: Any  # a SearchState, of N sentences with one hypothesis each
    log_probs: Tensor

    @classmethod
    def start(cls, language: Language, device: torch.device) -> Opinions:
        """After the empty prefix, N = 1."""
        memory = language.encode(1, device)
        begin = torch.full((1, 1), BOS, device=device)
        step = language.model.step(begin, language.model.start(memory), memory)
        return cls(language, memory, step.state, step.log_probs[:, 0].double())

    def after(self, kept: Tensor, prefixes: Tensor, tokens: Tensor) -> Opinions:
        """The prefixes `kept` (N',) and then `prefixes` (M,) with one token (M,) more each."""
        rows = torch.zeros_like(prefixes)
        given = self.state.keep(prefixes)
        step = self.language.model.step(tokens.unsqueeze(1), given, self.memory.keep(rows))
        return replace(
            self,
            state=self.state.keep(kept).join(step.state, len(self.language.prompt)),
            log_probs=torch.cat([self.log_probs[kept], step.log_probs[:, 0].double()]),
        )


@dataclass(frozen=True)
class Advice:
    """What is said of K prefixes of each of B sentences.

    said: (B, K) float64. rows: (B, K) int64, where in `opinions` each prefix is.
    """

    adviser: Adviser
    said: Tensor
    rows: Tensor
    opinions: Opinions | None

    @classmethod
    def start(cls, adviser: Adviser, batch: int, device: torch.device) -> Advice:
        """Of the empty prefix, K = 1."""
        said = torch.zeros((batch, 1), dtype=torch.float64, device=device)
        language = adviser.language
        opinions = None if language is None else Opinions.start(language, device)
        return cls(adviser, said, torch.zeros_like(said, dtype=torch.int64), opinions)

    def of_longer(self, labels: Tensor) -> Tensor:
        """Of each prefix with one of the labels (B, C) more: (B, K, C)."""
        longer = self.said.unsqueeze(2) + self.adviser.bonus
        if self.opinions is None:
            return longer.expand(-1, -1, labels.shape[1])
        opinion = self.opinions.log_probs[self.rows.unsqueeze(2), labels.unsqueeze(1)]
        return longer + self.adviser.weight * opinion

    def at_end(self) -> Tensor:
        """Of each prefix as the whole target: (B, K)."""
        if self.opinions is None:
            return self.said
        return self.said + self.adviser.weight * self.opinions.log_probs[self.rows, EOS]

    def follow(self, said: Tensor, parents: Tensor, tokens: Tensor, real: Tensor) -> Advice:
        """Of new prefixes: `parents` (B, K') of these with `tokens` (B, K') more, 0 for nothing.

        said: (B, K'), as known already. real: (B, K') boolean, the others are none.
        """
        rows = self.rows.gather(1, parents)
        if self.opinions is None:
            return replace(self, said=said, rows=rows)
        grown = (tokens != BLANK) & real
        if not bool(grown.any()):
            return replace(self, said=said, rows=rows)
        kept, place = rows[~grown].unique(return_inverse=True)
        opinions = self.opinions.after(kept, rows[grown], tokens[grown])
        fresh = torch.arange(len(kept), len(opinions.log_probs), device=rows.device)
        rows = rows.masked_scatter(~grown, place).masked_scatter(grown, fresh)
        return Advice(self.adviser, said, rows, opinions)
