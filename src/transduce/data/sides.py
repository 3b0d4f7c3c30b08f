"""Both sides of a recipe: learnt from a corpus, or read from a model folder."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import chain
from pathlib import Path
from typing import TypeAlias

from transduce.data.copying import CopySource
from transduce.data.corpus import NO_SOURCE, Corpus
from transduce.data.lengths import LengthClasses, learn_lengths
from transduce.data.speech import SpeechSide, learn_speech
from transduce.data.text import TextSide, train_side, train_sides
from transduce.data.tokenizers.base import LENGTH_SYMBOLS, MASK_SYMBOL
from transduce.errors import UsageError
from transduce.folder import open_folder
from transduce.recipe import Recipe, TextOptions

SourceSide: TypeAlias = TextSide | SpeechSide


def bins_of(side: SourceSide) -> int | None:
    """F, the width of the frames of speech; None for text."""
    return side.size if isinstance(side, SpeechSide) else None


def learn_sides(recipe: Recipe, corpora: Sequence[Corpus]) -> tuple[SourceSide, TextSide]:
    """Learn the tokenizers of both sides, or the statistics of speech, from training corpora.

    Of a source with length control, also the classes of length.
    """
    seed = recipe.training.seed
    options, target = recipe.source, recipe.target
    taken = None if target.like is None else _taken(target, target.like)
    if recipe.source_kind == "none":
        source = train_side(recipe.source, [NO_SOURCE], seed=seed)  # type: ignore[arg-type]
        return source, taken or train_side(target, _targets(corpora), seed=seed)
    if taken is not None:
        raise UsageError("target.like is for language models (task: language); leave it out")
    if options.kind == "speech":
        sources = (e.source for e in chain.from_iterable(corpora) if e.source)
        return learn_speech(options, sources), train_side(target, _targets(corpora), seed=seed)
    if options.tokenizer.shared:
        target = target.model_copy(update={"tokenizer": options.tokenizer})
    source_side, target_side = train_sides(
        options,
        target,
        lambda: ((example.source, example.target) for example in chain.from_iterable(corpora)),
        seed=seed,
        reserved=reserved_symbols(recipe),
    )
    with_lengths(recipe, corpora, source_side, target_side)
    return _to_copy(recipe, source_side, target_side)


def reserved_symbols(recipe: Recipe) -> list[str]:
    """The symbols of the source that stand for what is no text: classes of length, and the mask."""
    marks = list(LENGTH_SYMBOLS.values()) if getattr(recipe.source, "length_control", False) else []
    masks = any(one.objective != "pairs" for one in [*recipe.data.train, *recipe.data.valid])
    return [*marks, MASK_SYMBOL] if masks else marks


def with_lengths(
    recipe: Recipe, corpora: Sequence[Corpus], source: SourceSide, target: TextSide
) -> None:
    """Learn the classes of target length, if the source is to be marked with them."""
    if isinstance(source, TextSide) and source.options.length_control:
        targets = (e.target for e in chain.from_iterable(corpora) if e.target is not None)
        source.lengths = learn_lengths(target, targets)


def _targets(corpora: Sequence[Corpus]) -> Iterator[str]:
    return (e.target for e in chain.from_iterable(corpora) if e.target is not None)


def _taken(options: TextOptions, folder: str) -> TextSide:
    """The target side of a model folder. Errors: UsageError when it reads text in another way than
    these options say, which would have to be written as they are there."""
    opened = open_folder(folder)
    there = opened.recipe.target
    for name in ("lowercase", "normalize", "language"):
        if getattr(options, name) != getattr(there, name):
            raise UsageError(
                f"target.like: {folder} has target.{name} {getattr(there, name)}, and this recipe "
                f"{getattr(options, name)}; write the same here"
            )
    if options.tokenizer.kind != there.tokenizer.kind:
        raise UsageError(
            f"target.like: the tokenizer of {folder} is of kind {there.tokenizer.kind}; write "
            f"`tokenizer: {{kind: {there.tokenizer.kind}}}` under `target` here"
        )
    return TextSide.load(opened.path, "target", options)


def load_sides(folder: Path, recipe: Recipe) -> tuple[SourceSide, TextSide]:
    """Both sides of a model folder; DataError when a file is missing or damaged."""
    source, target = load_tokenizers(folder, recipe)
    if isinstance(source, TextSide) and source.options.length_control:
        source.lengths = LengthClasses.load(folder)
    return source, target


def load_tokenizers(folder: Path, recipe: Recipe) -> tuple[SourceSide, TextSide]:
    """Both sides without what is not of their vocabularies."""
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
