"""Shallow fusion: against exhaustive search over the fused score, in every way to search."""

from __future__ import annotations

import itertools

import pytest
import torch

from transduce.hypotheses.scoring import normalise
from transduce.model.shortlist import Shortlist, Shortlisted
from transduce.recipe import SearchOptions
from transduce.search import Ensemble, decode, decode_batch
from transduce.search.ctc.choosing import as_asked
from transduce.search.language import Advised, Language

MANY = [[3 + (i * j) % 8 for j in range(1 + i % 9)] for i in range(24)]


@pytest.fixture(scope="module")
def language(tiny) -> Language:
    return Language(tiny(9, attention="none"), [4])


def fused(model, language: Language, source: list[int], ids: tuple[int, ...], weight: float):
    """The token scores of a target, teacher-forced by both models."""
    given = torch.tensor([[1, *ids]])
    gold = torch.tensor([*ids, 2])

    def scores(one, read: list[int]) -> torch.Tensor:
        with torch.inference_mode():
            found, _ = one(torch.tensor([read]), torch.tensor([len(read)]), given)
        return found[0].gather(1, gold[:, None]).squeeze(1)

    return scores(model, [*source, 2]) + weight * scores(language.model, language.prompt)


@pytest.mark.parametrize("weight", [0.3, 1.5])
def test_a_wide_beam_finds_the_best_of_the_fused_score(tiny, language, weight) -> None:
    model = tiny(3)
    options = SearchOptions(
        beam=700, n_best=9, max_ratio=0.001, max_extra=2, language_weight=weight
    )
    found = decode_batch(Advised(model, language), MANY[:4], options)
    for source, hypotheses in zip(MANY[:4], found, strict=True):
        expected = []
        for length in range(3):
            for ids in itertools.product(range(3, 11), repeat=length):
                scores = fused(model, language, source, ids, weight)
                score = normalise(float(scores.sum()), length + 1, options)
                expected.append((score, list(ids), scores.tolist()))
        expected.sort(key=lambda one: -one[0])
        assert [h.ids for h in hypotheses] == [ids for _, ids, _ in expected[:9]]
        for h, (score, _, scores) in zip(hypotheses, expected, strict=False):
            assert h.score == pytest.approx(score, abs=1e-5)
            assert h.token_scores == pytest.approx(scores, abs=1e-5)


def model_of(tiny, name: str):
    if name == "ensemble":
        return Ensemble([tiny(3), tiny(4, feeding="input")])
    if name == "shortlist":
        table = (torch.arange(11).unsqueeze(1) + torch.arange(4)).clamp(max=10)
        return Shortlisted(tiny(3), Shortlist(table, torch.tensor([0, 1, 2, 3])))
    return tiny(3)


@pytest.mark.parametrize("beam", [1, 4])
@pytest.mark.parametrize("name", ["one", "ensemble", "shortlist"])
def test_batches_and_pools_answer_like_each_source_alone(tiny, language, name, beam) -> None:
    model = Advised(model_of(tiny, name), language)
    options = SearchOptions(
        beam=beam, n_best=beam, max_extra=4, language_weight=0.7, block_ngrams=3,
        batch_tokens=60 * beam,
    )  # fmt: skip
    alone = [decode_batch(model, [ids], options)[0] for ids in MANY]
    plain = decode_batch(model.advised, MANY, options)
    assert [h[0].ids for h in plain] != [h[0].ids for h in alone]  # it does have a say
    for refill in (False, True):
        some = options.model_copy(update={"refill": refill})
        for one, other in zip(decode(model, MANY, some), alone, strict=True):
            assert [h.ids for h in one] == [h.ids for h in other]
            assert [h.score for h in one] == pytest.approx([h.score for h in other], abs=1e-5)


def test_without_weight_it_is_the_search_without(tiny, language) -> None:
    options = SearchOptions(beam=3, n_best=3, language_weight=0.0)
    model = tiny(3)
    assert as_asked(Advised(model, language), options) is not model
    found = decode_batch(Advised(model, language), MANY, options)
    assert found == decode_batch(model, MANY, options)
