"""New recordings out of the words of old ones, each of one voice.

A recogniser that has heard few sentences learns them by heart. Words cut out of a speaker's
recordings and put together in other orders are sentences it cannot know, in voices that are real
(Lam et al. 2021, 2104.01393, replace words of a recording so). The cuts lie where the sound
between two words is faintest, since an alignment says where words are, but hardly where they end.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from transduce.data.audio.files import Waveform

_STEP = 0.005  # seconds, of which one loudness is taken
_SMOOTH = 7  # loudnesses that are averaged
_FADE = 0.005  # seconds in which one piece goes over into the next
_RUNS = (1, 1, 2, 3)  # words that are taken in one piece, one of these drawn each time


@dataclass(frozen=True, slots=True)
class Spoken:
    """The words of a recording, and the piece of sound of each; together they are the recording."""

    words: Sequence[str]
    sounds: Sequence[Waveform]


def cut(wave: Waveform, rate: int, spans: Sequence[tuple[float, float]]) -> list[Waveform]:
    """A recording in one piece for each word; spans (W,): seconds where each begins and ends.

    A cut lies between the middles of two words where it is faintest; of places alike, nearest to
    half-way.
    """
    step = max(1, round(_STEP * rate))
    whole = wave[: len(wave) // step * step].reshape(-1, step)
    if len(spans) < 2 or not len(whole):
        return [*[wave[:0]] * (len(spans) - 1), wave] if spans else []
    power = np.log((whole.astype(np.float64) ** 2).mean(axis=1) + 1e-9)
    loudness = np.convolve(power, np.full(_SMOOTH, 1 / _SMOOTH), "same")
    middles = [(begin + end) / 2 * rate / step for begin, end in spans]
    edges = [0]
    for left, right in pairwise(middles):
        first = min(max(int(left), edges[-1] // step), len(loudness) - 1)
        places = np.arange(first, min(max(int(right), first), len(loudness) - 1) + 1)
        away = np.abs(places - (left + right) / 2) / max(1.0, (right - left) / 2)
        edges.append(int(places[np.argmin(loudness[places] + away**2)]) * step)
    return [wave[begin:end] for begin, end in pairwise([*edges, len(wave)])]


def spliced(voice: Sequence[Spoken], rate: int, draw: random.Random) -> tuple[list[str], Waveform]:
    """Words of one voice in an order it has not said, as many as one of its recordings has.

    They are taken in runs of up to three neighbours, so that how one word goes over into the next
    is heard too.
    """
    wanted = len(draw.choice(voice).words)
    words: list[str] = []
    sounds: list[Waveform] = []
    while len(words) < wanted:
        one = draw.choice(voice)
        run = draw.choice(_RUNS)
        first = draw.randrange(len(one.words))
        words += one.words[first : first + run]
        sounds += one.sounds[first : first + run]
    return words, joined(sounds, rate)


def joined(sounds: Sequence[Waveform], rate: int) -> Waveform:
    """Pieces one after the other, each faded into the next."""
    result = sounds[0]
    for sound in sounds[1:]:
        over = min(round(_FADE * rate), len(result), len(sound))
        rise = np.linspace(0, 1, over, dtype=np.float32)
        middle = result[len(result) - over :] * (1 - rise) + sound[:over] * rise
        result = np.concatenate([result[: len(result) - over], middle, sound[over:]])
    return result
