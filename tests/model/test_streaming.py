"""A memory that grows with its source is that of the whole source, whatever the pieces."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch import Tensor

from transduce.errors import UsageError
from transduce.model import Seq2Seq, build_model
from transduce.model.packing import has_int8, pack
from transduce.model.streaming import GrowingMemory
from transduce.recipe import ModelOptions

BINS, VOCABULARY, LENGTH = 10, 12, 27
FRONTS: list[dict[str, Any]] = [
    *({"kind": "conv", "factor": factor, "channels": 3} for factor in (1, 2, 4, 8)),
    *({"kind": "stack", "factor": factor} for factor in (1, 4, 8)),
    {"kind": "none"},
]
ENCODERS: dict[str, dict[str, Any]] = {
    "lstm": {"kind": "lstm", "layers": 2},
    "gru": {"kind": "gru", "layers": 2, "layer_norm": True},
    "rnn": {"kind": "rnn", "layers": 2, "residual": True},
    "pyramid": {"kind": "lstm", "layers": 4, "pyramid": 2, "residual": True},
}


def make(encoder: dict[str, Any], front: dict[str, Any], **model: Any) -> Seq2Seq:
    torch.manual_seed(3)
    tree = {
        "embedding": 6,
        "subsampling": front,
        "encoder": {"size": 8, "bidirectional": False} | encoder,
        "decoder": {"size": 8, "layers": 2, "attention": {"heads": 2}},
        "ctc": {"weight": 0.3},
        "init": {"kind": "uniform", "scale": 0.7},
    }
    options = ModelOptions.model_validate(tree | model)
    return build_model(options, 0, VOCABULARY, BINS).eval()


def sound(length: int = LENGTH) -> Tensor:
    return torch.randn(length, BINS, generator=torch.Generator().manual_seed(1))


def assert_grows(model: Seq2Seq, frames: Tensor, size: int, **close: float) -> None:
    """In pieces of `size` frames: at each moment a beginning of the memory, at last all of it."""
    with torch.inference_mode():
        whole = model.encode(frames.unsqueeze(0), torch.tensor([len(frames)]))
    growing, known = GrowingMemory(model), 0
    for first in range(0, len(frames), size):
        growing.push(frames[first : first + size])
        if growing.positions:
            found = growing.memory().values
            known = found.shape[1]
            torch.testing.assert_close(found, whole.values[:, :known], **close)
    growing.push(frames[:0], last=True)
    memory = growing.memory()
    assert known >= (len(frames) - 2) // (len(frames) // whole.values.shape[1] + 1) - 1
    torch.testing.assert_close(memory.values, whole.values, **close)
    assert memory.mask.all() and memory.mask.shape == whole.mask.shape
    assert memory.final is not None and whole.final is not None
    torch.testing.assert_close(memory.final, whole.final, **close)
    assert (memory.cell is None) == (whole.cell is None)
    if memory.cell is not None:
        torch.testing.assert_close(memory.cell, whole.cell, **close)


@pytest.mark.parametrize("front", FRONTS, ids=lambda front: "-".join(map(str, front.values())))
@pytest.mark.parametrize("encoder", ENCODERS.values(), ids=ENCODERS)
def test_pieces_of_every_size_give_the_memory_of_the_whole(
    encoder: dict[str, Any], front: dict[str, Any]
) -> None:
    model = make(encoder, front)
    for size in (1, 2, 3, 5, 8, 13, LENGTH):
        # To the rounding of products whose number of rows differs.
        assert_grows(model, sound(), size, atol=2e-6, rtol=1e-5)
    for length in (1, 2, 4, 7, 8):
        assert_grows(model, sound(length), 1, atol=2e-6, rtol=1e-5)


def test_it_is_exact_where_rounding_is_left_out() -> None:
    model = make({"kind": "gru", "layers": 3}, {"kind": "conv", "factor": 4, "channels": 3})
    model = model.double()
    for size in range(1, LENGTH + 1):
        assert_grows(model, sound().double(), size, atol=1e-13, rtol=0.0)


@pytest.mark.parametrize("precision", ["fp32", "bf16", "int8"])
def test_inference_forms_grow_as_well(precision: Any) -> None:
    if precision == "int8" and not has_int8(torch.device("cpu")):
        pytest.skip("no int8 here")
    start = {"decoder": {"size": 8, "layers": 2, "start": "copy"}}
    model = make({"layers": 2}, {"kind": "conv", "factor": 2, "channels": 3}, **start)
    packed = pack(copy.deepcopy(model), precision)
    for size in (1, 3, 4, 11, LENGTH):
        loose = 1e-5 if precision == "fp32" else 0.03
        assert_grows(packed, sound(), size, atol=loose, rtol=0.0)


def test_what_looks_ahead_is_refused_with_its_option() -> None:
    for encoder, told in (
        ({"bidirectional": True}, "bidirectional: true"),
        ({"kind": "transformer", "bidirectional": True, "heads": 2}, "model.encoder.kind"),
    ):
        with pytest.raises(UsageError, match=told):
            GrowingMemory(make(encoder, {"kind": "stack", "factor": 4}))
    silent = GrowingMemory(make({}, {"kind": "stack", "factor": 4}))
    assert not len(silent.push(torch.zeros(0, BINS), last=True))
    with pytest.raises(UsageError, match="nothing was heard"):
        silent.memory()
