"""The inference form of a model: its products packed for the processor, once, when it is loaded.

A product with a few rows is bound by reading its weights, and torch's default product lays them
out anew at every call. Here they are laid out once for oneDNN's kernels, in the precision asked
for, and the gates of a recurrent cell become one product. Modules keep their forward pass: only
what multiplies is exchanged, so every architecture has an inference form.

    fp32  as trained
    bf16  weights and activations in bfloat16, products summed in fp32, cells kept in fp32
    int8  weights in 8 bits with a scale for each output, activations in 8 bits with a scale for
          each row, so that an answer does not depend on its batch-mates; the rest as in bf16
"""

from __future__ import annotations

import copy
import math
import threading
from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Literal

import torch
from torch import Tensor, nn

from transduce import kernels
from transduce.errors import UsageError
from transduce.kernels import FEW, Blocked, most_rows
from transduce.model.output import OutputLayer
from transduce.model.rnn import LayerState, RecurrentLayer
from transduce.model.seq2seq import Seq2Seq

Precision = Literal["fp32", "bf16", "int8"]
ROWS = 64  # for how many rows oneDNN chooses the layout of packed weights
TABLE = 1 << 25  # most numbers of a table of the gates' inputs, 64 MiB in bf16
MIDDLE = 128  # of unsigned activations: what stands for zero
_LAYING_OUT = threading.Lock()  # several threads may be the first to ask a product


def has_bf16(device: torch.device) -> bool:
    """Whether the processor multiplies bf16 natively."""
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    return device.type == "cpu" and bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())


def has_int8(device: torch.device) -> bool:
    """Whether this torch has the 8-bit product that `int8` is made of."""
    return device.type == "cpu" and hasattr(torch.ops.onednn, "qlinear_pointwise")


def pack(model: Seq2Seq, precision: Precision) -> Seq2Seq:
    """Turn a trained model into its inference form, in place; it cannot be trained any more.

    Errors: UsageError where the device cannot do this precision.
    """
    device = model.device
    if precision == "int8" and not has_int8(device):
        raise UsageError(f"precision int8 is not to be had on {device.type} with this torch")
    dtype = torch.float32
    if precision == "bf16" or (precision == "int8" and has_bf16(device)):
        dtype = torch.bfloat16
    kept = RowQuantized if precision == "int8" else PackedLinear
    with torch.no_grad():
        model.scale_embeddings()
        first, embedding = model.first_fed_by_tokens(), model.target_embedding
        if first and embedding and embedding.num_embeddings * first.gates <= TABLE:
            table = input_table(first, embedding.weight)
            model.step_embedding = nn.Embedding.from_pretrained(table)
        for module in list(model.modules()):
            if isinstance(module, RecurrentLayer):
                given = module is first and model.step_embedding is not None
                module.cell = PackedCell(module, kept, dtype, given)
                if PackedSequence.fits(module, dtype):
                    module.packed = PackedSequence(module, dtype)
            elif isinstance(module, OutputLayer):
                if dtype == torch.bfloat16 and _can_pack(device, dtype):
                    settle_near_zero(module)
                module.product = kept(module.weight, module.bias, dtype)
                module.product.parted = True  # by shortlists
            for name, child in list(module.named_children()):
                if isinstance(child, nn.Linear):
                    # No module: a module's call costs as much as a small product.
                    delattr(module, name)
                    setattr(module, name, kept(child.weight, child.bias, dtype))
        bias = model.output.bias.float()
        model.to(dtype)
        model.output.bias.data = bias  # shortlists take their words' part of it
    return model.eval().requires_grad_(False)


def settle_near_zero(output: OutputLayer) -> None:
    """Shift an output layer so that logits which matter are near 0, where bf16 is finest.

    What is added to all logits of a row changes no probability. Without the mean of the words'
    weights, words that nobody expects are near 0 and the likely ones some log V above; the bias
    brings those down. Above 8, neighbouring numbers of bf16 are 1/16 apart; near 1, 1/128.
    """
    weight, bias = output.weight.detach(), output.bias.detach()
    output.weight = nn.Parameter(weight - weight.mean(dim=0))
    above = math.log(len(bias)) + 2  # with label smoothing e, log(V (1 - e) / e)
    output.bias = nn.Parameter(bias - bias.mean() - above)


