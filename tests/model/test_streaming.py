"""A memory that grows with its source is that of the whole source, whatever the pieces."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch import Tensor

from transduce.errors import UsageError
from transduce.model import Seq2Seq, build_model
from transduce.model.packed import has_int8
from transduce.model.packing import pack
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
    "chunks": {"kind": "lstm", "layers": 2, "bidirectional": True, "chunk": 3},
    "chunks gru": {"kind": "gru", "layers": 2, "bidirectional": True, "chunk": 1, "residual": True},
    "chunks pyramid": {"layers": 3, "pyramid": 2, "bidirectional": True, "chunk": 4},
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
    waits = model.encoder.layers[-1].chunk  # positions, at most, for a chunk to be whole
    assert known >= (len(frames) - 2) // (len(frames) // whole.values.shape[1] + 1) - 1 - waits
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


@pytest.mark.parametrize("encoder", [{}, {"bidirectional": True, "chunk": 4}])
@pytest.mark.parametrize("precision", ["fp32", "bf16", "int8"])
def test_inference_forms_grow_as_well(precision: Any, encoder: dict[str, Any]) -> None:
    if precision == "int8" and not has_int8(torch.device("cpu")):
        pytest.skip("no int8 here")
    start = {"decoder": {"size": 8, "layers": 2, "start": "copy"}}
    model = make({"layers": 2} | encoder, {"kind": "conv", "factor": 2, "channels": 3}, **start)
    packed = pack(copy.deepcopy(model), precision)
    for size in (1, 3, 4, 11, LENGTH):
        close = (1e-5, 0.0) if precision == "fp32" else (0.03, 0.005)
        assert_grows(packed, sound(), size, atol=close[0], rtol=close[1])


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


CHUNKS = {"layers": 2, "bidirectional": True, "chunk": 4}


def test_a_chunk_is_all_that_the_future_changes() -> None:
    """And all of it does: a position is heard with the rest of its chunk, and nothing later."""
    model = make(CHUNKS, {"kind": "stack", "factor": 1})
    frames = sound(20).unsqueeze(0)
    changed = frames.clone()
    changed[:, 10:] += 1.0  # the third of a chunk
    lengths = torch.tensor([20])
    with torch.inference_mode():
        one, other = (model.encode(x, lengths).values[0] for x in (frames, changed))
    same = (one == other).all(dim=1).tolist()
    assert same == [True] * 8 + [False] * 12


def test_chunks_are_the_same_beside_longer_sources_and_learn() -> None:
    start = {"size": 8, "layers": 2, "start": "copy", "attention": {"heads": 2}}
    model = make(CHUNKS, {"kind": "stack", "factor": 1}, decoder=start).double()
    lengths = [27, 1, 9, 16, 17]
    alone = [sound(length).double() for length in lengths]
    padded = torch.nn.utils.rnn.pad_sequence(alone, batch_first=True, padding_value=7.0)
    memory = model.encode(padded, torch.tensor(lengths))
    for row, frames in enumerate(alone):
        one = model.encode(frames.unsqueeze(0), torch.tensor([len(frames)]))
        found = memory.values[row, : one.values.shape[1]]
        torch.testing.assert_close(found, one.values[0])
        torch.testing.assert_close(memory.final[:, row], one.final[:, 0])
        torch.testing.assert_close(memory.cell[:, row], one.cell[:, 0])
    memory.values.sum().backward()
    for layer in model.encoder.layers:
        assert float(layer.backwards.rnn.weight_ih_l0.grad.abs().sum()) > 0
