"""The encoder's graph: from source ids to all that decoding needs of them.

source (B, S) int64 padded with 0, lengths (B,) int64 with the end symbol
-> what the steps attend to: keys, values, mask (see `attention`); nothing without attention
-> the state before the first target position, K = 1: hidden (B, 1, L, D), cell for an LSTM,
   feed (B, 1, E) where the last read-out is fed back
"""

from __future__ import annotations

import numpy as np
from onnx import TensorProto

from transduce.export.attention import prepare
from transduce.export.graph import Graph
from transduce.export.recurrent import layer_norm, recurrent_layer, state_names
from transduce.recipe import EncoderOptions, ModelOptions

FLOAT, INT64 = TensorProto.FLOAT, TensorProto.INT64


def encoder_graph(graph: Graph, options: ModelOptions) -> None:
    """Write the encoder of a model into an empty graph."""
    source = graph.input("source", INT64, ["B", "S"])
    lengths = graph.input("lengths", INT64, ["B"])
    embedded = graph.embedding(source, "source_embedding.weight")
    if options.scale_embedding:
        embedded = graph.add("Mul", [embedded, graph.constant(options.embedding**0.5)])
    # Recurrent operators want (S, B, D).
    x = graph.add("Transpose", [embedded], {"perm": [1, 0, 2]})
    x, finals, cells = _layers(graph, options.encoder, x, options.embedding, lengths)
    mask = _mask(graph, source, lengths)
    values = graph.add("Transpose", [x], {"perm": [1, 0, 2]})
    real = graph.add("Cast", [mask], {"to": FLOAT})
    values = graph.add("Mul", [values, graph.add("Unsqueeze", [real, graph.integers(2)])])
    prepare(graph, options, values, mask)
    _start(graph, options, values, real, finals, cells)


def _layers(
    graph: Graph, options: EncoderOptions, x: str, width: int, lengths: str
) -> tuple[str, list[str], list[str]]:
    """x (S, B, width) -> outputs (S, B, D), each layer's last output (B, D) and cell (B, D)."""
    short = graph.add("Cast", [lengths], {"to": TensorProto.INT32})
    directions = ["forwards", "backwards"] if options.bidirectional else ["forwards"]
    finals, cells = [], []
    for i in range(options.layers):
        names = [f"encoder.layers.{i}.{direction}.rnn" for direction in directions]
        outputs, *ends = recurrent_layer(graph, options.kind, names, x, short)
        # (S, directions, B, D) and (directions, B, D): directions side by side
        outputs = graph.add("Transpose", [outputs], {"perm": [0, 2, 1, 3]})
        outputs = graph.reshape(outputs, 0, 0, options.size)
        beside = [
            graph.reshape(graph.add("Transpose", [end], {"perm": [1, 0, 2]}), -1, options.size)
            for end in ends
        ]
        finals.append(beside[0])
        cells += beside[1:]
        if options.layer_norm:
            outputs = layer_norm(graph, outputs, f"encoder.norms.{i}")
        residual = options.residual and width == options.size
        x = graph.add("Add", [x, outputs]) if residual else outputs
        width = options.size
    return x, finals, cells


def _mask(graph: Graph, source: str, lengths: str) -> str:
    """(B, S) boolean, True at real positions."""
    shape = graph.add("Shape", [source])
    width = graph.add("Squeeze", [graph.add("Gather", [shape, graph.integers(1)])])
    zero, one = graph.constant(0, np.int64), graph.constant(1, np.int64)
    positions = graph.add("Range", [zero, width, one])
    return graph.add("Less", [positions, graph.add("Unsqueeze", [lengths, graph.integers(1)])])


def _start(
    graph: Graph, options: ModelOptions, values: str, real: str, finals: list[str], cells: list[str]
) -> None:
    """The decoder's first state, as `model.bridge` makes it.

    values (B, S, D), real (B, S) 1.0 at real positions, finals and cells (B, D) of each layer.
    """
    decoder = options.decoder
    names = state_names(decoder)
    kind, layers, size = decoder.start, decoder.layers, decoder.size
    states: list[str]
    if kind in ("dense", "mean"):
        if kind == "dense":
            end = finals[-1]
        else:
            count = graph.add("ReduceSum", [real, graph.integers(1)], {"keepdims": 1})
            total = graph.add("ReduceSum", [values, graph.integers(1)], {"keepdims": 0})
            end = graph.add("Div", [total, count])
        linear = graph.linear(end, "decoder.bridge.linear.weight", "decoder.bridge.linear.bias")
        whole = graph.add("Tanh", [linear])
        parts = graph.add_many("Split", [whole], len(names), {"axis": 1})
        states = [graph.reshape(part, -1, 1, layers, size) for part in parts]
    elif kind == "copy":
        known = [finals, cells][: len(names)]
        zeros = _zeros(graph, finals[0], [size])
        known = [one or [zeros] * layers for one in known]  # an encoder without cells
        states = [
            graph.reshape(graph.add("Concat", one, {"axis": 1}), -1, 1, layers, size)
            for one in known
        ]
    else:
        states = [_zeros(graph, finals[0], [1, layers, size])] * len(names)
    for name, state in zip(names, states, strict=True):
        graph.output(name, state, FLOAT, ["B", 1, layers, size])
    if decoder.feeding == "input":
        feed = _zeros(graph, finals[0], [1, options.embedding])
        graph.output("feed", feed, FLOAT, ["B", 1, options.embedding])


def _zeros(graph: Graph, like: str, shape: list[int]) -> str:
    """Zeros (B, *shape) for the B of `like`."""
    batch = graph.add("Gather", [graph.add("Shape", [like]), graph.integers(0)])
    whole = graph.add("Concat", [batch, graph.integers(*shape)], {"axis": 0})
    return graph.add("ConstantOfShape", [whole])
