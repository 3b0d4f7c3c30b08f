"""Writing while memory grows: as the searches of the whole, whatever the pieces, and only more."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from transduce.model import Seq2Seq, build_model
from transduce.model.state import Memory
from transduce.recipe import ModelOptions, SearchOptions
from transduce.search.ctc.choosing import search
from transduce.search.rnn_transducer import transducer_search
from transduce.search.streaming import GreedyTransducer, search_memory, writer_of

from .test_rnn_transducer import Toy

BINS = 6
MODELS: dict[str, dict[str, Any]] = {
    "joint": {"ctc": {"weight": 0.5}},
    "ctc": {"ctc": {"weight": 1.0}},
    "transducer": {"transducer": {"size": 8, "joint": 8}},
}


def make(**model: Any) -> tuple[Seq2Seq, torch.Tensor, torch.Tensor]:
    torch.manual_seed(2)
    tree = {
        "embedding": 6,
        "subsampling": {"kind": "stack", "factor": 2},
        "encoder": {"size": 8, "bidirectional": False},
        "decoder": {"size": 8, "layers": 2, "attention": {"heads": 2}},
        "init": {"kind": "uniform", "scale": 1.2},
    }
    built = build_model(ModelOptions.model_validate(tree | model), 0, 9, BINS).eval()
    return built, torch.randn(1, 40, BINS), torch.tensor([40])


@pytest.mark.parametrize("name", ["joint", "ctc"])
def test_pieces_of_every_size_write_the_best_path_of_the_whole(name: str) -> None:
    model, source, lengths = make(**MODELS[name])
    options = SearchOptions(beam=1, ctc_weight=1.0)
    expected = search(model, source, lengths, options)[0][0].ids
    assert len(set(expected)) > 2
    values = model.encode(source, lengths).values[0]
    for size in range(1, len(values) + 1):
        writer = writer_of(model, options)
        assert writer is not None
        before: list[int] = []
        for first in range(0, len(values), size):
            writer.push(values[first : first + size])
            assert writer.ids[: len(before)] == before
            before = list(writer.ids)
        writer.push(values[:0])
        assert writer.ids == expected


def test_a_transducer_writes_what_its_greedy_search_does() -> None:
    options, said = SearchOptions(beam=1, max_ratio=20.0), 0
    for seed in range(12):
        model = Toy(seed)
        source = torch.randint(0, 99, (1, 12), generator=torch.Generator().manual_seed(seed))
        found = transducer_search(model, source, torch.tensor([12]), options)[0][0]
        if not found.finished:  # for ever on one frame: where it is stopped differs
            continue
        expected = found.ids
        for size in (1, 5, 12):
            writer = GreedyTransducer(model, options)
            for values in model.encode(source, torch.tensor([12])).values[0].split(size):
                writer.push(values)
            assert writer.ids == expected
        said += len(expected)
    assert said > 20


@pytest.mark.parametrize("beam", [1, 4])
@pytest.mark.parametrize("name", MODELS)
def test_a_memory_is_searched_as_its_source_would_be(name: str, beam: int) -> None:
    model, source, lengths = make(**MODELS[name])
    options = SearchOptions(beam=beam, ctc_weight=0.3 if name == "joint" else 0.0)
    (expected,) = search(model, source, lengths, options)[0][:1]
    found = search_memory(model, model.encode(source, lengths), options)
    assert found.ids == expected.ids and found.score == pytest.approx(expected.score)


def test_without_ctc_or_transducer_nothing_can_be_written_early() -> None:
    assert writer_of(make()[0], SearchOptions()) is None
    assert isinstance(make()[0].encode(*make()[1:]), Memory)
