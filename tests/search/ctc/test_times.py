"""When tokens are heard: the spikes of CTC are found again, whoever else is in the batch."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from transduce.hypotheses.hypothesis import Hypothesis
from transduce.search.ctc.times import timed


class Spikes:
    """A CTC head that reads the label of a position off every second frame."""

    def encode(self, source: Tensor, lengths: Tensor) -> Tensor:
        return source[:, ::2, 0]

    def memory_lengths(self, lengths: Tensor) -> Tensor:
        return (lengths + 1) // 2

    def ctc_log_probs(self, memory: Tensor) -> Tensor:
        return (10.0 * torch.nn.functional.one_hot(memory.long(), 8).float()).log_softmax(dim=2)


def sound(frames: int, **labels: int) -> np.ndarray:
    """Frames (S, 1), silent but for `label at=position`."""
    found = np.zeros((frames, 1), dtype=np.float32)
    for at, label in labels.items():
        found[2 * int(at[1:]), 0] = label
    return found


def said(*ids: int) -> Hypothesis:
    return Hypothesis(list(ids), 0.0, 0.0, [0.0] * (len(ids) + 1))


@pytest.mark.parametrize("batch_tokens", [1, 10_000])
def test_times_come_from_the_sound(batch_tokens: int) -> None:
    sources = [sound(40, p5=4, p6=4, p11=5, p17=7), sound(6, p0=4), sound(4), sound(100, p25=4)]
    found = [[said(4, 5, 7), said()], [said(4), said(4, 5, 7, 4)], [], [said(4)]]
    model: Any = Spikes()
    answers = timed(model, sources, found, batch_tokens=batch_tokens)
    assert [[h.ids for h in hs] for hs in answers] == [[h.ids for h in hs] for hs in found]
    first, empty = answers[0]
    assert first.spans is not None and empty.spans is None
    np.testing.assert_allclose(first.spans * 20, [[5, 7], [11, 12], [17, 18]])
    np.testing.assert_allclose(answers[1][0].spans * 3, [[0, 1]])
    assert answers[1][1].spans is None  # three positions hold no four labels
    np.testing.assert_allclose(answers[3][0].spans * 50, [[25, 26]])
