"""`transcribe --stream`: raw samples on standard input, text that grows on the screen."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Iterator
from typing import Any, TextIO

import numpy as np

from transduce.data.audio.activity import Array
from transduce.data.audio.segmentation import Cutting
from transduce.errors import UsageError
from transduce.evaluation.figures.tokens import columns_of
from transduce.output import json_line
from transduce.recognition.live import Again, Line, Listener, listen, pcm_chunks
from transduce.recognition.transcribing import Recognizer


def run_listen(
    model: Recognizer,
    rate: int,
    search: dict[str, Any],
    *,
    given: int,
    every: float,
    cutting: Cutting,
    json: bool,
) -> None:
    """Print what is said on standard input, samples at `given` Hz, until it ends (or Ctrl-C)."""
    if sys.stdin is None:
        raise UsageError("standard input is closed; pipe samples in")
    if sys.stdin.isatty():
        raise UsageError(
            "--stream reads samples from standard input, such as those of\n"
            f"  arecord -t raw -f S16_LE -c 1 -r {given} | transduce transcribe MODEL --stream"
        )
    chunks = _until_interrupted(pcm_chunks(sys.stdin.buffer, given, rate))
    show = JsonScreen(sys.stdout) if json else TextScreen(sys.stdout)
    for line in listen(
        chunks, listener_for(model, rate, search), rate=rate, cutting=cutting, every=every
    ):
        show.line(line)


def listener_for(model: Recognizer, rate: int, search: dict[str, Any]) -> Listener:
    """What hears for a model: it decodes each utterance again as it grows."""

    def decode(samples: Array) -> str:
        inputs = [(np.ascontiguousarray(samples), rate)]
        return next(model.stream(inputs, window=1, **search)).text

    return Again(decode)


def _until_interrupted(chunks: Iterator[Array]) -> Iterator[Array]:
    """Ctrl-C ends the sound, not the program: what was said last is still written."""
    try:
        yield from chunks
    except KeyboardInterrupt:
        return


class JsonScreen:
    """Every line, partial ones too, as one JSON object."""

    def __init__(self, out: TextIO) -> None:
        self._out = out

    def line(self, line: Line) -> None:
        times = {"start": round(line.start, 3), "end": round(line.end, 3)}
        print(json_line({"text": line.text, **times, "final": line.final}), file=self._out)
        self._out.flush()


class TextScreen:
    """On a terminal one line that grows until it is final; elsewhere final lines only."""

    def __init__(self, out: TextIO) -> None:
        self._out = out
        self._terminal = out.isatty()

    def line(self, line: Line) -> None:
        if self._terminal:
            # Back to the margin, and nothing of the former text left.
            end = "\n" if line.final and line.text else ""
            text = line.text if line.final else _tail(line.text)
            self._out.write(f"\r\x1b[K{text}{end}")
        elif line.final and line.text:
            self._out.write(f"{line.text}\n")
        self._out.flush()


def _tail(text: str) -> str:
    """The end of a text, as much of it as one line of the terminal holds."""
    room = shutil.get_terminal_size().columns - 1
    if columns_of(text) <= room:
        return text
    while columns_of(text) > room - 1:
        text = text[1:]
    return f"…{text}"
