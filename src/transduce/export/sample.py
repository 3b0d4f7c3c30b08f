"""What exported graphs are checked on: given texts, the recipe's own, or random words."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import islice

import numpy as np

from transduce.data.catalog import is_here
from transduce.data.corpus import open_corpora
from transduce.data.text import TextSide
from transduce.data.tokenizers.base import UNK
from transduce.errors import DataError, UsageError
from transduce.export.parity import Ids
from transduce.inputs import Text, read_texts
from transduce.recipe import Recipe
from transduce.runtime.options import Search

SAMPLE = 100  # sources that are looked at
RANDOM_SOURCES = 32
LONGEST_RANDOM = 24  # tokens


def checked_on(
    recipe: Recipe, side: TextSide, options: Search, sample: Iterable[Text] | None
) -> tuple[list[Ids], str]:
    """At least one source, none of them empty, and in a few words what they are.

    Nothing is fetched: validation data that is not on this machine counts as not there.
    Errors: UsageError when a sample is given that has nothing to decode.
    """
    if sample is not None:
        if found := _read(side, sample, options):
            return found, "lines of the sample"
        raise UsageError("the sample has no line that the model can read")
    if found := _read(side, _validation(recipe), options):
        return found, "sources of the validation data"
    return list(random_sources(side.size)), "sources of random words"


def random_sources(size: int, *, seed: int = 1) -> list[list[int]]:
    """Sources of random words of a vocabulary of `size` ids, of lengths 1 to LONGEST_RANDOM."""
    rng = np.random.default_rng(seed)
    lengths = rng.integers(1, LONGEST_RANDOM + 1, RANDOM_SOURCES)
    lengths[0], lengths[-1] = LONGEST_RANDOM, 1
    return [rng.integers(UNK, size, n).tolist() for n in lengths]


def _validation(recipe: Recipe) -> Sequence[Text]:
    """The first sources of the recipe's validation data that can be read here."""
    found: list[Text] = []
    for corpus in recipe.data.valid:
        try:
            if corpus.name is None or is_here(corpus.name):
                (opened,) = open_corpora([corpus])
                found += [example.source for example in islice(opened, SAMPLE)]
        except (DataError, UsageError):
            continue  # another machine than that of the training; the check goes on without it
    return found[:SAMPLE]


def _read(side: TextSide, texts: Iterable[Text], options: Search) -> list[Ids]:
    read = read_texts(side, list(islice(texts, SAMPLE)), options.max_source)
    return [source.ids for source in read if source.ids]
