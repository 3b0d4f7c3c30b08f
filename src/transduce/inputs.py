"""What a model is given: any text at all, read into ids, with what had to be done to it."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np

from transduce.data.lengths import marked_for_search
from transduce.data.speech import Sound, Speech, SpeechSide
from transduce.data.text import TextSide
from transduce.errors import DataError, UsageError

WINDOW = 2048  # inputs read ahead, sorted by length and decoded together

SPEECH_WINDOW = 64  # the same of recordings, whose frames take hundreds of times the memory

_NO_RATE = "samples need their rate: give (samples, rate), with samples a second as in 16000"

Text: TypeAlias = str | bytes  # bytes: a line as it stands in a file, UTF-8 or not
# What a model takes: texts, or recordings by path (also in a line of a file) or as samples and rate
Input: TypeAlias = Text | Sound


@dataclass(slots=True)
class Source:
    """One input on its way into the model: its ids, empty if there is nothing to decode.

    `tokens` are as written, even those that the vocabulary does not know. Of speech, `ids` are
    frames (S, F) float32, and there are no tokens.
    """

    ids: Any  # list[int], or the frames
    tokens: list[str]
    reason: str | None


def read_texts(
    side: TextSide, texts: Sequence[Text], limit: int, length: str | None = None
) -> list[Source]:
    """Texts to ids, at most `limit` each, and why one is blank, cut or damaged.

    `length` is the one that targets are to have, for a side with length control.
    """
    decoded = [_text(text) for text in texts]
    read = marked_for_search(side, side.read([text for text, _ in decoded]), length)
    sources = []
    for (_, damage), one in zip(decoded, read, strict=True):
        text, ids, reason = one.text, one.ids, damage
        kept = min(len(ids), limit)
        if not text.strip():
            ids, reason = [], joined(damage, "blank input")
        elif not ids:
            reason = joined(damage, "nothing in the input is known to the model")
        elif one.whole > kept:
            reason = joined(damage, f"input of {one.whole} tokens cut to {kept}")
        tokens = side.written(text, ids)[:limit]
        sources.append(Source(list(ids[:limit]), tokens, reason))
    return sources


def cut_of(reason: str | None) -> tuple[int, int] | None:
    """Of the reason of an input that was cut: how many tokens it had, and how many were read."""
    found = re.search(r"input of (\d+) tokens cut to (\d+)", reason or "")
    return (int(found[1]), int(found[2])) if found else None


def read_sounds(side: SpeechSide, sounds: Sequence[Input], limit: int) -> list[Source]:
    """Recordings to frames, at most `limit` each, and why one is unreadable, silent or cut."""
    heard = side.read_all([_sound(sound) for sound in sounds], limit)
    return [Source(one.frames, [], one.reason) for one in heard]


def _sound(sound: Input) -> Sound:
    if isinstance(sound, bytes):
        return sound.decode("utf-8", errors="surrogateescape")  # a path may be any bytes
    if isinstance(sound, (str, Path)):
        return sound
    if isinstance(sound, Speech):
        return Speech(_plain(sound.samples), sound.rate)
    if is_waveform(sound):
        return _plain(sound[0]), sound[1]
    if _is_samples(sound):
        raise UsageError(_NO_RATE)
    raise TypeError(
        f"an input is the path of a sound file, or (samples, rate), not {type(sound).__name__}"
    )


def _plain(samples: Any) -> Any:
    """Samples as NumPy can read them: a tensor as it is on the CPU, without its gradient."""
    if not hasattr(samples, "detach"):
        return samples
    samples = samples.detach().cpu()
    return samples.float() if samples.is_floating_point() else samples  # NumPy has no bfloat16


def is_waveform(item: Any) -> bool:
    """Whether this is samples with their rate, (N,) or (N, channels) and Hz."""
    return (
        isinstance(item, tuple)
        and len(item) == 2
        and hasattr(item[0], "__len__")
        and not isinstance(item[0], (str, bytes))
        and _is_rate(item[1])
    )


def _is_rate(rate: Any) -> bool:
    return isinstance(rate, (int, float, np.integer, np.floating)) and not isinstance(rate, bool)


def _is_samples(item: Any) -> bool:
    """Whether this is an array or a tensor of numbers, and not one of names of files."""
    if not hasattr(item, "dtype") or not hasattr(item, "__len__"):
        return False
    return getattr(item.dtype, "kind", "f") in "biuf"  # torch's types have no kind


def at_rate(samples: Any, rate: Any, *, heard: bool) -> Sound:
    """One waveform of samples and rate given apart; `heard`: the model's source is speech.

    Errors: UsageError where there is nothing that a rate could be of, or it is no number.
    """
    if not heard:
        raise UsageError(f"a rate ({rate!r}) is of sound, and this model reads text; leave it out")
    if isinstance(samples, (str, bytes, Path)):
        raise UsageError("a rate is of samples; a sound file says its own, so leave it out")
    if not _is_rate(rate):
        raise UsageError(f"a rate is a number of samples a second, not {_called(rate)}")
    if is_waveform(samples):
        raise UsageError(f"the rate is given twice, as {samples[1]} and as {rate}")
    several = isinstance(samples, (list, tuple)) and any(
        isinstance(one, (str, bytes, Path)) or is_waveform(one) or _is_samples(one)
        for one in samples
    )
    if several:
        raise UsageError("a rate is of one waveform; of several give [(samples, rate), …]")
    if not hasattr(samples, "__len__"):
        raise UsageError(f"samples are an array, (N,) or (N, channels), not {_called(samples)}")
    return samples, rate


def check_inputs(inputs: Any, *, heard: bool) -> None:
    """UsageError for what is neither an input nor several; `heard`: the source is speech."""
    one = "the path of a sound file, or (samples, rate)" if heard else "a str"
    if is_one(inputs):
        return
    if isinstance(inputs, tuple) and len(inputs) == 2 and _is_samples(inputs[0]) and heard:
        if _is_samples(inputs[1]) and len(np.shape(inputs[1])):
            raise UsageError(_NO_RATE)
        wrong = _called(inputs[1])
        raise UsageError(
            f"the rate in (samples, rate) is a number of samples a second, not {wrong}"
        )
    if _is_samples(inputs):
        if heard:
            raise UsageError(_NO_RATE)
        raise UsageError(f"an input is {one}, not numbers ({type(inputs).__name__})")
    if not isinstance(inputs, Iterable) and not hasattr(inputs, "__getitem__"):
        raise UsageError(f"an input is {one}, several are an iterable, not {_called(inputs)}")


def _called(value: Any) -> str:
    """A wrong value in a message: None by its name, others by that of their type."""
    return "None" if value is None else type(value).__name__


def is_one(inputs: Any) -> bool:
    """Whether this is one input, not several."""
    return isinstance(inputs, (str, bytes, Path)) or is_waveform(inputs)


def in_pairs(sources: Iterable[Input], targets: Iterable[Text]) -> Iterator[tuple[Input, Text]]:
    """Each source with its target. Errors: DataError when there are more of one."""
    left, right = iter(sources), iter(targets)
    nothing: Any = object()
    count = 0
    while True:
        source, target = next(left, nothing), next(right, nothing)
        if source is nothing and target is nothing:
            return
        if source is nothing or target is nothing:
            short, more = ("sources", "targets") if source is nothing else ("targets", "sources")
            raise DataError(f"there are {count} {short} but more {more}; they must be in line")
        count += 1
        yield source, target


def joined(*reasons: str | None) -> str | None:
    """Several reasons as one, each once; None if there is none."""
    return "; ".join(dict.fromkeys(reason for reason in reasons if reason)) or None


def _text(text: Text) -> tuple[str, str | None]:
    """Any input as text that UTF-8 can hold, and what had to be replaced for it."""
    if isinstance(text, bytes):
        try:
            return text.decode("utf-8"), None
        except UnicodeDecodeError as error:
            reason = f"invalid UTF-8 (byte 0x{text[error.start]:02x} at {error.start + 1}) replaced"
            return text.decode("utf-8", errors="replace"), reason
    if not isinstance(text, str):
        raise TypeError(f"an input is a str, not {type(text).__name__}")
    if text.isascii():
        return text, None
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        clean = text.encode("utf-16", "surrogatepass").decode("utf-16", errors="replace")
        return clean, "lone surrogates replaced"
    return text, None
