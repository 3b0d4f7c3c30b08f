"""CTC-only decoding against enumeration."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from transduce.recipe import SearchOptions
from transduce.search.ctc.align import read
from transduce.search.ctc.alone import best_paths, prefix_beam, search_frames
from transduce.search.ctc.prefix import Frames

from .conftest import listed_prefix_beam

LENGTHS = [6, 3, 1, 7, 5]


def batch_of(make_frames, seed=40):
    alone = [make_frames(seed + i, n) for i, n in enumerate(LENGTHS)]
    padded = torch.nn.utils.rnn.pad_sequence(alone, batch_first=True, padding_value=-0.5)
    return Frames.of(padded, torch.tensor(LENGTHS)), alone


@pytest.mark.parametrize("seed", range(4))
def test_a_wide_beam_finds_the_most_probable_targets(make_frames, targets_of, seed) -> None:
    frames, alone = batch_of(make_frames, 10 * seed)
    found = search_frames(frames, SearchOptions(beam=300, n_best=4))
    for one, hypotheses in zip(alone, found, strict=True):
        table = sorted(targets_of(one).items(), key=lambda pair: -pair[1])[:4]
        assert [tuple(h.ids) for h in hypotheses] == [ids for ids, _ in table]
        for h, (_, probability) in zip(hypotheses, table, strict=True):
            assert h.log_prob == pytest.approx(math.log(probability))
            assert h.score == h.log_prob == pytest.approx(sum(h.token_scores))
            assert h.attention.shape == (len(h.ids) + 1, len(one))
            assert h.attention.sum(axis=1) == pytest.approx(1.0)
            assert h.finished


def test_a_beam_of_one_is_the_best_path(make_frames, collapsed) -> None:
    frames, alone = batch_of(make_frames)
    for (h,), one in zip(search_frames(frames, SearchOptions(beam=1)), alone, strict=True):
        assert tuple(h.ids) == collapsed(tuple(one.argmax(dim=1).tolist()))
        (reading,) = read(Frames.of(one[None], torch.tensor([len(one)])), [0], [h.ids])
        assert h.log_prob == pytest.approx(sum(reading.token_scores))
        np.testing.assert_allclose(h.attention, reading.attention, atol=1e-7)


def test_begin_and_end_are_never_labels() -> None:
    log_probs = torch.full((1, 3, 6), -5.0)
    log_probs[0, :, 1:3] = -0.1
    log_probs[0, 1, 4] = -1.0
    assert best_paths(Frames.of(log_probs, torch.tensor([3]))) == [[4]]
    (found,) = search_frames(Frames.of(log_probs, torch.tensor([3])), SearchOptions(n_best=5))
    assert not {1, 2} & {token for h in found for token in h.ids}


@pytest.mark.parametrize("beam", [1, 4])
def test_the_answer_does_not_depend_on_the_batch(make_frames, beam) -> None:
    frames, alone = batch_of(make_frames, 70)
    options = SearchOptions(beam=beam, n_best=min(beam, 3))
    together = search_frames(frames, options)
    for hypotheses, one in zip(together, alone, strict=True):
        (mine,) = search_frames(Frames.of(one[None], torch.tensor([len(one)])), options)
        assert [h.ids for h in mine] == [h.ids for h in hypotheses]
        assert [h.log_prob for h in mine] == pytest.approx([h.log_prob for h in hypotheses])


def test_silence_is_empty() -> None:
    log_probs = torch.full((1, 50, 6), -12.0)
    log_probs[:, :, 0] = -0.001
    for beam in (1, 5):
        (found,) = search_frames(Frames.of(log_probs, torch.tensor([50])), SearchOptions(beam=beam))
        assert found[0].ids == []


@pytest.mark.parametrize("beam", [2, 3, 8])
def test_a_narrow_beam_does_what_the_listed_version_does(make_frames, beam) -> None:
    lengths = [30, 12, 25, 1, 18]
    alone = [make_frames(90 + i, n, temperature=1.0 + i) for i, n in enumerate(lengths)]
    padded = torch.nn.utils.rnn.pad_sequence(alone, batch_first=True, padding_value=-0.5)
    found = prefix_beam(Frames.of(padded, torch.tensor(lengths)), beam, beam)
    for one, targets in zip(alone, found, strict=True):
        assert [tuple(ids) for ids in targets] == listed_prefix_beam(
            one, beam, lambda ids: [0.0] * (len(ids) + 1)
        )


def test_a_beam_is_no_worse_than_the_best_path(make_frames) -> None:
    alone = [make_frames(200 + i, 60, temperature=1.5) for i in range(6)]
    frames = Frames.of(torch.stack(alone), torch.full((6,), 60))
    narrow, wide = (search_frames(frames, SearchOptions(beam=beam)) for beam in (1, 8))
    gains = [b[0].log_prob - a[0].log_prob for a, b in zip(narrow, wide, strict=True)]
    assert min(gains) > -1e-9 and max(gains) > 0.1
