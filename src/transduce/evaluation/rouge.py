"""ROUGE (Lin 2004, W04-1013) as the package rouge-score counts it, for texts of any script.

The F-measure of each example, in percent, and the mean over examples. Stemming is on. With several
references the one of highest F counts, example by example and metric by metric (the package's
`score_multi`); published figures that take the mean over references instead are lower.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from importlib.metadata import version
from typing import Any

import numpy as np

from transduce.evaluation.rouge_counts import lcs_f, ngram_f, summary_f
from transduce.evaluation.sacre import Array, base_language
from transduce.evaluation.words import sentences, words

SNOWBALL = {
    "ar": "arabic",
    "da": "danish",
    "de": "german",
    "es": "spanish",
    "fi": "finnish",
    "fr": "french",
    "hu": "hungarian",
    "it": "italian",
    "nb": "norwegian",
    "nl": "dutch",
    "no": "norwegian",
    "pt": "portuguese",
    "ro": "romanian",
    "ru": "russian",
    "sv": "swedish",
}
LOST = 0.05  # share of letters outside a-z from which rouge-score's own words make no sense


Cut = Callable[[str], tuple[str, ...]]


@dataclass(frozen=True, slots=True)
class Tokens:
    """How texts are cut into words for ROUGE."""

    name: str  # in the signature
    cut: Cut


def tokens_for(language: str | None, references: Sequence[Sequence[str]]) -> Tokens:
    """The words that ROUGE counts, chosen by the target's language and else by the references.

    English has those of rouge-score: runs of a-z and 0-9, Porter's stemmer. Other languages would
    lose their letters that way: theirs are the words of any script (`words`), with Snowball's
    stemmer where it knows the language. Without a language the references decide: those of
    rouge-score unless they lose more than one letter in twenty.
    """
    code = base_language(language)
    if code == "en" or (not code and _lost_letters(references) <= LOST):
        return Tokens("tok:rouge-score|stem:porter", _english)
    if code in SNOWBALL:
        name = SNOWBALL[code]
        return Tokens(f"tok:words|stem:snowball-{name}", lambda text: _stemmed(text, name))
    return Tokens("tok:words|stem:none", _unstemmed)


class Rouge:
    """One kind of ROUGE: `rouge1`, `rouge2`, `rougeL` (of the whole text as one sequence) or
    `rougeLsum` (of the union over sentences; these are lines, or else those of `sentences`)."""

    def __init__(self, kind: str, target_language: str | None = None) -> None:
        self.kind, self.language = kind, target_language
        self._signature = ""

    def statistics(self, hypotheses: Sequence[str], references: Sequence[Sequence[str]]) -> Array:
        """Best F of each example in percent, and 1, so that sums give the mean: (N, 2)."""
        tokens = tokens_for(self.language, references)
        self._signature = self._described(tokens, references)
        rows = [
            (100.0 * max(self._f_measure(tokens.cut, ref, text) for ref in refs), 1.0)
            for text, refs in zip(hypotheses, references, strict=True)
        ]
        return np.asarray(rows)

    def values(self, sums: Array, *, sentence: bool = False) -> Array:
        return sums[:, 0] / sums[:, 1]

    def signature(self) -> str:
        return self._signature

    def _f_measure(self, cut: Cut, reference: str, output: str) -> float:
        if self.kind == "rougeLsum":
            by_sentence = [[cut(part) for part in _sentences(text)] for text in (reference, output)]
            return summary_f(*by_sentence)
        if self.kind == "rougeL":
            return lcs_f(cut(reference), cut(output))
        return ngram_f(cut(reference), cut(output), int(self.kind.removeprefix("rouge")))

    def _described(self, tokens: Tokens, references: Sequence[Sequence[str]]) -> str:
        numbers = {len(refs) for refs in references}
        nrefs = str(*numbers) if len(numbers) == 1 else "var"
        best = "" if numbers == {1} else "|multi:best"
        lines = "|sent:lines-or-rule" if self.kind == "rougeLsum" else ""
        package = f"rouge-score:{version('rouge-score')}"
        return f"nrefs:{nrefs}{best}|score:f|case:lc|{tokens.name}{lines}|{package}"


def _lost_letters(references: Sequence[Sequence[str]]) -> float:
    """Which share of the letters rouge-score would not see."""
    text = "".join(reference for refs in references for reference in refs)
    letters = sum(map(str.isalpha, text))
    kept = len(re.findall("[A-Za-z]", text))
    return 1.0 - kept / letters if letters else 0.0


class _Porter:
    """rouge-score's stemmer with a memory: the same words come again and again."""

    def __init__(self) -> None:
        from nltk.stem.porter import PorterStemmer

        self.stem = lru_cache(maxsize=2**16)(PorterStemmer().stem)


@lru_cache(maxsize=1)
def _porter() -> _Porter:
    return _Porter()


@lru_cache(maxsize=2**15)
def _sentences(text: str) -> list[str]:
    return sentences(text)


@lru_cache(maxsize=2**15)  # references come again for each metric, system and validation
def _english(text: str) -> tuple[str, ...]:
    from rouge_score.tokenize import tokenize

    return tuple(tokenize(text, _porter()))


@lru_cache(maxsize=16)
def _snowball(name: str) -> Callable[[str], Any]:
    from nltk.stem.snowball import SnowballStemmer

    return lru_cache(maxsize=2**16)(SnowballStemmer(name).stem)


@lru_cache(maxsize=2**15)
def _stemmed(text: str, name: str) -> tuple[str, ...]:
    return tuple(map(_snowball(name), words(text)))


@lru_cache(maxsize=2**15)
def _unstemmed(text: str) -> tuple[str, ...]:
    return tuple(words(text))
