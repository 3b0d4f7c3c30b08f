"""Transducer search against the sum over every alignment."""

from __future__ import annotations

import itertools
import math
from collections import defaultdict
from dataclasses import dataclass

import numpy as np
import pytest
import torch
from torch import Tensor

from transduce.errors import UsageError
from transduce.recipe import SearchOptions
from transduce.search import decode_batch
from transduce.search.rnn_transducer import transducer_search

BOS, LABELS, CODES = 1, (3, 4), 499


@dataclass(frozen=True)
class ToyMemory:
    values: Tensor  # (B, S, 1): the source's ids are its frames


@dataclass(frozen=True)
class ToyState:
    codes: Tensor  # (B, K)

    def select(self, hypotheses: Tensor) -> ToyState:
        return ToyState(self.codes.gather(1, hypotheses))

    def keep(self, rows: Tensor) -> ToyState:
        return ToyState(self.codes[rows])

    def where(self, chosen: Tensor, other: ToyState) -> ToyState:
        return ToyState(torch.where(chosen, self.codes, other.codes))


class Toy:
    """A transducer whose joint network is a table."""

    def __init__(self, seed: int) -> None:
        generator = torch.Generator().manual_seed(seed)
        logits = torch.randn(CODES, 5, generator=generator, dtype=torch.float64) * 1.5
        logits[:, 1:3] = -math.inf
        self.table = logits.log_softmax(dim=1)

    def encode(self, source: Tensor, lengths: Tensor) -> ToyMemory:
        return ToyMemory(source.unsqueeze(2).double())

    def start(self, memory: ToyMemory) -> ToyState:
        return ToyState(torch.zeros(len(memory.values), 1, dtype=torch.int64))

    def predict(self, tokens: Tensor, state: ToyState) -> tuple[Tensor, ToyState]:
        codes = (state.codes * 7 + tokens) % CODES
        return codes.unsqueeze(2).double(), ToyState(codes)

    def join(self, frames: Tensor, predictions: Tensor) -> Tensor:
        return self.table[(frames * 31 + predictions * 17).squeeze(2).long() % CODES]

    def targets(self, source: list[int], longest: int) -> dict[tuple[int, ...], float]:
        """The log-probability of every target of at most `longest` labels, by recursion."""
        found: dict[tuple[int, ...], float] = defaultdict(lambda: -math.inf)

        def go(frame: int, ids: tuple[int, ...], code: int, log_prob: float) -> None:
            if frame == len(source):
                found[ids] = np.logaddexp(found[ids], log_prob)
                return
            row = self.table[(source[frame] * 31 + code * 17) % CODES].tolist()
            go(frame + 1, ids, code, log_prob + row[0])
            for label in LABELS if len(ids) < longest else ():
                go(frame, (*ids, label), (code * 7 + label) % CODES, log_prob + row[label])

        go(0, (), BOS, 0.0)
        return dict(found)


def options_of(beam: int, n_best: int = 1) -> SearchOptions:
    return SearchOptions(beam=beam, n_best=n_best, max_ratio=0.0001, max_extra=3)


SOURCES = [[4, 9], [7], [3, 8, 5, 3], [6, 6, 9]]


def run(toy: Toy, sources: list[list[int]], options: SearchOptions):
    rows = [torch.tensor(source) for source in sources]
    lengths = torch.tensor([len(source) for source in sources])
    padded = torch.nn.utils.rnn.pad_sequence(rows, batch_first=True)
    return transducer_search(toy, padded, lengths, options)


@pytest.mark.parametrize("seed", range(4))
def test_a_wide_beam_sums_over_every_alignment(seed) -> None:
    toy = Toy(seed)
    for source, found in zip(SOURCES, run(toy, SOURCES, options_of(400, 10)), strict=True):
        expected = sorted(toy.targets(source, 3).items(), key=lambda pair: -pair[1])[:10]
        assert [tuple(h.ids) for h in found] == [ids for ids, _ in expected]
        for h, (ids, log_prob) in zip(found, expected, strict=True):
            assert h.log_prob == pytest.approx(log_prob)
            assert sum(h.token_scores) == pytest.approx(log_prob)
            assert len(h.token_scores) == len(ids) + 1
            assert h.attention.shape == (len(ids) + 1, len(source))
            assert h.attention.sum(axis=1).tolist() == [1.0] * (len(ids) + 1)
            frames = h.attention.argmax(axis=1)
            assert all(a <= b for a, b in itertools.pairwise(frames))  # monotonic


