"""Every architecture there is, as graphs: the same log-probabilities, attention and hypotheses."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import torch

from transduce.errors import TransduceError
from transduce.export import recurrent
from transduce.export.exporting import graphs_of
from transduce.export.graph import Graph, quantized
from transduce.export.parity import Parity, compare
from transduce.model import Seq2Seq, build_model
from transduce.recipe import (
    AttentionOptions,
    DecoderOptions,
    EncoderOptions,
    InitOptions,
    ModelOptions,
)
from transduce.runtime.folder import DECODER, ENCODER
from transduce.runtime.network import Network
from transduce.runtime.options import Search

FLOAT = onnx.TensorProto.FLOAT
KINDS = ("lstm", "gru", "rnn")
ATTENTIONS = ("none", "dot", "scaled_dot", "general", "additive", "multi_head")
FEEDINGS = ("parallel", "input", "context")
STARTS = ("dense", "copy", "mean", "zeros")
ARCHITECTURES = [
    combination
    for combination in itertools.product(KINDS, ATTENTIONS, FEEDINGS)
    if combination[1] != "none" or combination[2] == "parallel"
]
SOURCES = [[4, 9, 5, 13, 7, 6], [8], [12, 4, 4], [5, 11, 14, 3, 6, 10, 9, 4, 7]]
SEARCH = Search(
    beam=3, n_best=1, normalization="average", length_penalty=1.0, max_ratio=1.0, max_extra=4,
    min_ratio=0.0, replace_unknown=False, batch_tokens=4000, max_source=1000,
)  # fmt: skip


def make(
    kind: str = "lstm",
    attention: str = "general",
    feeding: str = "parallel",
    start: str = "dense",
    *,
    encoder: dict[str, Any] | None = None,
    decoder: dict[str, Any] | None = None,
    attending: dict[str, Any] | None = None,
    **model: Any,
) -> tuple[Seq2Seq, ModelOptions]:
    """A tiny model whose weights are large enough for its answers to depend on all of them."""
    torch.manual_seed(3)
    common = {"kind": kind, "layers": 2, "size": 8}
    readout = {"parallel": "tanh", "input": "linear", "context": "maxout"}[feeding]
    looked = AttentionOptions.model_validate({"kind": attention, "heads": 2, **(attending or {})})
    own = {"feeding": feeding, "start": start, "readout": readout, "attention": looked}
    options = ModelOptions(
        embedding=6,
        encoder=EncoderOptions(**common | (encoder or {})),
        decoder=DecoderOptions(**common | own | (decoder or {})),
        init=InitOptions(kind="uniform", scale=0.7),
        **model,
    )
    return build_model(options, 15, 15 if options.tie == "all" else 17).eval(), options


def parity_of(model: Seq2Seq, options: ModelOptions, precision: Any = "fp32") -> Parity:
    vocabulary = model.output.bias.shape[0]
    graphs = graphs_of(model, options, vocabulary, precision)
    return compare(model, Network(graphs[ENCODER], graphs[DECODER], 1), SOURCES, SEARCH)


def assert_same(parity: Parity) -> None:
    assert parity.log_prob < 2e-5
    assert parity.attention < 1e-5
    assert parity.equal == parity.sources == len(SOURCES)


@pytest.mark.parametrize(("kind", "attention", "feeding"), ARCHITECTURES)
def test_every_architecture_answers_as_in_torch(kind: str, attention: str, feeding: str) -> None:
    # The way to start takes turns: each is with every kind, attention and feeding.
    number = ARCHITECTURES.index((kind, attention, feeding))
    start = STARTS[(number + number // 4) % 4]
    assert_same(parity_of(*make(kind, attention, feeding, start)))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("start", STARTS)
def test_every_start(kind: str, start: str) -> None:
    assert_same(parity_of(*make(kind, start=start)))


@pytest.mark.parametrize(
    "changes",
    [
        {"encoder": {"layers": 1, "bidirectional": False}, "decoder": {"layers": 1}},
        {"encoder": {"layers": 3, "residual": True}, "decoder": {"layers": 3, "residual": True}},
        {"encoder": {"layer_norm": True}, "decoder": {"layer_norm": True}},
        {"encoder": {"size": 12}, "decoder": {"size": 10}},
        {"encoder": {"kind": "gru"}, "start": "copy"},
        {"encoder": {"kind": "lstm"}, "decoder": {"kind": "rnn"}},
        {"tie": "all", "scale_embedding": False},
        {"tie": "none"},
        {"attention": "additive", "attending": {"size": 5}},
        {"attention": "multi_head", "attending": {"size": 12, "heads": 3}},
        {"attention": "dot", "encoder": {"size": 6}},
    ],
    ids=str,
)
@pytest.mark.parametrize("feeding", FEEDINGS)
def test_every_option_of_an_architecture(feeding: str, changes: dict[str, Any]) -> None:
    assert_same(parity_of(*make(feeding=feeding, **changes)))


def test_layer_norm_and_readout_of_other_weights() -> None:
    model, options = make(decoder={"layer_norm": True}, encoder={"layer_norm": True})
    with torch.no_grad():
        for norm in (*model.encoder.norms, *model.decoder.norms):
            norm.weight.uniform_(0.5, 2)
            norm.bias.uniform_(-1, 1)
    assert_same(parity_of(model, options))


@pytest.mark.parametrize(("kind", "attention", "feeding"), ARCHITECTURES[::3])
def test_eight_bits_are_near(kind: str, attention: str, feeding: str) -> None:
    parity = parity_of(*make(kind, attention, feeding), "int8")
    # Not equal: that would be float32 under another name.
    assert 1e-4 < parity.log_prob < 1
    assert parity.mean_log_prob < 0.1


def test_shared_weights_are_stored_once() -> None:
    # In the encoder the table, in the decoder the table that is the output layer as well.
    for precision, width in (("fp32", 4), ("int8", 1)):
        model, options = make(tie="target")
        graphs = graphs_of(model, options, 17, precision)  # type: ignore[arg-type]
        tables = [
            t
            for t in onnx.load_from_string(graphs[DECODER]).graph.initializer
            if list(t.dims) == [17, 6]
        ]
        assert [len(t.raw_data) for t in tables] == [17 * 6 * width]


def test_graphs_are_checked_and_use_no_operator_of_their_own() -> None:
    for precision in ("fp32", "int8"):
        model, options = make("gru", "multi_head", "input")
        for data in graphs_of(model, options, 17, precision).values():  # type: ignore[arg-type]
            loaded = onnx.load_from_string(data)
            onnx.checker.check_model(loaded, full_check=True)
            assert {node.domain for node in loaded.graph.node} == {""}
            assert [entry.domain for entry in loaded.opset_import] == [""]


def test_any_number_of_sentences_positions_and_hypotheses() -> None:
    """The axes B, S and K are free, and hypotheses share what their sentence attends to."""
    model, options = make()
    graphs = graphs_of(model, options, 17, "fp32")
    network = Network(graphs[ENCODER], graphs[DECODER], 1)
    for batch, width, beam in ((1, 1, 1), (1, 9, 7), (5, 3, 2)):
        source = torch.randint(4, 15, (batch, width))
        lengths = torch.full((batch,), width)
        memory, state = network.encode(source.numpy(), lengths.numpy())
        assert {len(tensor) for tensor in memory.tensors.values()} == {batch}
        state = state.select(np.zeros((batch, beam), dtype=np.int64))
        tokens = torch.randint(4, 17, (batch, beam))
        step = network.step(tokens.numpy(), state, memory, 4)
        assert step.words.shape == step.best.shape == (batch, beam, 4)
        assert step.attention is not None and step.attention.shape == (batch, beam, width)
        # The same as one sentence for each hypothesis.
        with torch.inference_mode():
            expected, attention = model(
                source.repeat_interleave(beam, dim=0),
                lengths.repeat_interleave(beam),
                tokens.reshape(-1, 1),
            )
        expected = expected.view(batch, beam, 17)
        values, words = expected.topk(4)
        np.testing.assert_array_equal(step.words, words)
        np.testing.assert_allclose(step.best, values, atol=1e-5)
        np.testing.assert_allclose(step.end, expected[:, :, 2], atol=1e-5)
        np.testing.assert_allclose(step.attention, attention.view(batch, beam, width), atol=1e-5)


def test_a_part_that_has_no_graph_is_not_left_out_in_silence() -> None:
    model, options = make()
    model.gate = torch.nn.Linear(2, 2)
    with pytest.raises(TransduceError, match=r"`gate\.bias` is part of no graph"):
        graphs_of(model, options, 17, "fp32")


def test_a_graph_that_differs_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    """torch's order of gates where ONNX wants its own."""
    monkeypatch.setitem(recurrent.ORDER, "lstm", [0, 1, 2, 3])
    assert parity_of(*make()).log_prob > 0.01


