"""The search in one call finds what the search step by step finds."""

from __future__ import annotations

import copy
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import pytest
import torch

from transduce import kernels
from transduce.hypotheses import Hypothesis
from transduce.kernels import plan
from transduce.kernels.plan import Lists
from transduce.model import Seq2Seq, build_model, packing
from transduce.model.packed import has_int8
from transduce.model.packing import pack
from transduce.model.shortlist import Shortlist, Shortlisted
from transduce.recipe import ModelOptions, SearchOptions
from transduce.search import beam_search, decode_batch, planned, pool
from transduce.search.planned import search_running, search_sources

from ..conftest import on_threads

pytestmark = pytest.mark.skipif(not kernels.available(), reason="no kernels on this machine")

SIZE = 60  # of both vocabularies
SOURCES = [[5, 9, 7, 12], [30, 4], [8, 8, 39, 6, 11, 17, 25], [21], list(range(4, 40))]
PRECISIONS = ["bf16"] + (["int8"] if has_int8(torch.device("cpu")) else [])


def make(
    decoder: dict[str, Any] | None = None,
    encoder: dict[str, Any] | None = None,
    *,
    size: int = SIZE,
    seed: int = 3,
) -> Seq2Seq:
    torch.manual_seed(seed)
    given = {"size": 24, "layers": 2, "attention": {"kind": "multi_head", "heads": 2}}
    options = ModelOptions.model_validate(
        {
            "embedding": 16,
            "encoder": {"size": 24, "layers": 1} | (encoder or {}),
            "decoder": given | (decoder or {}),
        }
    )
    model = build_model(options, SIZE, size).eval()
    with torch.no_grad():  # so that hypotheses differ, and some end
        for parameter in model.parameters():
            parameter.mul_(2.0)
        model.output.bias[2] += 2.0
    return model


def both(
    model: Any,
    options: SearchOptions,
    monkeypatch: pytest.MonkeyPatch,
    *,
    planned: bool = True,
    from_source: bool | None = None,
) -> list[tuple[list[Hypothesis], list[Hypothesis]]]:
    """What each source gets in one call, by a plan of the steps and by one from the source on, and
    step by step. planned, from_source: whether there are these plans (as a rule both or none)."""
    took: dict[str, list[bool]] = {"search_sources": [], "search_running": []}
    of = {"search_sources": search_sources, "search_running": search_running}

    def searched(*names: str) -> list[list[Hypothesis]]:
        def watched(name: str, *given: Any) -> Any:
            found = of[name](*given) if name in names else None
            took[name].append(found is not None)
            return found

        with monkeypatch.context() as patch:
            for name, marks in took.items():
                marks.clear()
                patch.setattr(pool, name, partial(watched, name))
            return [decode_batch(model, [source], options)[0] for source in SOURCES]

    by_step = searched()
    from_steps = searched("search_running")
    assert took["search_running"] == [planned] * len(SOURCES)
    whole = searched("search_sources")
    wanted = planned if from_source is None else from_source
    assert took["search_sources"] == [wanted] * len(SOURCES)
    return [*zip(from_steps, by_step, strict=True), *zip(whole, by_step, strict=True)]


def assert_same(pairs: list[tuple[list[Hypothesis], list[Hypothesis]]]) -> None:
    for ones, others in pairs:
        assert [h.ids for h in ones] == [h.ids for h in others]
        for one, other in zip(ones, others, strict=True):
            assert one.finished == other.finished
            assert one.score == pytest.approx(other.score, abs=1e-5)
            assert one.log_prob == pytest.approx(other.log_prob, abs=1e-4)
            assert one.token_scores == pytest.approx(other.token_scores, abs=1e-5)
            assert one.attention is not None and other.attention is not None
            assert one.attention.shape == other.attention.shape
            assert np.abs(one.attention - other.attention).max() < 1e-5


