"""Metrics of translation: sacreBLEU's BLEU, chrF and TER, and BLEU on Moses-tokenized text.

sacreBLEU counts what each sentence contributes (matches, lengths, edits); the score of any set of
sentences is a function of the summed counts. That function is written here once more over many
rows of sums together, because a bootstrap asks for it a thousand times.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from importlib.metadata import version
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]


class Scorer(Protocol):
    """A metric that is a function of summed per-sentence counts."""

    def statistics(self, hypotheses: Sequence[str], references: Sequence[Sequence[str]]) -> Array:
        """Counts of each sentence against its references: (N, C)."""
        ...

    def values(self, sums: Array, *, sentence: bool = False) -> Array:
        """Scores (R,) of R rows of summed counts (R, C); `sentence`: each row is one sentence."""
        ...

    def signature(self) -> str:
        """All that a score depends on besides the text; known once `statistics` has run."""
        ...


def base_language(language: str | None) -> str:
    """The two-letter part of a language tag in lower case ("de" of "de-AT"), "" for None."""
    return (language or "").replace("_", "-").split("-")[0].lower()


class SacreScorer:
    """Shared by the three: counts and signature are sacreBLEU's own."""

    def __init__(self, metric: Any) -> None:
        self.metric = metric

    def statistics(self, hypotheses: Sequence[str], references: Sequence[Sequence[str]]) -> Array:
        most = max(len(refs) for refs in references)
        # sacreBLEU wants one stream per reference; None marks that a sentence has fewer.
        streams = [[refs[k] if k < len(refs) else None for refs in references] for k in range(most)]
        counts = self.metric._extract_corpus_statistics(list(hypotheses), streams)
        return np.asarray(counts, dtype=np.float64)

    def signature(self) -> str:
        return str(self.metric.get_signature().format())


class Bleu(SacreScorer):
    """BLEU (Papineni et al. 2002) of detokenized text, with sacreBLEU's exponential smoothing."""

    def __init__(self, target_language: str | None = None) -> None:
        from sacrebleu.metrics import BLEU

        language = base_language(target_language)
        try:
            metric = BLEU(trg_lang=language, force=True)
        except RuntimeError:  # Japanese and Korean need MeCab, an extra of sacreBLEU
            metric = BLEU(tokenize="char", force=True)
        super().__init__(metric)

    def values(self, sums: Array, *, sentence: bool = False) -> Array:
        return bleu_values(sums, effective_order=sentence)


class MosesBleu(SacreScorer):
    """BLEU of lower-cased, punctuation-normalised, Moses-tokenized text.

    The convention of published Multi30k results: lower-casing, then `normalize-punctuation`, then
    `tokenizer`, on output and reference alike, both here in sacremoses' form.
    """

    def __init__(self, target_language: str | None = None) -> None:
        from sacrebleu.metrics import BLEU

        super().__init__(BLEU(tokenize="none", force=True))
        self.language = base_language(target_language) or "en"

    def statistics(self, hypotheses: Sequence[str], references: Sequence[Sequence[str]]) -> Array:
        return super().statistics(
            [moses_tokenize(text, self.language) for text in hypotheses],
            [[moses_tokenize(text, self.language) for text in refs] for refs in references],
        )

    def values(self, sums: Array, *, sentence: bool = False) -> Array:
        return bleu_values(sums, effective_order=sentence)

    def signature(self) -> str:
        theirs = super().signature().replace("case:mixed", "case:lc")
        theirs = theirs.replace("tok:none", f"norm:moses|tok:moses-{self.language}")
        return f"{theirs}|sacremoses:{version('sacremoses')}"


class ChrF(SacreScorer):
    """chrF2 (Popović 2015): F-score of character n-grams up to 6, recall counting double."""

    def __init__(self, target_language: str | None = None) -> None:
        from sacrebleu.metrics import CHRF

        super().__init__(CHRF())

    def values(self, sums: Array, *, sentence: bool = False) -> Array:
        return chrf_values(sums, beta=self.metric.beta)


class Ter(SacreScorer):
    """Translation edit rate (Snover et al. 2006): edits and shifts per reference word, percent."""

    def __init__(self, target_language: str | None = None) -> None:
        from sacrebleu.metrics import TER

        super().__init__(TER())

    def values(self, sums: Array, *, sentence: bool = False) -> Array:
        return rates(sums[:, 0], sums[:, 1])


def bleu_values(sums: Array, *, effective_order: bool = False, orders: int = 4) -> Array:
    """BLEU of rows (length, reference length, matches by order, totals by order) -> (R,).

    `effective_order` leaves out the orders for which a short sentence has no n-gram at all.
    """
    length, reference = sums[:, 0], sums[:, 1]
    correct, total = sums[:, 2 : 2 + orders], sums[:, 2 + orders :]
    counted = np.cumprod(total > 0, axis=1).astype(bool)  # stops at the first order without n-gram
    unmatched = counted & (correct == 0)
    smoothed = np.where(unmatched, 1.0, correct) / np.where(
        unmatched, 2.0 ** np.cumsum(unmatched, axis=1), 1.0
    )
    with np.errstate(divide="ignore", invalid="ignore"):
        logs = np.where(counted, np.log(smoothed) - np.log(total), 0.0)
        penalty = np.where(length < reference, np.exp(1.0 - reference / length), 1.0)
    used = counted.sum(axis=1)
    defined = (correct.sum(axis=1) > 0) & (used >= (1 if effective_order else orders))
    mean = logs.sum(axis=1) / np.maximum(used, 1)
    return np.where(defined, 100.0 * penalty * np.exp(mean), 0.0)


def chrf_values(sums: Array, *, beta: int = 2) -> Array:
    """chrF of rows of (hypothesis, reference, matching) n-gram counts, order by order -> (R,)."""
    hypothesis, reference, matching = sums[:, 0::3], sums[:, 1::3], sums[:, 2::3]
    counted = (hypothesis > 0) & (reference > 0)
    used = np.maximum(counted.sum(axis=1), 1)
    precision = _ratio(np.where(counted, matching, 0.0), hypothesis).sum(axis=1) / used
    recall = _ratio(np.where(counted, matching, 0.0), reference).sum(axis=1) / used
    weight = float(beta**2)
    return 100.0 * _ratio((1.0 + weight) * precision * recall, weight * precision + recall)


def rates(errors: Array, lengths: Array) -> Array:
    """Errors per reference symbol in percent; 100 for errors against nothing, 0 for none."""
    return 100.0 * np.where(lengths > 0, _ratio(errors, lengths), (errors > 0).astype(np.float64))


def _ratio(part: Array, whole: Array) -> Array:
    return np.divide(part, whole, out=np.zeros_like(part, dtype=np.float64), where=whole > 0)


@lru_cache(maxsize=16)
def _moses(language: str) -> tuple[Any, Any]:
    from sacremoses import MosesPunctNormalizer, MosesTokenizer

    return MosesPunctNormalizer(lang=language), MosesTokenizer(lang=language)


@lru_cache(maxsize=2**16)  # references come again at every validation
def moses_tokenize(text: str, language: str) -> str:
    """Lower-case, normalise and tokenize one sentence as the Multi30k scripts do."""
    normalizer, tokenizer = _moses(language)
    return str(tokenizer.tokenize(normalizer.normalize(text.lower()), return_str=True))
