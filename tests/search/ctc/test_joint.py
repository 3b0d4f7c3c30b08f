"""Attention and CTC searched as one."""

from __future__ import annotations

import itertools
import math
from functools import partial

import numpy as np
import pytest
import torch
from torch import Tensor

from transduce.errors import UsageError
from transduce.hypotheses.scoring import normalise
from transduce.model import Seq2Seq
from transduce.recipe import SearchOptions
from transduce.search import Ensemble, decode_batch, force_score
from transduce.search.ctc.prefix import Frames, PrefixState
from transduce.search.language import Advised, Language

EOS, VOCABULARY = 2, 6


class Spoken:
    """The tiny model with a CTC head, over one memory position for every two of the source's."""

    def __init__(self, model: Seq2Seq, seed: int = 0) -> None:
        self.model = model
        generator = torch.Generator().manual_seed(seed)
        self.head = torch.randn(8, VOCABULARY, generator=generator, dtype=torch.float64) * 3
        self.quiet = False

    def memory_lengths(self, lengths: Tensor) -> Tensor:
        return (lengths + 1) // 2

    def encode(self, source: Tensor, lengths: Tensor):
        return self.model.encode(source[:, ::2], self.memory_lengths(lengths))

    def ctc_log_probs(self, memory) -> Tensor:
        logits = memory.values @ self.head
        if self.quiet:
            logits[:, :, 0] += 100
        return logits.log_softmax(dim=2)

    def start(self, memory):
        return self.model.start(memory)

    def step(self, tokens, state, memory):
        return self.model.step(tokens, state, memory)

    def __call__(self, source: Tensor, lengths: Tensor, target_input: Tensor):
        return self.model(source[:, ::2], self.memory_lengths(lengths), target_input)


@pytest.fixture
def spoken(tiny):
    return Spoken(tiny(vocabulary=VOCABULARY))


def sources_of(seed: int, count: int, longest: int) -> list[list[int]]:
    rng = np.random.default_rng(seed)
    return [rng.integers(3, 11, size=n).tolist() for n in rng.integers(1, longest, size=count)]


def token_scores(model: Spoken, source: list[int], ids: tuple[int, ...], weight: float):
    """What each token and EOS of a target should score, by hand."""
    (forced,) = force_score(model, [source], [list(ids)])
    ids_in = torch.tensor([[*source, EOS]])
    lengths = torch.tensor([len(source) + 1])
    log_probs = model.ctc_log_probs(model.encode(ids_in, lengths))
    frames = Frames.of(log_probs, model.memory_lengths(lengths))
    state, prefixes = PrefixState.start(frames), [0.0]
    for token in ids:
        state = state.advance(frames, torch.tensor([[token]]))
        prefixes.append(state.log_prob.item())
    prefixes.append(state.whole.item())
    gains = [b - a if a > -math.inf else -math.inf for a, b in itertools.pairwise(prefixes)]
    pairs = zip(forced.token_scores, gains, strict=True)
    return [(1 - weight) * attention + weight * ctc for attention, ctc in pairs]


def assert_the_best(hypotheses, positions, options, scores_of) -> None:
    """They are the five best of all targets, by the scores of each target's tokens."""
    table = []
    for length in range(max(1, math.floor(0.5 * (positions - 1) + 2)) + 1):
        for ids in itertools.product((3, 4, 5), repeat=length):
            scores = scores_of(ids)
            table.append((normalise(sum(scores), length + 1, options), ids, scores))
    table.sort(reverse=True)
    possible = [row for row in table if row[0] > -math.inf][:5]
    assert [tuple(h.ids) for h in hypotheses if h.score > -1e30] == [ids for _, ids, _ in possible]
    for h, (score, _, scores) in zip(hypotheses, possible, strict=False):
        assert h.token_scores == pytest.approx(scores, abs=1e-4)
        assert h.score == pytest.approx(score, abs=1e-4)


@pytest.mark.parametrize("weight", [0.3, 0.8])
@pytest.mark.parametrize("penalty", [0.0, 1.0])
def test_a_wide_beam_is_exhaustive_search(spoken, weight, penalty) -> None:
    options = SearchOptions(
        beam=300, n_best=5, ctc_weight=weight, length_penalty=penalty, max_ratio=0.5, max_extra=2
    )
    sources = sources_of(1, 4, 6)
    with torch.inference_mode():
        found = decode_batch(spoken, sources, options)
        for source, hypotheses in zip(sources, found, strict=True):
            positions = (len(source) + 2) // 2  # limits count memory positions
            scores_of = partial(token_scores, spoken, source, weight=weight)
            assert_the_best(hypotheses, positions, options, scores_of)
            assert all(
                h.attention.shape == (len(h.ids) + 1, positions)
                for h in hypotheses
                if h.score > -1e30
            )


def said_by(language: Language, ids: tuple[int, ...]) -> list[float]:
    """The log-probability that a language model gives each token and EOS, teacher-forced."""
    read = torch.tensor([language.prompt])
    found, _ = language.model(read, torch.tensor([read.shape[1]]), torch.tensor([[1, *ids]]))
    scores: list[float] = found[0].gather(1, torch.tensor([[*ids, EOS]]).T).squeeze(1).tolist()
    return scores


