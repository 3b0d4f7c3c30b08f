"""What every tokenizer is, and the four ids that mean the same in all of them."""

from __future__ import annotations

import math
import random
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Protocol

PAD, BOS, EOS, UNK = 0, 1, 2, 3
SPECIALS = ("<pad>", "<s>", "</s>", "<unk>")
# Symbols of a source that stand for what is no text of its own: how long the target is to be, and
# what is missing in pre-training.
LENGTH_SYMBOLS = {name: f"<|{name}|>" for name in ("short", "medium", "long")}
MASK_SYMBOL = "<|mask|>"


class Tokenizer(Protocol):
    """Text to ids and back; ids 0 to 3 are padding, begin, end and unknown.

    No method adds or expects BOS and EOS: batches do.
    """

    @property
    def kind(self) -> str:
        """The name of the kind, as in `TokenizerOptions.kind`."""
        ...

    @property
    def size(self) -> int:
        """The number of ids, the four special ones included."""
        ...

    def encode(self, text: str) -> list[int]:
        """The best segmentation of one text."""
        ...

    def encode_batch(self, texts: Sequence[str], *, seed: int | None = None) -> list[list[int]]:
        """Ids of many texts; with a seed, a sampled segmentation where the kind has one.

        The sample is a function of `texts`, `seed` and the tokenizer alone, whichever thread asks.
        """
        ...

    def decode(self, ids: Sequence[int]) -> str:
        """Text of ids; PAD, BOS and EOS are skipped, UNK reads `<unk>`."""
        ...

    def decode_tokens(self, tokens: Sequence[str]) -> str:
        """Text of tokens as `tokens` prints them; one outside the vocabulary reads as it is."""
        ...

    def tokens(self, ids: Sequence[int]) -> list[str]:
        """One printable string per id."""
        ...

    @property
    def byte_fallback(self) -> bool:
        """Whether what is not in the vocabulary is spelled as bytes, so that nothing is unknown."""
        ...

    def written(self, text: str, ids: Sequence[int]) -> list[str]:
        """`tokens` of a text's ids, those that are not in the vocabulary as they stand in it.

        ids: as this tokenizer cuts the text, UNK or any id beyond its `size` for what is unknown.
        """
        ...

    def save(self, folder: Path, stem: str) -> Path:
        """Write `folder/stem.<extension of the kind>` and return its path."""
        ...

    def fingerprint(self) -> str:
        """A hash that differs whenever the same text could get other ids."""
        ...


def sample_lines(lines: Iterable[str], count: int, *, seed: int) -> list[str]:
    """A uniform sample of at most `count` lines of a stream of unknown length.

    Memory holds the sample only (Li 1994, algorithm L: the stretches between replaced lines are
    drawn directly, so that a line that is not taken costs no random number).
    """
    stream: Iterator[str] = iter(lines)
    sample = [line for _, line in zip(range(count), stream, strict=False)]
    if len(sample) < count:
        return sample
    rng = random.Random(seed)
    weight = rng.random() ** (1.0 / count)
    skip = _skip(rng, weight)
    for line in stream:
        if skip:
            skip -= 1
            continue
        sample[rng.randrange(count)] = line
        weight *= rng.random() ** (1.0 / count)
        skip = _skip(rng, weight)
    return sample


def _skip(rng: random.Random, weight: float) -> int:
    # Both logarithms are kept finite; a weight underflows to 0 only after endless replacements.
    weight = min(max(weight, 1e-300), 1.0 - 1e-16)
    return int(math.log(max(rng.random(), 1e-300)) / math.log1p(-weight))
