"""The files of a store while they grow: examples in, ids and frames of those that stay out."""

from __future__ import annotations

import itertools
import json
import os
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import IO, Any, Protocol

import numpy as np
import numpy.typing as npt

from transduce.data.audio.features import Frames
from transduce.data.copying import CopySource
from transduce.data.corpus import Example
from transduce.data.lengths import mark_length, marked_for_training
from transduce.data.speech import SpeechSide, in_threads
from transduce.data.store import FORMAT_VERSION, META, SIDES, flatten, frame_files
from transduce.data.text import TextSide
from transduce.errors import DataError
from transduce.recipe import CorpusOptions, DataOptions

_SPEECH_CHUNK = 64  # recordings read at once: enough for several threads, little memory
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


class Writer:
    """The files of one store while they grow."""

    def __init__(
        self, folder: Path, source: TextSide | SpeechSide, target: TextSide, options: DataOptions
    ) -> None:
        self._folder = folder
        self._speech = source if isinstance(source, SpeechSide) else None
        sides = (("source", source), ("target", target))
        self._sides = {name: side for name, side in sides if isinstance(side, TextSide)}
        self._texts = [name for name, side in self._sides.items() if side.samples]
        self._copied = source if isinstance(source, CopySource) else None
        most = {name: side.reach(options.max_source_length) for name, side in self._sides.items()}
        if self._copied is not None:  # what is copied has ids beyond the target's own
            most["target"] += most["source"]
        self._dtypes = {name: "uint16" if n <= 2**16 else "uint32" for name, n in most.items()}
        self._frames = frame_files(len(self._speech.versions)) if self._speech else []
        self._limits = {"source": options.max_source_length, "target": options.max_target_length}
        # A mark before the source is not part of its length.
        self._marks = {"source": mark_length(source)} if isinstance(source, TextSide) else {}
        self._streams: dict[str, IO[bytes]] = {}
        self._ends: Counter[str] = Counter()  # where the next row of each ragged file begins
        self._counts: Counter[str] = Counter()
        self._truncated: Counter[str] = Counter()  # by side, of those kept
        self._parts: list[dict[str, Any]] = []
        self._files: list[tuple[int, str]] = []
        self._padded = self._target_tokens = self._read = 0

    def __enter__(self) -> Writer:
        return self

    def __exit__(self, *_: object) -> None:
        for stream in self._streams.values():
            stream.close()

    def write(
        self, corpora: Iterable[Readable], progress: Progress | None, limit: int | None
    ) -> None:
        """Read every corpus to its end; the description is written last."""
        ids, texts = (f"{side}.ids" for side in self._sides), (f"{s}.text" for s in self._texts)
        for name in (*ids, *texts, *self._frames):
            self._append(f"{name}.offsets", np.zeros(1, dtype=np.int64))
        for corpus in corpora:
            start = self._counts["kept"]
            examples = iter(corpus) if limit is None else itertools.islice(corpus, limit)
            size = _SPEECH_CHUNK if self._speech else _CHUNK
            while chunk := list(itertools.islice(examples, size)):
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
        # 1. texts and ids of both sides, or frames of all versions
        texts: dict[str, list[str]] = {}
        rows: dict[str, list[Any]] = {}
        cut: dict[str, list[bool]] = {}
        read = {}
        for name, side in self._sides.items():
            read[name] = side.read([e.source if name == "source" else _target(e) for e in chunk])
        if self._speech is None:
            sizes_of_targets = [len(one.ids) for one in read["target"]]
            source = self._sides["source"]
            read["source"] = marked_for_training(source, read["source"], sizes_of_targets)
        for name, found in read.items():
            texts[name], rows[name] = [one.text for one in found], [one.ids for one in found]
            cut[name] = [one.cut for one in found]
        if self._copied is not None:
            given = texts["source"], texts["target"], rows["target"]
            rows["target"] = self._copied.copied_targets(*given)
        versions: list[list[Frames]] = []
        if self._speech is not None:
            versions = in_threads(self._heard, chunk)
            # One version without a frame, such as the fastest, would be heard as nothing at all.
            plain = self._speech.plain
            rows["source"] = [made[plain] if all(map(len, made)) else [] for made in versions]
        # 2. which examples stay
        kept = [i for i in range(len(chunk)) if self._stays(texts, rows, i)]
        for name, shorter in cut.items():
            self._truncated[name] += sum(shorter[i] for i in kept)
        # 3. ids, lengths, texts and frames of those
        lengths = {}
        for name in SIDES:
            counts = (len(rows[name][i]) for i in kept)
            lengths[name] = np.fromiter(counts, dtype=np.int32, count=len(kept))
            self._append(f"{name}.lengths", lengths[name])
        for name, dtype in self._dtypes.items():
            values = flatten([rows[name][i] for i in kept], lengths[name], dtype)
            self._ragged(f"{name}.ids", values, lengths[name])
        for name in self._texts:
            encoded = [texts[name][i].encode("utf-8", "replace") for i in kept]
            sizes = np.fromiter(map(len, encoded), dtype=np.int64, count=len(encoded))
            self._ragged(f"{name}.text", np.frombuffer(b"".join(encoded), dtype=np.uint8), sizes)
        for k, name in enumerate(self._frames):
            made = [versions[i][k].astype(np.float16) for i in kept]
            sizes = np.fromiter(map(len, made), dtype=np.int64, count=len(made))
            self._ragged(name, np.concatenate(made) if made else np.zeros(0), sizes)
        # 4. where they came from, and the sums that an epoch's size is estimated from
        self._places([chunk[i] for i in kept])
        longer = lengths["source"] + (0 if self._speech else 1)
        self._padded += int(np.maximum(longer, lengths["target"] + 1).sum())
        self._target_tokens += int(lengths["target"].sum()) + len(kept)
        self._counts["kept"] += len(kept)

    def _heard(self, example: Example) -> list[Frames]:
        """The frames of a recording's versions. Errors: DataError naming the row."""
        assert self._speech is not None
        try:
            return self._speech.prepared(example.source, self._limits["source"])
        except DataError as error:
            raise DataError(
                f"{example.file}:{example.line}: {error} (`transduce data check` finds all of them)"
            ) from None

    def _stays(self, texts: dict[str, list[str]], rows: dict[str, list[Any]], i: int) -> bool:
        for name in SIDES:
            if name not in texts and not len(rows[name][i]):
                self._counts[f"{name} silent, or shorter than a frame"] += 1
                return False
            if name in texts and (not texts[name][i] or not rows[name][i]):
                self._counts[f"empty {name}"] += 1
                return False
        for name in SIDES:
            if len(rows[name][i]) - self._marks.get(name, 0) > self._limits[name]:
                unit = "tokens" if name in texts else "frames"
                self._counts[f"{name} longer than {self._limits[name]} {unit}"] += 1
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
            "truncated": {name: count for name, count in self._truncated.items() if count},
            "parts": self._parts,
            "files": self._files,
            "ids": self._dtypes,
            "texts": self._texts,
            "frames": self._speech
            and {
                "bins": self._speech.size,
                "versions": len(self._frames),
            },
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
