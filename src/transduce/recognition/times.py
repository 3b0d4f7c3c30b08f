"""When the words of an output are spoken: from the times of its tokens, or where the model looked.

CTC says when tokens are heard (`Output.times`). The attention of a recogniser runs along the sound
as well: without CTC a word lasts from where most of the attention of its first token begins to
where most of that of its last token ends.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeAlias

import numpy as np
from numpy.typing import ArrayLike, NDArray

from transduce.output import Output
from transduce.recognition.transcript import Word

Edges: TypeAlias = NDArray[np.float64]

MARK = "▁"  # SentencePiece's sign for the space before a word
INSIDE = 0.8  # share of a token's attention that is taken for its time


def word_times(output: Output, start: float, seconds: float) -> list[Word]:
    """The words of an output for a sound that begins at `start` and lasts `seconds`.

    Empty where there are neither times nor attention, or where the tokens are not the words of the
    text in order (such as text that was put together from bytes). Times never run backwards nor
    overlap.
    """
    groups = word_tokens(output.text, output.tokens)
    spans = _seconds(output, seconds)
    if spans is None or len(spans[0]) < len(output.tokens):
        return []
    begins, ends = spans
    words: list[Word] = []
    for text, tokens in groups:
        first, last = min(begins[tokens[0]], seconds), min(ends[tokens[-1]], seconds)
        words.append(Word(text, start + first, start + max(first, last)))
    return _in_order(words)


def _seconds(output: Output, seconds: float) -> tuple[Edges, Edges] | None:
    """Begin and end of each token, (T,) seconds from the beginning of the sound."""
    if output.times is not None:
        times = np.asarray(output.times, dtype=np.float64).reshape(-1, 2)
        return times[:, 0], times[:, 1]
    if output.attention is None:
        return None
    begins, ends = _spans(output.attention)
    return begins * seconds, ends * seconds


def word_tokens(text: str, tokens: Sequence[str]) -> list[tuple[str, list[int]]]:
    """The words of a text, each with the numbers of the tokens that it is made of.

    Tokens are pieces (with ▁ for a space), characters, or whole words; empty where they do not make
    up the text.
    """
    words = text.split()
    for between in ("", " "):
        line, spans = "", []
        for token in tokens:
            line += between if line else ""
            written = token.replace(MARK, " ")
            spans.append((len(line), len(line) + len(written)))
            line += written
        if line.split() == words:
            return _grouped(words, line, spans)
    return []


def _grouped(
    words: Sequence[str], line: str, spans: Sequence[tuple[int, int]]
) -> list[tuple[str, list[int]]]:
    groups = []
    at = 0
    for word in words:
        begin = line.index(word, at)
        at = begin + len(word)
        touching = [k for k, (first, end) in enumerate(spans) if first < at and end > begin]
        # A token that is only the space before a word was heard before the word.
        solid = [k for k in touching if line[slice(*spans[k])].strip()]
        groups.append((word, solid))
    return groups


def _spans(attention: ArrayLike) -> tuple[Edges, Edges]:
    """(T, S) weights -> begin and end of each row's middle 80 %, as shares of the sound: (T,)."""
    weights = np.asarray(attention, dtype=np.float64)
    total = np.cumsum(weights, axis=1)
    total /= np.maximum(total[:, -1:], 1e-12)
    columns = weights.shape[1]
    edge = (1.0 - INSIDE) / 2.0
    begins = (total < edge).sum(axis=1) / columns
    ends = ((total < 1.0 - edge).sum(axis=1) + 1) / columns
    return begins, np.minimum(ends, 1.0)


def _in_order(words: list[Word]) -> list[Word]:
    """The same words, none before the one it follows; where two overlap they share the overlap."""
    if not words:
        return []
    first, last = words[0].start, max(word.end for word in words)
    bounds = [(word.start, word.end) for word in words]
    begins = np.maximum.accumulate([begin for begin, _ in bounds])
    ends = np.maximum.accumulate([end for _, end in bounds])
    for k in range(len(words) - 1):
        if ends[k] > begins[k + 1]:
            middle = max(begins[k], (ends[k] + begins[k + 1]) / 2.0)
            ends[k] = begins[k + 1] = middle
    begins = np.clip(np.maximum.accumulate(begins), first, last)
    return [
        Word(word.text, float(begin), float(max(begin, end)))
        for word, begin, end in zip(words, begins, ends, strict=True)
    ]
