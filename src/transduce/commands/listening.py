"""`transcribe --stream`: raw samples on standard input, text that grows on the screen."""

from __future__ import annotations

import shutil
import signal
import sys
import threading
from collections.abc import Iterable, Iterator
from types import FrameType
from typing import Any, TextIO

import numpy as np

from transduce.data.audio.activity import Array
from transduce.data.audio.segmentation import Cutting
from transduce.data.speech import Speech
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
    show = JsonScreen(sys.stdout) if json else TextScreen(sys.stdout)
    listener = listener_for(model, rate, search)
    with UntilInterrupted(pcm_chunks(sys.stdin.buffer, given, rate)) as chunks:
        for line in listen(chunks, listener, rate=rate, cutting=cutting, every=every):
            show.line(line)


def listener_for(model: Recognizer, rate: int, search: dict[str, Any]) -> Listener:
    """What hears for a model: frame by frame, or, where the model must know an utterance's end, by
    decoding it again as it grows, which is told on stderr."""
    from transduce import streaming
    from transduce.transducer import Transducer

    if isinstance(model, Transducer):
        reason = streaming.waits_for_the_end(model)
        if reason is None:
            return streaming.listener(model, **search)
        print(
            f"transduce: this model hears utterances as a whole: {reason}. Each is decoded again "
            "as it grows, which takes more and more time.",
            file=sys.stderr,
        )

    def decode(samples: Array) -> str:
        inputs = [Speech(np.ascontiguousarray(samples), rate)]
        return next(model.stream(inputs, window=1, **search)).text

    return Again(decode)


class UntilInterrupted:
    """Chunks until Ctrl-C, which ends the sound and not the program: what was said last is still
    written. A second Ctrl-C ends the program."""

    def __init__(self, chunks: Iterable[Array]) -> None:
        self._chunks = iter(chunks)
        self._waiting = self._asked = False
        self._before: Any = None
        # A job in the background does not hear Ctrl-C, and must not begin to.
        main = threading.current_thread() is threading.main_thread()
        self._heard = main and signal.getsignal(signal.SIGINT) is not signal.SIG_IGN

    def __enter__(self) -> Iterator[Array]:
        if self._heard:
            self._before = signal.signal(signal.SIGINT, self._interrupted)
        return self._until()

    def __exit__(self, *error: object) -> None:
        if self._heard:
            signal.signal(signal.SIGINT, self._before)

    def _interrupted(self, number: int, frame: FrameType | None) -> None:
        again, self._asked = self._asked, True
        # A model that is thinking is let to; only waiting for sound is given up at once.
        if again or self._waiting:
            raise KeyboardInterrupt

    def _until(self) -> Iterator[Array]:
        while not self._asked:
            try:
                self._waiting = True
                chunk = next(self._chunks, None)
            except KeyboardInterrupt:
                return
            finally:
                self._waiting = False
            if chunk is None:
                return
            yield chunk


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
