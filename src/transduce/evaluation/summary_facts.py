"""What can be said of summaries beside their sources, without any reference.

How much of a summary is its own wording, whether it repeats itself, whether it says numbers and
names that its source does not have, and how much shorter it is. Words are those of `words`.
"""

from __future__ import annotations

import re
import unicodedata
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

from transduce.evaluation.words import sentences, word_spans, words

NUMBER = re.compile(r"(?<!\w)\d+(?:[.,:/-]\d+)*")
SPELT = (
    "zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen "
    "sixteen seventeen eighteen nineteen twenty"
).split()
NUMBERS_SPELT = {name: str(value) for value, name in enumerate(SPELT)} | {
    name: str(10 * tens)
    for tens, name in enumerate("thirty forty fifty sixty seventy eighty ninety".split(), 3)
}


@dataclass(frozen=True, slots=True)
class SummaryFacts:
    """Facts of `n` texts as summaries of their sources.

    Shares are percent, and None where there is nothing to take a share of. `words` is the mean
    length; `compression` how many source words there are for each word; `novel` the share of 1-, 2-
    and 3-grams that the source does not have (See et al. 2017, 1704.04368, figure 6); `repeating`
    the share of texts with a trigram that occurs twice, `thrice` of those with a bigram or longer
    that occurs three times or a word three times in a row; `numbers` how many there are, of which
    `invented_numbers` are not in the source; `names` and `invented_names` the same of capitalised
    words inside sentences; `copied` the share of tokens' probability that came from copying.
    """

    name: str
    n: int
    words: float
    compression: float | None
    novel: tuple[float | None, float | None, float | None]
    repeating: float
    thrice: float
    numbers: int
    invented_numbers: int
    names: int
    invented_names: int
    copied: float | None = None


def summary_facts(
    name: str,
    sources: Sequence[str],
    texts: Sequence[str],
    copied: Sequence[Sequence[float] | None] = (),
) -> SummaryFacts:
    """Facts of N texts, each with its source; `copied` has the shares of each text's tokens."""
    count: Counter[str] = Counter()
    for source, text in zip(sources, texts, strict=True):
        count.update(_counts(source, text))
    shares = [share for row in copied if row is not None for share in row]

    def percent(part: str, whole: str) -> float | None:
        return 100.0 * count[part] / count[whole] if count[whole] else None

    return SummaryFacts(
        name=name,
        n=len(texts),
        words=count["grams1"] / len(texts) if texts else 0.0,
        compression=count["source"] / count["grams1"] if count["grams1"] else None,
        novel=(
            percent("novel1", "grams1"),
            percent("novel2", "grams2"),
            percent("novel3", "grams3"),
        ),
        repeating=percent("repeating", "texts") or 0.0,
        thrice=percent("thrice", "texts") or 0.0,
        numbers=count["numbers"],
        invented_numbers=count["invented_numbers"],
        names=count["names"],
        invented_names=count["invented_names"],
        copied=100.0 * sum(shares) / len(shares) if shares else None,
    )


def numbers(text: str) -> list[str]:
    """The numbers written in digits, without separators of thousands and leading zeros.

    A number that a letter, digit or `_` precedes is part of a name, such as `Person1` or `A4`.
    """
    found = NUMBER.findall(unicodedata.normalize("NFKC", text))
    return [_plain(number) for number in found]


def repeats_thrice(text: str) -> bool:
    """Whether a word stands three times in a row, or two or more words occur three times."""
    found = words(text)
    bigrams = list(pairwise(found))
    in_a_row = any(a == b == c for (a, b), (_, c) in pairwise(bigrams))
    return in_a_row or any(times > 2 for times in Counter(bigrams).values())


def _counts(source: str, text: str) -> Counter[str]:
    """What one summary adds to the sums."""
    given, made = words(source), words(text)
    count: Counter[str] = Counter(texts=1, source=len(given))
    for order in (1, 2, 3):
        there, grams = set(_ngrams(given, order)), _ngrams(made, order)
        count[f"grams{order}"] = len(grams)
        count[f"novel{order}"] = sum(gram not in there for gram in grams)
    trigrams = _ngrams(made, 3)
    count["repeating"] = len(set(trigrams)) < len(trigrams)
    count["thrice"] = repeats_thrice(text)
    said = numbers(text)
    known = _numbers_known(source, given) if said else set()
    count["numbers"] = len(said)
    count["invented_numbers"] = sum(number not in known for number in said)
    capitals = _capitalised(text)
    count["names"] = len(capitals)
    count["invented_names"] = sum(name not in set(given) for name in capitals) if capitals else 0
    return count


def _ngrams(found: Sequence[str], order: int) -> list[tuple[str, ...]]:
    return list(zip(*(found[start:] for start in range(order)), strict=False))


def _plain(number: str) -> str:
    if re.fullmatch(r"\d{1,3}(?:,\d{3})+(?:\.\d+)?", number):
        number = number.replace(",", "")
    return number.lstrip("0") or "0" if number.isdigit() else number


def _numbers_known(source: str, given: Sequence[str]) -> set[str]:
    """Numbers a summary may say: those of the source, their parts, and English words for numbers.

    Of `10:30` and `3/14/2001` each part is known too.
    """
    known = set(numbers(source))
    parts = {_plain(part) for number in known for part in re.split("[:/-]", number) if part}
    return known | parts | {NUMBERS_SPELT[word] for word in given if word in NUMBERS_SPELT}


def _capitalised(text: str) -> list[str]:
    """Words of two or more letters that begin with a capital and no sentence, case-folded."""
    found = []
    for sentence in sentences(text):
        for start, end in word_spans(sentence)[1:]:
            word = sentence[start:end]
            if word[0].isupper() and len(word) > 1:
                found.append("".join(words(word)))
    return found
