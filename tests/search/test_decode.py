"""Decoding streams with real models: order, independence of the batch, memory, edge cases."""

from __future__ import annotations

from itertools import count, islice

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from transduce.errors import DataError
from transduce.recipe import SearchOptions
from transduce.search import (
    Ensemble,
    Hypothesis,
    beam_search,
    decode,
    decode_batch,
    greedy_search,
)

IDS = st.lists(st.integers(3, 10), max_size=9)
KINDS = [("parallel", "general"), ("input", "additive"), ("context", "multi_head")]


def same(one: list[Hypothesis], other: list[Hypothesis]) -> None:
    assert [(h.ids, h.finished) for h in one] == [(h.ids, h.finished) for h in other]
    for left, right in zip(one, other, strict=True):
        assert left.token_scores == pytest.approx(right.token_scores, abs=1e-5)
        assert left.score == pytest.approx(right.score, abs=1e-5)
        if left.attention is not None:
            assert left.attention.shape == right.attention.shape
            np.testing.assert_allclose(left.attention, right.attention, atol=1e-5)


@pytest.mark.parametrize(("feeding", "attention"), [*KINDS, ("parallel", "none")])
@settings(max_examples=10, deadline=None)
@given(sources=st.lists(IDS, min_size=2, max_size=12), data=st.data())
def test_batch_mates_padding_and_order_change_nothing(
    tiny, feeding, attention, sources, data
) -> None:
    model = tiny(feeding=feeding, attention=attention)
    options = SearchOptions(
        beam=data.draw(st.integers(1, 4)), max_ratio=1.0, max_extra=4,
        batch_tokens=data.draw(st.sampled_from([1, 40, 4000])),
    )  # fmt: skip
    options = options.model_copy(update={"n_best": options.beam})
    alone = [decode_batch(model, [ids], options)[0] for ids in sources]
    order = data.draw(st.permutations(range(len(sources))))
    window = data.draw(st.sampled_from([1, 3, 100]))
    together = list(decode(model, [sources[i] for i in order], options, window=window))
    for i, hypotheses in zip(order, together, strict=True):
        same(hypotheses, alone[i])


@pytest.mark.parametrize("beam", [1, 3])
def test_an_endless_stream_is_decoded_as_it_comes(tiny, beam) -> None:
    model, options = tiny(), SearchOptions(beam=beam)
    taken = []

    def endless():
        for i in count():
            taken.append(i)
            yield [3 + i % 8] * (1 + i % 5)

    first = list(islice(decode(model, endless(), options, window=8), 20))
    assert len(first) == 20
    assert len(taken) == 24  # three windows and no more
    for i, hypotheses in enumerate(first):
        same(hypotheses, decode_batch(model, [[3 + i % 8] * (1 + i % 5)], options)[0])


def test_empty_sources_keep_their_place_without_a_model(tiny) -> None:
    options = SearchOptions(beam=3, n_best=2)
    assert list(decode(None, [[], []], options)) == [[Hypothesis.empty()]] * 2
    found = list(decode(tiny(), [[], [4, 5], [], np.array([6])], options))
    assert [h.ids for h in found[0] + found[2]] == [[], []]
    assert found[0][0].log_prob == sum(found[0][0].token_scores) == 0.0
    same(found[1], decode_batch(tiny(), [[4, 5]], options)[0])
    assert len(found[3]) == 2
    assert list(decode(tiny(), [], options)) == []


def test_dropout_is_off_in_search_and_back_on_after(tiny) -> None:
    model = tiny()
    expected = decode_batch(model, [[4, 5, 6]], SearchOptions())
    model.train()
    same(decode_batch(model, [[4, 5, 6]], SearchOptions())[0], expected[0])
    assert all(module.training for module in model.modules())
    model.eval()
    model.decoder.train()  # a part of its own mind keeps it
    decode_batch(model, [[4, 5, 6]], SearchOptions())
    assert model.decoder.training and not model.encoder.training


