"""Scores of given targets: the same numbers that search arrives at step by step."""

from __future__ import annotations

import math
from itertools import count, islice

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from transduce.model import Seq2Seq, build_model
from transduce.recipe import ModelOptions, SearchOptions
from transduce.search import Ensemble, decode, decode_batch, force_score, force_stream

IDS = st.lists(st.integers(3, 10), min_size=1, max_size=8)
KINDS = [
    ("parallel", "general"), ("parallel", "none"), ("input", "dot"),
    ("context", "additive"), ("parallel", "multi_head"),
]  # fmt: skip


@pytest.mark.parametrize(("feeding", "attention"), KINDS)
@pytest.mark.parametrize("beam", [1, 4])
def test_search_and_teacher_forcing_agree(tiny, feeding, attention, beam) -> None:
    model = tiny(feeding=feeding, attention=attention)
    sources = [[3 + (i * j) % 8 for j in range(1 + i % 6)] for i in range(12)]
    options = SearchOptions(beam=beam, n_best=beam, max_ratio=1.0, max_extra=3)
    pairs = [(s, h) for s, found in zip(sources, decode(model, sources, options), strict=True)
             for h in found]  # fmt: skip
    forced = force_score(model, [s for s, _ in pairs], [h.ids for _, h in pairs])
    for (_, h), scored in zip(pairs, forced, strict=True):
        assert scored.token_scores == pytest.approx(h.token_scores, abs=1e-5)
        assert scored.log_prob == pytest.approx(h.log_prob, abs=1e-4)
        assert (scored.attention is None) == (h.attention is None)
        if h.attention is not None:
            np.testing.assert_allclose(scored.attention, h.attention, atol=1e-5)


@settings(max_examples=15, deadline=None)
@given(pairs=st.lists(st.tuples(IDS, st.one_of(st.just([]), IDS)), min_size=1, max_size=10),
       tokens=st.sampled_from([1, 30, 2000]))  # fmt: skip
def test_batch_mates_change_nothing(tiny, pairs, tokens) -> None:
    model = tiny()
    together = force_score(model, [s for s, _ in pairs], [t for _, t in pairs], batch_tokens=tokens)
    for (source, target), scored in zip(pairs, together, strict=True):
        (alone,) = force_score(model, [source], [target])
        assert len(scored.token_scores) == len(target) + 1
        assert scored.log_prob == pytest.approx(sum(scored.token_scores))
        assert scored.token_scores == pytest.approx(alone.token_scores, abs=1e-5)
        assert scored.attention.shape == (len(target) + 1, len(source) + 1)
        np.testing.assert_allclose(scored.attention, alone.attention, atol=1e-5)


def test_probabilities_of_all_targets_sum_to_one(tiny) -> None:
    """All targets of up to one token, and all that begin with each pair of tokens."""
    model = tiny()
    words = [0, 1, *range(3, 11)]
    short = [[], *([w] for w in words)]
    mass = sum(math.exp(s.log_prob) for s in force_score(model, [[4, 5]] * len(short), short))
    pairs = [[v, w] for v in words for w in words]
    for scored in force_score(model, [[4, 5]] * len(pairs), pairs):
        mass += math.exp(sum(scored.token_scores[:2]))
    assert mass == pytest.approx(1.0, abs=1e-5)


def test_streams_and_counts_must_agree(tiny) -> None:
    model = tiny()
    pairs = (([3 + i % 5, 4], [5] * (i % 4)) for i in count())
    first = list(islice(force_stream(model, pairs, window=4), 10))
    assert [len(scored.token_scores) for scored in first] == [i % 4 + 1 for i in range(10)]
    with pytest.raises(ValueError):
        force_score(model, [[3], [4]], [[3]])


def test_ensembles_score_too(tiny) -> None:
    one, other = tiny(1), tiny(2)
    source, target = [[4, 5, 6]], [[7, 8]]
    ((_, scores, attention, _),) = force_score(Ensemble([one, other]), source, target)
    ((_, first, one_attention, _),) = force_score(one, source, target)
    ((_, second, other_attention, _),) = force_score(other, source, target)
    mean = torch.tensor([first, second]).exp().mean(dim=0).log().tolist()
    assert scores == pytest.approx(mean, abs=1e-5)
    np.testing.assert_allclose(attention, (one_attention + other_attention) / 2, atol=1e-6)


@pytest.mark.parametrize("decoder", [True, False])
def test_speech_is_scored_alike_alone_and_beside_others(decoder) -> None:
    """By the decoder, or by CTC where that is all there is; attention is over the memory."""
    model = of_speech(decoder)
    rng = np.random.default_rng(4)
    sources = [rng.normal(size=(n, 6)).astype(np.float32) for n in (23, 9, 40)]
    targets = [[4, 4, 7], [], [5]]
    together = force_score(model, sources, targets)
    for source, target, scored in zip(sources, targets, together, strict=True):
        (alone,) = force_score(model, [source], [target])
        assert len(scored.token_scores) == len(target) + 1
        assert scored.log_prob == pytest.approx(alone.log_prob, abs=1e-4)
        assert scored.attention.shape == (len(target) + 1, (len(source) + 3) // 4)
        np.testing.assert_allclose(scored.attention, alone.attention, atol=1e-4)


def test_ctc_alone_scores_what_its_search_finds() -> None:
    model = of_speech(decoder=False)
    source = np.random.default_rng(5).normal(size=(40, 6)).astype(np.float32)
    found = decode_batch(model, [source], SearchOptions(beam=4, n_best=4))[0]
    scored = force_score(model, [source] * len(found), [h.ids for h in found])
    assert len(found) == 4
    assert [h.log_prob for h in found] == pytest.approx([s.log_prob for s in scored], abs=1e-4)
    (impossible,) = force_score(model, [source[:4]], [[4, 5]])  # one position cannot say both
    assert impossible.log_prob == -math.inf and len(impossible.token_scores) == 3


def of_speech(decoder: bool) -> Seq2Seq:
    tree = {
        "encoder": {"size": 8},
        "decoder": {"size": 8, "attention": {"heads": 2}},
        "ctc": {"weight": 0.3 if decoder else 1.0},
        "init": {"kind": "uniform", "scale": 0.5},
    }
    torch.manual_seed(2)
    return build_model(ModelOptions.model_validate(tree), 0, 9, 6).eval()
