"""Finished slots are refilled from the queue, which changes no answer."""

from __future__ import annotations

import gc
import weakref
from collections.abc import Sequence

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from transduce.errors import DataError
from transduce.model import Seq2Seq
from transduce.model.shortlist import Shortlist, Shortlisted
from transduce.recipe import SearchOptions as Options
from transduce.search import Ensemble, Hypothesis, decode, decode_batch
from transduce.search.beam import BEAM
from transduce.search.pool import Pool

IDS = st.lists(st.integers(3, 10), min_size=1, max_size=9)
OPTIONS = st.fixed_dictionaries(
    {
        "normalization": st.sampled_from(["average", "gnmt"]),
        "length_penalty": st.sampled_from([0.0, 1.0, 1.7]),
        "length_bonus": st.sampled_from([0.0, 0.9, -0.5]),
        "max_ratio": st.sampled_from([0.3, 1.0, 2.0]),
        "max_extra": st.integers(0, 4),
        "min_ratio": st.sampled_from([0.0, 0.5, 1.0]),
        "batch_tokens": st.sampled_from([1, 60, 150]),
    }
)
MODELS = {
    "parallel": {"feeding": "parallel", "attention": "general"},
    "input": {"feeding": "input", "attention": "additive"},
    "context": {"feeding": "context", "attention": "multi_head"},
    "dot": {"feeding": "input", "attention": "dot"},
    "without attention": {"attention": "none"},
}
MANY = [[3 + (i * j) % 8 for j in range(1 + i % 9)] for i in range(40)]


def shortlisted(model: Seq2Seq) -> Shortlisted:
    """Source token s may become s, s + 1 or s + 2."""
    table = (torch.arange(11).unsqueeze(1) + torch.arange(3)).clamp(max=10)
    return Shortlisted(model, Shortlist(table, torch.tensor([0, 1, 2, 3])))


def model_of(tiny, name: str, seed: int):
    if name == "ensemble":
        kinds = [MODELS["parallel"], MODELS["context"], MODELS["without attention"]]
        return Ensemble([tiny(seed + i, **kind) for i, kind in enumerate(kinds)])
    if name == "shortlist":
        return shortlisted(tiny(seed))
    return tiny(seed, **MODELS[name])


def refilling(**options) -> Options:
    return Options(refill=True, **options)


def batched(options: Options) -> Options:
    return options.model_copy(update={"refill": False})


def same(found: Sequence[list[Hypothesis]], wanted: Sequence[list[Hypothesis]]) -> None:
    assert len(found) == len(wanted)
    for one, other in zip(found, wanted, strict=True):
        assert [(h.ids, h.finished) for h in one] == [(h.ids, h.finished) for h in other]
        for left, right in zip(one, other, strict=True):
            assert left.token_scores == pytest.approx(right.token_scores, abs=1e-5)
            assert left.score == pytest.approx(right.score, abs=1e-5)
            assert (left.attention is None) == (right.attention is None)
            if left.attention is not None:
                assert left.attention.shape == right.attention.shape
                np.testing.assert_allclose(left.attention, right.attention, atol=1e-5)


@pytest.mark.parametrize("beam", [1, 5])
@pytest.mark.parametrize("name", [*MODELS, "ensemble", "shortlist"])
@settings(max_examples=5, deadline=None)
@given(sources=st.lists(IDS, min_size=3, max_size=16), options=OPTIONS, data=st.data())
def test_a_refilled_pool_answers_like_batches_and_like_each_alone(
    tiny, name, beam, sources, options, data
) -> None:
    model = model_of(tiny, name, data.draw(st.integers(1, 50)))
    n_best = data.draw(st.integers(1, beam))
    options = refilling(beam=beam, n_best=n_best, **options)
    found = list(decode(model, sources, options))
    same(found, list(decode(model, sources, batched(options))))
    same(found, [decode_batch(model, [ids], options)[0] for ids in sources])


@pytest.mark.parametrize("name", ["parallel", "input", "shortlist"])
def test_a_beam_wider_than_the_vocabulary_grows_in_each_sentence_by_itself(tiny, name) -> None:
    """The first steps have fewer hypotheses than the sentences that are joined."""
    model = model_of(tiny, name, 7)
    options = refilling(beam=30, n_best=9, max_ratio=0.5, max_extra=2, batch_tokens=900)
    alone = [decode_batch(model, [ids], options)[0] for ids in MANY]
    same(list(decode(model, MANY, options)), alone)


@pytest.mark.parametrize("beam", [1, 3])
@pytest.mark.parametrize("every", [1, 3, 7])
def test_when_sentences_leave_changes_nothing(tiny, monkeypatch, beam, every) -> None:
    """On an accelerator they leave every few steps, since looking who is done waits for it."""
    options = refilling(beam=beam, n_best=beam, max_ratio=1.5, max_extra=3, batch_tokens=100 * beam)
    alone = [decode_batch(tiny(), [ids], options)[0] for ids in MANY]

    def seldom(done: torch.Tensor, t: int) -> np.ndarray | None:
        return np.flatnonzero(~done.numpy()) if t % every == every - 1 else None

    monkeypatch.setattr("transduce.search.pool.remaining", seldom)
    same(list(decode(tiny(), MANY, options)), alone)


