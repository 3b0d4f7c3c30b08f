"""Models of speech: frames in, and the answers depend on no padding, no batch-mate, no batch."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from transduce.data.batches import Batch
from transduce.errors import UsageError
from transduce.model import Seq2Seq, build_model
from transduce.model.packed import has_int8
from transduce.model.packing import pack
from transduce.recipe import ModelOptions
from transduce.training.losses import sequence_loss

BINS, VOCABULARY = 10, 12
FRONTS: list[dict[str, Any]] = [
    *({"kind": "conv", "factor": factor, "channels": 3} for factor in (1, 2, 4, 8)),
    *({"kind": "stack", "factor": factor} for factor in (1, 4, 8)),
    {"kind": "none"},
]
ENCODERS: dict[str, dict[str, Any]] = {
    "lstm": {"kind": "lstm", "layers": 2},
    "one-way": {"kind": "gru", "layers": 2, "bidirectional": False, "layer_norm": True},
    "pyramid": {"kind": "lstm", "layers": 3, "pyramid": 2},
    "pyramid one-way": {"kind": "gru", "layers": 2, "pyramid": 1, "bidirectional": False},
    "pyramid residual": {"layers": 4, "pyramid": 1, "residual": True, "layer_norm": True},
    "transformer": {"kind": "transformer", "layers": 2, "heads": 2},
    "rotary": {"kind": "transformer", "heads": 2, "positions": "rotary"},
    "conformer": {"kind": "conformer", "layers": 2, "heads": 2, "kernel": 5},
    "wider than its sentences": {"kind": "conformer", "heads": 1, "kernel": 31},
}


def make(encoder: dict[str, Any] | None = None, **model: Any) -> Seq2Seq:
    torch.manual_seed(3)
    part = {"size": 8, "dropout": 0.0}
    tree = {
        "embedding": 6,
        "subsampling": {"channels": 3},
        "encoder": part | (encoder or {}),
        "decoder": part | {"layers": 2, "attention": {"heads": 2}},
        "ctc": {"weight": 0.3},
    }
    return build_model(ModelOptions.model_validate(tree | model), 0, VOCABULARY, BINS)


def frames(longest: int = 21) -> tuple[Tensor, Tensor, Tensor]:
    torch.manual_seed(5)
    lengths = torch.tensor([longest, 13, 8, 1])
    source = torch.randn(4, longest, BINS)
    source[torch.arange(longest) >= lengths.unsqueeze(1)] = 0
    target = torch.randint(4, VOCABULARY, (4, 5))
    target[:, 0] = 1
    return source, lengths, target


def assert_inert(model: Seq2Seq) -> None:
    """Padding and batch-mates change nothing, and `memory_lengths` is what the mask says."""
    model.eval()
    source, lengths, target = frames()
    with torch.inference_mode():
        memory = model.encode(source, lengths)
        assert memory.mask.sum(dim=1).tolist() == model.memory_lengths(lengths).tolist()
        assert not memory.values[~memory.mask].any()
        said = model.ctc_log_probs(memory)
        together, weights = model(source, lengths, target) if model.decoder else (None, None)
        for row, length in enumerate(lengths.tolist()):
            one = slice(row, row + 1)
            alone = model.encode(source[one, :length], lengths[one])
            positions = int(model.memory_lengths(lengths[one]))
            assert alone.values.shape[1] == positions == said[row][memory.mask[row]].shape[0]
            torch.testing.assert_close(model.ctc_log_probs(alone)[0], said[row, :positions])
            if together is not None and weights is not None:
                log_probs, own = model(source[one, :length], lengths[one], target[one])
                torch.testing.assert_close(log_probs[0], together[row])
                torch.testing.assert_close(own[0], weights[row, :, :positions])


@pytest.mark.parametrize("front", FRONTS, ids=str)
def test_padding_and_batch_mates_change_nothing_below_the_encoder(front: dict[str, Any]) -> None:
    model = make(subsampling=front)
    assert_inert(model)
    factor = front.get("factor", 1)
    assert model.memory_lengths(torch.tensor([1, 16, 17])).tolist() == [
        1, -(-16 // factor), -(-17 // factor)
    ]  # fmt: skip


@pytest.mark.parametrize("encoder", ENCODERS.values(), ids=ENCODERS)
def test_padding_and_batch_mates_change_nothing_in_the_encoder(encoder: dict[str, Any]) -> None:
    assert_inert(make(encoder))


@torch.inference_mode()
@pytest.mark.parametrize("precision", ["fp32", "bf16", "int8"])
@pytest.mark.parametrize("encoder", ENCODERS.values(), ids=ENCODERS)
def test_the_inference_form_answers_alike(encoder: dict[str, Any], precision: Any) -> None:
    if precision == "int8" and not has_int8(torch.device("cpu")):
        pytest.skip("no 8-bit product")
    attention = {"kind": "location", "kernel": 3}
    for decoder in ({"attention": {"heads": 2}}, {"attention": attention, "feeding": "input"}):
        model = make(encoder, decoder={"size": 8, "dropout": 0.0} | decoder).eval()
        source, lengths, target = frames()
        found = []
        for form in (model, pack(copy.deepcopy(model), precision)):
            memory = form.encode(source, lengths)
            step = form.step(target[:, :1], form.start(memory), memory)
            second = form.step(target[:, 1:2], step.state, memory).log_probs
            found.append(
                torch.cat([second.flatten(), form.ctc_log_probs(memory)[memory.mask].flatten()])
            )
        # The mean, since norms over so few components magnify what is rounded now and then.
        tolerance = {"fp32": 1e-5, "bf16": 0.04, "int8": 0.06}[precision]
        assert (found[1] - found[0]).abs().mean() < tolerance
        assert (found[1] - found[0]).abs().max() < 20 * tolerance


@pytest.mark.parametrize("kind", ["lstm", "transformer", "conformer"])
@pytest.mark.parametrize("transducer", [None, {"size": 8, "joint": 8}])
def test_every_parameter_learns_also_in_bf16(kind: str, transducer: Any) -> None:
    model = make({"kind": kind, "heads": 2}, transducer=transducer).train()
    source, lengths, target = frames()
    output = torch.cat([target[:, 1:], torch.full((4, 1), 2)], dim=1)
    count = torch.full((4,), 5)
    batch = Batch(source, lengths, target, output, count, np.arange(4))
    gradients = []
    for enabled in (False, True):
        model.zero_grad()
        torch.manual_seed(1)
        with torch.autocast("cpu", torch.bfloat16, enabled=enabled):
            sums = sequence_loss(model, batch, 0.1)
        sums.loss.backward()
        assert [n for n, p in model.named_parameters() if p.grad is None or not p.grad.any()] == []
        gradients.append(torch.cat([p.grad.flatten() for p in model.parameters()]))
    assert torch.cosine_similarity(*gradients, dim=0) > 0.98


@pytest.mark.parametrize("encoder", ENCODERS.values(), ids=ENCODERS)
def test_one_step_at_a_time_equals_all_at_once(encoder: dict[str, Any]) -> None:
    model = make(encoder).eval()
    source, lengths, target = frames()
    with torch.inference_mode():
        log_probs, _ = model(source, lengths, target)
        memory = model.encode(source, lengths)
        state = model.start(memory)
        for position in range(target.shape[1]):
            step = model.step(target[:, position : position + 1], state, memory)
            state = step.state
            torch.testing.assert_close(step.log_probs[:, 0], log_probs[:, position])


def test_ctc_alone_has_no_decoder() -> None:
    model = make(ctc={"weight": 1.0})
    assert_inert(model)
    assert {name.split(".")[0] for name, _ in model.named_parameters()} == {
        "subsampling", "encoder", "output"
    }  # fmt: skip
    source, lengths, _ = frames()
    with pytest.raises(UsageError, match="no decoder"):
        model.start(model.encode(source, lengths))


def test_without_ctc_there_is_none_to_ask() -> None:
    model = make(ctc={"weight": 0.0})
    source, lengths, _ = frames()
    with pytest.raises(UsageError, match="without CTC"):
        model.ctc_log_probs(model.encode(source, lengths))
