"""Attention in ONNX: what the encoder prepares once, and what each step does with it.

The equations are those of `model.attention`. Keys lie the way the product of a step wants them:

    additive     keys (B, S, D')      values (B, S, D)
    multi_head   keys (B, H, D', S)   values (B, H, S, D')
    others       keys (B, D, S)       values (B, S, D)

Every kind has mask (B, S), True at real positions. No tensor is repeated for the K hypotheses.
"""

from __future__ import annotations

import math

from onnx import TensorProto

from transduce.export.graph import Graph, Shape
from transduce.recipe import ModelOptions

FLOAT, BOOL = TensorProto.FLOAT, TensorProto.BOOL
NAME = "decoder.attention"


def memory_shapes(options: ModelOptions) -> dict[str, Shape]:
    """The tensors that a step attends to, with their axes; none without attention."""
    attention, size, memory = options.decoder.attention, options.decoder.size, options.encoder.size
    inner = attention.size or size
    values: Shape = ["B", "S", memory]
    if attention.kind == "none":
        return {}
    if attention.kind == "multi_head":
        part = inner // attention.heads
        keys: Shape = ["B", attention.heads, part, "S"]
        values = ["B", attention.heads, "S", part]
    elif attention.kind == "additive":
        keys = ["B", "S", inner]
    else:
        keys = ["B", size, "S"]
    return {"keys": keys, "values": values, "mask": ["B", "S"]}


def memory_type(name: str) -> int:
    """The type of one of them, as ONNX numbers types."""
    return BOOL if name == "mask" else FLOAT


def prepare(graph: Graph, options: ModelOptions, values: str, mask: str) -> None:
    """Outputs of the encoder: its values (B, S, D) and mask (B, S), projected once."""
    attention = options.decoder.attention
    if attention.kind == "none":
        return
    keys = values
    if attention.kind == "multi_head":
        heads = attention.heads
        part = (attention.size or options.decoder.size) // heads
        projected = [
            graph.unrows(_project(graph, values, options, name), mask, heads, part)
            for name in ("key", "value")
        ]
        keys = graph.add("Transpose", [projected[0]], {"perm": [0, 2, 3, 1]})
        values = graph.add("Transpose", [projected[1]], {"perm": [0, 2, 1, 3]})
    else:
        if graph.has(f"{NAME}.key.weight"):
            inner = options.decoder.size
            if attention.kind == "additive":
                inner = attention.size or inner
            keys = graph.unrows(_project(graph, values, options, "key"), mask, inner)
        if attention.kind != "additive":
            keys = graph.add("Transpose", [keys], {"perm": [0, 2, 1]})
    memory = {"keys": keys, "values": values, "mask": mask}
    for name, shape in memory_shapes(options).items():
        graph.output(name, memory[name], memory_type(name), shape)


def _project(graph: Graph, values: str, options: ModelOptions, name: str) -> str:
    """values (B, S, D) -> rows (B x S, out) of the projection so named."""
    rows = graph.reshape(values, -1, options.encoder.size)
    bias = f"{NAME}.{name}.bias"
    return graph.linear(rows, f"{NAME}.{name}.weight", bias if graph.has(bias) else None)


def attend(graph: Graph, options: ModelOptions, query: str, tokens: str) -> tuple[str, str]:
    """Rows query (B x K, D) -> rows context (B x K, D'), weights (B, K, S).

    tokens (B, K) tell B and K; keys, values and mask are inputs of the graph.
    """
    kind, size = options.decoder.attention.kind, options.decoder.size
    inner = options.decoder.attention.size or size
    if kind == "multi_head":
        return _attend_heads(graph, options, query, tokens, inner)
    if kind == "additive":
        query = graph.linear(query, f"{NAME}.query.weight", f"{NAME}.query.bias")
        asked = graph.unrows(query, tokens, 1, inner)  # (B, K, 1, D)
        known = graph.add("Unsqueeze", ["keys", graph.integers(1)])  # (B, 1, S, D)
        heard = graph.add("Tanh", [graph.add("Add", [asked, known])])
        scores = graph.add("MatMul", [heard, graph.vector(f"{NAME}.vector")])
    else:
        if kind == "scaled_dot":
            query = graph.add("Mul", [query, graph.constant(1 / math.sqrt(size))])
        scores = graph.add("MatMul", [graph.unrows(query, tokens, size), "keys"])
    weights = _softmax(graph, scores, graph.add("Unsqueeze", ["mask", graph.integers(1)]))
    context = graph.add("MatMul", [weights, "values"])
    return graph.reshape(context, -1, options.encoder.size), weights


def _attend_heads(
    graph: Graph, options: ModelOptions, query: str, tokens: str, inner: int
) -> tuple[str, str]:
    heads = options.decoder.attention.heads
    part = inner // heads
    query = graph.linear(query, f"{NAME}.query.weight", f"{NAME}.query.bias")
    query = graph.add("Mul", [query, graph.constant(1 / math.sqrt(part))])
    asked = graph.unrows(query, tokens, heads, part)
    asked = graph.add("Transpose", [asked], {"perm": [0, 2, 1, 3]})  # (B, H, K, D)
    mask = graph.add("Unsqueeze", ["mask", graph.integers(1, 2)])  # (B, 1, 1, S)
    weights = _softmax(graph, graph.add("MatMul", [asked, "keys"]), mask)
    context = graph.add("MatMul", [weights, "values"])
    context = graph.add("Transpose", [context], {"perm": [0, 2, 1, 3]})
    mean = graph.add("ReduceMean", [weights], {"axes": [1], "keepdims": 0})
    return graph.reshape(context, -1, inner), mean


def _softmax(graph: Graph, scores: str, mask: str) -> str:
    """Softmax over the real source positions, the last axis."""
    masked = graph.add("Where", [mask, scores, graph.constant(-math.inf)])
    return graph.add("Softmax", [masked], {"axis": -1})
