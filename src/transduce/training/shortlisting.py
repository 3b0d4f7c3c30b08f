"""Making a model folder's shortlist from its training data, and saying how much it covers."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from transduce.data.batches import Row
from transduce.data.catalog import cache_root
from transduce.data.corpus import open_corpora
from transduce.data.prepare import prepare
from transduce.data.sides import load_texts
from transduce.data.store import Store
from transduce.data.tokenizers.base import UNK
from transduce.folder import SHORTLIST, ModelFolder, publish_more
from transduce.model.shortlist import Shortlist
from transduce.model.weights import tensor_bytes
from transduce.training.lexicon import learn_lexicon
from transduce.training.validation import load_validation_set

TOGETHER = 12_000_000  # pairs of tokens that a lexicon is learnt from: some 500 MiB while it is
COUNTS = (5, 10, 20, 50)  # candidates whose coverage is told


@dataclass(frozen=True)
class Coverage:
    """With `count` candidates of each source token: mean words of a valid sentence's shortlist, and
    the share of its reference's tokens that are among them."""

    count: int
    words: float
    share: float


def make_shortlist(
    folder: ModelFolder, count: int, frequent: int, progress: Callable[[int], None]
) -> list[Coverage]:
    """Learn `count` candidates of each source token, and put them into the model folder.

    `frequent` target tokens are on every shortlist. Errors: as from the corpora of the recipe.
    """
    recipe = folder.recipe
    source, target = load_texts(folder.path, recipe, "a shortlist")
    store = prepare(
        open_corpora(recipe.data.train),
        source,
        target,
        recipe.data,
        cache_root() / "prepared",
        progress,
    )
    sources, targets = _sample(store, TOGETHER)
    lexicon = learn_lexicon(sources, targets)
    counts = np.bincount(np.concatenate(targets), minlength=target.size)
    counts[: UNK + 1] = counts.max() + 1  # these always
    always = np.argsort(-counts, kind="stable")[: UNK + 1 + frequent]
    shortlist = Shortlist(
        torch.from_numpy(lexicon.best(source.size, count)).long(),
        torch.from_numpy(np.sort(always)).long(),
    )
    valid = load_validation_set(recipe, open_corpora(recipe.data.valid), source, target)
    found = [
        _coverage(shortlist.first(n), n, valid.source_ids, valid.target_ids, target.size)
        for n in sorted({*(n for n in COUNTS if n < count), count})
    ]
    tensors = {"candidates": shortlist.candidates.int(), "always": shortlist.always.int()}
    publish_more(folder, {SHORTLIST: tensor_bytes(tensors)})
    return found


def _sample(store: Store, together: int) -> tuple[list[list[int]], list[list[int]]]:
    """Examples evenly out of a corpus, whose pairs of tokens are about `together`."""
    total = float(np.dot(store.source_lengths + 1.0, store.target_lengths))
    indices = np.arange(0, len(store), max(1, round(total / together)))
    sources, targets = store.source_ids(indices), store.target_ids(indices)
    store.release()
    return [ids.tolist() for ids in sources], [ids.tolist() for ids in targets]


def _coverage(
    shortlist: Shortlist,
    count: int,
    sources: Sequence[Row],
    targets: Sequence[Row],
    vocabulary: int,
) -> Coverage:
    words = inside = tokens = 0
    for source, target in zip(sources, targets, strict=True):
        members = shortlist.members(
            torch.tensor([source]), torch.tensor([len(source)]), vocabulary
        )[0]
        words += int(members.sum())
        inside += int(members[torch.tensor(target)].sum())
        tokens += len(target)
    return Coverage(count, words / len(sources), inside / tokens)
