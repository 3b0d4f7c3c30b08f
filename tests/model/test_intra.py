"""A decoder that attends to itself: the formula, and what step, batch and form may not change."""

from __future__ import annotations

import pytest
import torch

from transduce.data.batches import collate
from transduce.errors import UsageError
from transduce.export.exporting import check_has_graphs
from transduce.model import Seq2Seq, build_model
from transduce.model.intra import IntraAttention
from transduce.model.packing import pack
from transduce.recipe import ModelOptions, SearchOptions
from transduce.recipe_files import recipe_from_dict
from transduce.search import decode, decode_batch, force_score
from transduce.training.losses import sequence_loss

from .conftest import assert_steps_say

SIZE = 12
ROWS = [[4, 5, 6, 7, 8], [9, 4], [10]]
KINDS = [
    {"feeding": "parallel", "attention": {"kind": "multi_head", "heads": 2}},
    {"feeding": "input", "attention": {"kind": "general"}, "copy": "pointer", "layers": 2},
    {"feeding": "context", "attention": {"kind": "additive", "coverage": True}, "kind": "gru"},
    {"feeding": "parallel", "attention": {"kind": "none"}, "residual": True, "layers": 2},
]
NAMES = ["parallel", "input-copying", "context", "no-memory"]


def make(decoder: dict[str, object], seed: int = 3) -> Seq2Seq:
    tree = {
        "embedding": 8,
        "encoder": {"size": 8},
        "decoder": {"size": 8, "intra_attention": True, **decoder},
        "init": {"kind": "uniform", "scale": 0.9},
    }
    torch.manual_seed(seed)
    return build_model(ModelOptions.model_validate(tree), SIZE, SIZE).eval()


def padded() -> tuple[torch.Tensor, torch.Tensor]:
    batch = collate(ROWS, [[4]] * len(ROWS), range(len(ROWS)))
    return batch.source, batch.source_lengths


def test_each_step_looks_at_those_before_it_and_the_first_at_nothing() -> None:
    torch.manual_seed(1)
    intra, outputs = IntraAttention(4).eval(), torch.randn(2, 5, 4)
    with torch.no_grad():
        found = intra(outputs)
        for b in range(2):
            assert not found[b, 0].any()
            for t in range(1, 5):
                scores = [
                    float(intra.query.weight @ outputs[b, t] @ outputs[b, j]) for j in range(t)
                ]
                weights = torch.softmax(torch.tensor(scores), dim=0)
                expected = (weights.unsqueeze(1) * outputs[b, :t]).sum(dim=0)
                torch.testing.assert_close(found[b, t], expected)


@pytest.mark.parametrize("decoder", KINDS, ids=NAMES)
def test_one_step_at_a_time_equals_all_at_once(decoder: dict[str, object]) -> None:
    model = make(decoder)
    source, lengths = padded()
    entered = torch.tensor([[1, 4, 7, 5, 9]] * 3)
    with torch.inference_mode():
        log_probs, _ = model(source, lengths, entered)
        assert_steps_say(log_probs, model, source, lengths, entered)
        # It matters, from where there are two steps to choose from.
        model.decoder.intra.query.weight.mul_(-3)
        other, _ = model(source, lengths, entered)
    torch.testing.assert_close(other[:, :2], log_probs[:, :2])
    assert (other - log_probs)[:, 2:, :SIZE].abs().amax() > 1e-3


@pytest.mark.parametrize("decoder", KINDS, ids=NAMES)
def test_every_weight_learns_and_padding_of_targets_is_inert(decoder: dict[str, object]) -> None:
    model = make({**decoder, "dropout": 0.3}).train()
    sequence_loss(model, collate(ROWS, [[4, 7, 5], [6, 4], [5]], range(3)), 0.1).loss.backward()
    own = dict(model.decoder.named_parameters())
    assert all(p.grad is not None and p.grad.isfinite().all() for p in own.values())
    assert own["intra.query.weight"].grad.any()
    model.eval()
    source, lengths = padded()
    with torch.inference_mode():
        short, _ = model(source, lengths, torch.tensor([[1, 4]] * 3))
        long, _ = model(source, lengths, torch.tensor([[1, 4, 0, 0]] * 3))
    torch.testing.assert_close(long[:, :2, :SIZE], short[..., :SIZE])


