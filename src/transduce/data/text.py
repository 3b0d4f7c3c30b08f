"""A text side: normalisation, then a tokenizer; what everything above sees of text."""

from __future__ import annotations

import functools
import hashlib
import json
import re
import unicodedata
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from transduce.data.cleaning import Cleaning, cleaned
from transduce.data.tokenizers import Tokenizer, load_tokenizer, train_tokenizer
from transduce.data.tokenizers.base import UNK
from transduce.data.tokenizers.build import EXTENSIONS
from transduce.data.truncation import Truncation, sentences, truncated
from transduce.errors import DataError

if TYPE_CHECKING:
    from transduce.data.lengths import LengthClasses
    from transduce.recipe import TextOptions

Rules = tuple[tuple[str, str], ...]  # regular expressions and what replaces their matches, in order

# Control characters (NUL, tab, escape, …) and the two Unicode line ends. Format characters stay:
# emoji and several scripts are misspelled without their joiners.
_CONTROL = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029]")


class Cutting(Protocol):
    """How a side's text is cut: the part of `recipe.TokenizerOptions` that a trained one needs."""

    @property
    def kind(self) -> str: ...
    @property
    def dropout(self) -> float: ...


class Reading(Protocol):
    """How a side is read: `recipe.TextOptions`, or what an exported folder keeps of them."""

    @property
    def lowercase(self) -> bool: ...
    @property
    def normalize(self) -> str: ...
    @property
    def language(self) -> str | None: ...
    @property
    def clean(self) -> Cleaning: ...
    @property
    def truncate(self) -> Truncation | None: ...
    @property
    def length_control(self) -> bool: ...
    @property
    def tokenizer(self) -> Cutting: ...


@dataclass(frozen=True, slots=True)
class Segmented:
    """A text as a side reads it: normalised and perhaps cut, and its ids.

    `whole` is how many tokens it had before it was cut.
    """

    text: str
    ids: list[int]
    whole: int

    @property
    def cut(self) -> bool:
        return self.whole > len(self.ids)


def clean(text: str) -> str:
    """Every control character and line end becomes a space, so that the text is one line."""
    return _CONTROL.sub(" ", text)


class TextSide:
    """Source or target text: `options` say how it is normalised, `tokenizer` how it is cut.

    Ids are without BOS and EOS; batches add them. `punctuation` are the rules of
    `normalize: punctuation` where they are at hand; else sacremoses is asked for them.
    """

    def __init__(
        self, options: Reading, tokenizer: Tokenizer, punctuation: Rules | None = None
    ) -> None:
        self.options = options
        self.tokenizer = tokenizer
        self.punctuation = punctuation
        self.lengths: LengthClasses | None = None  # of a source with length control, in training
        self._normalize = normalizer(options, punctuation)

    @property
    def size(self) -> int:
        """The number of ids."""
        return self.tokenizer.size

    @property
    def samples(self) -> bool:
        """Whether `segment` with a seed differs from without: segmentation is regularised."""
        options = self.options.tokenizer
        return options.kind in ("bpe", "unigram") and options.dropout > 0.0

    def normalize(self, text: str) -> str:
        """The text as the tokenizer gets it: one line, stripped, in the recipe's normal form.

        Nothing is cut from it.
        """
        return self._normalize(cleaned(text, self.options.clean))

    def read(self, texts: Sequence[str]) -> list[Segmented]:
        """Raw texts, those cut that are longer than `truncate` of the options allows."""
        normal = [self.normalize(text) for text in texts]
        found = [
            Segmented(text, ids, len(ids))
            for text, ids in zip(normal, self.segment(normal), strict=True)
        ]
        limit = self.options.truncate
        if limit is not None:
            for i, one in enumerate(found):
                if one.whole > limit.tokens:
                    text = truncated(one.text, self._units(texts[i]), limit, self.segment)
                    found[i] = Segmented(text, self.segment([text])[0], one.whole)
        return found

    def _units(self, text: str) -> list[str]:
        """What is cut by: normalised sentences of a raw text, or nothing where words are meant."""
        if self.options.truncate is None or not self.options.truncate.sentences:
            return []
        found = map(self._normalize, sentences(cleaned(text, self.options.clean)))
        return [sentence for sentence in found if sentence]

    def marked(self, texts: Sequence[Segmented], symbols: Sequence[str]) -> list[Segmented]:
        """The same texts, each with a symbol before it; blank ones as they are."""
        found = [
            f"{symbol} {one.text}" if one.text else ""
            for one, symbol in zip(texts, symbols, strict=True)
        ]
        more = zip(found, self.segment(found), texts, strict=True)
        return [Segmented(t, ids, one.whole - len(one.ids) + len(ids)) for t, ids, one in more]

    def encode(self, text: str) -> list[int]:
        """Ids of one raw text."""
        return self.tokenizer.encode(self.normalize(text))

    def encode_batch(self, texts: Sequence[str], *, seed: int | None = None) -> list[list[int]]:
        """Ids of raw texts; with a seed, a sampled segmentation (see `Tokenizer.encode_batch`)."""
        return self.segment([self.normalize(text) for text in texts], seed=seed)

    def segment(self, normalized: Sequence[str], *, seed: int | None = None) -> list[list[int]]:
        """Ids of texts that `normalize` has seen already."""
        return self.tokenizer.encode_batch(normalized, seed=seed)

    def decode(self, ids: Sequence[int]) -> str:
        """Text of ids, always one line."""
        return clean(self.tokenizer.decode(ids))

    def decode_tokens(self, tokens: Sequence[str]) -> str:
        """Text of tokens, some of which may be from outside the vocabulary; one line."""
        return clean(self.tokenizer.decode_tokens(tokens))

    def tokens(self, ids: Sequence[int]) -> list[str]:
        """One printable string per id."""
        return self.tokenizer.tokens(ids)

    def written(self, normalized: str, ids: Sequence[int]) -> list[str]:
        """The tokens of a text; those that the vocabulary does not know as they stand in it."""
        size = self.size  # a question to the tokenizer, which has better to do
        if any(i == UNK or i >= size for i in ids):
            return self.tokenizer.written(normalized, ids)
        return self.tokens(ids)

    def reach(self, longest: int) -> int:
        """Ids of texts of at most `longest` tokens are below this."""
        return self.size

    def fingerprint(self) -> str:
        """A hash that differs whenever the same raw text could get other ids."""
        options = self.options
        tree: list[object] = [options.lowercase, options.normalize, options.language]
        clean, limit = options.clean, options.truncate
        if clean.html or clean.quoted or clean.spaces:
            tree.append([clean.html, clean.quoted, clean.spaces])
        if limit is not None:
            tree.append([limit.tokens, limit.keep, limit.sentences])
        if options.length_control:
            tree.append([self.lengths.short, self.lengths.long] if self.lengths else "lengths")
        return hashlib.sha256(
            (json.dumps(tree) + self.tokenizer.fingerprint()).encode()
        ).hexdigest()

    def save(self, folder: Path, stem: str) -> Path:
        """Write the tokenizer (the options are the recipe's to keep) and return its path."""
        return self.tokenizer.save(folder, stem)

    @classmethod
    def load(
        cls, folder: Path, stem: str, options: Reading, punctuation: Rules | None = None
    ) -> TextSide:
        """Read what `save` wrote; DataError when it is missing, damaged or of another kind."""
        wanted = options.tokenizer.kind
        path = folder / f"{stem}{EXTENSIONS[wanted]}"
        tokenizer = load_tokenizer(path, dropout=options.tokenizer.dropout)
        if tokenizer.kind != wanted:
            raise DataError(f"{path} holds a {tokenizer.kind} tokenizer; the recipe says {wanted}")
        return cls(options, tokenizer, punctuation)


