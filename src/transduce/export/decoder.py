"""The step's graph: one target position for K hypotheses of each of B sentences.

    tokens (B, K) int64, the last token of each hypothesis
    what the encoder prepared: keys, values, mask (see `attention`)
    the state: hidden (B, K, L, D), cell for an LSTM, feed (B, K, E) where it is fed back
    candidates (1,) int64, how many words to name for each hypothesis
    -> log_probs (B, K, V), attention (B, K, S), the next state under next_hidden, …
    -> best (B, K, C) and words (B, K, C): the C highest log-probabilities and their ids;
       end (B, K): that of the end symbol

A search needs `best`, `words` and `end` only, so that nothing of the size of the vocabulary has to
leave the graph. The stages are those of `model.decoder.RecurrentDecoder.step`; inside, everything
is rows of N = B x K.
"""

from __future__ import annotations

from onnx import TensorProto

from transduce.data.tokenizers.base import EOS
from transduce.export.attention import attend, memory_shapes, memory_type
from transduce.export.graph import Graph
from transduce.export.recurrent import cell, layer_norm, state_names
from transduce.recipe import ModelOptions

FLOAT, INT64 = TensorProto.FLOAT, TensorProto.INT64


def step_graph(graph: Graph, options: ModelOptions, vocabulary: int) -> None:
    """Write one step of the decoder of a model into an empty graph."""
    decoder, width = options.decoder, options.embedding
    tokens = graph.input("tokens", INT64, ["B", "K"])
    for name, shape in memory_shapes(options).items():
        graph.input(name, memory_type(name), shape)
    before = _state(graph, options)
    embedded = graph.embedding(tokens, "target_embedding.weight")
    if options.scale_embedding:
        embedded = graph.add("Mul", [embedded, graph.constant(width**0.5)])
    embedded = graph.reshape(embedded, -1, width)
    context = weights = ""
    # 1. What joins the embedding.
    x = embedded
    if decoder.feeding == "input":
        feed = graph.input("feed", FLOAT, ["B", "K", width])
        x = graph.add("Concat", [embedded, graph.reshape(feed, -1, width)], {"axis": 1})
    elif decoder.feeding == "context":
        context, weights = attend(graph, options, before[-1][0], tokens)
        x = graph.add("Concat", [embedded, context], {"axis": 1})
    # 2. Layer by layer.
    after: list[list[str]] = []
    above = x
    for i, state in enumerate(before):
        after.append(cell(graph, decoder.kind, f"decoder.layers.{i}.rnn", x, state))
        outputs = after[-1][0]
        if decoder.layer_norm:
            outputs = layer_norm(graph, outputs, f"decoder.norms.{i}")
        if decoder.residual and i > 0:
            outputs = graph.add("Add", [outputs, above])
        above = x = outputs
        if decoder.feeding == "parallel" and decoder.attention.kind != "none":
            if i == 0:
                context, weights = attend(graph, options, above, tokens)
            if i + 1 < decoder.layers:
                x = graph.add("Concat", [above, context], {"axis": 1})
    # 3. Input feeding asks with the top layer's output.
    if decoder.feeding == "input":
        context, weights = attend(graph, options, above, tokens)
    # 4. Read out.
    parts = [above, context, embedded if decoder.feeding == "context" else ""]
    features = _read_out(graph, options, [part for part in parts if part])
    _answer(graph, features, tokens, vocabulary)
    # 5. What goes on to the next step.
    for number, name in enumerate(state_names(decoder)):
        beside = graph.add("Concat", [state[number] for state in after], {"axis": 1})
        beside = graph.unrows(beside, tokens, decoder.layers, decoder.size)
        graph.output(f"next_{name}", beside, FLOAT, ["B", "K", decoder.layers, decoder.size])
    if decoder.feeding == "input":
        fed = graph.unrows(features, tokens, width)
        graph.output("next_feed", fed, FLOAT, ["B", "K", width])
    if weights:
        graph.output("attention", weights, FLOAT, ["B", "K", "S"])


def _state(graph: Graph, options: ModelOptions) -> list[list[str]]:
    """The recurrent state of each layer, as rows (N, D): its hidden and, of an LSTM, its cell."""
    decoder = options.decoder
    layers, size = decoder.layers, decoder.size
    columns = []
    for name in state_names(decoder):
        whole = graph.input(name, FLOAT, ["B", "K", layers, size])
        flat = graph.reshape(whole, -1, layers * size)
        columns.append(graph.add_many("Split", [flat], layers, {"axis": 1}))
    return [list(parts) for parts in zip(*columns, strict=True)]


def _read_out(graph: Graph, options: ModelOptions, parts: list[str]) -> str:
    """Rows side by side -> rows (N, E), as `model.decoder.Readout` does."""
    x = parts[0] if len(parts) == 1 else graph.add("Concat", parts, {"axis": 1})
    name = "decoder.readout.linear"
    x = graph.linear(x, f"{name}.weight", f"{name}.bias")
    if options.decoder.readout == "tanh":
        return graph.add("Tanh", [x])
    if options.decoder.readout == "maxout":
        pairs = graph.reshape(x, -1, options.embedding, 2)
        return graph.add("ReduceMax", [pairs], {"axes": [2], "keepdims": 0})
    return x


def _answer(graph: Graph, features: str, tokens: str, vocabulary: int) -> None:
    """Outputs of rows (N, E): all log-probabilities, the best of them, and that of the end."""
    logits = graph.linear(features, "output.weight", "output.bias")
    rows = graph.add("LogSoftmax", [logits], {"axis": -1})
    log_probs = graph.unrows(rows, tokens, vocabulary)
    graph.output("log_probs", log_probs, FLOAT, ["B", "K", vocabulary])
    count = graph.input("candidates", INT64, [1])
    best, words = graph.add_many("TopK", [log_probs, count], 2, {"axis": -1})
    graph.output("best", best, FLOAT, ["B", "K", "C"])
    graph.output("words", words, INT64, ["B", "K", "C"])
    end = graph.add("Gather", [log_probs, graph.constant(EOS, "int64")], {"axis": 2})
    graph.output("end", end, FLOAT, ["B", "K"])
