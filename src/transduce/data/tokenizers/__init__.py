"""How text becomes ids and ids become text."""

from __future__ import annotations

from transduce.data.tokenizers.base import BOS, EOS, PAD, SPECIALS, UNK, Tokenizer
from transduce.data.tokenizers.build import load_tokenizer, train_tokenizer

__all__ = ["BOS", "EOS", "PAD", "SPECIALS", "UNK", "Tokenizer", "load_tokenizer", "train_tokenizer"]
