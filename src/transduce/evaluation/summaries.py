"""Summaries judged: scores of baselines that need no model, and facts beside the references'."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from transduce.evaluation.metrics import SEED, Score, compute
from transduce.evaluation.summary_facts import SummaryFacts, summary_facts
from transduce.evaluation.words import sentences, word_spans

LONG = 1.5  # sentences of a reference, on average, from which three sentences are a baseline


@dataclass(frozen=True, slots=True)
class Baseline:
    """N texts that some rule takes from the sources, and their scores once they are computed."""

    name: str
    rule: str
    texts: list[str]
    scores: Sequence[Score] = ()


@dataclass(frozen=True, slots=True)
class Summaries:
    """What `evaluate` says of summaries besides the model's scores."""

    baselines: Sequence[Baseline]
    facts: Sequence[SummaryFacts]  # of the outputs, then of the references

    def as_dict(self) -> dict[str, Any]:
        """As plain JSON values, without the texts."""
        return {
            "baselines": [
                {"name": b.name, "rule": b.rule, "scores": [asdict(score) for score in b.scores]}
                for b in self.baselines
            ],
            "facts": [asdict(facts) for facts in self.facts],
        }


def judge(
    sources: Sequence[str],
    outputs: Sequence[str],
    references: Sequence[Sequence[str]],
    *,
    metrics: Sequence[str],
    copied: Sequence[Sequence[float] | None] = (),
    source_language: str | None = None,
    target_language: str | None = None,
    bootstrap: int = 1000,
) -> Summaries:
    """Baselines scored by the same metrics, and facts of outputs and references.

    Each reference counts as one text. Errors: those of `metrics.compute`.
    """
    scored = [
        Baseline(
            one.name,
            one.rule,
            one.texts,
            compute(
                metrics,
                one.texts,
                references,
                source_language=source_language,
                target_language=target_language,
                bootstrap=bootstrap,
            ),
        )
        for one in baselines(sources, references)
    ]
    pairs = [
        (source, text) for source, refs in zip(sources, references, strict=True) for text in refs
    ]
    facts = [
        summary_facts("output", sources, outputs, copied),
        summary_facts("reference", [s for s, _ in pairs], [text for _, text in pairs]),
    ]
    return Summaries(scored, facts)


def baselines(
    sources: Sequence[str], references: Sequence[Sequence[str]], seed: int = SEED
) -> list[Baseline]:
    """Summaries by rule: the lead (first sentence, first words) and words from a random place.

    `lead-1` is the first sentence; `lead-3` the first three, where references have more than one
    sentence on average; `lead-Nw` the first N words and `random-Nw` N words in a row from a random
    place, N being the references' mean length in words, so that neither gains by length.
    """
    every = [text for refs in references for text in refs]
    length = max(1, round(sum(len(word_spans(text)) for text in every) / len(every)))
    found = [_lead(sources, 1)]
    if sum(len(sentences(text)) for text in every) / len(every) > LONG:
        found.append(_lead(sources, 3))
    random = np.random.default_rng(seed)
    spans = [_words_of(source, length, random) for source in sources]
    return [
        *found,
        Baseline(
            f"lead-{length}w",
            f"the first {length} words, as many as references have on average",
            [_words_of(source, length) for source in sources],
        ),
        Baseline(f"random-{length}w", f"{length} words in a row from a random place", spans),
    ]


def _lead(sources: Sequence[str], count: int) -> Baseline:
    rule = "the first sentence" if count == 1 else f"the first {count} sentences"
    texts = ["\n".join(sentences(source)[:count]) for source in sources]
    return Baseline(f"lead-{count}", rule, texts)


def _words_of(text: str, count: int, random: np.random.Generator | None = None) -> str:
    """`count` words in a row as they stand in the text, from its beginning or a random place."""
    spans = word_spans(text)
    if not spans:
        return ""
    most = max(0, len(spans) - count)
    first = int(random.integers(most + 1)) if random is not None else 0
    last = min(first + count, len(spans)) - 1
    return " ".join(text[spans[first][0] : spans[last][1]].split())
