"""Subtitles can be read by players: in order, not overlapping, escaped, short enough to read."""

from __future__ import annotations

import re
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from transduce.evaluation.figures.tokens import columns_of
from transduce.output import Output
from transduce.recognition.subtitles import cues, folded, srt, vtt
from transduce.recognition.times import word_times, word_tokens
from transduce.recognition.transcript import Part, Transcript, Word

TIME = re.compile(r"(\d\d):(\d\d):(\d\d)[.,](\d\d\d)")


def transcript(*parts: Part) -> Transcript:
    return Transcript("a.wav", 100.0, list(parts))


def words(text: str, start: float, each: float = 0.3) -> list[Word]:
    return [
        Word(word, start + k * each, start + (k + 1) * each) for k, word in enumerate(text.split())
    ]


def test_srt_and_vtt_are_as_the_formats_say() -> None:
    said = transcript(
        Part(1.0, 2.5, "hello there"),
        Part(3661.25, 3663.0, "a <b> & c --> d"),
        Part(4000, 4001, ""),
    )
    assert srt(said) == (
        "1\n00:00:01,000 --> 00:00:02,500\nhello there\n\n"
        "2\n01:01:01,250 --> 01:01:03,000\na <b> & c → d\n"
    )
    assert vtt(said) == (
        "WEBVTT\n\n00:00:01.000 --> 00:00:02.500\nhello there\n\n"
        "01:01:01.250 --> 01:01:03.000\na &lt;b&gt; &amp; c --&gt; d\n"
    )
    assert srt(transcript()) == "" and vtt(transcript()) == "WEBVTT\n"


text = st.text(alphabet="ab <>&-日\u0301 ", max_size=120).map(lambda t: " ".join(t.split()))
spans = st.lists(st.floats(0.0, 30.0), min_size=2, max_size=8).map(sorted)


@settings(max_examples=150, deadline=None)
@given(st.lists(text, min_size=1, max_size=4), spans)
def test_cues_are_in_order_and_hold_every_word(texts: list[str], bounds: list[float]) -> None:
    parts = [
        Part(start, end, said)
        for said, start, end in zip(texts, bounds[:-1], bounds[1:], strict=False)
    ]
    found = cues(transcript(*parts))
    for cue in found:
        assert cue.start < cue.end
        assert 1 <= len(cue.lines) <= 2
        assert all(line.strip() and columns_of(line) <= 42 for line in cue.lines)
    for before, after in pairwise(found):
        assert before.end <= after.start
    shown = "".join("".join(cue.lines) for cue in found).replace(" ", "")
    assert shown == "".join(part.text for part in parts).replace(" ", "")


def test_word_times_decide_where_a_cue_ends() -> None:
    said = [*words("one two three", 1.0), *words("four five", 4.0)]
    (first, second) = cues(transcript(Part(0.8, 5.0, "one two three four five", words=said)))
    assert (first.start, first.end, first.lines) == (1000, 1900, ["one two three"])
    assert (second.start, second.lines) == (4000, ["four five"])
    slow = words(" ".join(f"w{k}" for k in range(20)), 0.0, each=1.0)
    found = cues(transcript(Part(0, 20, " ".join(w.text for w in slow), words=slow)))
    assert all(cue.end - cue.start <= 7000 for cue in found) and len(found) >= 3


def test_a_short_cue_stays_long_enough_to_read_unless_the_next_one_comes() -> None:
    (only,) = cues(transcript(Part(1.0, 1.1, "yes")))
    assert only.end - only.start == 700
    (first, _) = cues(transcript(Part(1.0, 1.1, "yes"), Part(1.3, 3.0, "no no")))
    assert first.end == 1300


def test_long_words_are_broken() -> None:
    assert folded(["x" * 100]) == ["x" * 42, "x" * 42, "x" * 16]
    assert folded(["日" * 30]) == ["日" * 21, "日" * 9]
    assert folded("the quick brown fox jumps over the lazy dog again".split()) == [
        "the quick brown fox jumps over the lazy",
        "dog again",
    ]


# -------------------------------------------------------------------------------- word times


@pytest.mark.parametrize(
    ("said", "tokens", "groups"),
    [
        ("to be it", ["▁to", "▁b", "e", "▁it"], [[0], [1, 2], [3]]),
        ("GO ON", list("GO ON"), [[0, 1], [3, 4]]),
        ("GO ON", ["GO", "ON"], [[0], [1]]),
        ("a b", ["▁", "a", "▁", "b"], [[1], [3]]),
        ("日本", ["日", "本"], [[0, 1]]),
    ],
)
def test_tokens_become_words(said: str, tokens: list[str], groups: list[list[int]]) -> None:
    assert word_tokens(said, tokens) == list(zip(said.split(), groups, strict=True))


def test_tokens_that_are_not_the_text_give_no_times() -> None:
    assert word_tokens("Straße", ["<0xC3>", "x"]) == []
    assert word_times(Output("Straße", tokens=["x"], attention=np.ones((2, 4)) / 4), 0, 1) == []
    assert word_times(Output("a", tokens=["a"]), 0, 1) == []


def test_times_follow_the_attention() -> None:
    weights = np.zeros((6, 10))
    for row, column in enumerate([0, 1, 2, 6, 7, 9]):  # G O ␣ O N end
        weights[row, column] = 1.0
    output = Output("GO ON", tokens=list("GO ON"), attention=weights)
    found = word_times(output, 5.0, 2.0)
    assert [(word.text, round(word.start, 6), round(word.end, 6)) for word in found] == [
        ("GO", 5.0, 5.4), ("ON", 6.2, 6.6)
    ]  # fmt: skip


def test_times_of_ctc_go_before_attention() -> None:
    weights = np.full((6, 10), 0.1)
    times = [(0.1, 0.2), (0.3, 0.4), (0.5, 0.6), (0.9, 1.0), (1.1, 2.5)]
    output = Output("GO ON", tokens=list("GO ON"), attention=weights, times=times)
    assert [(word.text, word.start, word.end) for word in word_times(output, 5.0, 2.0)] == [
        ("GO", pytest.approx(5.1), pytest.approx(5.4)),
        ("ON", pytest.approx(5.9), pytest.approx(7.0)),  # never after the sound
    ]


@settings(max_examples=100, deadline=None)
@given(st.integers(0, 10**6), st.integers(1, 9), st.integers(1, 30))
def test_times_never_run_backwards(seed: int, count: int, columns: int) -> None:
    attention = np.random.default_rng(seed).dirichlet(np.full(columns, 0.3), size=count + 1)
    tokens = [f"▁w{k}" for k in range(count)]
    text = " ".join(f"w{k}" for k in range(count))
    found = word_times(Output(text, tokens=tokens, attention=attention), 3.0, 4.0)
    assert [word.text for word in found] == text.split()
    edges = [edge for word in found for edge in (word.start, word.end)]
    assert edges == sorted(edges) and edges[0] >= 3.0 and edges[-1] <= 7.0 + 1e-9
