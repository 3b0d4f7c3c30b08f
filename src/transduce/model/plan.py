"""A recurrent decoder's step as a plan of kernels (`kernels.plan`), for searching one sentence.

The plan says what `RecurrentDecoder.step` does, in its order, for the inference forms in bf16 and
8 bits of LSTMs with attention by products. For anything else there is none, and search asks the
model step by step. It begins with what the encoder has made, or with the source where that can be
written down, too (`plan_source`).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol, cast

import torch
from torch import Tensor, nn

from transduce import kernels
from transduce.kernels import Blocked
from transduce.kernels.plan import Plan, Rows
from transduce.model.attention import Attended, Attention, MultiHeadAttention, fused
from transduce.model.decoder import DecoderState, RecurrentDecoder
from transduce.model.rnn import RecurrentLayer
from transduce.model.state import State

_BY_PRODUCTS = ("dot", "scaled_dot", "general", "multi_head")


class NoKernel(Exception):
    """Something that a plan would have to do has none."""


@dataclass(frozen=True)
class Begun:
    """What a plan's steps begin with: buffers and columns of each layer's hidden state and cell;
    buffers of keys and values for the attention, as `Plan.attend` reads them."""

    hidden: list[tuple[int, int]]
    cell: list[tuple[int, int]]
    keys: int
    values: int
    heads: int
    across: bool


class _Cell(Protocol):
    """What is used of `packed_rnn.PackedCell`."""

    kind: str
    given: bool
    of_hidden: object
    of_both: object


def plan_of(
    decoder: RecurrentDecoder | None,
    table: Tensor,
    state: State,
    output: object,
    words: Tensor | None = None,
) -> Plan | None:
    """The plan of a step for the only sentence of a state; None where there is none.

    table (V, D): what each token says to the first layer. output: the output layer's product,
    perhaps for some `words` (U,) only.
    """
    if decoder is None or not isinstance(state, DecoderState) or not can_plan(decoder, table):
        return None
    attended = state.attended
    if attended is None or attended.penalty is not None or state.seen is not None:
        return None
    if not fused(state.layers[0].hidden.to(table.dtype), attended):
        return None
    plan = Plan()
    try:
        add_steps(plan, decoder, _given(plan, state, attended), table, output, words)
    except NoKernel:
        return None
    return plan


def can_plan(decoder: RecurrentDecoder, table: Tensor) -> bool:
    """Whether there are kernels for all of a decoder's step."""
    attention = decoder.attention
    if decoder.gate is not None or decoder.intra is not None or attention is None:
        return False  # what copies, or looks at what it has said
    if attention.kind not in _BY_PRODUCTS or getattr(attention, "looks_back", False):
        return False
    if decoder.readout.kind == "maxout":
        return False
    if not all(isinstance(norm, nn.Identity) for norm in decoder.norms):
        return False
    cells = [cast(RecurrentLayer, layer).cell for layer in decoder.layers]
    if not all(cell is not None and cast(_Cell, cell).kind == "lstm" for cell in cells):
        return False
    return table.dtype == torch.bfloat16 and kernels.takes(table)


def add_steps(
    plan: Plan,
    decoder: RecurrentDecoder,
    begun: Begun,
    table: Tensor,
    output: object,
    words: Tensor | None = None,
) -> None:
    """Add a decoder's step to what a plan begins with. Errors: NoKernel."""
    writing = _Writing(decoder, begun, table.dtype, plan)
    plan.begin_steps()
    first = cast(_Cell, cast(RecurrentLayer, decoder.layers[0]).cell)
    embedded = plan.looked_up(table) if first.given else plan.embed(table)
    features = writing.step(embedded, [writing.state(at) for at in begun.hidden])
    writing.product(output, features)
    plan.words(words)


