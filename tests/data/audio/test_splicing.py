"""Recordings put together anew: where they are cut, what is taken, and that nothing is lost."""

from __future__ import annotations

import random

import numpy as np
import pytest

from transduce.data.audio.splicing import Spoken, cut, joined, spliced

RATE = 8000


def words_with_pauses(pauses: list[float], seed: int = 0) -> tuple[np.ndarray, list[float]]:
    """Loud fifths of a second with pauses between, and the middle of each pause."""
    noise = np.random.default_rng(seed)
    parts, middles, at = [], [], 0.0
    for pause in [0.0, *pauses]:
        if pause:
            parts.append(noise.normal(0, 0.001, round(pause * RATE)))
            middles.append(at + pause / 2)
        parts.append(noise.normal(0, 0.2, RATE // 5))
        at += pause + 0.2
    return np.concatenate(parts).astype(np.float32), middles


@pytest.mark.parametrize("seed", range(5))
def test_cuts_lie_in_the_pauses_and_nothing_is_lost(seed: int) -> None:
    draw = np.random.default_rng(seed)
    pauses = draw.uniform(0.08, 0.3, 4).tolist()
    wave, middles = words_with_pauses(pauses, seed)
    begins = np.cumsum([0.0, *(pause + 0.2 for pause in pauses)])
    # An alignment that is off by up to 60 ms.
    spans = [(b + draw.uniform(0, 0.06), b + 0.2 - draw.uniform(0, 0.06)) for b in begins]
    pieces = cut(wave, RATE, spans)
    assert len(pieces) == 5 and (np.concatenate(pieces) == wave).all()
    ends = np.cumsum([len(piece) for piece in pieces])[:-1] / RATE
    assert (np.abs(ends - middles) < np.array(pauses) / 2).all()


def test_a_word_alone_and_alignments_that_cannot_be() -> None:
    wave = np.ones(100, dtype=np.float32)
    assert [len(piece) for piece in cut(wave, RATE, [(0.0, 0.01)])] == [100]
    assert cut(wave, RATE, []) == []
    beyond = cut(wave, RATE, [(0.0, 0.0), (0.0, 0.0), (9.0, 9.0)])  # the sound is 12 ms
    assert len(beyond) == 3 and sum(map(len, beyond)) == 100
    assert len(cut(wave[:0], RATE, [(0.0, 0.0), (0.0, 0.0)])) == 2


def voice(words: int, recordings: int) -> list[Spoken]:
    """Recordings whose every word is a sound of its own: of the level that is its name."""
    levels = np.arange(1, words * recordings + 1).reshape(recordings, words)
    return [
        Spoken([str(v) for v in row], [np.full(400, v, dtype=np.float32) for v in row])
        for row in levels
    ]


@pytest.mark.parametrize("seed", range(5))
def test_what_is_written_is_what_is_heard(seed: int) -> None:
    said = voice(words=5, recordings=4)
    words, wave = spliced(said, RATE, random.Random(seed))
    assert 5 <= len(words) <= 7
    again = spliced(said, RATE, random.Random(seed))
    assert again[0] == words and (again[1] == wave).all()
    fade = RATE // 200
    at = 200 + (400 - fade) * np.arange(len(words))
    assert wave[at].tolist() == [float(word) for word in words]
    assert len(wave) == at[-1] + 200


def test_pieces_are_faded_into_each_other() -> None:
    wave = joined([np.ones(100, np.float32), np.full(200, 3, np.float32)], RATE)
    assert len(wave) == 300 - 40 and (np.diff(wave) >= 0).all() and np.diff(wave).max() < 0.1
    assert len(joined([np.ones(3, np.float32), np.ones(0, np.float32)], RATE)) == 3
