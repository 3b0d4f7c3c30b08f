"""SentencePiece BPE and unigram, with BPE-dropout and subword regularisation.

BPE: Sennrich et al. 2016 (1508.07909); BPE-dropout: Provilkov et al. 2020 (1910.13267);
unigram and its sampling: Kudo 2018 (1804.10959); the library: Kudo and Richardson 2018.
"""

from __future__ import annotations

import hashlib
import io
import itertools
import re
import threading
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import sentencepiece

from transduce.data.tokenizers.base import BOS, EOS, PAD, SPECIALS, UNK, sample_lines
from transduce.errors import DataError, UsageError

SAMPLE = 1_000_000  # lines that SentencePiece learns from; more do not change what it learns
_LONGEST = 1000  # characters; SentencePiece leaves out training lines above 4192 bytes
_SPACE = "\u2581"  # stands for the space before a word in SentencePiece's pieces
_UNIGRAM_ALPHA = 0.2  # Kudo 2018, section 5: unlimited candidates with this smoothing

# SentencePiece draws from one generator per thread, seeded when the thread first samples from a
# seed that is global to the process: whoever sets it must sample before another sets it again.
_SAMPLING = threading.Lock()


class SubwordTokenizer:
    """A trained SentencePiece model; `dropout` acts only when a seed is given to `encode_batch`."""

    def __init__(self, model: bytes, *, dropout: float = 0.0) -> None:
        self._model = model
        self._pieces: Any = sentencepiece.SentencePieceProcessor(model_proto=model)
        self._kind = _kind_of(self._pieces)
        self.dropout = dropout
        self._written: list[str] | None = None  # the pieces, once somebody asks

    @property
    def kind(self) -> str:
        return self._kind

    @property
    def size(self) -> int:
        return int(self._pieces.get_piece_size())

    @property
    def byte_fallback(self) -> bool:
        return any(map(self._pieces.is_byte, range(self.size)))

    def encode(self, text: str) -> list[int]:
        return list(self._pieces.encode(text, out_type=int))

    def encode_batch(self, texts: Sequence[str], *, seed: int | None = None) -> list[list[int]]:
        texts = list(texts)
        if seed is None or self.dropout == 0.0:
            if len(texts) == 1:  # for several, threads are started
                return [self.encode(texts[0])]
            return list(self._pieces.encode(texts, out_type=int))
        return self._sample(texts, seed)

    def _sample(self, texts: list[str], seed: int) -> list[list[int]]:
        """Sample in a thread of its own, which so gets a generator of its own from `seed`."""
        out: list[list[list[int]]] = []
        failure: list[BaseException] = []

        def work() -> None:
            try:
                sentencepiece.set_random_generator_seed(seed % 2**32)
                encoded = self._pieces.encode(
                    texts,
                    out_type=int,
                    enable_sampling=True,
                    nbest_size=-1,
                    alpha=_UNIGRAM_ALPHA if self._kind == "unigram" else self.dropout,
                    num_threads=1,  # more would share the texts out in an order that varies
                )
                out.append(list(encoded))
            except BaseException as error:  # handed to the caller's thread
                failure.append(error)

        with _SAMPLING:
            worker = threading.Thread(target=work, name="subword-sampling")
            worker.start()
            worker.join()
        if failure:
            raise failure[0]
        return out[0]

    def decode(self, ids: Sequence[int]) -> str:
        size = self.size
        kept = [int(i) if 0 <= i < size else UNK for i in ids if i not in (PAD, BOS, EOS)]
        return str(self._pieces.decode(kept)) if kept else ""

    def decode_tokens(self, tokens: Sequence[str]) -> str:
        # Not by SentencePiece, which leaves the space mark of a piece it does not know as it is.
        silent = (SPECIALS[PAD], SPECIALS[BOS], SPECIALS[EOS])
        kept = [token for token in tokens if token not in silent]
        parts: list[str] = []
        for is_byte, run in itertools.groupby(kept, key=self._is_byte):
            if is_byte:
                spelled = bytes(int(token[3:5], 16) for token in run)
                parts.append(spelled.decode("utf-8", "replace"))
            else:
                parts.extend(token.replace(_SPACE, " ") for token in run)
        return "".join(parts).removeprefix(" ")

    def _is_byte(self, token: str) -> bool:
        return token.startswith("<0x") and bool(
            self._pieces.is_byte(self._pieces.piece_to_id(token))
        )

    def tokens(self, ids: Sequence[int]) -> list[str]:
        if self._written is None:
            # All at once, since to ask for one costs more than to look it up.
            self._written = [str(piece) for piece in self._pieces.id_to_piece(range(self.size))]
        written, size = self._written, self.size
        return [written[i] if 0 <= i < size else SPECIALS[UNK] for i in ids]

    def written(self, text: str, ids: Sequence[int]) -> list[str]:
        # Unknown characters in a row are one piece, the same ones however the rest is cut.
        pieces = zip(self._pieces.encode(text, out_type=str), self.encode(text), strict=True)
        unknown = [piece for piece, i in pieces if i == UNK]
        size, tokens = self.size, self.tokens(ids)
        places = [n for n, i in enumerate(ids) if i == UNK or i >= size]
        if len(places) == len(unknown):
            for place, piece in zip(places, unknown, strict=True):
                tokens[place] = piece
        return tokens

    def save(self, folder: Path, stem: str) -> Path:
        path = folder / f"{stem}.model"
        path.write_bytes(self._model)
        return path

    def fingerprint(self) -> str:
        return hashlib.sha256(self._model).hexdigest()


