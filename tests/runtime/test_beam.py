"""The search of the runtime against torch's, over options; and what models may answer."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from transduce.export.exporting import graphs_of
from transduce.hypotheses import Hypothesis
from transduce.model import Seq2Seq
from transduce.recipe import SearchOptions
from transduce.runtime.beam import beam_search
from transduce.runtime.decode import decode, padded
from transduce.runtime.folder import DECODER, ENCODER
from transduce.runtime.network import Memory, Network, State, Step
from transduce.runtime.options import Search
from transduce.search import decode as decode_in_torch

from ..conftest import tiny_model

IDS = st.lists(st.integers(3, 10), max_size=9)
OPTIONS = st.fixed_dictionaries(
    {
        "beam": st.integers(1, 6),
        "normalization": st.sampled_from(["average", "gnmt"]),
        "length_penalty": st.sampled_from([0.0, 0.6, 1.0, 1.7]),
        "length_bonus": st.sampled_from([0.0, 0.8, -0.5]),
        "max_ratio": st.sampled_from([0.3, 1.0, 2.0]),
        "max_extra": st.integers(0, 4),
        "min_ratio": st.sampled_from([0.0, 0.4, 1.0]),
        "batch_tokens": st.sampled_from([1, 60, 4000]),
    }
)
TIE = 1e-5


def never(number: int, reason: str) -> None:
    pytest.fail(f"source {number}: {reason}")


def search_of(options: SearchOptions) -> Search:
    return Search(**{field.name: getattr(options, field.name) for field in fields(Search)})


def pair(seed: int, feeding: str, attention: str) -> tuple[Seq2Seq, Network]:
    """A tiny model and its graphs."""
    model, options = tiny_model(seed, feeding=feeding, attention=attention)
    graphs = graphs_of(model, options, 11, "fp32")
    return model, Network(graphs[ENCODER], graphs[DECODER], 1)


@pytest.fixture(scope="module")
def pairs() -> list[tuple[Seq2Seq, Network]]:
    kinds = [("parallel", "general"), ("input", "additive"), ("context", "multi_head")]
    return [pair(seed, *kind) for seed, kind in enumerate([*kinds, ("parallel", "none")])]


def assert_same(one: list[Hypothesis], other: list[Hypothesis]) -> None:
    """Equal up to rounding: hypotheses whose scores are a tie may stand in another order."""
    assert len(one) == len(other)
    for left, right in zip(one, other, strict=True):
        assert left.score == pytest.approx(right.score, abs=1e-4)
        if left.ids != right.ids:
            assert abs(left.score - right.score) <= TIE
            continue
        assert left.finished == right.finished
        assert left.log_prob == pytest.approx(right.log_prob, abs=1e-4)
        assert left.token_scores == pytest.approx(right.token_scores, abs=1e-4)
        assert (left.attention is None) == (right.attention is None)
        if left.attention is not None:
            assert left.attention.dtype == np.float32
            np.testing.assert_allclose(left.attention, right.attention, atol=1e-4)


@settings(max_examples=40, deadline=None)
@given(which=st.integers(0, 3), sources=st.lists(IDS, max_size=9), tree=OPTIONS, data=st.data())
def test_the_search_is_that_of_torch(pairs, which, sources, tree, data) -> None:
    n_best = data.draw(st.integers(1, tree["beam"]))
    options = SearchOptions(**tree, n_best=n_best)
    model, network = pairs[which]
    expected = list(decode_in_torch(model, sources, options))
    found = decode(network, sources, search_of(options), never)
    assert len(found) == len(sources)
    for one, other in zip(found, expected, strict=True):
        assert_same(one, other)


@settings(max_examples=20, deadline=None)
@given(which=st.integers(0, 3), sources=st.lists(IDS, min_size=2, max_size=9), data=st.data())
def test_batch_mates_padding_and_order_change_nothing(pairs, which, sources, data) -> None:
    _, network = pairs[which]
    beam = data.draw(st.integers(1, 4))
    tokens = data.draw(st.sampled_from([1, 40, 4000]))
    options = SearchOptions(beam=beam, n_best=beam, max_ratio=1.0, max_extra=4, batch_tokens=tokens)
    alone = [decode(network, [ids], search_of(options), never)[0] for ids in sources]
    order = data.draw(st.permutations(range(len(sources))))
    together = decode(network, [sources[i] for i in order], search_of(options), never)
    for i, hypotheses in zip(order, together, strict=True):
        assert_same(hypotheses, alone[i])


def test_a_beam_wider_than_the_vocabulary(pairs) -> None:
    options = SearchOptions(beam=40, n_best=40, max_ratio=1.0, max_extra=1)
    for model, network in pairs:
        (expected,) = decode_in_torch(model, [[4, 5]], options)
        (found,) = decode(network, [[4, 5]], search_of(options), never)
        assert len(found) == 40
        assert_same(found, expected)


def test_attention_covers_the_real_source_and_keeps_no_batch_alive(pairs) -> None:
    sources = [[4] * n for n in (1, 9, 3)]
    options = search_of(SearchOptions(n_best=3))
    found = decode(pairs[0][1], sources, options, never)
    for hypotheses, source in zip(found, sources, strict=True):
        for h in hypotheses:
            assert h.attention is not None and h.attention.base is None
            assert h.attention.shape == (len(h.ids) + 1, len(source) + 1)
            np.testing.assert_allclose(h.attention.sum(axis=1), 1, atol=1e-5)


# --------------------------------------------------------------- models that are not as hoped


@dataclass
class Told:
    """A network that answers every step with the same log-probabilities of its 6 ids."""

    log_probs: list[float]

    def encode(self, source: np.ndarray, lengths: np.ndarray) -> tuple[Memory, State]:
        nothing = np.zeros((len(lengths), 1, 1), dtype=np.float32)
        return Memory({"keys": nothing}), State({"hidden": nothing})

    def step(self, tokens: np.ndarray, state: State, memory: Memory, count: int) -> Step:
        row = np.array(self.log_probs, dtype=np.float32)
        order = np.argsort(-row, kind="stable")[: min(count, len(row))]
        best = np.broadcast_to(row[order], (*tokens.shape, len(order)))
        words = np.broadcast_to(order, best.shape)
        return Step(best, words, np.full(tokens.shape, row[2], dtype=np.float32), state, None)


def found_by(network: Any, **options: Any) -> list[list[tuple[list[int], bool]]]:
    sources = [[4], [5, 3], [3, 3, 4]]
    results = beam_search(network, *padded(sources), search_of(SearchOptions(**options)))
    return [[(h.ids, h.finished) for h in found] for found in results]


@pytest.mark.parametrize("beam", [1, 4])
def test_even_a_broken_model_gives_one_answer_each(beam: int) -> None:
    found = found_by(Told([math.nan] * 6), beam=beam)
    assert [len(hypotheses) for hypotheses in found] == [1, 1, 1]


def test_nothing_possible_gives_an_empty_unfinished_target() -> None:
    mute = Told([0.0, 0.0, -1.0, *[-math.inf] * 3])
    assert found_by(mute, beam=3, n_best=3, min_ratio=1.0) == [[([], False)]] * 3
    assert found_by(mute, beam=3, n_best=3) == [[([], True)]] * 3


def test_padding_and_begin_are_never_generated_and_the_longest_target_is_cut() -> None:
    rambler = Told([0.0, 0.0, -30.0, -1.0, -2.0, -3.0])
    for found, length in zip(
        found_by(rambler, beam=2, max_ratio=1.0, max_extra=2), (3, 4, 5), strict=True
    ):
        assert found == [([3] * length, False)]


class Narrow:
    """A network with room for so many sentences, or so many source positions."""

    def __init__(self, network: Network, sentences: int, width: int, error: Exception) -> None:
        self.network, self.sentences, self.width = network, sentences, width
        self.error, self.sizes = error, []

    def encode(self, source: np.ndarray, lengths: np.ndarray) -> tuple[Memory, State]:
        self.sizes.append(len(source))
        if len(source) > self.sentences or source.shape[1] > self.width:
            raise self.error
        return self.network.encode(source, lengths)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.network, name)


@pytest.mark.parametrize("error", [MemoryError(), RuntimeError("Failed to allocate memory")])
def test_what_fails_alone_does_not_take_others_along(pairs, error) -> None:
    sources = [[4, 5], [6], [7, 8, 9, 3, 4, 5], [3], [5, 5]]
    options = search_of(SearchOptions(beam=2))
    expected = decode(pairs[0][1], sources, options, never)
    told: list[tuple[int, str]] = []
    tell: Callable[[int, str], None] = lambda number, reason: told.append((number, reason))  # noqa: E731
    narrow = Narrow(pairs[0][1], sentences=2, width=5, error=error)
    found = decode(narrow, sources, options, tell)  # type: ignore[arg-type]
    assert told == [(2, str(error) or "MemoryError")] and found[2] == []
    assert narrow.sizes[0] == 5
    for i in (0, 1, 3, 4):
        assert_same(found[i], expected[i])


def test_empty_sources_ask_no_model() -> None:
    options = search_of(SearchOptions(beam=3, n_best=2))
    nobody: Any = None
    assert decode(nobody, [[], []], options, never) == [[Hypothesis.empty()]] * 2
    assert decode(nobody, [], options, never) == []
