"""The valid set: pairs for the loss, inputs and references for the scores."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any

import numpy as np
import numpy.typing as npt

from transduce.data.batches import Row
from transduce.data.catalog import cache_root
from transduce.data.copying import CopySource
from transduce.data.corpus import Corpus, Example
from transduce.data.frames import Spool, Spooled
from transduce.data.lengths import marked_for_search, marked_for_training
from transduce.data.objectives import Noise
from transduce.data.sides import SourceSide
from transduce.data.speech import Heard, SpeechSide, chunks, in_threads
from transduce.data.text import Segmented, TextSide
from transduce.errors import DataError
from transduce.evaluation.metrics import group_by_source
from transduce.recipe import Recipe

_WINDOW = 2048  # inputs decoded together, as in `search.decode`
_SPEECH_WINDOW = 64  # frames take hundreds of times the memory of ids


@dataclass(frozen=True)
class ValidationSet:
    """The valid set: pairs for the loss, distinct inputs and references for the scores.

    `source_ids` and `target_ids` belong to the N pairs; `inputs` (ids) and `references` (raw
    texts) to the M inputs to be decoded; for dictionaries a word is one input. Pairs that are blank
    or too long on a side count in the scores but have no loss: there are `without_loss` of them.
    Where the model copies, `tokens` are those of the inputs as written.
    Where the source is speech, sources and inputs are frames, in a file and not in memory.
    """

    source_ids: Sequence[Row]
    target_ids: Sequence[Row]
    inputs: Sequence[Row]
    references: list[list[str]]
    without_loss: int
    tokens: list[list[str]] | None = None

    @property
    def speech(self) -> bool:
        """Whether the source is speech."""
        return isinstance(self.inputs, Spooled)

    @property
    def window(self) -> int:
        """How many inputs may be read at once."""
        return _SPEECH_WINDOW if self.speech else _WINDOW

    def lengths(self) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
        """(N,) positions of the sources and of the targets of the pairs, without end symbols."""
        return _lengths(self.source_ids), _lengths(self.target_ids)


def _lengths(rows: Sequence[Row]) -> npt.NDArray[np.int64]:
    if isinstance(rows, Spooled):
        return rows.lengths
    return np.fromiter(map(len, rows), dtype=np.int64, count=len(rows))


def load_validation_set(
    recipe: Recipe, corpora: Sequence[Corpus], source: SourceSide, target: TextSide
) -> ValidationSet:
    """Read and encode the valid set, the first `data.max_valid` examples of it if that is set.

    Errors: DataError where an example has no target or no recording, or none has two usable sides.
    """
    posed = (
        (example, corpus.options.objective == "denoise") for corpus in corpora for example in corpus
    )
    examples, noisy = [], []
    for example, damaged in islice(posed, recipe.data.max_valid):
        examples.append(example)
        noisy.append(damaged)
    if not examples:
        raise DataError("the valid set has no examples; see data.valid of the recipe")
    targets: list[str] = []
    decoded = recipe.task != "language"  # which has nothing to answer
    for example in examples:
        if example.target is None:
            raise DataError(f"{example.file}:{example.line}: a valid example needs a target")
        targets.append(example.target)
    answers = [example.answers for example in examples]
    read_targets = target.read(targets)
    target_ids = [one.ids for one in read_targets]
    longest = recipe.search.max_source
    sources: Any
    tokens = None
    if isinstance(source, SpeechSide):
        sources, whole = _heard(source, examples, longest)
        inputs, references = sources, answers
    else:
        texts = [example.source for example in examples]
        read = source.read(texts)
        marked = marked_for_training(source, read, list(map(len, target_ids)))
        sources = _damaged(recipe, source, [one.ids for one in marked], noisy)
        whole = [0 < len(ids) <= longest for ids in sources]
        distinct, references = texts, answers
        if recipe.task == "pronunciation":
            distinct, references = group_by_source(texts, targets)
            read, noisy = source.read(distinct), [False] * len(distinct)
        asked = marked_for_search(source, read, recipe.search.length)
        inputs = _damaged(recipe, source, [one.ids[:longest] for one in asked], noisy)
        if isinstance(source, CopySource):
            normal = [one.text for one in marked], [one.text for one in read_targets]
            target_ids = source.copied_targets(*normal, target_ids)
            tokens = [_as_written(source, one, ids) for one, ids in zip(asked, inputs, strict=True)]
    usable = [row for row, ids in enumerate(target_ids) if whole[row] and 0 < len(ids) <= longest]
    if not usable:
        unit = "frames" if isinstance(source, SpeechSide) else "tokens"
        raise DataError(
            f"every valid example is blank or longer than {longest:,} {unit}; "
            "see data.valid of the recipe"
        )
    return ValidationSet(
        sources.some(usable) if isinstance(sources, Spooled) else [sources[row] for row in usable],
        [target_ids[row] for row in usable],
        inputs if decoded else [],
        references if decoded else [],
        len(examples) - len(usable),
        tokens,
    )


def _as_written(side: CopySource, text: Segmented, ids: list[int]) -> list[str]:
    """The tokens that ids stand for, which may be damaged, as they stand in the text."""
    own = dict(zip(text.ids, side.written(text.text, text.ids), strict=True))
    return [own[i] if i in own else side.tokens([i])[0] for i in ids]


def _damaged(
    recipe: Recipe, side: TextSide, rows: list[list[int]], noisy: Sequence[bool]
) -> list[list[int]]:
    """Sources of corpora for denoising, damaged the same way each time."""
    if not any(noisy):
        return rows
    noise = Noise(side, recipe.data.noise)
    return [
        noise(ids, np.random.default_rng([recipe.training.seed, i])).tolist() if damaged else ids
        for i, (ids, damaged) in enumerate(zip(rows, noisy, strict=True))
    ]


def _heard(side: SpeechSide, examples: list[Example], limit: int) -> tuple[Spooled, list[bool]]:
    """The frames of each recording, at most `limit`, and whether that is all of it, and not none.

    Errors: DataError naming the row of a recording that cannot be read.
    """
    spool = Spool(cache_root() / "prepared", side.size)

    def hear(example: Example) -> Heard:
        try:
            return side.hear(example.source, limit)
        except DataError as error:
            raise DataError(f"{example.file}:{example.line}: {error}") from None

    whole = []
    for chunk in chunks(examples):
        for heard in in_threads(hear, chunk):
            spool.append(heard.frames)
            whole.append(heard.reason is None)
    return Spooled(spool, range(len(examples))), whole
