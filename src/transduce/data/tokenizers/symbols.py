"""Tokenizers with a plain list of symbols: characters, words, symbols; and bytes.

Words are cut at whitespace and the rarest are left out; symbols (phones, actions) are cut at
whitespace too and all kept. With byte fallback, what is outside the list is spelled as UTF-8 bytes.
"""

from __future__ import annotations

import hashlib
import itertools
import json
import re
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path

from transduce.data.tokenizers.base import BOS, EOS, PAD, SPECIALS, UNK
from transduce.errors import DataError

FORMAT_VERSION = 1
_FIRST = len(SPECIALS)
_BYTE = re.compile(r"<0x([0-9A-F]{2})>")
_MOST_COUNTED = 4_000_000  # distinct words held in memory while counting


class SymbolTokenizer:
    """Characters, words or symbols, each with its own id.

    Layout of ids: the four special ones, then 256 bytes if `byte_fallback`, then the symbols.
    A word spelled in bytes ends with a space byte, so that two of them in a row stay two. `marks`
    are those symbols that are found also inside a word, and never cut.
    """

    def __init__(
        self,
        kind: str,
        symbols: Sequence[str],
        *,
        byte_fallback: bool = False,
        marks: Sequence[str] = (),
    ) -> None:
        self._kind = kind
        self.marks = tuple(marks)
        longest_first = sorted(self.marks, key=len, reverse=True)
        self._around = re.compile(f"({'|'.join(map(re.escape, longest_first))})")
        self.symbols = tuple(symbols)
        self.byte_fallback = byte_fallback
        self._base = _FIRST + (256 if byte_fallback else 0)
        self._ids = {symbol: self._base + i for i, symbol in enumerate(self.symbols)}
        self._joint = "" if kind == "characters" else " "

    @property
    def kind(self) -> str:
        return self._kind

    @property
    def size(self) -> int:
        return self._base + len(self.symbols)

    def encode(self, text: str) -> list[int]:
        units = self.units(text)
        ids = self._ids
        if not self.byte_fallback:
            return [ids.get(unit, UNK) for unit in units]
        out: list[int] = []
        for unit in units:
            known = ids.get(unit)
            if known is None:
                out.extend(_FIRST + b for b in (unit + self._joint).encode("utf-8", "replace"))
            else:
                out.append(known)
        return out

    def units(self, text: str) -> Iterable[str]:
        """The parts of a text that have an id each, known or not."""
        if not self.marks:
            return self._cut(text)
        # Every other part is a mark: that is what was split at.
        parts = enumerate(self._around.split(text))
        return [unit for i, part in parts for unit in ([part] if i % 2 else self._cut(part))]

    def _cut(self, text: str) -> Iterable[str]:
        return text if self._kind in ("characters", "bytes") else text.split()

    def encode_batch(self, texts: Sequence[str], *, seed: int | None = None) -> list[list[int]]:
        return [self.encode(text) for text in texts]

    def decode(self, ids: Sequence[int]) -> str:
        kept = (int(i) for i in ids if i not in (PAD, BOS, EOS))
        return self._join(i - _FIRST if self._is_byte(i) else self._name(i) for i in kept)

    def decode_tokens(self, tokens: Sequence[str]) -> str:
        return self._join(map(self._byte_or_symbol, tokens))

    def _is_byte(self, i: int) -> bool:
        return _FIRST <= i < self._base

    def _byte_or_symbol(self, token: str) -> int | str:
        if not self.byte_fallback or token in self._ids:
            return token
        byte = _BYTE.fullmatch(token)
        return int(byte[1], 16) if byte else token

    def _join(self, units: Iterable[int | str]) -> str:
        """Text of symbols and of byte values, each run of which spells units outside the list."""
        parts: list[str] = []
        for is_byte, run in itertools.groupby(units, key=lambda unit: isinstance(unit, int)):
            if is_byte:
                spelled = bytes(run).decode("utf-8", "replace")  # type: ignore[arg-type]
                parts.append(spelled.removesuffix(self._joint))
            else:
                parts.extend(run)  # type: ignore[arg-type]
        return self._joint.join(parts)

    def tokens(self, ids: Sequence[int]) -> list[str]:
        return [self._name(int(i)) for i in ids]

    def _name(self, i: int) -> str:
        if 0 <= i < _FIRST:
            return SPECIALS[i]
        if self._is_byte(i):
            return f"<0x{i - _FIRST:02X}>"
        if i < self.size:
            return self.symbols[i - self._base]
        return SPECIALS[UNK]

    def written(self, text: str, ids: Sequence[int]) -> list[str]:
        units = list(self.units(text))
        return units if len(units) == len(ids) else self.tokens(ids)

    def save(self, folder: Path, stem: str) -> Path:
        path = folder / f"{stem}.json"
        path.write_text(self._json(), encoding="utf-8")
        return path

    def _json(self) -> str:
        tree: dict[str, object] = {
            "format": FORMAT_VERSION,
            "kind": self._kind,
            "byte_fallback": self.byte_fallback,
            "symbols": self.symbols,
        }
        if self.marks:
            tree["marks"] = self.marks
        return json.dumps(tree, ensure_ascii=False, indent=0) + "\n"

    def fingerprint(self) -> str:
        return hashlib.sha256(self._json().encode("utf-8", "surrogatepass")).hexdigest()


