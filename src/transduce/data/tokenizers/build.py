"""The one place where the name of a kind becomes a tokenizer."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from transduce.data.tokenizers.base import Tokenizer
from transduce.data.tokenizers.symbols import ByteTokenizer, symbols_from_json, train_symbols
from transduce.errors import DataError

if TYPE_CHECKING:
    from transduce.recipe import TokenizerOptions

EXTENSIONS = {
    "bpe": ".model",
    "unigram": ".model",
    "characters": ".json",
    "words": ".json",
    "symbols": ".json",
    "bytes": ".json",
}


def train_tokenizer(
    options: TokenizerOptions, texts: Iterable[str], *, seed: int, symbols: Sequence[str] = ()
) -> Tokenizer:
    """Learn a tokenizer from normalised texts, read once and as a stream.

    `symbols` are distinct, without spaces; each has an id of its own and is never cut.
    Errors: DataError when the texts are all blank; UsageError when `size` is too small.
    """
    if options.kind == "bytes":
        return ByteTokenizer(symbols)
    if options.kind in ("bpe", "unigram"):
        # Imported here: a recipe of phones or characters should not wait for SentencePiece.
        from transduce.data.tokenizers.subword import train_subword

        return train_subword(
            options.kind,
            texts,
            size=options.size,
            dropout=options.dropout,
            coverage=options.coverage,
            byte_fallback=options.byte_fallback,
            seed=seed,
            symbols=symbols,
        )
    return train_symbols(
        options.kind,
        texts,
        size=options.size,
        coverage=options.coverage,
        byte_fallback=options.byte_fallback,
        marks=symbols,
    )


def load_tokenizer(path: Path, *, dropout: float = 0.0) -> Tokenizer:
    """Read a tokenizer that `Tokenizer.save` wrote; `dropout` is the rate when a seed is given.

    Errors: DataError when the file is missing, damaged or of another program.
    """
    try:
        content = path.read_bytes()
    except OSError as error:
        raise DataError(f"cannot read the tokenizer {path}: {error.strerror}") from None
    if path.suffix == ".model":
        from transduce.data.tokenizers.subword import subword_from_bytes

        return subword_from_bytes(content, dropout=dropout, where=str(path))
    try:
        text = content.decode("utf-8")
    except UnicodeDecodeError:
        raise DataError(f"{path} is not a tokenizer file, or is damaged (not UTF-8)") from None
    return symbols_from_json(text, where=str(path))
