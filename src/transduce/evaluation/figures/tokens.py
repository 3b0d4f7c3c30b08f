"""How tokens are written in a figure."""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray

from transduce.errors import UsageError

WORD_START = "▁"  # SentencePiece's mark of a piece that begins a word
END = "</s>"
LONGEST = 24


def labels(tokens: Sequence[str], size: int) -> list[str]:
    """The text of each of `size` positions; the end symbol is added where it is not in `tokens`."""
    shown = [_label(token) for token in tokens]
    if len(shown) == size - 1:
        shown.append(END)
    if len(shown) != size:
        raise UsageError(f"the attention has {size} positions, but there are {len(tokens)} tokens")
    return shown


def word_starts(tokens: Sequence[str], size: int) -> list[bool]:
    """Whether each position begins a word.

    All do where tokens carry no such mark, or only the first one does: then the script has no
    spaces and the mark says nothing.
    """
    if sum(token.startswith(WORD_START) and len(token) > 1 for token in tokens) < 2:
        return [True] * size
    starts = [token.startswith(WORD_START) or token == END for token in tokens]
    return starts + [True] * (size - len(starts))


def checked(attention: ArrayLike) -> NDArray[np.float64]:
    """The weights (T, S) as float64; UsageError where they are not a matrix of numbers."""
    weights = np.asarray(attention, dtype=np.float64)
    if weights.ndim != 2 or 0 in weights.shape:
        raise UsageError(f"attention to draw must be (T, S) and not empty, not {weights.shape}")
    if not np.isfinite(weights).all():
        raise UsageError("the attention has weights that are not finite; the model has diverged")
    return weights


def columns_of(text: str) -> int:
    """Terminal columns that `text` takes: 2 for wide characters, 0 for combining ones."""
    return sum(map(width_of, text))


def width_of(character: str) -> int:
    """Terminal columns of one character, by the rule of glibc's wcwidth."""
    joining = "\u1160" <= character <= "\u11ff"  # vowels and finals of a spelt-out Hangul syllable
    if joining or unicodedata.category(character) in ("Mn", "Me", "Cf"):
        return 0
    return 2 if unicodedata.east_asian_width(character) in ("W", "F") else 1


def _label(token: str) -> str:
    text = token.removeprefix(WORD_START).replace(WORD_START, "␣")
    text = "".join("␣" if c.isspace() else c for c in text)
    text = "".join("�" if unicodedata.category(c) in ("Cc", "Cs") else c for c in text)
    if columns_of(text) == 0:  # a combining character alone needs something to stand on
        text = "◌" + text if text else "␣"
    return text if len(text) <= LONGEST else text[: LONGEST - 1] + "…"