class LaidOut(ABC):
    """Weights that are laid out when they are first needed, for the kernels or for oneDNN.

    They are kept in their own order until both is done; for ever where `parted` says that parts of
    them will be asked for. `most`: for how many numbers the kernels are the faster. A part has the
    weights of the whole, and `chosen` outputs (U,) int64.
    """

    def _keep(self, weight: Tensor, chosen: Tensor | None, *, kernel: bool) -> None:
        self.outputs = len(weight) if chosen is None else len(chosen)
        self.inputs = weight.shape[1]
        self.weight: Tensor | None = weight
        self.chosen = chosen
        self.blocked: Blocked | None = None
        self.many: Tensor | None = None
        self.parted = False
        able = kernel and Blocked.fits(self.inputs)
        self.most = most_rows(weight) * self.inputs if able else -1

    def for_kernels(self) -> Blocked | None:
        """The weights laid out for the kernels; None where these have no product."""
        return None if self.most < 0 else self.blocked or self._lay_out_blocks()

    @abstractmethod
    def _blocks(self, weight: Tensor) -> Blocked:
        """The weights as kernels read them."""

    @abstractmethod
    def _for_many(self, weight: Tensor) -> Tensor:
        """The weights as oneDNN reads them."""

    def _lay_out_blocks(self) -> Blocked:
        with _LAYING_OUT:
            if self.blocked is None:
                assert self.weight is not None
                self.blocked = self._blocks(self.weight)
                done = self.many is not None or self.most == math.inf
                self.weight = self.weight if self.parted or not done else None
            return self.blocked

    def _lay_out_many(self) -> Tensor:
        with _LAYING_OUT:
            if self.many is None:
                assert self.weight is not None
                own = self.weight if self.chosen is None else self.weight[self.chosen]
                self.many = self._for_many(own)
                wanted = self.parted or (self.blocked is None and self.most > 0)
                self.weight = self.weight if wanted else None
            return self.many


class PackedLinear(LaidOut):
    """x W^T + b with packed weights: (..., inputs) -> (..., outputs), in `dtype`."""

    def __init__(self, weight: Tensor, bias: Tensor | None, dtype: torch.dtype) -> None:
        self.dtype = dtype
        self.packed = _can_pack(weight.device, dtype)
        # Sums are in float32 before they are rounded, and the bias joins them there.
        bias_dtype = torch.float32 if self.packed else dtype
        self.bias = None if bias is None else bias.detach().to(bias_dtype).clone()
        self._kernel = self.packed and dtype == torch.bfloat16
        self._keep(weight.detach().to(dtype).clone(), None, kernel=self._kernel)

    def part(self, outputs: Tensor) -> PackedLinear:
        """The product for some outputs (U,) int64 only; `parted` must be set from the start."""
        assert self.weight is not None
        some = copy.copy(self)
        some.bias = None if self.bias is None else self.bias[outputs]
        some._keep(self.weight, outputs, kernel=self._kernel)
        return some

    def __call__(self, x: Tensor) -> Tensor:
        if x.numel() <= self.most:
            return (self.blocked or self._lay_out_blocks())(x, self.dtype)
        x = x.to(self.dtype)
        many = self._lay_out_many() if self.many is None else self.many
        if not self.packed:
            return nn.functional.linear(x, many, self.bias)
        return torch.ops.mkldnn._linear_pointwise(x, many, self.bias, "none", [], "")

    def _blocks(self, weight: Tensor) -> Blocked:
        return Blocked(weight, self.bias, None, self.chosen)

    def _for_many(self, weight: Tensor) -> Tensor:
        return torch.ops.mkldnn._reorder_linear_weight(weight, ROWS) if self.packed else weight


