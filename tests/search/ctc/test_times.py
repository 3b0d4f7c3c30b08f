"""Words with times from tokens on frames."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from transduce.search.ctc.align import align
from transduce.search.ctc.prefix import Frames
from transduce.search.ctc.times import attention_spans, word_times

PIECES = {3: "▁", 4: "▁a", 5: "b", 6: "c", 7: "▁d"}


def decode(ids) -> str:
    return "".join(PIECES[i] for i in ids).replace("▁", " ").strip()


def test_every_word_of_the_text_has_its_time() -> None:
    #       _a b | _ c | _d
    ids = [4, 5, 3, 6, 7]
    starts, ends = [2, 5, 9, 12, 20], [3, 7, 10, 13, 24]
    timed = word_times(ids, decode, starts, ends, shift=0.04, offset=10.0)
    assert [word.text for word in timed] == decode(ids).split() == ["ab", "c", "d"]
    expected = [(10.08, 10.28), (10.48, 10.52), (10.8, 10.96)]  # the lone space says nothing
    for word, (start, end) in zip(timed, expected, strict=True):
        assert (word.start, word.end) == pytest.approx((start, end))


def test_no_tokens_no_words() -> None:
    assert word_times([], decode, [], [], shift=0.04) == []
    assert word_times([3], decode, [1], [2], shift=0.04) == []


def test_times_come_from_the_sound() -> None:
    """Spikes of CTC at known frames are found again, whatever the padding."""
    frames = torch.full((2, 40, 8), -8.0)
    frames[:, :, 0] = 0.0
    for at, label in ((5, 4), (6, 4), (11, 5), (25, 7)):
        frames[0, at, label] = 8.0
    frames = frames.log_softmax(dim=2)
    ids = [4, 5, 7]
    alignment, short = align(Frames.of(frames, torch.tensor([30, 2])), [0, 1], [ids, ids])
    assert short is None
    timed = word_times(ids, decode, alignment.starts, alignment.ends, shift=0.1)
    assert [tuple(word) for word in timed] == [
        ("ab", pytest.approx(0.5), pytest.approx(1.2)),
        ("d", pytest.approx(2.5), pytest.approx(2.6)),
    ]


def test_attention_gives_times_that_never_go_back() -> None:
    attention = np.eye(6)[[1, 4, 3, 5]]
    starts, ends = attention_spans(attention)
    assert starts.tolist() == [1, 4, 4] and ends.tolist() == [2, 5, 5]
