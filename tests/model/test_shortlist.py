"""A sentence chooses among its own shortlist, whatever its batch-mates need."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from transduce.errors import FolderError
from transduce.model import Seq2Seq, build_model
from transduce.model.packing import pack
from transduce.model.shortlist import Shortlist, Shortlisted
from transduce.model.weights import tensor_bytes
from transduce.recipe import ModelOptions, SearchOptions
from transduce.search import decode_batch

SIZE = 50
ALWAYS = torch.tensor([0, 1, 2, 3, 7])
SOURCES = [[5, 9, 7, 12], [30, 4], [8, 8, 39, 6, 11], [21]]


def make() -> Seq2Seq:
    torch.manual_seed(3)
    options = {"embedding": 16, "encoder": {"size": 16}, "decoder": {"size": 16}}
    return build_model(ModelOptions.model_validate(options), SIZE, SIZE).eval()


def neighbours(count: int) -> Shortlist:
    """Source token s may become s, s + 1, s + 2, …"""
    table = torch.arange(SIZE).unsqueeze(1) + torch.arange(count)
    table[0] = 0
    return Shortlist(table.clamp(max=SIZE - 1), ALWAYS)


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("beam", [1, 4])
def test_a_shortlist_of_everything_changes_nothing(beam, packed) -> None:
    model = pack(make(), "fp32") if packed else make()
    options = SearchOptions(beam=beam, n_best=beam)
    everything = Shortlisted(
        model, Shortlist(torch.zeros(SIZE, 1, dtype=torch.long), torch.arange(SIZE))
    )
    for found, expected in zip(
        decode_batch(everything, SOURCES, options),
        decode_batch(model, SOURCES, options),
        strict=True,
    ):
        assert [h.ids for h in found] == [h.ids for h in expected]
        assert [h.score for h in found] == pytest.approx([h.score for h in expected], abs=1e-4)


@pytest.mark.parametrize("beam", [1, 4])
def test_targets_are_made_of_their_own_shortlists_only(beam) -> None:
    model, options = Shortlisted(make(), neighbours(3)), SearchOptions(beam=beam, n_best=beam)
    together = decode_batch(model, SOURCES, options)
    assert any(h.ids for found in together for h in found)
    for ids, found in zip(SOURCES, together, strict=True):
        allowed = {*ALWAYS.tolist(), *(s + i for s in [*ids, 2] for i in range(3))}
        for h in found:
            assert set(h.ids) <= allowed
        (alone,) = decode_batch(model, [ids], options)
        assert [h.ids for h in alone] == [h.ids for h in found]
        assert [h.token_scores for h in alone] == [
            pytest.approx(h.token_scores, abs=1e-4) for h in found
        ]


def test_probabilities_are_shared_among_the_shortlist() -> None:
    model = Shortlisted(make(), neighbours(2))
    source, lengths = torch.tensor([[5, 9, 2], [40, 2, 0]]), torch.tensor([3, 2])
    with torch.inference_mode():
        memory = model.encode(source, lengths)
        step = model.step(torch.tensor([[1], [1]]), model.start(memory), memory)
    assert step.words.tolist() == sorted({0, 1, 2, 3, 7, 5, 6, 9, 10, 40, 41})
    torch.testing.assert_close(step.log_probs.exp().sum(dim=2), torch.ones(2, 1))
    its_own = step.log_probs[1, 0].exp() > 0
    assert step.words[its_own].tolist() == [0, 1, 2, 3, 7, 40, 41]
    kept = memory.keep(torch.tensor([1]))
    with torch.inference_mode():
        alone = model.step(torch.tensor([[1]]), model.start(kept), kept)
    torch.testing.assert_close(alone.log_probs[0], step.log_probs[1])


@pytest.mark.parametrize(
    "tensors",
    [
        {"candidates": torch.zeros(SIZE, 2, dtype=torch.int32)},
        {"candidates": torch.zeros(SIZE - 1, 2, dtype=torch.int32), "always": ALWAYS.int()},
        {"candidates": torch.full((SIZE, 2), SIZE, dtype=torch.int32), "always": ALWAYS.int()},
        {"candidates": torch.full((SIZE, 2), -1, dtype=torch.int32), "always": ALWAYS.int()},
    ],
)
def test_a_shortlist_that_does_not_fit_is_refused(tmp_path: Path, tensors) -> None:
    path = tmp_path / "shortlist.safetensors"
    path.write_bytes(tensor_bytes(tensors))
    with pytest.raises(FolderError, match="make it again with `transduce shortlist`"):
        Shortlist.load(path, SIZE, SIZE)


@pytest.mark.parametrize("count", [1, 2])
def test_padding_has_no_candidates(count: int) -> None:
    candidates = torch.tensor([[9], [0], [4], [5]])  # 9 is that of what pads
    source = torch.tensor([[2, 3, 0, 0]] * count)
    members = Shortlist(candidates, torch.tensor([1])).members(
        source, torch.tensor([2] * count), vocabulary=10
    )
    assert members.nonzero()[:, 1].tolist() == [1, 4, 5] * count