@pytest.mark.parametrize("beam", [1, 4])
def test_beam_one_is_greedy_and_n_best_is_sorted(tiny, padded, beam) -> None:
    sources = [[3 + (i * j) % 8 for j in range(1 + i % 7)] for i in range(20)]
    for feeding, attention in KINDS:
        model = tiny(feeding=feeding, attention=attention)
        options = SearchOptions(beam=beam, n_best=beam, max_ratio=1.0, max_extra=3)
        found = beam_search(model, *padded(sources), options)
        if beam == 1:
            greedy = greedy_search(model, *padded(sources), options)
            for one, other in zip(found, greedy, strict=True):
                same(one, other)
        for hypotheses in found:
            keys = [(h.finished, h.score) for h in hypotheses]
            assert keys == sorted(keys, reverse=True)
            assert len({tuple(h.ids) for h in hypotheses}) == len(hypotheses) == beam


def test_attention_covers_the_real_source_and_nothing_else(tiny) -> None:
    sources = [[4] * n for n in (1, 9, 3)]
    for hypotheses, source in zip(
        decode_batch(tiny(), sources, SearchOptions(n_best=3)), sources, strict=True
    ):
        for h in hypotheses:
            assert h.attention.shape == (len(h.ids) + 1, len(source) + 1)
            assert h.attention.dtype == np.float32
            np.testing.assert_allclose(h.attention.sum(axis=1), 1, atol=1e-5)
            assert h.attention.base is None  # keeps nothing of its batch alive


def test_a_model_without_attention_has_none(tiny) -> None:
    ((hypothesis,),) = decode_batch(tiny(attention="none"), [[4, 5]], SearchOptions())
    assert hypothesis.attention is None


def test_memory_that_does_not_suffice_for_a_batch_suffices_for_its_parts(tiny) -> None:
    model, limit = tiny(), 2
    encode, sizes = model.encode, []

    def small(source, lengths):
        sizes.append(len(source))
        if len(source) > limit:
            raise torch.OutOfMemoryError("no more")
        return encode(source, lengths)

    sources = [[4, 5], [6], [7, 8, 9], [3], [5, 5]]
    options = SearchOptions(beam=2)
    expected = list(decode(model, sources, options))
    model.encode = small
    for one, other in zip(decode(model, sources, options), expected, strict=True):
        same(one, other)
    assert sizes[0] == 5
    limit = 0
    with pytest.raises(DataError, match="4 positions does not fit into memory"):
        list(decode(model, sources, options))


def test_other_failures_are_not_taken_for_a_lack_of_memory(tiny) -> None:
    model = tiny()
    model.encode = lambda source, lengths: torch.zeros(2) @ torch.zeros(3)
    with pytest.raises(RuntimeError, match="size"):
        list(decode(model, [[4], [5]], SearchOptions()))


def test_ensemble_is_decoded_like_a_model(tiny) -> None:
    found = list(decode(Ensemble([tiny(1), tiny(2)]), [[4, 5], [], [6]], SearchOptions(beam=2)))
    assert len(found) == 3


@pytest.mark.parametrize("beam", [1, 4])
@pytest.mark.parametrize("every", [3, 1000])
def test_when_done_sentences_leave_changes_nothing(tiny, padded, monkeypatch, beam, every) -> None:
    """On an accelerator they leave every few steps, since looking who is done waits for it."""
    sources = [[3 + (i * j) % 8 for j in range(1 + i % 9)] for i in range(30)]
    options = SearchOptions(beam=beam, n_best=beam, max_ratio=1.5, max_extra=3)
    search = greedy_search if beam == 1 else beam_search
    expected = search(tiny(), *padded(sources), options)

    def seldom(done: torch.Tensor, t: int) -> np.ndarray | None:
        return np.flatnonzero(~done.numpy()) if t % every == every - 1 else None

    monkeypatch.setattr("transduce.search.pool.remaining", seldom)
    for found, wanted in zip(search(tiny(), *padded(sources), options), expected, strict=True):
        same(found, wanted)