@pytest.mark.parametrize("seed", range(6))
def test_a_beam_of_one_takes_the_best_at_every_turn(seed) -> None:
    toy = Toy(seed)
    for source, (h,) in zip(SOURCES, run(toy, SOURCES, options_of(1)), strict=True):
        frame, code, ids, total = 0, BOS, [], 0.0
        while frame < len(source):
            row = row_of(toy, source[frame], code)
            best = 0 if len(ids) == 3 else max(range(5), key=lambda token: row[token])
            total += row[best]
            if best:
                ids, code = [*ids, best], (code * 7 + best) % CODES
            else:
                frame += 1
        assert h.ids == ids
        assert h.log_prob == pytest.approx(total)
        assert h.finished == (len(ids) < 3)


def row_of(toy: Toy, frame: int, code: int) -> list[float]:
    return toy.table[(frame * 31 + code * 17) % CODES].tolist()


@pytest.mark.parametrize("beam", [1, 2, 5])
def test_the_answer_does_not_depend_on_the_batch(beam) -> None:
    toy = Toy(11)
    rng = np.random.default_rng(0)
    sources = [rng.integers(3, 40, size=n).tolist() for n in rng.integers(1, 20, size=14)]
    options = SearchOptions(beam=beam, n_best=min(2, beam))
    for source, found in zip(sources, run(toy, sources, options), strict=True):
        (alone,) = run(toy, [source], options)
        assert [h.ids for h in alone] == [h.ids for h in found]
        for one, other in zip(alone, found, strict=True):
            assert one.token_scores == pytest.approx(other.token_scores)
            np.testing.assert_array_equal(one.attention, other.attention)


@pytest.mark.parametrize("beam", [1, 3])
def test_a_model_that_answers_nan_still_answers(beam) -> None:
    toy = Toy(0)
    toy.table[:] = math.nan
    found = run(toy, [[5] * 4, [3]], SearchOptions(beam=beam, n_best=beam))
    for hypotheses, frames in zip(found, (4, 1), strict=True):
        assert [(h.ids, h.finished) for h in hypotheses] == [([], False)]
        assert hypotheses[0].attention.shape == (1, frames)


def test_silence_is_empty_and_chatter_ends() -> None:
    toy = Toy(0)
    toy.table[:] = torch.tensor([0.0, -math.inf, -math.inf, -9.0, -9.0]).log_softmax(dim=0)
    (found,) = run(toy, [[5] * 200], SearchOptions(beam=4))
    assert found[0].ids == []
    toy.table[:] = torch.tensor([-9.0, -math.inf, -math.inf, 0.0, -9.0]).log_softmax(dim=0)
    (found,) = run(toy, [[5] * 10], SearchOptions(beam=2, max_ratio=1.0, max_extra=0))
    assert len(found[0].ids) == 10 and not found[0].finished


@pytest.mark.parametrize(
    "option",
    [
        {"block_ngrams": 3},
        {"block_repeats": True},
        {"coverage_penalty": 0.2},
        {"min_length": 2},
        {"language_model": "runs/lm"},
        {"length_bonus": 0.5},
    ],
)
def test_options_that_it_does_not_follow_are_refused_by_name(option) -> None:
    """Silence would look like a language model that changes nothing."""
    toy = Toy(1)
    toy.transducer, toy.decoder = toy, None
    ((name, value),) = option.items()
    with pytest.raises(UsageError, match=rf"search\.{name} is {value}, but a transducer"):
        decode_batch(toy, [[3, 4]], SearchOptions(**option))