@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize("feeding", ["parallel", "input", "context"])
@pytest.mark.parametrize("kind", ["general", "dot", "scaled_dot", "multi_head"])
def test_every_architecture_with_a_plan(
    precision: Any, feeding: str, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = pack(make({"feeding": feeding, "attention": {"kind": kind}}), precision)
    for options in (SearchOptions(beam=4, n_best=2), SearchOptions(beam=1)):
        assert_same(both(model, options, monkeypatch))


@pytest.mark.parametrize(
    "options",
    [
        {"beam": 8, "n_best": 8},
        {"beam": 5, "n_best": 3, "length_penalty": 0.0},
        {"beam": 3, "normalization": "gnmt", "length_penalty": 2.0},
        {"beam": 4, "max_ratio": 0.1, "max_extra": 1, "n_best": 4},
        {"beam": 4, "min_ratio": 1.0, "max_ratio": 1.2, "max_extra": 0},
        {"beam": 1, "min_ratio": 0.5},
    ],
)
@pytest.mark.parametrize("seed", [1, 2])
def test_every_option_of_the_search(
    options: dict[str, Any], seed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = pack(make(seed=seed), "bf16")
    pairs = both(model, SearchOptions(**options), monkeypatch)
    assert_same(pairs)
    assert any(h.finished for _, found in pairs for h in found) or "max_extra" in options


@pytest.mark.parametrize(
    "decoder",
    [
        {"layers": 1},
        {"layers": 3, "residual": True},
        {"readout": "linear"},
        {"size": 20, "attention": {"kind": "general"}},
    ],
)
def test_layers_residuals_and_read_outs(
    decoder: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert_same(both(pack(make(decoder), "bf16"), SearchOptions(beam=5), monkeypatch))


@pytest.mark.parametrize(
    "encoder",
    [
        {"layers": 2},
        {"layers": 3, "residual": True},
        {"bidirectional": False},
        {"bidirectional": False, "layers": 2, "residual": True, "size": 16},
    ],
)
@pytest.mark.parametrize("precision", PRECISIONS)
def test_every_encoder_with_a_plan(
    encoder: dict[str, Any], precision: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = pack(make(encoder=encoder), precision)
    assert_same(both(model, SearchOptions(beam=4, n_best=2), monkeypatch))


def test_a_source_without_a_table_of_gates(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(packing, "TABLE", 0)
    model = pack(make(), "bf16")
    assert model.source_gates is None and model.step_embedding is None
    assert_same(both(model, SearchOptions(beam=4), monkeypatch))


@pytest.mark.parametrize(
    ("encoder", "decoder"),
    [
        ({"layer_norm": True}, {}),
        ({"kind": "gru"}, {}),
        ({"kind": "transformer", "heads": 2}, {}),
        ({}, {"start": "zeros"}),
        ({}, {"start": "mean"}),
        ({"layers": 2}, {"start": "copy"}),
    ],
)
def test_a_plan_of_the_steps_alone(
    encoder: dict[str, Any], decoder: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    model = pack(make(decoder, encoder), "bf16")
    assert_same(both(model, SearchOptions(beam=4), monkeypatch, from_source=False))


def test_a_token_that_is_not_there_is_no_part_of_a_plan() -> None:
    """Kernels would read it from somewhere."""
    model = pack(make(), "bf16")
    with torch.inference_mode():
        for token in (SIZE, -1, 1 << 40):
            assert model.plan_from_source(torch.tensor([[5, token, 2]]), torch.tensor([3])) is None


def test_a_copy_has_a_plan_of_its_own() -> None:
    model = pack(make(), "bf16")
    source, options = SOURCES[0], SearchOptions(beam=4)
    before = decode_batch(model, [source], options)[0]
    other = copy.deepcopy(model)
    with torch.no_grad():
        for table in (model.source_gates, model.step_embedding):
            assert table is not None
            table.weight.zero_()
    assert_same([(decode_batch(other, [source], options)[0], before)])


def elsewhere(model: Seq2Seq) -> None:
    model.to(torch.float32).to(torch.bfloat16)


def exchanged(model: Seq2Seq) -> None:
    for table in (model.source_gates, model.step_embedding):
        assert table is not None
        table.weight.data = table.weight.data * 0.5


def loaded(model: Seq2Seq) -> None:
    other = pack(make(seed=9), "bf16")
    model.load_state_dict(other.state_dict(), assign=True)


@pytest.mark.parametrize("change", [elsewhere, Seq2Seq.share_memory, exchanged, loaded])
def test_a_plan_is_made_anew_where_weights_are_elsewhere(
    change: Callable[[Seq2Seq], object], monkeypatch: pytest.MonkeyPatch
) -> None:
    model, options = pack(make(), "bf16"), SearchOptions(beam=4)
    assert_same(both(model, options, monkeypatch))
    change(model)
    assert_same(both(model, options, monkeypatch))


@pytest.mark.parametrize(
    "given",
    [
        torch.tensor([[5, 9, 7, 12, 2]], dtype=torch.int32),
        torch.tensor([[5, 9, 7, 12, 2, 0, 0, 0]]),
        torch.tensor([[5, 1, 9, 1, 7, 1, 12, 1, 2, 1]])[:, ::2],
    ],
    ids=["int32", "padded", "with gaps"],
)
def test_a_source_however_it_is_in_memory(given: torch.Tensor) -> None:
    model, options = pack(make(), "bf16"), SearchOptions(beam=4)
    plain = beam_search(model, torch.tensor([[5, 9, 7, 12, 2]]), torch.tensor([5]), options)
    assert_same([*zip(beam_search(model, given, torch.tensor([5]), options), plain, strict=True)])


def test_among_a_shortlist(monkeypatch: pytest.MonkeyPatch) -> None:
    candidates = torch.randint(4, SIZE, (SIZE, 3))
    model = Shortlisted(pack(make(), "bf16"), Shortlist(candidates, torch.arange(8)))
    assert_same(both(model, SearchOptions(beam=5, n_best=2), monkeypatch))


@pytest.mark.parametrize(
    ("decoder", "precision", "beam", "size"),
    [
        ({}, "fp32", 3, SIZE),
        ({"kind": "gru"}, "bf16", 3, SIZE),
        ({"attention": {"kind": "additive"}}, "bf16", 3, SIZE),
        ({"attention": {"kind": "location"}, "feeding": "input"}, "bf16", 3, SIZE),
        ({"attention": {"kind": "none"}}, "bf16", 3, SIZE),
        ({"readout": "maxout"}, "bf16", 3, SIZE),
        ({"layer_norm": True}, "bf16", 3, SIZE),
        (
            {"attention": {"kind": "additive", "coverage": True}, "feeding": "input"},
            "bf16",
            3,
            SIZE,
        ),
        ({}, "bf16", 9, SIZE),
        ({}, "bf16", 5, 7),
    ],
)
def test_what_has_no_plan_is_searched_step_by_step(
    decoder: dict[str, Any], precision: Any, beam: int, size: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = pack(make(decoder, size=size), precision)
    for one, other in both(model, SearchOptions(beam=beam), monkeypatch, planned=False):
        assert [h.ids for h in one] == [h.ids for h in other]


def test_a_bonus_for_length_is_no_part_of_the_plan(monkeypatch: pytest.MonkeyPatch) -> None:
    model = pack(make(), "bf16")
    plain = both(model, SearchOptions(beam=4), monkeypatch)
    changed = both(model, SearchOptions(beam=4, length_bonus=2.0), monkeypatch, planned=False)
    assert_same(changed)
    assert [h.ids for one, _ in plain for h in one] != [h.ids for one, _ in changed for h in one]


def searched_in_parts(
    model: Any, sources: list[list[int]], options: SearchOptions, monkeypatch: pytest.MonkeyPatch
) -> tuple[list[list[Hypothesis]], int]:
    """With room for a few at a time only; also how many calls there were."""
    calls: list[int] = []
    search = plan.search
    with monkeypatch.context() as patch:
        patch.setattr(planned, "MOST_ATTENTION", 700 * options.beam)
        patch.setattr(plan, "search", lambda task: (calls.append(task), search(task)))
        return decode_batch(model, sources, options), len(calls)


@pytest.mark.parametrize("threads", [1, 3])
@pytest.mark.parametrize("shortlisted", [False, True])
@pytest.mark.parametrize("beam", [1, 5])
def test_a_batch_is_searched_as_its_sentences_are_alone(
    beam: int, shortlisted: bool, threads: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """To the bit, in any order, and as step by step but for rounding."""
    model: Any = pack(make(), PRECISIONS[-1])
    if shortlisted:
        model = Shortlisted(model, Shortlist(torch.randint(4, SIZE, (SIZE, 3)), torch.arange(8)))
    sources = [[4 + (7 * i * j) % 50 for j in range(1 + 5 * i % 13)] for i in range(20)]
    options = SearchOptions(beam=beam, n_best=min(beam, 2), min_ratio=0.5)
    alone = [decode_batch(model, [source], options)[0] for source in sources]
    with on_threads(threads):
        together = decode_batch(model, sources, options)
        parts, calls = searched_in_parts(model, sources, options, monkeypatch)
    assert calls >= 5
    for found in (together, parts):
        for ones, others in zip(found, alone, strict=True):
            assert [h.ids for h in ones] == [h.ids for h in others]
            assert [h.token_scores for h in ones] == [h.token_scores for h in others]
    monkeypatch.setattr(pool, "search_sources", lambda *given: None)
    monkeypatch.setattr(pool, "search_running", lambda *given: None)
    assert_same([*zip(together, decode_batch(model, sources, options), strict=True)])


def test_what_attention_has_no_room_for_is_searched_step_by_step(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    model, options = pack(make(), "bf16"), SearchOptions(beam=4)
    expected = decode_batch(model, SOURCES, options)
    monkeypatch.setattr(planned, "MOST_ATTENTION", 1000)
    assert search_sources(model, torch.tensor([SOURCES[4]]), torch.tensor([36]), options) is None
    assert_same([*zip(decode_batch(model, SOURCES, options), expected, strict=True)])


@pytest.mark.parametrize("kind", ["bf16", "int8"])
def test_the_lists_of_sentences_lie_side_by_side(kind: str) -> None:
    """Each begins where products can, and has the weights of its own words."""
    if kind not in PRECISIONS:
        pytest.skip("no 8 bits here")
    members = np.zeros((3, SIZE), bool)
    members[0, [1, 5, 6]], members[1, 3:55], members[2, 59] = True, True, True
    output = pack(make(), kind).output  # type: ignore[arg-type]
    x = torch.randn(2, output.weight.shape[1]).bfloat16()
    with torch.inference_mode():
        lists = Lists.of(members, lambda words: output.part(words).for_kernels())
        of_all, logits = output.product(x), lists.product(x, torch.bfloat16)
    assert lists.count.tolist() == [3, 52, 1] and not (lists.start % 32).any()
    for start, count, row in zip(lists.start, lists.count, members, strict=True):
        words = lists.words[start : start + count]
        assert words.tolist() == np.flatnonzero(row).tolist()
        assert torch.equal(logits[:, start : start + count], of_all[:, words])
