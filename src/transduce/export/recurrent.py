"""LSTM, GRU and RNN in ONNX: over a whole sequence in the encoder, cell by cell in a step.

torch and ONNX order the gates differently (torch: LSTM input, forget, cell, output; GRU reset,
update, new. ONNX: LSTM input, output, forget, cell; GRU update, reset, hidden).
"""

from __future__ import annotations

import numpy as np

from transduce.export.graph import Graph
from transduce.recipe import DecoderOptions

ORDER = {"lstm": [0, 3, 1, 2], "gru": [1, 0, 2], "rnn": [0]}
OPERATORS = {"lstm": "LSTM", "gru": "GRU", "rnn": "RNN"}
EPSILON = 1e-5  # torch's LayerNorm


def state_names(options: DecoderOptions) -> list[str]:
    """The recurrent parts of a decoder's state."""
    return ["hidden", "cell"] if options.kind == "lstm" else ["hidden"]


def layer_norm(graph: Graph, x: str, name: str) -> str:
    """Layer norm over the last axis, with the weights of the module `name`."""
    inputs = [x, graph.vector(f"{name}.weight"), graph.vector(f"{name}.bias")]
    return graph.add("LayerNormalization", inputs, {"axis": -1, "epsilon": EPSILON})


def recurrent_layer(
    graph: Graph, kind: str, names: list[str], x: str, lengths: str
) -> tuple[str, ...]:
    """One layer over x (S, B, in), with the weights of one or two (backwards) torch modules.

    lengths (B,) int32; the backward direction begins at each sequence's own end. -> outputs
    (S, directions, B, D), zero at padding; last outputs (directions, B, D); for an LSTM also the
    last cells.
    """
    parts = {
        part: np.stack([_gates(graph.weight(f"{name}.{part}_l0"), kind) for name in names])
        for part in ("weight_ih", "weight_hh", "bias_ih", "bias_hh")
    }
    size = parts["weight_hh"].shape[-1]
    stem = names[0].rpartition(".forwards")[0]
    biases = np.concatenate([parts["bias_ih"], parts["bias_hh"]], axis=1)
    inputs = [
        x,
        graph.stored(f"{stem}.weight_ih", parts["weight_ih"]),
        graph.stored(f"{stem}.weight_hh", parts["weight_hh"]),
        graph.plain(f"{stem}.bias", biases),
        lengths,
    ]
    attributes: dict[str, object] = {
        "hidden_size": size,
        "direction": "bidirectional" if len(names) == 2 else "forward",
    }
    if kind == "gru":
        attributes["linear_before_reset"] = 1  # torch's reset gate acts after the product
    outputs = 3 if kind == "lstm" else 2
    return tuple(graph.add_many(OPERATORS[kind], inputs, outputs, attributes))


def _gates(weight: np.ndarray, kind: str) -> np.ndarray:
    """The rows of torch's matrix or bias in ONNX's order of gates."""
    gates = np.split(weight, len(ORDER[kind]))
    return np.concatenate([gates[i] for i in ORDER[kind]])


def cell(graph: Graph, kind: str, name: str, x: str, state: list[str]) -> list[str]:
    """One position of one layer: rows x (N, in), state (N, D) each -> the next state (N, D).

    The weights are those of the torch module `name`; its equations are those of torch.nn's
    LSTMCell, GRUCell and RNNCell. The first part of the state is the layer's output.
    """
    inside = graph.linear(x, f"{name}.weight_ih_l0", f"{name}.bias_ih_l0")
    before = graph.linear(state[0], f"{name}.weight_hh_l0", f"{name}.bias_hh_l0")
    if kind == "lstm":
        return _lstm(graph, graph.add("Add", [inside, before]), state[1])
    if kind == "gru":
        return [_gru(graph, inside, before, state[0])]
    return [graph.add("Tanh", [graph.add("Add", [inside, before])])]


def _lstm(graph: Graph, gates: str, memory: str) -> list[str]:
    i, f, c, o = graph.add_many("Split", [gates], 4, {"axis": 1})
    i, f, o = (graph.add("Sigmoid", [gate]) for gate in (i, f, o))
    new = graph.add("Mul", [i, graph.add("Tanh", [c])])
    kept = graph.add("Mul", [f, memory])
    memory = graph.add("Add", [kept, new])
    return [graph.add("Mul", [o, graph.add("Tanh", [memory])]), memory]


def _gru(graph: Graph, inside: str, before: str, hidden: str) -> str:
    inside_r, inside_z, inside_n = graph.add_many("Split", [inside], 3, {"axis": 1})
    before_r, before_z, before_n = graph.add_many("Split", [before], 3, {"axis": 1})
    reset = graph.add("Sigmoid", [graph.add("Add", [inside_r, before_r])])
    update = graph.add("Sigmoid", [graph.add("Add", [inside_z, before_z])])
    heard = graph.add("Add", [inside_n, graph.add("Mul", [reset, before_n])])
    new = graph.add("Tanh", [heard])
    # (1 - z) n + z h  =  n + z (h - n)
    change = graph.add("Mul", [update, graph.add("Sub", [hidden, new])])
    return graph.add("Add", [new, change])