def _given(plan: Plan, state: DecoderState, attended: Attended) -> Begun:
    """What the model itself has made of the source."""
    keys, values = attended.keys, attended.values
    across = keys.dim() == 4
    heads = keys.shape[1] if across else 1
    hidden, cell = [], []
    for layer in state.layers:
        assert layer.cell is not None
        size = layer.hidden.shape[1]
        hidden.append((plan.given(layer.hidden, size, Rows.SENTENCE), 0))
        cell.append((plan.given(layer.cell, size, Rows.SENTENCE), 0))
    return Begun(
        hidden,
        cell,
        plan.given(keys, heads * keys.shape[2], Rows.POSITIONS),
        plan.given(values, heads * values.shape[-1], Rows.POSITIONS),
        heads,
        across,
    )


@dataclass
class _Writing:
    """A step being written down."""

    decoder: RecurrentDecoder
    begun: Begun
    dtype: torch.dtype
    plan: Plan

    def state(self, at: tuple[int, int], dtype: torch.dtype | None = None) -> int:
        """A layer's state, which begins there."""
        size = cast(RecurrentLayer, self.decoder.layers[0]).rnn.hidden_size
        return self.plan.state(size, dtype or self.dtype, at)

    def step(self, embedded: int, hidden: list[int]) -> int:
        """The features, from the embedded token: `RecurrentDecoder.step`, stage by stage."""
        decoder, plan = self.decoder, self.plan
        feed = context = None
        x = [embedded]
        if decoder.feeding == "input":
            feed = plan.state(decoder.readout.size, self.dtype)
            x = [embedded, feed]
        elif decoder.feeding == "context":
            context = self.ask(hidden[-1])
            x = [embedded, context]
        above = embedded
        for i in range(len(hidden)):
            outputs = self.cell(i, x, hidden[i])
            if decoder.residual and i > 0:
                # Not into the hidden state itself, which goes on as it is.
                summed = plan.buffer(plan.width(outputs), self.dtype)
                plan.put(outputs, summed)
                plan.add(summed, above)
                outputs = summed
            above = outputs
            if decoder.feeding == "parallel" and i == 0:
                context = self.ask(above)
            more = decoder.feeding == "parallel" and i + 1 < len(hidden)
            assert context is not None or not more
            x = [above, context] if more and context is not None else [above]
        if decoder.feeding == "input":
            context = self.ask(above)
        assert context is not None
        parts = [above, context, embedded] if decoder.feeding == "context" else [above, context]
        features = self.product(decoder.readout.linear, plan.beside(parts, self.dtype))
        if decoder.readout.kind == "tanh":
            plan.tanh(features)
        if feed is not None:
            plan.put(features, feed)
        return features

    def cell(self, i: int, x: list[int], hidden: int) -> int:
        """One layer's position: its hidden state after it."""
        layer = cast(_Cell, cast(RecurrentLayer, self.decoder.layers[i]).cell)
        if layer.given:
            gates, given = self.product(layer.of_hidden, hidden), x[0]
        else:
            gates = self.product(layer.of_both, self.plan.beside([*x, hidden], self.dtype))
            given = None
        cell = self.state(self.begun.cell[i], torch.float32)
        self.plan.lstm_cell(gates, given, hidden, cell)
        return hidden

    def ask(self, query: int) -> int:
        """The context that a query gets: `Attention.forward`, `MultiHeadAttention.forward`."""
        attention, begun = self.decoder.attention, self.begun
        if isinstance(attention, MultiHeadAttention):
            query = self.product(attention.query, query)
        elif isinstance(attention, Attention) and attention.kind == "scaled_dot":
            query = self.plan.scaled(query, self.plan.width(query), self.dtype)
        return self.plan.attend(
            query, begun.keys, begun.values, begun.heads, begun.across, self.dtype
        )

    def product(self, linear: object, x: int) -> int:
        """A packed linear layer. Errors: NoKernel."""
        return product(self.plan, linear, x, self.dtype)


def product(plan: Plan, linear: object, x: int, dtype: torch.dtype) -> int:
    """A packed linear layer as an op. Errors: NoKernel."""
    blocked = blocked_of(linear)
    if blocked is None:
        raise NoKernel
    return plan.product(blocked, x, dtype)


def blocked_of(linear: object) -> Blocked | None:
    """A packed linear layer's weights for kernels, if there is one for it."""
    lay_out = getattr(linear, "for_kernels", None)
    blocked: Blocked | None = None if lay_out is None else lay_out()
    return blocked
