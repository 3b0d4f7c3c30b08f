"""Targets that repeat nothing, limits in tokens, and coverage: against exhaustive search."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch

from transduce.errors import UsageError
from transduce.hypotheses.scoring import coverage_score, max_tokens, min_tokens, normalise
from transduce.model.pointer import without
from transduce.model.shortlist import Shortlist, Shortlisted
from transduce.recipe import SearchOptions
from transduce.search import beam_search, decode, decode_batch, greedy_search
from transduce.search.blocking import Blocked, Past
from transduce.search.ctc.choosing import as_asked

from .test_beam import EOS, SOURCES, WORDS, Toy

MANY = [[3 + (i * j) % 8 for j in range(1 + i % 9)] for i in range(24)]
RULES = [(1, False), (2, False), (3, False), (0, True), (2, True), (4, True)]


def breaks(ids: list[int], ngrams: int, repeats: bool) -> bool:
    """Whether a target repeats what it may not, said in the words of the rule."""
    grams = [tuple(ids[i : i + ngrams]) for i in range(len(ids) - ngrams + 1)] if ngrams else []
    thrice = any(
        ids[i : i + p] == ids[i + p : i + 2 * p] == ids[i + 2 * p : i + 3 * p]
        for p in range(1, len(ids) // 3 + 1)
        for i in range(len(ids) - 3 * p + 1)
    )
    return len(set(grams)) < len(grams) or (repeats and thrice)


def attention_of(toy: Toy, source: list[int], ids: tuple[int, ...]) -> np.ndarray:
    codes = [toy.after(source, ids[:i]) for i in range(len(ids) + 1)]
    return toy.weights[codes][:, : len(source) + 1].softmax(dim=1).numpy()


def exhaustive(toy: Toy, source: list[int], options: SearchOptions) -> list[tuple]:
    """All targets that keep the rules, best first: (ids, score)."""
    shortest, longest = min_tokens(len(source), options), max_tokens(len(source), options)
    found = []
    for length in range(shortest, longest + 1):
        for ids in itertools.product(WORDS, repeat=length):
            if breaks(list(ids), options.block_ngrams, options.block_repeats):
                continue
            score = normalise(sum(toy.token_scores(source, ids)), length + 1, options)
            if options.coverage_penalty:
                score += coverage_score(attention_of(toy, source, ids), options)
            found.append((list(ids), score))
    return sorted(found, key=lambda pair: -pair[1])


def asked(toy: Toy, options: SearchOptions, padded, search=beam_search):
    source, lengths = padded(SOURCES)
    return search(as_asked(toy, options), source, lengths, options)


@pytest.mark.parametrize(("ngrams", "repeats"), RULES)
@pytest.mark.parametrize(("least", "most"), [(None, 5), (3, 5), (None, 4)])
def test_a_wide_beam_finds_the_best_targets_without_repetitions(
    ngrams, repeats, least, most, padded
) -> None:
    options = SearchOptions(
        beam=250, n_best=12, max_ratio=1.0, max_extra=3, min_length=least, max_length=most,
        block_ngrams=ngrams, block_repeats=repeats,
    )  # fmt: skip
    toy = Toy(seed=3)
    for source, found in zip(SOURCES, asked(toy, options, padded), strict=True):
        expected = exhaustive(toy, source, options)[:12]
        assert [h.ids for h in found] == [ids for ids, _ in expected]
        assert [h.score for h in found] == pytest.approx([score for _, score in expected], 1e-5)


@pytest.mark.parametrize("kind", ["gnmt", "summary"])
@pytest.mark.parametrize("penalty", [0.1, 1.0])
@pytest.mark.parametrize("normalization", ["average", "gnmt"])
def test_a_wide_beam_ranks_by_coverage_too(kind, penalty, normalization, padded) -> None:
    options = SearchOptions(
        beam=400, n_best=20, max_ratio=0.001, max_extra=5, normalization=normalization,
        coverage_penalty=penalty, coverage_kind=kind, block_ngrams=2,
    )  # fmt: skip
    toy = Toy(seed=4)
    for source, found in zip(SOURCES, asked(toy, options, padded), strict=True):
        expected = exhaustive(toy, source, options)[:20]
        assert [h.ids for h in found] == [ids for ids, _ in expected]
        assert [h.score for h in found] == pytest.approx([score for _, score in expected], 1e-5)
        plain = exhaustive(toy, source, options.model_copy(update={"coverage_penalty": 0.0}))
        assert sum(score for _, score in plain[:20]) > sum(score for _, score in expected)


@pytest.mark.parametrize(("ngrams", "repeats"), RULES)
def test_greedy_search_takes_the_best_word_that_is_left(ngrams, repeats, padded) -> None:
    options = SearchOptions(
        beam=1, max_ratio=0.001, max_extra=9, min_length=2, block_ngrams=ngrams,
        block_repeats=repeats,
    )  # fmt: skip
    if ngrams == 1:
        options = options.model_copy(update={"max_extra": 2})
    for seed in range(4):
        toy = Toy(seed, temperature=0.5)
        toy.table[:, EOS] -= 2.0
        toy.table = toy.table.log_softmax(dim=1)
        for source, (found,) in zip(
            SOURCES, asked(toy, options, padded, greedy_search), strict=True
        ):
            ids: tuple[int, ...] = ()
            while len(ids) < max_tokens(len(source), options):
                row = toy.table[toy.after(source, ids)].tolist()
                left = [w for w in WORDS if not breaks([*ids, w], ngrams, repeats)]
                if len(ids) >= 2:
                    left.append(EOS)
                best = max(left, key=row.__getitem__)
                if best == EOS:
                    break
                ids = (*ids, best)
            assert found.ids == list(ids)
            assert found.token_scores == pytest.approx(toy.token_scores(source, ids), abs=2e-6)


@pytest.mark.parametrize("beam", [1, 4])
@pytest.mark.parametrize("short", [False, True])
def test_batches_and_pools_answer_like_each_source_alone(tiny, beam, short) -> None:
    model = tiny(5)
    if short:
        table = (torch.arange(11).unsqueeze(1) + torch.arange(5)).clamp(max=10)
        model = Shortlisted(model, Shortlist(table, torch.tensor([0, 1, 2, 3])))
    options = SearchOptions(
        beam=beam, n_best=beam, max_ratio=2.0, max_extra=4, min_length=2, max_length=14,
        block_ngrams=3, block_repeats=True, coverage_penalty=0.3, batch_tokens=60 * beam,
    )  # fmt: skip
    alone = [decode_batch(model, [ids], options)[0] for ids in MANY]
    assert not any(breaks(h.ids, 3, True) for found in alone for h in found)
    free = options.model_copy(update={"block_ngrams": 0, "block_repeats": False})
    before = decode_batch(model, MANY, free)
    assert any(breaks(h.ids, 3, True) for found in before for h in found)  # or nothing is tested
    for refill in (False, True):
        some = options.model_copy(update={"refill": refill})
        together = list(decode(model, MANY, some))
        assert [[h.ids for h in found] for found in together] == [
            [h.ids for h in found] for found in alone
        ]
        scores = [h.score for found in together for h in found]
        assert scores == pytest.approx([h.score for found in alone for h in found], abs=1e-5)


def test_reported_scores_are_what_hypotheses_were_ranked_by(tiny) -> None:
    options = SearchOptions(beam=4, n_best=4, max_extra=4, coverage_penalty=0.5)
    for found in decode_batch(tiny(2), MANY, options):
        for h in found:
            expected = normalise(h.log_prob, len(h.ids) + 1, options)
            assert h.score == pytest.approx(expected + coverage_score(h.attention, options))
            assert h.score < expected


def test_what_stays_allowed_keeps_its_probability() -> None:
    logits = torch.randn(2, 3, 9, generator=torch.Generator().manual_seed(1))
    forbidden = torch.tensor([[[4, 4, 0], [0, 0, 0], [8, 4, 5]]]).expand(2, -1, -1)
    before, after = logits.log_softmax(2), without(logits, forbidden).log_softmax(2)
    gone = torch.zeros(2, 3, 9, dtype=torch.bool).scatter(2, forbidden, True)
    gone[:, :, 0] = False
    assert (after[gone] == -torch.inf).all()
    gone[:, :, 0] = True
    assert torch.allclose(after[~gone], before[~gone], atol=1e-6)


def test_a_past_forgets_the_length_of_those_that_left() -> None:
    """Else a pool that is refilled for hours would look further and further back."""
    past = Past.start(2, torch.device("cpu"))
    for token in (5, 6, 7):
        past = past.add(torch.tensor([[token], [0]]))
    late = Past.start(1, torch.device("cpu")).add(torch.tensor([[8]]))
    both = past.join(late)
    assert both.tokens.shape == (3, 1, 3)
    assert both.keep(torch.tensor([2])).tokens.tolist() == [[[8]]]


def test_limits_in_tokens_come_before_ratios() -> None:
    options = SearchOptions(min_length=10, max_ratio=1.0, max_extra=0)
    assert (min_tokens(3, options), max_tokens(3, options)) == (10, 10)
    assert (min_tokens(30, options), max_tokens(30, options)) == (10, 30)
    options = SearchOptions(max_length=5, min_ratio=1.0)
    assert (min_tokens(30, options), max_tokens(30, options)) == (5, 5)
    with pytest.raises(ValueError, match="min_length 6 is more than max_length 5"):
        SearchOptions(min_length=6, max_length=5)


def test_coverage_needs_attention(tiny) -> None:
    model = tiny(1, attention="none")
    for beam in (1, 3):
        with pytest.raises(UsageError, match="coverage_penalty needs a model with attention"):
            decode_batch(model, MANY[:3], SearchOptions(beam=beam, coverage_penalty=0.1))


def test_given_targets_are_scored_as_they_are(tiny, padded) -> None:
    model, (source, lengths) = tiny(1), padded([[4, 5]])
    target = torch.tensor([[1, 3, 3, 3, 3]])
    one, _ = Blocked(model, 1, True)(source, lengths, target)
    assert torch.equal(one, model(source, lengths, target)[0])