class RowQuantized(LaidOut):
    """x W^T + b in 8 bits: (..., inputs) -> (..., outputs), in `dtype`.

    Weights have a scale for each output. Activations have one for each row: one for the whole
    batch would let the largest value of a batch-mate change a sentence's translation.
    """

    def __init__(self, weight: Tensor, bias: Tensor | None, dtype: torch.dtype) -> None:
        weight = weight.detach().float()
        self.dtype = dtype
        self.scales = weight.abs().amax(dim=1).clamp_min(1e-8) / 127
        self.zeros = torch.zeros(len(weight), dtype=torch.int64)
        self.bias = torch.zeros(len(weight)) if bias is None else bias.detach().float().clone()
        whole = (weight / self.scales.unsqueeze(1)).round().to(torch.int8)
        self._keep(whole, None, kernel=True)

    def part(self, outputs: Tensor) -> RowQuantized:
        """As `PackedLinear.part`; what is in 8 bits is not rounded again."""
        assert self.weight is not None
        some = copy.copy(self)
        some.scales, some.bias = self.scales[outputs], self.bias[outputs]
        some.zeros = self.zeros[outputs]
        some._keep(self.weight, outputs, kernel=True)
        return some

    def __call__(self, x: Tensor) -> Tensor:
        if x.numel() <= self.most:
            return (self.blocked or self._lay_out_blocks())(x, self.dtype)
        rows = x.reshape(-1, self.inputs)
        if kernels.takes(rows):
            whole, scale = kernels.quantize(rows)
            answer = kernels.rescale(self._product(whole), scale, self.bias, self.dtype)
        else:
            scale = rows.float().abs().amax(dim=1, keepdim=True).clamp_min(1e-8) / 127
            whole = (rows / scale).add_(MIDDLE + 0.5).to(torch.uint8)  # rounds, since it cuts
            answer = torch.addcmul(self.bias, self._product(whole), scale).to(self.dtype)
        return answer.view(*x.shape[:-1], self.outputs)

    def _product(self, whole: Tensor) -> Tensor:
        many = self._lay_out_many() if self.many is None else self.many
        return torch.ops.onednn.qlinear_pointwise(
            whole, 1.0, MIDDLE, many, self.scales, self.zeros, None,
            1.0, 0, torch.float32, "none", [], "",
        )  # fmt: skip

    def _blocks(self, weight: Tensor) -> Blocked:
        return Blocked(weight, self.bias, self.scales, self.chosen)

    def _for_many(self, weight: Tensor) -> Tensor:
        return torch.ops.onednn.qlinear_prepack(weight, [ROWS, self.inputs])


Kept = type[PackedLinear] | type[RowQuantized]


class PackedCell:
    """One position of a recurrent layer, its gates in one product (two for a GRU).

    With `given`, what the input says to the gates comes from `input_table` instead of the input,
    and half of the product is spared.
    """

    def __init__(
        self, layer: RecurrentLayer, kept: Kept, dtype: torch.dtype, given: bool = False
    ) -> None:
        self.kind, self.size, self.given = layer.kind, layer.rnn.hidden_size, given
        w_x, w_h, b_x, b_h = _gates(layer)
        self.fused = kernels.available() and w_x.device.type == "cpu"
        if self.kind == "gru":
            self.of_input: Callable[[Tensor], Tensor] = _same if given else kept(w_x, b_x, dtype)
            self.of_hidden = kept(w_h, b_h, dtype)
        elif given:
            self.of_hidden = kept(w_h, None, dtype)
        else:
            self.of_both = kept(torch.cat([w_x, w_h], dim=1), b_x + b_h, dtype)

    def __call__(self, x: Tensor, state: LayerState) -> tuple[Tensor, LayerState]:
        """x (N, D), or rows of the table (N, gates x size); state -> outputs (N, size), state."""
        before = state.hidden.to(x.dtype)
        if self.kind == "gru":
            hidden = self._gru(x, before)
            return hidden, LayerState(hidden)
        if self.given:
            gates, given = self.of_hidden(before), x
        else:
            gates, given = self.of_both(torch.cat([x, before], dim=-1)), None
        if state.cell is not None and self.fused:
            hidden, cell = kernels.lstm_cell(gates, given, state.cell, x.dtype)
            return hidden, LayerState(hidden, cell)
        if given is not None:
            gates = gates + given
        if self.kind == "rnn":
            hidden = gates.tanh().to(x.dtype)
            return hidden, LayerState(hidden)
        assert state.cell is not None
        i, f, s, o = gates.float().sigmoid_().chunk(4, dim=1)
        cell = torch.addcmul(f * state.cell, i, s, value=2).sub_(i)  # f c + i g, g = 2 s - 1
        hidden = (o * cell.tanh()).to(x.dtype)
        return hidden, LayerState(hidden, cell)

    def _gru(self, x: Tensor, hidden: Tensor) -> Tensor:
        of_input, of_hidden = self.of_input(x).float(), self.of_hidden(hidden).float()
        r, z = (of_input + of_hidden)[:, : 2 * self.size].sigmoid_().chunk(2, dim=1)
        n = torch.addcmul(of_input[:, 2 * self.size :], r, of_hidden[:, 2 * self.size :]).tanh_()
        return torch.lerp(n, hidden.float(), z).to(x.dtype)