def test_slots_are_refilled_while_others_go_on(tiny) -> None:
    """A batch ends in steps of the few sentences whose targets are long; a pool has no such end."""
    model, rows = tiny(), []
    step = model.step
    model.step = lambda tokens, *rest: (rows.append(len(tokens)), step(tokens, *rest))[1]
    options = refilling(beam=1, batch_tokens=120, max_ratio=4.0)
    # Half of them have an empty target and half a long one.
    sources = [[3 + (i * i * (j + 1) + j * j) % 8 for j in range(5)] for i in range(200)]
    list(decode(model, sources, batched(options)))
    batches, rows[:] = list(rows), []
    list(decode(model, sources, options))
    assert max(batches) == max(rows) == 120 // 6  # what the budget has room for
    assert len(rows) < 0.9 * len(batches)


def test_a_model_that_answers_nan_still_answers_every_source(tiny) -> None:
    model = tiny()
    with torch.no_grad():
        model.output.bias.fill_(float("nan"))
    for beam in (1, 2):
        options = refilling(beam=beam, batch_tokens=40, max_ratio=1.0, max_extra=2)
        found = list(decode(model, MANY, options))
        assert [len(hypotheses) for hypotheses in found] == [1] * len(MANY)


def test_empty_sources_keep_their_place_in_a_refilled_window(tiny) -> None:
    options = refilling(beam=2, batch_tokens=30)
    sources = [[], [4, 5], [], [6, 7, 8], [], [3]]
    found = list(decode(tiny(), sources, options))
    same(found, [decode_batch(tiny(), [ids], options)[0] for ids in sources])
    assert found[0] == [Hypothesis.empty()]


def test_dropout_is_off_in_a_refilled_pool_and_back_on_after(tiny) -> None:
    model, options = tiny(), refilling(beam=2, batch_tokens=60)
    expected = list(decode(model, MANY, options))
    model.train()
    same(list(decode(model, MANY, options)), expected)
    assert all(module.training for module in model.modules())


# ------------------------------------------------------------------------------------- memory


@pytest.mark.parametrize("beam", [1, 2])
@pytest.mark.parametrize("place", ["encode", "step"])
@pytest.mark.parametrize("limit", [1, 4])
def test_a_pool_that_does_not_fit_into_memory_is_answered_in_parts(
    tiny, beam, place, limit
) -> None:
    model = tiny()
    options = refilling(beam=beam, batch_tokens=100 * beam, max_ratio=1.0)
    expected = list(decode(model, MANY, options))
    whole = getattr(model, place)
    sizes = []

    def small(first, *rest):
        sizes.append(len(first))
        if len(first) > limit:
            raise torch.OutOfMemoryError("no more")
        return whole(first, *rest)

    setattr(model, place, small)
    same(list(decode(model, MANY, options)), expected)
    assert max(sizes) > limit


def test_a_source_that_does_not_fit_alone_is_an_error_that_says_so(tiny) -> None:
    model = tiny()
    encode = model.encode

    def small(source, lengths):
        if source.shape[1] > 8:
            raise torch.OutOfMemoryError("no more")
        return encode(source, lengths)

    model.encode = small
    with pytest.raises(DataError, match="10 positions does not fit into memory"):
        list(decode(model, MANY, refilling(beam=2, batch_tokens=100)))


def test_other_failures_are_not_taken_for_a_lack_of_memory(tiny) -> None:
    model = tiny()
    model.encode = lambda source, lengths: torch.zeros(2) @ torch.zeros(3)
    with pytest.raises(RuntimeError, match="size"):
        list(decode(model, MANY, refilling(batch_tokens=100)))


def test_records_of_finished_sentences_are_let_go_of(tiny) -> None:
    """Else the attention of a whole window would pile up."""
    model = tiny()
    step, seen, most = model.step, [], 0

    def watched(*given):
        nonlocal most
        result = step(*given)
        seen.append(weakref.ref(result.attention))
        most = max(most, sum(one() is not None for one in seen))
        return result

    model.step = watched
    options = refilling(beam=2, batch_tokens=60, max_ratio=1.0, max_extra=2)
    gc.disable()
    try:
        list(decode(model, MANY * 10, options))
    finally:
        gc.enable()
    assert len(seen) > 300
    assert most < 60  # two longest targets with the first steps of those that joined


def test_numbers_are_kept_apart_when_a_pool_is_used_by_hand(tiny, padded) -> None:
    options = refilling(beam=3, n_best=3, max_ratio=1.0, max_extra=3)
    pool = Pool(tiny(), BEAM, options, torch.device("cpu"))
    found = {}
    with torch.inference_mode():
        pool.admit(np.array([7]), *padded([MANY[7]]))
        pool.step()
        pool.admit(np.array([3, 8]), *padded([MANY[3], MANY[8]]))  # longer than what runs
        pool.step()
        pool.admit(np.array([1]), *padded([MANY[1]]))
        while pool.size:
            pool.step()
            found.update(pool.collect())
    assert sorted(found) == [1, 3, 7, 8]
    for number, hypotheses in found.items():
        same([hypotheses], decode_batch(tiny(), [MANY[number]], options))
