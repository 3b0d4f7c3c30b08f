"""Writing one ONNX graph: nodes, weights under the names torch knows them by, inputs, outputs.

A graph is written node by node, not traced, so that every axis that varies (B, S, K) varies in what
is written, and so that a reader finds the model's equations in it. Only standard operators are
used. In 8 bits, the weights of products and embeddings are stored as int8 with one scale a row;
products are computed in 8 bits, their inputs quantized row by row as they come. A row is one
position of one hypothesis of one sentence: what else is in the batch changes nothing, as it would
with one scale for all of them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from transduce import __version__

Precision = Literal["fp32", "int8"]
Shape = Sequence[str | int]

OPSET = 17  # the first with LayerNormalization
IR_VERSION = 8  # of the same time, so that runtimes since 2022 can read it

# Inputs of products are quantized to 0 … 127 around 64. Processors without VNNI add pairs of
# products in 16 bits, which 2 x 127 x 127 just fits; with 8 bits they would saturate.
LEVELS = 63
CENTRE = 64
TINY = np.float32(1e-20)  # an input of zeros still has a scale


class Graph:
    """One graph being written. Methods that add a node return the name of its (first) output."""

    def __init__(self, weights: Mapping[str, np.ndarray], precision: Precision) -> None:
        self.precision = precision
        self.used: set[str] = set()  # names of weights
        self._weights = weights
        self._nodes: list[onnx.NodeProto] = []
        self._initializers: dict[str, onnx.TensorProto] = {}
        self._inputs: list[onnx.ValueInfoProto] = []
        self._outputs: list[onnx.ValueInfoProto] = []
        self._renamed: dict[str, str] = {}  # values that are outputs, and their names as such

    # ------------------------------------------------------------------------- nodes and edges

    def input(self, name: str, kind: int, shape: Shape) -> str:
        """Declare an input of the graph; axes named by a text vary."""
        self._inputs.append(helper.make_tensor_value_info(name, kind, list(shape)))
        return name

    def output(self, name: str, value: str, kind: int, shape: Shape) -> None:
        """Declare `value` an output of the graph under `name`."""
        made = any(value in node.output for node in self._nodes)
        if made and value not in self._renamed:
            self._renamed[value] = name
        else:  # an input handed on, or one value under two names
            self._nodes.append(helper.make_node("Identity", [value], [name]))
        self._outputs.append(helper.make_tensor_value_info(name, kind, list(shape)))

    def add(
        self, op: str, inputs: Sequence[str], attributes: Mapping[str, Any] | None = None
    ) -> str:
        """A node with one output."""
        return self.add_many(op, inputs, 1, attributes)[0]

    def add_many(
        self,
        op: str,
        inputs: Sequence[str],
        outputs: int,
        attributes: Mapping[str, Any] | None = None,
    ) -> list[str]:
        """A node with several outputs."""
        number = len(self._nodes)
        names = [f"{op}_{number}" if i == 0 else f"{op}_{number}_{i}" for i in range(outputs)]
        node = helper.make_node(op, list(inputs), names, **(attributes or {}))
        node.name = names[0]
        self._nodes.append(node)
        return names

    def constant(self, value: Any, dtype: Any = np.float32) -> str:
        """A small constant, written once however often it is asked for."""
        array = np.asarray(value, dtype=dtype)
        label = "_".join(map(str, array.flatten().tolist()))
        name = f"{array.dtype}_{'x'.join(map(str, array.shape))}_{label}"
        return self._store(name, array)

    def integers(self, *values: int) -> str:
        """A constant vector of int64: shapes, axes, splits."""
        return self.constant(values, np.int64)

    def reshape(self, x: str, *shape: int) -> str:
        """x in another shape; -1 is what is left, 0 the length x has there."""
        return self.add("Reshape", [x, self.integers(*shape)])

    def unrows(self, rows: str, like: str, *tail: int) -> str:
        """Rows (A x B, …) as (A, B, *tail), where `like` is a tensor (A, B)."""
        shape = self.add("Concat", [self.add("Shape", [like]), self.integers(*tail)], {"axis": 0})
        return self.add("Reshape", [rows, shape])

    def _store(self, name: str, array: np.ndarray) -> str:
        if name not in self._initializers:
            whole = np.ascontiguousarray(array).reshape(array.shape)
            self._initializers[name] = numpy_helper.from_array(whole, name)
        return name

    # --------------------------------------------------------------------------------- weights

    def weight(self, name: str) -> np.ndarray:
        """The values of a weight, which from now on counts as used."""
        self.used.add(name)
        return self._weights[name]

    def has(self, name: str) -> bool:
        return name in self._weights

    def vector(self, name: str) -> str:
        """A bias, scale or other small weight: always in float32."""
        return self._store(name, self.weight(name))

    def plain(self, name: str, array: np.ndarray) -> str:
        """A small tensor made from weights: always in float32."""
        return self._store(name, array)

    def linear(self, x: str, weight: str, bias: str | None = None) -> str:
        """x W^T + b for rows x (N, in), with W (out, in) and b (out,) the weights so named."""
        if self.precision == "int8":
            return self._linear8(x, weight, bias)
        inputs = [x, self._shared(weight)]
        if bias is not None:
            inputs.append(self.vector(bias))
        return self.add("Gemm", inputs, {"transB": 1})

    def embedding(self, ids: str, weight: str) -> str:
        """Rows of the table so named: ids of any shape -> (..., width)."""
        if self.precision == "fp32":
            return self.add("Gather", [self._shared(weight), ids])
        table, scales = self._rows8(weight)
        rows = self.add("Cast", [self.add("Gather", [table, ids])], {"to": TensorProto.FLOAT})
        column = self.add("Unsqueeze", [self.add("Gather", [scales, ids]), self.integers(-1)])
        return self.add("Mul", [rows, column])

    def stored(self, name: str, array: np.ndarray) -> str:
        """A matrix made from weights, for an operator that computes in float32.

        In 8 bits it is stored with a scale for each of its last axis, and multiplied out once,
        when the graph is loaded.
        """
        if self.precision == "fp32":
            return self._store(name, array)
        values, scales = quantized(array)
        cast = self.add("Cast", [self._store(f"{name}.int8", values)], {"to": TensorProto.FLOAT})
        return self.add("Mul", [cast, self._store(f"{name}.scale", scales[..., None])])

    def _shared(self, name: str) -> str:
        """The weight as an initializer; tied weights are stored once, under the first name."""
        array = self.weight(name)
        return self._store(self._first_name(name), array)

    def _rows8(self, name: str) -> tuple[str, str]:
        """A matrix in 8 bits: int8 (out, in) and scales (out,)."""
        values, scales = quantized(self.weight(name))
        first = self._first_name(name)
        return self._store(f"{first}.int8", values), self._store(f"{first}.scale", scales)

    def _first_name(self, name: str) -> str:
        """The first of the names under which the same memory is known."""
        place = self._weights[name].ctypes.data
        return next(n for n, a in self._weights.items() if a.ctypes.data == place)

    def _linear8(self, x: str, weight: str, bias: str | None) -> str:
        """The product in 8 bits: each row of x with its own scale, each row of W with its own."""
        values, scales = self._rows8(weight)
        largest = self.add("ReduceMax", [self.add("Abs", [x])], {"axes": [-1], "keepdims": 1})
        step = self.add("Mul", [largest, self.constant(1 / LEVELS)])
        step = self.add("Max", [step, self.constant(TINY)])
        level = self.add("Round", [self.add("Div", [x, step])])
        level = self.add("Add", [level, self.constant(CENTRE)])
        level = self.add("Cast", [level], {"to": TensorProto.UINT8})
        columns = self.add("Transpose", [values], {"perm": [1, 0]})  # done when it is loaded
        centre = self.constant(CENTRE, np.uint8)
        product = self.add("MatMulInteger", [level, columns, centre])
        product = self.add("Cast", [product], {"to": TensorProto.FLOAT})
        product = self.add("Mul", [self.add("Mul", [product, step]), scales])
        return product if bias is None else self.add("Add", [product, self.vector(bias)])

    # ------------------------------------------------------------------------------------ file

    def model(self, name: str) -> bytes:
        """The whole as the bytes of an .onnx file, checked by ONNX's own checker."""
        for node in self._nodes:
            for edges in (node.input, node.output):
                edges[:] = [self._renamed.get(edge, edge) for edge in edges]
        graph = helper.make_graph(
            self._nodes, name, self._inputs, self._outputs, list(self._initializers.values())
        )
        model = helper.make_model(
            graph,
            opset_imports=[helper.make_opsetid("", OPSET)],
            ir_version=IR_VERSION,
            producer_name="transduce",
            producer_version=__version__,
        )
        onnx.checker.check_model(model, full_check=True)
        data: bytes = model.SerializeToString()
        return data


def quantized(array: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Symmetric 8-bit values and the scale of each row: (..., in) -> int8 (..., in), (...)."""
    largest = np.abs(array).max(axis=-1)
    scales = np.maximum(largest / 127, TINY).astype(np.float32)
    return np.rint(array / scales[..., None]).astype(np.int8), scales
