"""Preparing corpora: text files in, the memory-mapped folder of a `Store` out.

Everything streams in chunks of a few thousand examples. The folder is built beside its name and
renamed into place, so that a killed process leaves nothing that could be taken for a whole one.
"""

from __future__ import annotations

import hashlib
import itertools
import json
import os
import shutil
import socket
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import IO, Any, Protocol

import numpy as np
import numpy.typing as npt

from transduce.data.corpus import Example
from transduce.data.store import FORMAT_VERSION, META, SIDES, Store, flatten
from transduce.data.text import TextSide
from transduce.disk import FULL
from transduce.errors import DataError
from transduce.recipe import CorpusOptions, DataOptions

_CHUNK = 8192  # examples tokenized at once: enough for SentencePiece's threads, little memory
Progress = Callable[[int], None]  # called with the number of examples read so far


class Readable(Protocol):
    """What preparing needs of a corpus."""

    options: CorpusOptions
    label: str

    def __iter__(self) -> Iterator[Example]: ...

    def fingerprint(self) -> str:
        """A hash of everything that its examples depend on."""
        ...


def prepare(
    corpora: Sequence[Readable],
    source: TextSide,
    target: TextSide,
    options: DataOptions,
    cache: Path,
    progress: Progress | None = None,
    *,
    limit: int | None = None,
) -> Store:
    """Tokenize corpora into a folder of `cache` named by their content, or open the one there.

    Blank sides and examples above the length limits of `options` are dropped and counted, by
    reason, in `Store.counts`. `limit` reads so many examples of each corpus only.
    Errors: DataError as from the corpora, when no example is left, or when the disk is full.
    """
    folder = cache / _content_hash(corpora, source, target, options, limit)
    weights = [corpus.options.weight for corpus in corpora]
    if folder.exists():
        try:
            return Store(folder, weights=weights)
        except DataError:  # damaged since it was made: made anew
            shutil.rmtree(folder, ignore_errors=True)
    beside = cache / f"{folder.name}.new-{socket.gethostname()}-{os.getpid()}"
    try:
        _remove_abandoned(cache)
        beside.mkdir(parents=True)
        with _Writer(beside, source, target, options) as writer:
            writer.write(corpora, progress, limit)
        _rename(beside, folder)
    except OSError as error:
        if error.errno in FULL:
            raise DataError(f"the disk is full: cannot prepare the corpus in {cache}") from None
        raise DataError(f"cannot prepare the corpus in {cache}: {error}") from None
    finally:
        shutil.rmtree(beside, ignore_errors=True)
    return Store(folder, weights=weights)