class ByteTokenizer(SymbolTokenizer):
    """UTF-8 bytes: 260 ids and those of marks, no training, every text comes back as it was."""

    def __init__(self, marks: Sequence[str] = ()) -> None:
        super().__init__("bytes", marks, byte_fallback=True, marks=marks)
        self._joint = ""

    def encode(self, text: str) -> list[int]:
        if self.marks:
            return super().encode(text)
        return [_FIRST + b for b in text.encode("utf-8", "replace")]


def count_units(texts: Iterable[str], *, characters: bool) -> Counter[str]:
    """How often each character or whitespace-separated unit occurs.

    When millions of distinct units are held, those seen once are forgotten, so memory is bounded.
    """
    counts: Counter[str] = Counter()
    for text in texts:
        counts.update(text if characters else text.split())
        if len(counts) > _MOST_COUNTED:
            counts = Counter({unit: n for unit, n in counts.items() if n > 1})
    return counts


def train_symbols(
    kind: str,
    texts: Iterable[str],
    *,
    size: int,
    coverage: float,
    byte_fallback: bool,
    marks: Sequence[str] = (),
) -> SymbolTokenizer:
    """The vocabulary of a corpus: `marks`, then the most frequent first.

    words: at most `size` ids in all. characters: the most frequent that make up `coverage` of the
    text. symbols: every one. Errors: DataError when there is nothing but blank lines.
    """
    if marks:
        anywhere = re.compile("|".join(map(re.escape, marks)))
        texts = (anywhere.sub(" ", text) for text in texts)
    counts = count_units(texts, characters=kind == "characters")
    if not counts:
        raise DataError(f"cannot build a vocabulary of {kind}: the text is empty; check `data`")
    order = sorted(counts, key=lambda unit: (-counts[unit], unit))
    if kind == "words":
        order = order[: max(1, size - _FIRST - (256 if byte_fallback else 0) - len(marks))]
    elif kind == "characters" and coverage < 1.0:
        enough, covered = coverage * sum(counts.values()), 0
        for kept, unit in enumerate(order, start=1):
            covered += counts[unit]
            if covered >= enough:
                order = order[:kept]
                break
    known = [*marks, *(unit for unit in order if unit not in set(marks))]
    return SymbolTokenizer(kind, known, byte_fallback=byte_fallback, marks=marks)


def symbols_from_json(text: str, *, where: str) -> SymbolTokenizer:
    """Read what `save` wrote; DataError when it is something else."""
    try:
        tree = json.loads(text)
        kind, symbols = tree["kind"], tree["symbols"]
        byte_fallback, version = bool(tree["byte_fallback"]), tree["format"]
        marks = tree.get("marks", [])
    except (ValueError, KeyError, TypeError) as error:
        raise DataError(f"{where} is not a tokenizer file, or is damaged ({error})") from None
    if version != FORMAT_VERSION:
        raise DataError(f"{where} has tokenizer format {version}; this version reads 1")
    if not isinstance(marks, list) or not all(isinstance(m, str) and m for m in marks):
        raise DataError(f"{where} is not a tokenizer file, or is damaged (marks {marks!r})")
    if kind == "bytes":
        return ByteTokenizer(marks)
    known = kind in ("characters", "words", "symbols")
    if not known or not isinstance(symbols, list) or not all(isinstance(s, str) for s in symbols):
        raise DataError(f"{where} is not a tokenizer file, or is damaged (kind {kind!r})")
    if len(set(symbols)) != len(symbols):
        raise DataError(f"{where} is damaged: a symbol occurs twice")
    if not set(marks) <= set(symbols):
        raise DataError(f"{where} is damaged: a mark is no symbol")
    return SymbolTokenizer(kind, symbols, byte_fallback=byte_fallback, marks=marks)
