"""The vocabularies of a training that begins with another model's weights."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from transduce.data.corpus import Corpus
from transduce.data.sides import SourceSide, load_tokenizers, reserved_symbols, with_lengths
from transduce.data.text import TextSide
from transduce.data.tokenizers.base import MASK_SYMBOL
from transduce.errors import UsageError
from transduce.folder import open_folder
from transduce.recipe import Recipe


def take_sides(recipe: Recipe, corpora: Sequence[Corpus]) -> tuple[SourceSide, TextSide]:
    """The tokenizers of the model folder that the recipe's training starts from.

    Classes of length are those of this training's own targets. Errors: UsageError where that model
    reads or writes something else, or lacks a symbol that this recipe needs.
    """
    there = Path(str(recipe.training.start))
    theirs = open_folder(there).recipe
    for name in ("source", "target"):
        mine, other = getattr(recipe, name), getattr(theirs, name)
        if mine.kind != other.kind:
            raise UsageError(
                f"training.start: {there} has {name}.kind {other.kind}, this recipe {mine.kind}"
            )
        if mine.kind == "text" and mine.tokenizer.kind != other.tokenizer.kind:
            raise UsageError(
                f"training.start: {there} has {name}.tokenizer.kind {other.tokenizer.kind}, this "
                f"recipe {mine.tokenizer.kind}; a training goes on with the vocabulary there"
            )
        for key in ("lowercase", "normalize") if mine.kind == "text" else ():
            if getattr(mine, key) != getattr(other, key):
                raise UsageError(
                    f"training.start: {there} has {name}.{key} {getattr(other, key)!r}, this "
                    f"recipe {getattr(mine, key)!r}; its vocabulary is of such texts"
                )
    source, target = load_tokenizers(there, recipe)
    if isinstance(source, TextSide) and recipe.source.kind == "text":
        known = set(source.tokens(range(source.size)))
        wanted = [*reserved_symbols(recipe), *map(source.normalize, recipe.source.symbols)]
        if missing := [symbol for symbol in wanted if symbol not in known]:
            raise UsageError(
                f"training.start: the vocabulary of {there} has no symbol {missing[0]}; train that "
                "model with the same source.symbols and source.length_control"
                + (", and an objective" if missing[0] == MASK_SYMBOL else "")
            )
    with_lengths(recipe, corpora, source, target)
    return source, target
