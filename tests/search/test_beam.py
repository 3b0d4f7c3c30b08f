"""Beam search against exhaustive search, and against the same algorithm written with lists."""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass, replace

import numpy as np
import pytest
import torch
from torch import Tensor

from transduce.hypotheses.scoring import max_tokens, min_tokens, normalise
from transduce.recipe import SearchOptions
from transduce.search import beam_search, greedy_search

EOS, BOS, WORDS = 2, 1, (3, 4, 5)  # UNK is a word like any other
CODES = 997


@dataclass(frozen=True)
class ToyMemory:
    codes: Tensor  # (B,)
    mask: Tensor  # (B, S)

    def keep(self, rows: Tensor) -> ToyMemory:
        return ToyMemory(self.codes[rows], self.mask[rows])


@dataclass(frozen=True)
class ToyState:
    codes: Tensor  # (B, K): a hash of source and prefix

    def select(self, hypotheses: Tensor) -> ToyState:
        return ToyState(self.codes.gather(1, hypotheses))

    def keep(self, rows: Tensor) -> ToyState:
        return ToyState(self.codes[rows])


@dataclass(frozen=True)
class ToyStep:
    logits: Tensor
    state: ToyState
    attention: Tensor
    words: None = None


class Toy:
    """Log-probabilities and attention looked up in a table by a hash of source and prefix."""

    def __init__(self, seed: int, temperature: float = 1.5) -> None:
        generator = torch.Generator().manual_seed(seed)
        logits = torch.randn(CODES, 6, generator=generator) * temperature
        self.table = logits.log_softmax(dim=1)
        self.weights = torch.randn(CODES, 16, generator=generator)

    def encode(self, source: Tensor, lengths: Tensor) -> ToyMemory:
        mask = torch.arange(source.shape[1]) < lengths[:, None]
        places = torch.arange(1, source.shape[1] + 1)
        return ToyMemory((source * places * mask).sum(dim=1) % CODES, mask)

    def start(self, memory: ToyMemory) -> ToyState:
        return ToyState(memory.codes[:, None])

    def step(self, tokens: Tensor, state: ToyState, memory: ToyMemory) -> ToyStep:
        codes = (state.codes * 31 + tokens + 7) % CODES
        weights = self.weights[codes][..., : memory.mask.shape[1]]
        weights = weights.masked_fill(~memory.mask[:, None], -math.inf).softmax(dim=2)
        return ToyStep(self.table[codes] + 3.0, ToyState(codes), weights)

    def after(self, source: list[int], prefix: tuple[int, ...]) -> int:
        """The code after a prefix, by hand."""
        code = sum(token * (i + 1) for i, token in enumerate([*source, EOS])) % CODES
        for token in (BOS, *prefix):
            code = (code * 31 + token + 7) % CODES
        return code

    def token_scores(self, source: list[int], ids: tuple[int, ...]) -> list[float]:
        codes = [self.after(source, ids[:i]) for i in range(len(ids) + 1)]
        pairs = zip(codes, (*ids, EOS), strict=True)
        return [float(self.table[code, token]) for code, token in pairs]


def run(toy: Toy, sources: list[list[int]], options: SearchOptions, padded, search=beam_search):
    source, lengths = padded(sources)
    return search(toy, source, lengths, options)


def exhaustive(toy: Toy, source: list[int], options: SearchOptions) -> list[tuple]:
    """All targets there may be, best first: (ids, score)."""
    shortest, longest = min_tokens(len(source), options), max_tokens(len(source), options)
    found = []
    for length in range(shortest, longest + 1):
        for ids in itertools.product(WORDS, repeat=length):
            score = normalise(sum(toy.token_scores(source, ids)), length + 1, options)
            found.append((list(ids), score))
    return sorted(found, key=lambda pair: -pair[1])