def test_rows_of_a_product_in_eight_bits_do_not_know_each_other() -> None:
    """One scale for all of them would leave nothing of a small row beside a large one."""
    rng = np.random.default_rng(1)
    weights = {
        "w": rng.standard_normal((7, 16)).astype(np.float32),
        "b": rng.standard_normal(7).astype(np.float32),
    }
    graph = Graph(weights, "int8")
    product = graph.linear(graph.input("x", FLOAT, ["N", 16]), "w", "b")
    graph.output("y", product, FLOAT, ["N", 7])
    session = onnxruntime.InferenceSession(graph.model("product"))
    x = rng.standard_normal((4, 16)).astype(np.float32)
    x[2] *= 1e4
    x[3] = 0
    (together,) = session.run(None, {"x": x})
    for row in range(4):
        (alone,) = session.run(None, {"x": x[row : row + 1]})
        np.testing.assert_array_equal(alone[0], together[row])
    exact = x @ weights["w"].T + weights["b"]
    assert (np.abs(together - exact) <= 0.02 * np.abs(x).max(axis=1, keepdims=True) * 16).all()
    np.testing.assert_array_equal(together[3], weights["b"])


def test_quantization_is_within_half_a_level_of_each_row() -> None:
    rows = np.random.default_rng(1).standard_normal((5, 40)).astype(np.float32)
    rows *= np.array([[1e-6], [0.1], [1], [1e4], [0]], dtype=np.float32)
    values, scales = quantized(rows)
    assert values.dtype == np.int8 and values.min() >= -127
    assert (np.abs(values * scales[:, None] - rows) <= scales[:, None] * 0.5001).all()
    assert not values[4].any()