@pytest.mark.parametrize("refill", [False, True])
@pytest.mark.parametrize("beam", [1, 3])
@pytest.mark.parametrize("decoder", KINDS[:3], ids=NAMES[:3])
def test_beams_reorder_it_and_batch_mates_change_nothing(
    decoder: dict[str, object], beam: int, refill: bool
) -> None:
    model = make(decoder)
    rows = [*ROWS, *([4 + i % 6, 5 + i % 4] * (1 + i % 5) for i in range(12))]
    options = SearchOptions(beam=beam, n_best=beam, batch_tokens=40 * beam, refill=refill)
    together = list(decode(model, rows, options))
    for row, found in zip(rows, together, strict=True):
        (alone,) = decode_batch(model, [row], options)
        assert [h.ids for h in found] == [h.ids for h in alone]
        for one, other in zip(found, alone, strict=True):
            assert one.token_scores == pytest.approx(other.token_scores, abs=1e-5)
    assert len({len(found[0].ids) for found in together}) > 1  # they ended at different steps
    if "copy" not in decoder:
        # What search scored on its way is what the whole target scores.
        best = [found[0] for found in together]
        forced = force_score(model, rows, [h.ids for h in best])
        for one, h in zip(forced, best, strict=True):
            assert one.token_scores[: len(h.ids)] == pytest.approx(
                h.token_scores[: len(h.ids)], abs=1e-4
            )


@pytest.mark.parametrize("precision", ["fp32", "bf16", "int8"])
@pytest.mark.parametrize("decoder", KINDS[:3], ids=NAMES[:3])
def test_inference_forms_look_back_too(decoder: dict[str, object], precision: str) -> None:
    source, lengths = padded()
    entered = torch.tensor([[1, 4, 7, 5]] * 3)
    packed = pack(make(decoder), precision)
    with torch.inference_mode():
        expected, _ = make(decoder)(source, lengths, entered)
        memory = packed.encode(source, lengths)
        state = packed.start(memory)
        assert packed.plan(memory.keep(torch.tensor([1])), state.keep(torch.tensor([1]))) is None
        for position in range(4):
            step = packed.step(entered[:, position : position + 1], state, memory)
            state = step.state
            torch.testing.assert_close(
                step.log_probs[:, 0].exp(),
                expected[:, position].exp(),
                atol=1e-5 if precision == "fp32" else 0.06,
                rtol=1e-3,
            )
        options = SearchOptions(beam=3)
        (found,) = decode_batch(packed, [ROWS[0]], options)
        mates = decode_batch(packed, ROWS, options)[0]
    assert found[0].log_prob == pytest.approx(
        mates[0].log_prob, abs=1e-4 if precision == "fp32" else 0.3
    )


WRONG = [({"ctc": {"weight": 1.0}}, "`ctc.weight` 1"), ({"transducer": {}}, "`transducer`")]


@pytest.mark.parametrize(("part", "named"), WRONG)
def test_where_there_is_no_decoder_the_recipe_says_so(part: dict[str, object], named: str) -> None:
    tree = {
        "task": "recognition",
        "data": {"train": "a:b", "valid": "a:b"},
        "source": {"kind": "speech"},
        "model": {"decoder": {"intra_attention": True}, **part},
        "training": {"epochs": 1},
    }
    with pytest.raises(UsageError, match=f"decoder.intra_attention .*{named}"):
        recipe_from_dict(tree, where="test")


def test_there_is_no_graph_of_it() -> None:
    options = ModelOptions.model_validate({"decoder": {"intra_attention": True}})
    with pytest.raises(UsageError, match=r"no ONNX graph for `model.decoder.intra_attention`"):
        check_has_graphs(options)