def listed_beam(toy: Toy, source: list[int], options: SearchOptions) -> list[tuple]:
    """The algorithm of beam.py for one sentence, one hypothesis at a time: (ids, finished)."""
    shortest, longest = min_tokens(len(source), options), max_tokens(len(source), options)
    live: list[tuple[float, tuple[int, ...]]] = [(0.0, ())]
    finished: list[tuple[float, tuple[int, ...]]] = []
    unfinished: list[tuple[float, tuple[int, ...]]] = []
    for t in range(longest + 1):
        rows = [(score, ids, toy.table[toy.after(source, ids)].tolist()) for score, ids in live]
        ends = [(score + row[EOS], ids) for score, ids, row in rows if t >= shortest]
        words = [(score + row[w], (*ids, w)) for score, ids, row in rows for w in WORDS]
        live = sorted(words, reverse=True)[: options.beam]
        best = sorted(ends + live, reverse=True)[: options.beam]
        new = [(normalise(s, t + 1, options), ids) for s, ids in ends if (s, ids) in best]
        finished = sorted(finished + new, reverse=True)
        if t == longest:
            rest = [(s, ids) for s, ids in ends if (s, ids) not in best]
            unfinished = sorted([(normalise(s, t + 1, options), i) for s, i in rest], reverse=True)
        hope = normalise(live[0][0], longest + 1, options)
        hope -= min(0.0, options.length_bonus) * longest  # below 0 it never helps
        enough = len(finished) >= options.n_best and finished[options.n_best - 1][0] >= hope
        if enough or len(finished) >= options.beam:
            break
    both = [(list(i), True) for _, i in finished] + [(list(i), False) for _, i in unfinished]
    return both[: options.n_best]


NORMS = [("average", 0.0), ("average", 1.0), ("average", 1.7), ("gnmt", 0.6), ("gnmt", 2.0)]
SOURCES = [[4], [5, 3], [3, 3, 4], [5, 4, 3, 5]]


@pytest.mark.parametrize(("normalization", "penalty"), NORMS)
@pytest.mark.parametrize("bounds", [(0.0, 1.0, 0), (0.5, 1.0, 1), (1.0, 1.0, 0), (0.0, 0.0001, 3)])
@pytest.mark.parametrize("bonus", [0.0, 0.8, -0.6])
def test_a_wide_beam_is_exhaustive_search(normalization, penalty, bounds, bonus, padded) -> None:
    least, most, extra = bounds
    options = SearchOptions(
        beam=400, n_best=30, normalization=normalization, length_penalty=penalty,
        min_ratio=least, max_ratio=most, max_extra=extra, length_bonus=bonus,
    )  # fmt: skip
    toy = Toy(seed=3)
    for source, found in zip(SOURCES, run(toy, SOURCES, options, padded), strict=True):
        expected = exhaustive(toy, source, options)[:30]
        assert [h.ids for h in found] == [ids for ids, _ in expected]
        assert [h.score for h in found] == pytest.approx([score for _, score in expected], 1e-5)
        assert all(h.finished for h in found)


@pytest.mark.parametrize("seed", range(8))
@pytest.mark.parametrize("beam", [1, 2, 3, 5])
def test_a_narrow_beam_does_what_the_list_version_does(seed, beam, padded) -> None:
    toy = Toy(seed, temperature=0.7 + 0.3 * seed)
    rng = np.random.default_rng(seed)
    sources = [rng.integers(3, 6, size=n).tolist() for n in rng.integers(1, 9, size=12)]
    for normalization, penalty in NORMS:
        options = SearchOptions(
            beam=beam, n_best=max(1, beam - 1), normalization=normalization,
            length_penalty=penalty, min_ratio=0.4, max_ratio=1.3, max_extra=1,
            length_bonus=(seed % 3 - 1) * 0.5,
        )  # fmt: skip
        for source, found in zip(sources, run(toy, sources, options, padded), strict=True):
            assert [(h.ids, h.finished) for h in found] == listed_beam(toy, source, options)


