"""The options of a side that is text: cleaning, normalisation, truncation, tokenizer."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, field_validator

from transduce.recipe_base import Options, Positive, Probability


class TokenizerOptions(Options):
    """How text becomes ids. `size` and `dropout` concern the subword kinds only."""

    kind: Literal["bpe", "unigram", "characters", "words", "symbols", "bytes"] = "bpe"
    # vocabulary size, an upper bound for words
    size: Annotated[int, Field(ge=8, le=1_000_000)] = 8000
    shared: bool = False  # one vocabulary for source and target (say it on the source side)
    dropout: Probability = 0.0  # BPE-dropout (1910.13267); for unigram, any value > 0 samples
    coverage: Annotated[float, Field(gt=0.9, le=1.0)] = 1.0  # share of characters with their own id
    byte_fallback: bool = False  # spell characters outside the vocabulary as bytes


class CleaningOptions(Options):
    """What is removed from a text before anything else sees it: the junk of e-mails."""

    html: bool = False  # tags, comments, scripts and styles; entities become characters
    # lines that begin with `>`, and everything from "-----Original Message-----" or the header of a
    # forwarded message on (not where the text begins with it)
    quoted: bool = False
    spaces: bool = False  # several spaces in a row become one


class TruncationOptions(Options):
    """How a text that is too long is cut, in training and prediction alike."""

    tokens: Positive  # a text has at most so many
    keep: Literal["start", "end", "both"] = "start"  # which part of it stays; both: half of each
    sentences: bool = False  # only whole sentences stay, where one of them fits; else whole words


class TextOptions(Options):
    """A text side: normalisation before the tokenizer, and the tokenizer."""

    kind: Literal["text"] = "text"  # what this side is
    language: str | None = None  # ISO 639-1, for tokenization in metrics and for the manifest
    clean: CleaningOptions = CleaningOptions()  # what is removed first
    lowercase: bool = False  # lower-case everything
    normalize: Literal["none", "nfc", "nfkc", "punctuation"] = "nfc"  # punctuation: Moses rules
    truncate: TruncationOptions | None = None  # cut longer texts; null: training drops them
    symbols: list[str] = Field(default=[])  # never cut and always known, such as speaker tags
    # of the source: the model also learns how long its target is to be, short, medium or long by
    # the thirds of the training targets, and search.length chooses
    length_control: bool = False
    tokenizer: TokenizerOptions = TokenizerOptions()  # how text is cut
    # target only: the model folder whose target tokenizer is taken, in place of one that is learnt
    like: str | None = None

    @field_validator("symbols")
    @classmethod
    def _are_units(cls, symbols: list[str]) -> list[str]:
        for symbol in symbols:
            if not symbol or len(symbol.split()) != 1 or symbol != symbol.strip():
                raise ValueError(f"a symbol is text without spaces, not {symbol!r}")
        if twice := [symbol for symbol in symbols if symbols.count(symbol) > 1]:
            raise ValueError(f"the symbol {twice[0]!r} is there twice")
        return symbols


class NoiseOptions(Options):
    """How corpora with an `objective` make sources of their texts (1910.13461, 1912.08777)."""

    mask: Probability = 0.3  # denoise: share of the tokens in spans that a mask replaces
    span: Annotated[float, Field(gt=0.0, le=50.0)] = 3.0  # denoise: mean length of these spans
    delete: Probability = 0.0  # denoise: share of the tokens that are left out without a mask
    permute: bool = True  # denoise: sentences come in another order
    gap: Annotated[float, Field(gt=0.0, lt=1.0)] = 0.3  # gap: share of the sentences taken out
