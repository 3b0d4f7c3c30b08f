"""CTC prefix probabilities against the sum over every labelling of the frames."""

from __future__ import annotations

import itertools
import math

import pytest
import torch

from transduce.search.ctc.prefix import Frames, PrefixState

BOS, EOS = 1, 2
LABELS = (3, 4, 5)
LENGTHS = [5, 1, 3, 4]


def batch_of(make_frames, lengths, seed=0):
    """A padded batch (B, S, V), its lengths, and each sentence by itself; padding is rubbish."""
    alone = [make_frames(seed + i, length) for i, length in enumerate(lengths)]
    padded = torch.nn.utils.rnn.pad_sequence(alone, batch_first=True, padding_value=-0.7)
    return padded, torch.tensor(lengths), alone


def state_of(frames: Frames, prefixes: list[tuple[int, ...]]) -> PrefixState:
    """The state of the same K prefixes, all of one length, for every sentence."""
    batch = len(frames.lengths)
    state = PrefixState.start(frames).select(torch.zeros(batch, len(prefixes), dtype=torch.int64))
    state = state.advance(frames, torch.full((batch, len(prefixes)), BOS))
    for column in zip(*prefixes, strict=True):
        state = state.advance(frames, torch.tensor(column).expand(batch, -1))
    return state


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize("length", [0, 1, 2, 3])
def test_prefixes_are_as_probable_as_all_that_begin_with_them(
    make_frames, targets_of, length, dtype
) -> None:
    padded, lengths, alone = batch_of(make_frames, LENGTHS)
    frames = Frames.of(padded.to(dtype), lengths)
    prefixes = list(itertools.product(LABELS, repeat=length))
    state = state_of(frames, prefixes)
    scores = state.scores(frames)
    assert scores.dtype == dtype
    close = {"rel": 1e-9} if dtype == torch.float64 else {"rel": 1e-5}
    for b, one in enumerate(alone):
        targets = targets_of(one)
        for k, prefix in enumerate(prefixes):
            mass = sum(p for ids, p in targets.items() if ids[: len(prefix)] == prefix)
            assert state.log_prob[b, k].exp().item() == pytest.approx(mass, abs=1e-30, **close)
            if mass == 0:
                assert torch.all(scores[b, k] == -math.inf)
                continue
            given = {EOS: targets.get(prefix, 0.0)}
            for label in LABELS:
                longer = (*prefix, label)
                given[label] = sum(p for i, p in targets.items() if i[: len(longer)] == longer)
            for token, probability in given.items():
                expected = pytest.approx(probability / mass, abs=1e-30, **close)
                assert scores[b, k, token].exp().item() == expected
            assert scores[b, k].exp().sum().item() == pytest.approx(1.0, rel=1e-5)
            assert torch.all(scores[b, k, :2] == -math.inf)


def test_neither_padding_nor_batch_mates_change_a_score(make_frames) -> None:
    padded, lengths, alone = batch_of(make_frames, [9, 40, 1, 23], seed=7)
    prefixes = [(3, 4), (5, 5), (4, 4)]
    frames = Frames.of(padded, lengths)
    together = state_of(frames, prefixes).scores(frames)
    for b, one in enumerate(alone):
        mine = Frames.of(one[None], lengths[b : b + 1])
        scores = state_of(mine, prefixes).scores(mine)
        torch.testing.assert_close(together[b : b + 1], scores, rtol=1e-10, atol=1e-10)


def test_hypotheses_are_reordered_and_sentences_dropped(make_frames) -> None:
    padded, lengths, _ = batch_of(make_frames, [6, 4, 5])
    frames = Frames.of(padded, lengths)
    state = state_of(frames, [(3, 4), (5, 3), (4, 4)])
    order, rows = torch.tensor([[2, 0], [1, 1], [0, 2]]), torch.tensor([2, 0])
    picked = state.select(order).keep(rows)
    expected = state.scores(frames)[rows.unsqueeze(1), order[rows]]
    torch.testing.assert_close(picked.scores(frames.keep(rows)), expected)


@pytest.mark.parametrize("width", [9, 10])
def test_sentences_join_others(make_frames, width) -> None:
    """Shorter and longer ones, and with room to spare."""
    padded, lengths, _ = batch_of(make_frames, [5, 9, 2])
    prefixes = [(3, 4), (5, 5)]
    together = Frames.of(padded, lengths)
    whole = state_of(together, prefixes)
    for order in ([0, 1, 2], [1, 0, 2], [2, 1, 0]):
        pick = torch.tensor(order)
        parts = []
        for rows in (pick[:1], pick[1:]):
            longest = int(lengths[rows].max())
            frames = Frames.of(padded[rows, :longest], lengths[rows])
            parts.append((frames, state_of(frames, prefixes)))
        (one, first), (other, second) = parts
        frames, state = one.join(other, width), first.join(second, width)
        expected = whole.keep(pick)
        torch.testing.assert_close(state.scores(frames), expected.scores(together.keep(pick)))
        further = torch.tensor([[4, 4]] * 3)
        torch.testing.assert_close(
            state.advance(frames, further).scores(frames),
            expected.advance(together.keep(pick), further).scores(together.keep(pick)),
        )


def test_long_recordings_stay_exact(make_frames) -> None:
    """3000 frames, against torch's own CTC loss."""
    padded, lengths, _ = batch_of(make_frames, [3000], seed=3)
    frames = Frames.of(padded, lengths)
    ids = [3 + (i * i) % 3 for i in range(40)]
    state = state_of(frames, [tuple(ids)])
    loss = torch.nn.functional.ctc_loss(
        padded.transpose(0, 1), torch.tensor([ids]), lengths, torch.tensor([40]), reduction="sum"
    )
    assert state.whole.item() == pytest.approx(-loss.item(), rel=1e-9)
    assert not state.scores(frames).isnan().any()


def test_a_label_that_is_impossible_everywhere_is_no_error() -> None:
    log_probs = torch.full((1, 4, 6), -math.inf)
    log_probs[:, :, 0] = 0.0  # nothing but blanks
    frames = Frames.of(log_probs, torch.tensor([4]))
    state = PrefixState.start(frames)
    scores = state.scores(frames)
    assert scores[0, 0, EOS].item() == pytest.approx(0.0)
    assert torch.all(scores[0, 0, 3:] < -80)
    after = state.advance(frames, torch.tensor([[3]])).scores(frames)
    assert not after.isnan().any()