@pytest.mark.parametrize("seed", range(6))
def test_scores_and_attention_belong_to_their_tokens(seed, padded) -> None:
    """Whatever was reordered or left the batch on the way."""
    toy = Toy(seed)
    rng = np.random.default_rng(seed)
    sources = [rng.integers(3, 6, size=n).tolist() for n in rng.integers(1, 10, size=15)]
    options = SearchOptions(beam=4, n_best=4, max_ratio=1.0, max_extra=3)
    for source, found in zip(sources, run(toy, sources, options, padded), strict=True):
        for h in found:
            expected = toy.token_scores(source, tuple(h.ids))
            assert h.token_scores == pytest.approx(expected, abs=2e-6)
            assert h.log_prob == pytest.approx(sum(h.token_scores))
            assert h.score == normalise(h.log_prob, len(h.ids) + 1, options)
            for i, row in enumerate(h.attention):
                weights = toy.weights[toy.after(source, tuple(h.ids[:i]))][: len(source) + 1]
                assert row == pytest.approx(weights.softmax(dim=0).numpy(), abs=1e-6)


@pytest.mark.parametrize("seed", range(10))
def test_beam_of_one_is_greedy(seed, padded) -> None:
    toy = Toy(seed)
    sources = [[3 + (i * j + seed) % 3 for j in range(i)] for i in range(1, 12)]
    for least in (0.0, 0.7):
        options = SearchOptions(beam=1, max_ratio=1.0, max_extra=2, min_ratio=least)
        beam = run(toy, sources, options, padded)
        greedy = run(toy, sources, options, padded, greedy_search)
        assert beam == greedy
        for (one,), (other,) in zip(beam, greedy, strict=True):
            np.testing.assert_array_equal(one.attention, other.attention)


def test_n_best_is_sorted_and_distinct(padded) -> None:
    options = SearchOptions(beam=6, n_best=6, max_ratio=1.0, max_extra=2)
    for found in run(Toy(5), SOURCES * 3, options, padded):
        assert len(found) == 6
        assert [(h.finished, h.score) for h in found] == sorted(
            ((h.finished, h.score) for h in found), reverse=True
        )
        assert len({tuple(h.ids) for h in found}) == 6


class Rambler(Toy):
    """A model that never wants to end."""

    def __init__(self) -> None:
        super().__init__(seed=0)
        self.table[:, EOS] -= 30
        self.table = self.table.log_softmax(dim=1)


def test_a_target_cut_off_is_marked_and_its_score_is_that_of_the_whole(padded) -> None:
    toy, options = Rambler(), SearchOptions(beam=3, n_best=3, max_ratio=2.0, max_extra=1)
    for search in (beam_search, greedy_search):
        for source, found in zip(SOURCES, run(toy, SOURCES, options, padded, search), strict=True):
            for h in found:
                assert not h.finished
                assert len(h.ids) == 2 * len(source) + 1
                expected = toy.token_scores(source, tuple(h.ids))
                assert h.token_scores == pytest.approx(expected, abs=2e-6)
                assert h.token_scores[-1] < -25


class Broken(Toy):
    """A model whose answers are not numbers."""

    def step(self, tokens: Tensor, state: ToyState, memory: ToyMemory) -> ToyStep:
        step = super().step(tokens, state, memory)
        return replace(step, logits=step.logits * math.nan)


@pytest.mark.parametrize("beam", [1, 4])
def test_even_a_broken_model_gives_one_answer_each(beam, padded) -> None:
    for search in (beam_search, greedy_search):
        found = run(Broken(0), SOURCES, SearchOptions(beam=beam), padded, search)
        assert [len(hypotheses) for hypotheses in found] == [1] * len(SOURCES)


class Mute(Toy):
    """A model that gives words no probability, and may not end where a minimum forbids it."""

    def __init__(self) -> None:
        super().__init__(seed=0)
        self.table[:, 3:] = -math.inf


def test_nothing_possible_gives_an_empty_unfinished_target(padded) -> None:
    options = SearchOptions(beam=3, n_best=3, min_ratio=1.0)
    for found in run(Mute(), SOURCES, options, padded):
        assert [(h.ids, h.finished) for h in found] == [([], False)]


def test_only_the_end_possible_gives_the_empty_target_alone(padded) -> None:
    for found in run(Mute(), SOURCES, SearchOptions(beam=3, n_best=3), padded):
        assert [(h.ids, h.finished) for h in found] == [([], True)]
