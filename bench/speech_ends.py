"""Where the first word of a recording ends: where the sound is faintest before the second word.

The spikes of CTC say about where words are, and hardly where they end: a one-way model writes a
word when it is sure of it, which is when it shows it, and one that reads both directions may write
the first word at its beginning, or before there is any sound.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import common
import numpy as np

import transduce
from transduce.data.audio.files import Waveform, load
from transduce.data.audio.splicing import cut
from transduce.data.formats import Example
from transduce.data.speech import Speech
from transduce.recognition.times import word_tokens

RATE = 16_000  # samples a second
ONSET, END = 160, 80  # samples of which one loudness is taken: 10 ms, 5 ms
FAINT = 10**2.5  # what is 25 dB below the loudest is no speech
SHORTEST = 0.08  # seconds: the least that a word lasts


def ends_of(folder: Path, examples: Sequence[Example]) -> list[float | None]:
    """The second at which the first word of each ends, by the sound and the CTC of a model.

    None where the text does not fit the sound, or its second word is put before there is any.
    """
    model = transduce.load(folder, device="cpu", precision="fp32")
    if not model.model.has_ctc:
        common.say(f"{folder} has no CTC: where words end is not known (--aligner)")
        return [None] * len(examples)
    ends: list[float | None] = []
    for example in examples:
        wave, _ = load(example.source, RATE)
        output = model.align(Speech(wave, RATE), example.target or "")
        words = word_tokens(output.text, output.tokens)
        if output.times is None or output.reason or not words:
            ends.append(None)
            continue
        middles = [(begin + end) / 2 for begin, end in output.times]
        following = middles[words[1][1][0]] if len(words) > 1 else None
        ends.append(end_of(wave, middles[words[0][1][-1]], following))
    return ends


def end_of(wave: Waveform, first: float, following: float | None) -> float | None:
    """The second at which a word ends that is written at `first`, the next one at `following`.

    It is over at the last sound before the faintest place between the two, so that a pause is not
    taken for a part of it. Where no word follows, that is the last sound of the recording.
    """
    begin = onset(wave)
    piece = wave
    if following is not None:
        first = max(first, begin + SHORTEST)
        if following <= first:
            return None
        piece = cut(wave, RATE, [(first, first), (following, following)])[0]
    power = loudness(piece[round(begin * RATE) :], END)
    if not len(power):
        return None
    heard = np.flatnonzero(power > power.max() / FAINT)
    return begin + float(heard[-1] + 1) * END / RATE if len(heard) else None


def onset(wave: Waveform) -> float:
    """The second at which something is heard first: 25 dB below the loudest."""
    power = loudness(wave, ONSET)
    return float(np.argmax(power > power.max() / FAINT)) * ONSET / RATE if len(power) else 0.0


def loudness(wave: Waveform, step: int) -> np.ndarray:
    """The variance of each `step` samples."""
    return wave[: len(wave) // step * step].reshape(-1, step).var(axis=1, dtype=np.float64)