def train_sides(
    source: TextOptions,
    target: TextOptions,
    pairs: Callable[[], Iterable[tuple[str, str | None]]],
    *,
    seed: int,
    reserved: Sequence[str] = (),
) -> tuple[TextSide, TextSide]:
    """Learn both tokenizers, or the one they share, from pairs of raw texts.

    `pairs` is called once per pass over the corpus (one if shared, else two); nothing is kept.
    `reserved` are symbols that the source has besides those of its options.
    """
    to_source, to_target = _reader(source), _reader(target)

    def sources() -> Iterator[str]:
        return (to_source(text) for text, _ in pairs())

    def targets() -> Iterator[str]:
        return (to_target(text) for _, text in pairs() if text is not None)

    def both() -> Iterator[str]:
        for text, other in pairs():
            yield to_source(text)
            if other is not None:
                yield to_target(other)

    own = [*reserved, *_symbols(source)]
    if source.tokenizer.shared:
        own = list(dict.fromkeys([*own, *_symbols(target)]))
        shared = train_tokenizer(source.tokenizer, both(), seed=seed, symbols=own)
        return TextSide(source, shared), TextSide(target, shared)
    first = train_tokenizer(source.tokenizer, sources(), seed=seed, symbols=own)
    others = _symbols(target)
    second = train_tokenizer(target.tokenizer, targets(), seed=seed, symbols=others)
    return TextSide(source, first), TextSide(target, second)


def train_side(options: TextOptions, texts: Iterable[str], *, seed: int) -> TextSide:
    """Learn the tokenizer of one side from raw texts, read once."""
    read = map(_reader(options), texts)
    symbols = _symbols(options)
    return TextSide(options, train_tokenizer(options.tokenizer, read, seed=seed, symbols=symbols))


def _reader(options: TextOptions) -> Callable[[str], str]:
    """Cleaning and normalisation of a side as one function of the raw text."""
    normalize = normalizer(options)
    return lambda text: normalize(cleaned(text, options.clean))


def _symbols(options: TextOptions) -> list[str]:
    """The side's own symbols as they stand in normalised text."""
    normalize = normalizer(options)
    return list(dict.fromkeys(map(normalize, options.symbols)))


def normalizer(options: Reading, punctuation: Rules | None = None) -> Callable[[str], str]:
    """The normalisation of a side as one function of the raw text.

    `punctuation` applies the rules of Moses' normalize-punctuation.perl for the side's language,
    after lower-casing, which is the order of the Multi30k convention.
    """
    form = options.normalize
    lower = options.lowercase
    rules = None
    if form == "punctuation":
        rules = _applied(punctuation or moses_punctuation(options.language))

    def normalize(text: str) -> str:
        text = _CONTROL.sub(" ", text)
        if form == "nfkc":
            # NFKC can make new spaces, never new control characters.
            text = unicodedata.normalize("NFKC", text)
        elif form != "none" and not text.isascii():
            text = unicodedata.normalize("NFC", text)
        if lower:
            text = text.lower()
        if rules is not None:
            text = rules(text)
        return text.strip()

    return normalize


@functools.lru_cache(maxsize=64)
def moses_punctuation(language: str | None) -> Rules:
    """The rules of Moses for a language (English where it has none of its own)."""
    from sacremoses import MosesPunctNormalizer

    return tuple((find, put) for find, put in MosesPunctNormalizer(language or "en").substitutions)


@functools.lru_cache(maxsize=64)
def _applied(rules: Rules) -> Callable[[str], str]:
    compiled = [(re.compile(find), put) for find, put in rules]

    def apply(text: str) -> str:
        for find, put in compiled:
            text = find.sub(put, text)
        return text

    return apply