class PackedSequence:
    """An LSTM layer over whole sequences: a product for all positions, and one call for the rest.

    Torch's fused layer lays its weights out anew for every batch. In bfloat16, whatever the
    precision of steps, like that layer: a sentence's memory does not depend on its batch.
    """

    def __init__(self, layer: RecurrentLayer, dtype: torch.dtype) -> None:
        w_x, w_h, b_x, b_h = _gates(layer)
        self.of_input = PackedLinear(w_x, b_x + b_h, dtype)
        self.of_hidden = Blocked(w_h.to(dtype), None)
        self.most = math.inf if kernels.tiles() else FEW

    @staticmethod
    def fits(layer: RecurrentLayer, dtype: torch.dtype) -> bool:
        """Whether there are kernels for this layer here."""
        inner = layer.rnn.get_parameter("weight_hh_l0")
        able = dtype == torch.bfloat16 and _can_pack(inner.device, dtype)
        return able and layer.kind == "lstm" and Blocked.fits(layer.rnn.hidden_size)

    def takes(self, sentences: int) -> bool:
        """Whether this is the faster way for so many."""
        return sentences <= self.most

    def __call__(self, x: Tensor, state: LayerState | None) -> tuple[Tensor, LayerState]:
        """x (N, T, D) -> outputs (N, T, size) and the end state, from `state`."""
        of_input = self.of_input(x.transpose(0, 1))
        before = None
        if state is not None:
            assert state.cell is not None
            before = state.hidden, state.cell
        hidden, cell = kernels.lstm_sequence(self.of_hidden, of_input, before)
        return hidden.transpose(0, 1), LayerState(hidden[-1], cell)


def input_table(layer: RecurrentLayer, embeddings: Tensor) -> Tensor:
    """What each row of embeddings (V, D) says to the gates of a layer: (V, gates x size)."""
    w_x, _, b_x, b_h = _gates(layer)
    return torch.addmm(b_x if layer.kind == "gru" else b_x + b_h, embeddings, w_x.t())


def _gates(layer: RecurrentLayer) -> list[Tensor]:
    """Weights (gates x size, D) of input and hidden, and their biases, for a packed cell."""
    weights = [getattr(layer.rnn, f"{name}_l0").detach() for name in _NAMES]
    if layer.kind != "lstm":
        return weights
    # tanh(x) = 2 sigmoid(2 x) - 1, so that one pass over the gates does all four.
    rows = torch.ones(4, layer.rnn.hidden_size, device=weights[0].device)
    rows[_CELL] = 2
    return [(weight.t() * rows.flatten()).t() for weight in weights]


def _same(x: Tensor) -> Tensor:
    return x


_CELL = 2  # in torch's order: input, forget, cell, output
_NAMES = ("weight_ih", "weight_hh", "bias_ih", "bias_hh")


def _can_pack(device: torch.device, dtype: torch.dtype) -> bool:
    """Whether oneDNN's packed products are there for this device and dtype."""
    if device.type != "cpu" or not hasattr(torch.ops.mkldnn, "_reorder_linear_weight"):
        return False
    if not torch.backends.mkldnn.is_available():
        return False
    return dtype == torch.float32 or has_bf16(device)
