"""A worker that hears: recordings to text, one turn a question (see turns.py).

python bench/worker_speech.py FOLDER RECORDINGS LOAD_KEYWORDS THREADS

RECORDINGS is a file with one JSON object a line: `audio`, `text`, and `end`, the second at which
the first word ends, or null where that is not known.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from turns import Questions

import transduce
from transduce.data.audio.files import load
from transduce.recognition.live import Line, listen
from transduce.streaming import listener, waits_for_the_end


def main(folder: str, recordings: str, keywords: str, threads: str) -> None:
    """Answer for as long as asked. All have "search", its options; seconds are of computing.

    {"how": "features"}: frames of samples in memory; {"how": "single"}: file to text, one by one;
    {"how": "bulk"}: the same, all at once, as `transduce predict` does it; {"how": "stream",
    "chunk": s, "every": s}: what `transcribe --stream` does, chunks of sound of s seconds.
    """
    questions = Questions()
    torch.set_num_threads(int(threads))
    model = transduce.load(folder, device="cpu", **json.loads(keywords))
    rows = [json.loads(line) for line in Path(recordings).read_text("utf-8").splitlines()]
    rate = model.source.options.rate
    waves = [load(row["audio"], rate)[0] for row in rows]
    questions.tell(
        system=f"transduce {transduce.__version__}",
        parameters=model.parameters,
        audio=sum(len(wave) for wave in waves) / rate,
    )
    while True:
        asked = questions.next()
        how, search = asked["how"], asked.get("search", {})
        begin = time.perf_counter()
        if how == "features":
            for wave in waves:
                model.source.features(wave)
            questions.tell(seconds=time.perf_counter() - begin)
        elif how == "single":
            texts = [model(row["audio"], **search).text for row in rows]
            questions.tell(seconds=time.perf_counter() - begin, texts=texts)
        elif how == "bulk":
            texts = [out.text for out in model([row["audio"] for row in rows], **search)]
            questions.tell(seconds=time.perf_counter() - begin, texts=texts)
        elif reason := waits_for_the_end(model):
            questions.tell(left_out=reason)
        else:
            heard = [
                stream(model, wave, row, search, asked["chunk"], asked["every"])
                for wave, row in zip(waves, rows, strict=True)
            ]
            questions.tell(seconds=time.perf_counter() - begin, **together(heard))


class Clock:
    """Sound in chunks as a microphone gives them, without waiting for it.

    `now` is the second at which whoever hears is: it cannot have a chunk before its last sample was
    spoken, nor before it is done with the one before.
    """

    def __init__(self, wave: Any, rate: int, chunk: float) -> None:
        self._wave, self._rate = wave, rate
        self._size = max(1, round(chunk * rate))
        self._at, self._begin = 0.0, time.perf_counter()

    def now(self) -> float:
        return self._at + time.perf_counter() - self._begin

    def chunks(self) -> Iterator[Any]:
        for first in range(0, len(self._wave), self._size):
            part = self._wave[first : first + self._size]
            self._at = max(self.now(), (first + len(part)) / self._rate)
            self._begin = time.perf_counter()
            yield part


def stream(
    model: transduce.Transducer,
    wave: Any,
    row: dict[str, Any],
    search: dict[str, Any],
    chunk: float,
    every: float,
) -> dict[str, Any]:
    """What one recording is heard as, what became of its first word (see `fate_of`), and the
    milliseconds from the end of that word until a partial line began with it; None if none did, or
    its end is not known."""
    rate = model.source.options.rate
    clock = Clock(wave, rate, chunk)
    said, shown = [], ""
    lines = []
    for line in listen(clock.chunks(), listener(model, **search), rate=rate, every=every):
        lines.append((clock.now(), line))
        if line.final and line.text:
            said.append((shown, line.text))
        shown = "" if line.final else line.text
    fate, at, kept = fate_of((row["text"].split() or [""])[0], lines)
    known = at is not None and row["end"] is not None
    return {
        "text": " ".join(text for _, text in said),
        "partial": " ".join(text for text, _ in said),
        "late": 1000 * (at - row["end"]) if known else None,
        "fate": fate,
        "kept": kept,
    }


def fate_of(word: str, lines: Sequence[tuple[float, Line]]) -> tuple[str, float | None, bool]:
    """What became of the first word of the first utterance, of lines and the second of each.

    "partial": a partial line began with it, at the second that is returned too; "final": the final
    line alone did; "never"; "nothing": no line had any text. And whether the final line began with
    it. An utterance that was taken back counts as never shown right.
    """
    at, something = None, False
    for now, line in lines:
        something = something or bool(line.text)
        right = line.text.split()[:1] == [word]
        if line.final and line.text:
            return "partial" if at is not None else "final" if right else "never", at, right
        if line.final:
            at = None
        elif right and at is None:
            at = now
    return "never" if something else "nothing", None, False


def together(heard: list[dict[str, Any]]) -> dict[str, Any]:
    """Several recordings' answers as one."""
    return {
        "texts": [one["text"] for one in heard],
        "partial": [one["partial"] for one in heard],
        "late": [one["late"] for one in heard if one["late"] is not None],
        "fates": [one["fate"] for one in heard],
        "kept": [one["kept"] for one in heard],
    }


if __name__ == "__main__":
    main(*sys.argv[1:])