def _kind_of(pieces: Any) -> str:
    """BPE scores its pieces 0, -1, -2, … in merge order; unigram with log-probabilities."""
    scores = (
        pieces.get_score(i)
        for i in range(pieces.get_piece_size())
        if not (pieces.is_control(i) or pieces.is_unknown(i) or pieces.is_byte(i))
    )
    return "bpe" if all(score == int(score) for score in scores) else "unigram"


def train_subword(
    kind: str,
    texts: Iterable[str],
    *,
    size: int,
    dropout: float,
    coverage: float,
    byte_fallback: bool,
    seed: int,
    symbols: Sequence[str] = (),
) -> SubwordTokenizer:
    """Learn `size` pieces (fewer if the text has fewer) from at most a million lines of `texts`.

    `symbols` are pieces from the start, and are nowhere cut.

    Errors: DataError when the text is empty, UsageError when `size` is less than its characters.
    """
    lines = sample_lines((text for text in texts if text.strip()), SAMPLE, seed=seed)
    if not lines:
        raise DataError(f"cannot train a {kind} tokenizer: the text is empty; check `data`")
    written = io.BytesIO()
    try:
        sentencepiece.SentencePieceTrainer.train(
            sentence_iterator=_chunks(lines),
            model_writer=written,
            model_type=kind,
            vocab_size=size,
            hard_vocab_limit=False,  # a small corpus gets the pieces it has, not an error
            character_coverage=coverage,
            byte_fallback=byte_fallback,
            normalization_rule_name="identity",  # the text side has normalised
            pad_id=PAD,
            bos_id=BOS,
            eos_id=EOS,
            unk_id=UNK,
            pad_piece=SPECIALS[PAD],
            bos_piece=SPECIALS[BOS],
            eos_piece=SPECIALS[EOS],
            unk_piece=SPECIALS[UNK],
            unk_surface=SPECIALS[UNK],
            user_defined_symbols=list(symbols),
            num_threads=4,  # fixed: unigram's sums, hence its pieces, depend on it
            minloglevel=2,
        )
    except RuntimeError as error:
        raise _explained(error, kind, size) from None
    return SubwordTokenizer(written.getvalue(), dropout=dropout)


def _chunks(lines: Iterable[str]) -> Iterator[str]:
    """Cut very long lines, which SentencePiece would leave out without a word."""
    for line in lines:
        for start in range(0, len(line), _LONGEST):
            chunk = line[start : start + _LONGEST]
            if chunk.strip():
                yield chunk


def _explained(error: RuntimeError, kind: str, size: int) -> Exception:
    few = re.search(r"smaller than required_chars\. \d+ vs (\d+)", str(error))
    if few:
        return UsageError(
            f"tokenizer.size {size} is too small: this text has so many different characters that "
            f"at least {few[1]} ids are needed; raise `size`, or lower `coverage` (0.9995 leaves "
            "the rarest characters out), with `byte_fallback: true` to spell those as bytes"
        )
    return DataError(f"cannot train a {kind} tokenizer of size {size}: {error}")


def subword_from_bytes(model: bytes, *, dropout: float, where: str) -> SubwordTokenizer:
    """Read what `save` wrote; DataError when it is something else."""
    try:
        tokenizer = SubwordTokenizer(model, dropout=dropout)
        specials = tokenizer.tokens([PAD, BOS, EOS, UNK]) if tokenizer.size > UNK else []
    except RuntimeError:
        specials = []
    if specials != list(SPECIALS):
        raise DataError(f"{where} is not a tokenizer of transduce, or is damaged")
    return tokenizer
