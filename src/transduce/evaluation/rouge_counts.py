"""What ROUGE counts in two tokenized texts: the numbers of rouge-score, some ten times sooner.

rouge-score fills a table of one Python number for each pair of words, which takes minutes for two
thousand summaries with four references; here a row of that table is one integer of bits.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

Words = Sequence[str]


def f_measure(hits: int, predicted: int, wanted: int) -> float:
    """The F-measure of `hits` among `predicted` and among `wanted`, 0 where there is none."""
    return 2.0 * hits / (predicted + wanted) if hits else 0.0


def ngram_f(reference: Words, output: Words, n: int) -> float:
    """F-measure of the n-grams that both have, each counted as often as both have it."""
    wanted, found = _ngrams(reference, n), _ngrams(output, n)
    return f_measure((wanted & found).total(), found.total(), wanted.total())


def lcs_f(reference: Words, output: Words) -> float:
    """F-measure of the longest common subsequence."""
    from rapidfuzz.distance import LCSseq

    return f_measure(LCSseq.similarity(reference, output), len(output), len(reference))


def summary_f(reference: Sequence[Words], output: Sequence[Words]) -> float:
    """F-measure of the summary-level LCS (Lin 2004, section 3.2) of texts as lists of sentences.

    Of each sentence of the reference the words count that its LCS with any sentence of the output
    has; no word oftener than it occurs in either text, as in ROUGE-1.5.5.
    """
    wanted = Counter(word for sentence in reference for word in sentence)
    found = Counter(word for sentence in output for word in sentence)
    left = wanted & found
    hits = 0
    for sentence in reference:
        union = set[int]().union(*(lcs_positions(sentence, other) for other in output))
        for position in sorted(union):
            word = sentence[position]
            if left[word]:
                left[word] -= 1
                hits += 1
    return f_measure(hits, found.total(), wanted.total())


def lcs_positions(reference: Words, output: Words) -> list[int]:
    """The places in `reference` of a longest common subsequence, last first.

    Of several such subsequences the one that rouge-score finds: from the ends of both, equal words
    are taken, and otherwise a word of the output is left only if that alone keeps the length.

    The table's rows are bits (Hyyrö 2004): entry (i, j) is the number of zeros among the lowest j
    bits of row i, so that a row follows from the one above by one addition.
    """
    places: dict[str, int] = {}
    for j, word in enumerate(output):
        places[word] = places.get(word, 0) | (1 << j)
    every = (1 << len(output)) - 1
    rows = [every]
    for word in reference:
        above = rows[-1]
        same = above & places.get(word, 0)
        rows.append(((above + same) | (above - same)) & every)
    i, j = len(reference), len(output)
    found = []
    while i and j:
        if reference[i - 1] == output[j - 1]:
            i, j = i - 1, j - 1
            found.append(i)
        elif _zeros(rows[i], j - 1) > _zeros(rows[i - 1], j):
            j -= 1
        else:
            i -= 1
    return found


def _zeros(row: int, count: int) -> int:
    return count - (row & ((1 << count) - 1)).bit_count()


def _ngrams(words: Words, n: int) -> Counter[tuple[str, ...]]:
    return Counter(zip(*(words[start:] for start in range(n)), strict=False))
