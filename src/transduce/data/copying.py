"""What a target may copy from its source: codes that mean the same token on both sides.

A source token is copied as its code, which is the id of the same token of the target vocabulary or,
where that has none, V + the token's source id: an id of the vocabulary extended by the source (See
et al. 2017, 1704.04368, section 2.2). So that words which no vocabulary knows can be copied, too,
they have source ids of their own, beyond the Vs ids of the vocabulary and for one text only: Vs + t
where only the target knows the word, as t; Vs + V + j where neither does, and it is the j-th such
word of the text. Everywhere but here they are unknown words.

With words, symbols and characters all that the target's vocabulary lacks has such codes. Of
subwords only what no piece can spell has one: a run of characters, such as an emoji. A piece of the
source that the target's vocabulary lacks is spelled by others there, and is not copied.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from transduce.data.text import Reading, Rules, TextSide
from transduce.data.tokenizers import Tokenizer
from transduce.data.tokenizers.base import SPECIALS, UNK

WHOLE = ("words", "symbols", "characters")  # a text's parts, of which each is known or not
SUBWORDS = ("bpe", "unigram")  # as many pieces as it takes, so that only characters are unknown
NEVER = -1  # the code of what is not copied


@dataclass(frozen=True, eq=False)
class Codes:
    """As what each source id is copied.

    table: (Vs,) int64, the code of each id of the source vocabulary, `NEVER` for the special ones.
    target_size: V, where codes of what the target does not know begin. extends: whether there can
    be any.
    """

    table: npt.NDArray[np.int64]
    target_size: int
    extends: bool

    @classmethod
    def identity(cls, source_size: int, target_size: int) -> Codes:
        """Each id as the same one of the target, or else beyond its vocabulary."""
        ids = np.arange(source_size, dtype=np.int64)
        table = np.where(ids < target_size, ids, target_size + ids)
        table[: len(SPECIALS)] = NEVER
        return cls(table, target_size, True)

    @classmethod
    def between(cls, source: Tokenizer, target: Tokenizer) -> Codes:
        """By the tokens as both vocabularies print them."""
        extends, known = _extends(source, target), _known(target)
        beyond = extends and source.kind in WHOLE
        table = np.full(source.size, NEVER, dtype=np.int64)
        for token, i in _known(source).items():
            table[i] = known.get(token, target.size + i if beyond else NEVER)
        return cls(table, target.size, extends)


def _known(tokenizer: Tokenizer) -> dict[str, int]:
    """The ids of all tokens but the special ones."""
    begin = len(SPECIALS)
    tokens = tokenizer.tokens(range(begin, tokenizer.size))
    return {token: i for i, token in enumerate(tokens, start=begin)}


def _extends(source: Tokenizer, target: Tokenizer) -> bool:
    """Whether what is unknown is the same part of a text on both sides."""
    kinds = {source.kind, target.kind}
    alike = kinds <= set(WHOLE) or kinds <= set(SUBWORDS)
    return alike and not (source.byte_fallback or target.byte_fallback)


class CopySource(TextSide):
    """The source side of a model that copies: words keep apart that the vocabulary does not know.

    Its ids may be beyond its `size`, see the head of this file; `codes` say as what each is copied.
    """

    def __init__(
        self,
        options: Reading,
        tokenizer: Tokenizer,
        target: TextSide,
        punctuation: Rules | None = None,
    ) -> None:
        super().__init__(options, tokenizer, punctuation)
        self._target = target
        self._known = _known(target.tokenizer)
        self.codes = Codes.between(tokenizer, target.tokenizer)
        self.extends = self.codes.extends

    def segment(self, normalized: Sequence[str], *, seed: int | None = None) -> list[list[int]]:
        rows = super().segment(normalized, seed=seed)
        if not self.extends:
            return rows
        return [
            self._apart(text, row) if UNK in row else row
            for text, row in zip(normalized, rows, strict=True)
        ]

    def _apart(self, text: str, row: list[int]) -> list[int]:
        """The ids of a text whose unknown words have ids of their own."""
        units = self.written(text, row)
        own: dict[str, int] = {}
        unknown = self.size + self._target.size
        for unit in dict.fromkeys(u for u, i in zip(units, row, strict=True) if i == UNK):
            there = self._known.get(unit)
            own[unit] = unknown if there is None else self.size + there
            unknown += there is None
        return [own[u] if i == UNK else i for u, i in zip(units, row, strict=True)]

    def copied_targets(
        self, sources: Sequence[str], targets: Sequence[str], rows: list[list[int]]
    ) -> list[list[int]]:
        """Target ids in which words that only the source has are their codes.

        sources, targets: normalised texts, side by side; rows: the targets' ids. Words that are in
        neither the vocabulary nor the source stay unknown.
        """
        if not self.extends:
            return rows
        return [
            self._copied(source, target, row) if UNK in row else row
            for source, target, row in zip(sources, targets, rows, strict=True)
        ]

    def _copied(self, source: str, target: str, row: list[int]) -> list[int]:
        (ids,) = self.segment([source])
        return self.copied(self.written(source, ids), ids, self._target.written(target, row), row)

    def copied(
        self,
        source_tokens: Sequence[str],
        source_ids: Sequence[int],
        tokens: Sequence[str],
        row: list[int],
    ) -> list[int]:
        """`copied_targets` of one target, from the tokens of both sides as they are written."""
        if not self.extends or UNK not in row:
            return row
        place = dict(zip(source_tokens, source_ids, strict=True))
        first = self._target.size
        return [
            first + place[token] if i == UNK and token in place else i
            for token, i in zip(tokens, row, strict=True)
        ]

    def reach(self, longest: int) -> int:
        if not self.extends:
            return self.size
        return self.size + self._target.size + longest

    def fingerprint(self) -> str:
        how = "copied"
        if self.extends and self.tokenizer.kind in SUBWORDS:
            how = "copied with what no piece spells"  # so that older prepared data is not taken
        both = f"{how} {super().fingerprint()} {self._target.fingerprint()}"
        return hashlib.sha256(both.encode()).hexdigest()

    @classmethod
    def of(cls, source: TextSide, target: TextSide) -> CopySource:
        """The same side, for copying into this target."""
        made = cls(source.options, source.tokenizer, target, source.punctuation)
        made.lengths = source.lengths
        return made


def codes_of(source: object) -> Codes | None:
    """As what this side's ids are copied; None where nothing is."""
    return source.codes if isinstance(source, CopySource) else None


def target_tokens(target: TextSide, ids: Sequence[int], source_tokens: Sequence[str]) -> list[str]:
    """One printable string per id of a hypothesis, in which V + s is the source's token s."""
    tokens = target.tokens(ids)
    size = target.size
    return [source_tokens[i - size] if i >= size else t for i, t in zip(ids, tokens, strict=True)]


def target_text(target: TextSide, ids: Sequence[int], source_tokens: Sequence[str]) -> str:
    """The text of a hypothesis whose ids are those of `target_tokens`."""
    if all(i < target.size for i in ids):
        return target.decode(ids)
    return target.decode_tokens(target_tokens(target, ids, source_tokens))
