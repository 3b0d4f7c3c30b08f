"""A language model and a bonus for length beside CTC, against enumeration."""

from __future__ import annotations

import math
from functools import cache

import pytest
import torch

from transduce.recipe import SearchOptions
from transduce.search import decode_batch
from transduce.search.ctc.advice import Adviser
from transduce.search.ctc.alone import prefix_beam, search_frames
from transduce.search.ctc.prefix import Frames
from transduce.search.language import Advised, Language

from .conftest import listed_prefix_beam

EOS = 2
WEIGHTS = [(0.5, 0.0), (1.5, 0.8), (0.7, -1.0), (None, 1.2)]


class Counted:
    """A model, and how many steps it was asked for."""

    def __init__(self, model) -> None:
        self.model, self.steps = model, 0

    def step(self, *given):
        self.steps += 1
        return self.model.step(*given)

    def __call__(self, *given):
        return self.model(*given)

    def __getattr__(self, name: str):
        return getattr(self.model, name)


@pytest.fixture
def language(tiny) -> Language:
    return Language(Counted(tiny(6, vocabulary=6, attention="none")), [4])


def adviser_of(language: Language, weight: float | None, bonus: float) -> Adviser:
    return Adviser(None if weight is None else language, weight or 0.0, bonus)


def saying(adviser: Adviser):
    """What is said of a target's tokens and, last, of its end, teacher-forced by hand."""

    @cache
    def said(ids: tuple[int, ...]) -> list[float]:
        scores = torch.tensor([adviser.bonus] * len(ids) + [0.0], dtype=torch.float64)
        if adviser.language is not None:
            read = torch.tensor([adviser.language.prompt])
            with torch.inference_mode():
                found, _ = adviser.language.model(
                    read, torch.tensor([read.shape[1]]), torch.tensor([[1, *ids]])
                )
            gold = torch.tensor([[*ids, EOS]]).T
            scores += adviser.weight * found[0].gather(1, gold).squeeze(1).double()
        return scores.tolist()

    return said


def batch_of(make_frames, seed: int, lengths: list[int], **keywords):
    alone = [make_frames(seed + i, n, **keywords) for i, n in enumerate(lengths)]
    padded = torch.nn.utils.rnn.pad_sequence(alone, batch_first=True, padding_value=-0.5)
    return Frames.of(padded, torch.tensor(lengths)), alone


@pytest.mark.parametrize(("weight", "bonus"), WEIGHTS)
def test_a_wide_beam_finds_the_best_of_the_sum(
    make_frames, targets_of, language, weight, bonus
) -> None:
    adviser = adviser_of(language, weight, bonus)
    said = saying(adviser)
    frames, alone = batch_of(make_frames, 30, [5, 3, 1, 6])
    found = search_frames(frames, SearchOptions(beam=1000, n_best=6), adviser)
    plain = search_frames(frames, SearchOptions(beam=1000, n_best=6))
    assert [[h.ids for h in one] for one in found] != [[h.ids for h in one] for one in plain]
    for one, hypotheses in zip(alone, found, strict=True):
        targets = {ids: math.log(p) for ids, p in targets_of(one).items() if p > 0}
        table = [(log_prob + sum(said(ids)), ids) for ids, log_prob in targets.items()]
        table.sort(reverse=True)
        assert [tuple(h.ids) for h in hypotheses] == [ids for _, ids in table[:6]]
        for h, (score, _) in zip(hypotheses, table, strict=False):
            assert h.score == h.log_prob == pytest.approx(score, abs=1e-5)
            assert sum(h.token_scores) == pytest.approx(score, abs=1e-5)
            assert len(h.token_scores) == len(h.ids) + 1


@pytest.mark.parametrize("beam", [1, 3, 8])
@pytest.mark.parametrize(("weight", "bonus"), WEIGHTS)
def test_a_narrow_beam_does_what_the_listed_version_does(
    make_frames, language, beam, weight, bonus
) -> None:
    """Also in a batch: the language model's states go with their prefixes."""
    adviser = adviser_of(language, weight, bonus)
    frames, alone = batch_of(make_frames, 90, [20, 7, 15, 1], temperature=2.5)
    with torch.inference_mode():
        found = prefix_beam(frames, beam, beam, adviser)
    said = saying(adviser)
    for one, targets in zip(alone, found, strict=True):
        assert [tuple(ids) for ids in targets] == listed_prefix_beam(one, beam, said)


def test_all_prefixes_of_a_batch_ask_the_language_model_at_once(make_frames, language) -> None:
    adviser = adviser_of(language, 0.5, 0.0)
    quiet = torch.full((6, 30, 6), -40.0, dtype=torch.float64)
    quiet[:, :, 0] = 0.0
    quiet[2, 10, 4], quiet[2, 10, 0] = 0.0, -40.0
    with torch.inference_mode():
        (*_,) = prefix_beam(Frames.of(quiet, torch.full((6,), 30)), 1, 1, adviser)
        assert language.model.steps == 2  # the first, and that of the only label
        frames, _ = batch_of(make_frames, 7, [25] * 9)
        prefix_beam(frames, 5, 5, adviser)
    assert language.model.steps <= 2 + 26


def test_models_of_ctc_alone_listen_to_it(make_frames, language) -> None:
    """By the options of a search, as for models with a decoder."""
    frames, _ = batch_of(make_frames, 55, [9, 9, 4])

    class Head:
        decoder, has_ctc = None, True

        def encode(self, source, lengths):
            return source

        def ctc_log_probs(self, memory):
            return frames.log_probs.transpose(1, 2)

        def memory_lengths(self, lengths):
            return frames.lengths

    rows = [[4] * 8] * 3  # as long as the frames, with EOS
    options = SearchOptions(beam=4, n_best=2, language_weight=0.9, length_bonus=0.3)
    found = decode_batch(Advised(Head(), language), rows, options)
    assert found == search_frames(frames, options, Adviser(language, 0.9, 0.3))
    silent = options.model_copy(update={"language_weight": 0.0, "length_bonus": 0.0})
    assert decode_batch(Advised(Head(), language), rows, silent) == search_frames(frames, silent)