@pytest.mark.parametrize("language_weight", [0.4, 2.0])
def test_with_a_language_model_too_a_wide_beam_is_exhaustive_search(
    tiny, spoken, language_weight
) -> None:
    """It comes on top of what decoder and CTC say together, and takes no part of their weight."""
    language = Language(tiny(6, vocabulary=VOCABULARY, attention="none"), [4])
    options = SearchOptions(
        beam=300, n_best=5, ctc_weight=0.3, max_ratio=0.5, max_extra=2,
        language_weight=language_weight, length_bonus=0.2,
    )  # fmt: skip
    sources = sources_of(1, 4, 6)
    changed = 0
    with torch.inference_mode():
        plain = decode_batch(spoken, sources, options)
        found = decode_batch(Advised(spoken, language), sources, options)
        for source, hypotheses, others in zip(sources, found, plain, strict=True):
            changed += [h.ids for h in hypotheses] != [h.ids for h in others]

            def scores_of(ids: tuple[int, ...], source: list[int] = source) -> list[float]:
                heard = token_scores(spoken, source, ids, 0.3)
                pairs = zip(heard, said_by(language, ids), strict=True)
                return [own + language_weight * theirs for own, theirs in pairs]

            assert_the_best(hypotheses, (len(source) + 2) // 2, options, scores_of)
    assert changed  # it does have a say


@pytest.mark.parametrize("weight", [0.0, 0.4, 1.0])
@pytest.mark.parametrize("beam", [1, 4])
def test_the_answer_does_not_depend_on_the_batch(spoken, weight, beam) -> None:
    options = SearchOptions(beam=beam, n_best=min(beam, 2), ctc_weight=weight)
    sources = sources_of(2, 12, 25)
    together = decode_batch(spoken, sources, options)
    for source, hypotheses in zip(sources, together, strict=True):
        (alone,) = decode_batch(spoken, [source], options)
        assert [h.ids for h in alone] == [h.ids for h in hypotheses]
        for one, other in zip(alone, hypotheses, strict=True):
            assert one.token_scores == pytest.approx(other.token_scores, abs=1e-4)
            assert one.attention.shape == (len(one.ids) + 1, (len(source) + 2) // 2)
            np.testing.assert_allclose(one.attention, other.attention, atol=1e-5)
            assert one.attention.sum(axis=1) == pytest.approx(1.0, abs=1e-4)


@pytest.mark.parametrize("beam", [1, 3])
@pytest.mark.parametrize("weight", [0.2, 1.0])
def test_silence_is_empty_and_says_why(spoken, weight, beam) -> None:
    """Also where the decoder would rather go on for ever."""
    spoken.model.output.bias.data[EOS] -= 50
    options = SearchOptions(beam=beam, ctc_weight=weight)
    loud = decode_batch(spoken, [[4] * 40], options)[0][0]
    spoken.quiet = True
    (quiet,) = decode_batch(spoken, [[4] * 40], options)
    assert loud.ids and loud.reason is None
    assert quiet[0].ids == [] and quiet[0].finished
    assert quiet[0].reason == "nothing to write was found in it"


def test_a_model_without_a_decoder_is_searched_by_its_head(spoken) -> None:
    """Whatever the weight says; the recipe's default is 0."""
    sources = sources_of(8, 4, 12)
    expected = decode_batch(spoken, sources, SearchOptions(beam=3, ctc_weight=1.0))
    spoken.decoder = None
    assert decode_batch(spoken, sources, SearchOptions(beam=3)) == expected


def test_ctc_ends_what_a_decoder_would_not(spoken) -> None:
    """A decoder that loops is held to as many tokens as there is sound for."""
    spoken.model.output.bias.data[EOS] -= 4
    sources = sources_of(3, 6, 12)
    alone = decode_batch(spoken, sources, SearchOptions(beam=3, length_penalty=0.0))
    options = SearchOptions(beam=3, length_penalty=0.0, ctc_weight=0.5)
    for source, (free, *_), (held, *_) in zip(
        sources, alone, decode_batch(spoken, sources, options), strict=True
    ):
        assert held.finished
        assert len(held.ids) <= (len(source) + 2) // 2 < len(free.ids)


def test_large_vocabularies_are_searched_alike(tiny) -> None:
    """From 1024 words on, search looks at blocks of words; the scores must mean the same there."""
    model = Spoken(tiny(vocabulary=1100))
    generator = torch.Generator().manual_seed(5)
    model.head = torch.randn(8, 1100, generator=generator, dtype=torch.float64) * 3
    sources = sources_of(4, 5, 14)
    options = SearchOptions(beam=4, n_best=2, ctc_weight=0.5)
    for source, found in zip(sources, decode_batch(model, sources, options), strict=True):
        for h in found:
            expected = token_scores(model, source, tuple(h.ids), 0.5)
            assert h.token_scores == pytest.approx(expected, abs=1e-3)


def test_an_ensemble_has_the_mean_of_its_heads(tiny) -> None:
    class Member(torch.nn.Module, Spoken):
        def __init__(self, model: Seq2Seq) -> None:
            torch.nn.Module.__init__(self)
            Spoken.__init__(self, model)

        __call__ = Spoken.__call__

    options = SearchOptions(beam=3, n_best=3, ctc_weight=0.4)
    sources = sources_of(6, 5, 12)
    one = decode_batch(Spoken(tiny(vocabulary=VOCABULARY)), sources, options)
    members = [Member(tiny(vocabulary=VOCABULARY)) for _ in range(2)]
    for found, expected in zip(decode_batch(Ensemble(members), sources, options), one, strict=True):
        assert [h.ids for h in found] == [h.ids for h in expected]


def test_a_model_without_a_head_is_told_so(tiny) -> None:
    model = tiny()
    with pytest.raises(UsageError, match="no CTC head"):
        decode_batch(model, [[4, 5]], SearchOptions(ctc_weight=0.3))


def test_shortlists_and_ctc_do_not_go_together() -> None:
    with pytest.raises(ValueError, match="do not go together"):
        SearchOptions(ctc_weight=0.3, shortlist=50)
