"""Both sides of a recipe: learnt from a corpus, or read from a model folder."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import chain
from pathlib import Path
from typing import TypeAlias

from transduce.data.copying import CopySource
from transduce.data.corpus import Corpus
from transduce.data.speech import SpeechSide, learn_speech
from transduce.data.text import TextSide, train_side, train_sides
from transduce.errors import UsageError
from transduce.recipe import Recipe

SourceSide: TypeAlias = TextSide | SpeechSide


def bins_of(side: SourceSide) -> int | None:
    """F, the width of the frames of speech; None for text."""
    return side.size if isinstance(side, SpeechSide) else None


def learn_sides(recipe: Recipe, corpora: Sequence[Corpus]) -> tuple[SourceSide, TextSide]:
    """Learn the tokenizers of both sides, or the statistics of speech, from training corpora."""
    seed = recipe.training.seed
    options, target = recipe.source, recipe.target
    if options.kind == "speech":
        sources = (e.source for e in chain.from_iterable(corpora) if e.source)
        targets = (e.target for e in chain.from_iterable(corpora) if e.target is not None)
        return learn_speech(options, sources), train_side(target, targets, seed=seed)
    if options.tokenizer.shared:
        target = target.model_copy(update={"tokenizer": options.tokenizer})
    sides = train_sides(
        options,
        target,
        lambda: ((example.source, example.target) for example in chain.from_iterable(corpora)),
        seed=seed,
    )
    return _to_copy(recipe, *sides)


def load_sides(folder: Path, recipe: Recipe) -> tuple[SourceSide, TextSide]:
    """Both sides of a model folder; DataError when a file is missing or damaged."""
    target = TextSide.load(folder, "target", recipe.target)
    if recipe.source.kind == "speech":
        return SpeechSide.load(folder, "source", recipe.source), target
    return _to_copy(recipe, TextSide.load(folder, "source", recipe.source), target)


def _to_copy(recipe: Recipe, source: TextSide, target: TextSide) -> tuple[TextSide, TextSide]:
    """Both sides, the source one to be copied from if the model does that."""
    if recipe.model.copies:
        source = CopySource.of(source, target)
    return source, target


def load_texts(folder: Path, recipe: Recipe, what: str) -> tuple[TextSide, TextSide]:
    """Both sides of a model folder whose source is text; UsageError, naming `what` needs it."""
    source, target = load_sides(folder, recipe)
    if not isinstance(source, TextSide):
        raise UsageError(f"{folder}: {what} is for models of text; the source of this is speech")
    return source, target
