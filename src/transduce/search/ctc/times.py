"""When each word was said: tokens on frames made words with seconds."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from transduce.search.batching import evaluating
from transduce.search.ctc.align import Alignment, align
from transduce.search.ctc.joint import CtcModel
from transduce.search.ctc.prefix import Frames
from transduce.search.limits import memory_lengths


class TimedWord(NamedTuple):
    """A word as the target has it, and from when to when it is said, in seconds."""

    text: str
    start: float
    end: float


@torch.inference_mode()
def aligned(
    model: CtcModel, source: Tensor, lengths: Tensor, targets: Sequence[Sequence[int]]
) -> list[Alignment | None]:
    """Where a model's CTC head hears each token of one given target per sentence.

    source and lengths as for `encode`; targets: B lists of ids. None where a target is longer than
    the sound allows.
    """
    with evaluating(model):
        log_probs = model.ctc_log_probs(model.encode(source, lengths))
    return align(Frames.of(log_probs, memory_lengths(model, lengths)), range(len(targets)), targets)


def attention_spans(attention: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Starts and ends (T,) of tokens by a decoder's attention (T + 1, S): the frame most attended,
    and never before that of the token before it."""
    if not attention.shape[1]:
        nowhere = np.zeros(len(attention) - 1, dtype=np.int64)
        return nowhere, nowhere
    starts = np.maximum.accumulate(attention[:-1].argmax(axis=1))
    return starts, starts + 1


def word_times(
    ids: Sequence[int],
    decode: Callable[[Sequence[int]], str],
    starts: Sequence[int] | np.ndarray,
    ends: Sequence[int] | np.ndarray,
    shift: float,
    offset: float = 0.0,
) -> list[TimedWord]:
    """The words of a target with their times, as many and in the order as its text has them.

    ids: T tokens; decode: ids to text, a target side's; starts, ends: (T,) frames. shift: seconds
    from one memory position to the next; offset: seconds at which the first one begins. A token
    belongs to the word that it adds characters to; one that adds none (a space) has no say.
    """
    words = decode(ids).split()
    spans: list[tuple[int, int] | None] = [None] * len(words)
    before = ""
    for t in range(len(ids) if words else 0):
        text = decode(ids[: t + 1]).strip()
        if text == before:
            continue
        before, number = text, min(len(text.split()), len(words)) - 1
        start, end = int(starts[t]), int(ends[t])
        known = spans[number]
        spans[number] = (start, end) if known is None else (known[0], max(known[1], end))
    timed, last = [], 0
    for word, span in zip(words, spans, strict=True):
        start, last = span or (last, last)  # a word between others' tokens: where those meet
        timed.append(TimedWord(word, offset + start * shift, offset + last * shift))
    return timed