class _Writer:
    """The files of one store while they grow."""

    def __init__(
        self, folder: Path, source: TextSide, target: TextSide, options: DataOptions
    ) -> None:
        self._folder = folder
        self._sides = {"source": source, "target": target}
        self._texts = [name for name, side in self._sides.items() if side.samples]
        self._dtypes = {
            name: "uint16" if side.size <= 2**16 else "uint32" for name, side in self._sides.items()
        }
        self._limits = {"source": options.max_source_length, "target": options.max_target_length}
        self._streams: dict[str, IO[bytes]] = {}
        self._ends: Counter[str] = Counter()  # where the next row of each ragged file begins
        self._counts: Counter[str] = Counter()
        self._parts: list[dict[str, Any]] = []
        self._files: list[tuple[int, str]] = []
        self._padded = self._target_tokens = self._read = 0

    def __enter__(self) -> _Writer:
        return self

    def __exit__(self, *_: object) -> None:
        for stream in self._streams.values():
            stream.close()

    def write(
        self, corpora: Iterable[Readable], progress: Progress | None, limit: int | None
    ) -> None:
        """Read every corpus to its end; the description is written last."""
        for name in ("source.ids", "target.ids", *(f"{side}.text" for side in self._texts)):
            self._append(f"{name}.offsets", np.zeros(1, dtype=np.int64))
        for corpus in corpora:
            start = self._counts["kept"]
            examples = iter(corpus) if limit is None else itertools.islice(corpus, limit)
            while chunk := list(itertools.islice(examples, _CHUNK)):
                self._chunk(chunk)
                self._read += len(chunk)
                if progress is not None:
                    progress(self._read)
            part = {"label": corpus.label, "start": start, "stop": self._counts["kept"]}
            self._parts.append(part)
        if not self._counts["kept"]:
            raise DataError(_nothing_left([part["label"] for part in self._parts], self._counts))
        self._finish()

    def _chunk(self, chunk: Sequence[Example]) -> None:
        """Normalise, tokenize, drop what must be dropped, and append the rest to every file."""
        # 1. texts and ids of both sides
        texts = {
            "source": [self._sides["source"].normalize(example.source) for example in chunk],
            "target": [self._sides["target"].normalize(_target(example)) for example in chunk],
        }
        ids = {name: self._sides[name].segment(texts[name]) for name in SIDES}
        # 2. which examples stay
        rows = [i for i in range(len(chunk)) if self._stays(texts, ids, i)]
        # 3. ids, lengths and texts of those
        lengths = {}
        for name in SIDES:
            kept = [ids[name][i] for i in rows]
            lengths[name] = np.fromiter(map(len, kept), dtype=np.int32, count=len(kept))
            self._append(f"{name}.lengths", lengths[name])
            values = flatten(kept, lengths[name], self._dtypes[name])
            self._ragged(f"{name}.ids", values, lengths[name])
        for name in self._texts:
            encoded = [texts[name][i].encode("utf-8", "replace") for i in rows]
            sizes = np.fromiter(map(len, encoded), dtype=np.int64, count=len(encoded))
            self._ragged(f"{name}.text", np.frombuffer(b"".join(encoded), dtype=np.uint8), sizes)
        # 4. where they came from, and the sums that an epoch's size is estimated from
        self._places([chunk[i] for i in rows])
        self._padded += int(np.maximum(lengths["source"], lengths["target"]).sum()) + len(rows)
        self._target_tokens += int(lengths["target"].sum()) + len(rows)
        self._counts["kept"] += len(rows)

    def _stays(self, texts: dict[str, list[str]], ids: dict[str, list[list[int]]], i: int) -> bool:
        for name in SIDES:
            if not texts[name][i] or not ids[name][i]:
                self._counts[f"empty {name}"] += 1
                return False
        for name in SIDES:
            if len(ids[name][i]) > self._limits[name]:
                self._counts[f"{name} longer than {self._limits[name]} tokens"] += 1
                return False
        return True

    def _places(self, kept: Sequence[Example]) -> None:
        base = self._counts["kept"]
        for i, example in enumerate(kept):
            if not self._files or self._files[-1][1] != example.file:
                self._files.append((base + i, example.file))
        self._append("lines", np.fromiter((e.line for e in kept), dtype=np.int32, count=len(kept)))

    def _ragged(self, name: str, values: npt.NDArray[Any], lengths: npt.NDArray[Any]) -> None:
        offsets = np.cumsum(lengths, dtype=np.int64) + self._ends[name]
        if len(offsets):
            self._ends[name] = int(offsets[-1])
        self._append(name, values)
        self._append(f"{name}.offsets", offsets)

    def _append(self, name: str, values: npt.NDArray[Any]) -> None:
        stream = self._streams.get(name)
        if stream is None:
            stream = self._streams[name] = (self._folder / name).open("wb")
        stream.write(values.tobytes())

    def _finish(self) -> None:
        for stream in self._streams.values():
            stream.flush()
            os.fsync(stream.fileno())
        meta = {
            "format": FORMAT_VERSION,
            "size": self._counts["kept"],
            "counts": dict(self._counts),
            "parts": self._parts,
            "files": self._files,
            "ids": self._dtypes,
            "texts": self._texts,
            "padded_tokens": self._padded,
            "target_tokens": self._target_tokens,
            "bytes": {name: stream.tell() for name, stream in self._streams.items()},
        }
        with (self._folder / META).open("w", encoding="utf-8") as out:
            json.dump(meta, out, ensure_ascii=False, indent=1)
            out.flush()
            os.fsync(out.fileno())


def _target(example: Example) -> str:
    if example.target is None:
        raise DataError(f"{example.file}:{example.line}: no target; training needs both sides")
    return example.target


def _nothing_left(labels: Sequence[str], counts: Counter[str]) -> str:
    reasons = ", ".join(f"{n} {reason}" for reason, n in counts.items() if n) or "no lines"
    return f"no usable example in {', '.join(labels)}: {reasons}"


def _content_hash(
    corpora: Sequence[Readable],
    source: TextSide,
    target: TextSide,
    options: DataOptions,
    limit: int | None,
) -> str:
    """32 hexadecimal digits that change with anything the prepared files depend on."""
    tree = [
        FORMAT_VERSION,
        [[corpus.label, corpus.fingerprint()] for corpus in corpora],
        [[side.fingerprint(), side.samples] for side in (source, target)],
        [options.max_source_length, options.max_target_length, limit],
    ]
    return hashlib.sha256(json.dumps(tree).encode()).hexdigest()[:32]


def _rename(beside: Path, folder: Path) -> None:
    try:
        beside.rename(folder)
    except OSError:
        if not (folder / META).exists():  # else another process was quicker, with the same content
            raise


def _remove_abandoned(cache: Path) -> None:
    """Remove what killed processes of this machine left half made."""
    here = f".new-{socket.gethostname()}-"
    for path in cache.glob(f"*{here}*"):
        pid = path.name.rpartition("-")[2]
        if pid.isdigit() and not _alive(int(pid)):
            shutil.rmtree(path, ignore_errors=True)


def _alive(pid: int) -> bool:
    if pid == os.getpid():
        return False  # this process prepares one corpus at a time: what bears its name is old
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except OSError:
        pass  # it exists and belongs to another user
    return True
