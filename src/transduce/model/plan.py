"""A recurrent decoder's step as a plan of kernels (`kernels.plan`), for searching one sentence.

The plan says what `RecurrentDecoder.step` does, in its order, for the inference forms in bf16 and
8 bits of LSTMs with attention by products. For anything else there is none, and search asks the
model step by step.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol, cast

import torch
from torch import Tensor, nn

from transduce import kernels
from transduce.kernels import Blocked
from transduce.kernels.plan import Plan
from transduce.model.attention import Attended, Attention, MultiHeadAttention, fused
from transduce.model.decoder import DecoderState, RecurrentDecoder
from transduce.model.rnn import RecurrentLayer
from transduce.model.state import State

_BY_PRODUCTS = ("dot", "scaled_dot", "general", "multi_head")


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
    if decoder is None or not isinstance(state, DecoderState):
        return None
    if not _can_plan(decoder, state, table):
        return None
    assert state.attended is not None
    writing = _Writing(decoder, state, table.dtype, Plan(state.attended.values.shape[-2]))
    features = writing.step(writing.plan.embed(table))
    writing.product(output, features)
    writing.plan.words(words)
    return writing.plan if writing.possible else None


def _can_plan(decoder: RecurrentDecoder, state: DecoderState, table: Tensor) -> bool:
    attention, attended = decoder.attention, state.attended
    if attention is None or attended is None or attended.penalty is not None:
        return False
    if decoder.gate is not None or decoder.intra is not None or state.seen is not None:
        return False  # what copies, or looks at what it has said or read
    if decoder.readout.kind == "maxout" or attention.kind not in _BY_PRODUCTS:
        return False
    if not all(isinstance(norm, nn.Identity) for norm in decoder.norms):
        return False
    cells = [cast(RecurrentLayer, layer).cell for layer in decoder.layers]
    if not all(cell is not None and cast(_Cell, cell).kind == "lstm" for cell in cells):
        return False
    right = table.dtype == torch.bfloat16 and kernels.takes(table)
    return right and fused(state.layers[0].hidden.to(table.dtype), attended)


@dataclass
class _Writing:
    """A step being written down; `possible` until a product turns out to have no kernel."""

    decoder: RecurrentDecoder
    state: DecoderState
    dtype: torch.dtype
    plan: Plan
    possible: bool = True

    def step(self, embedded: int) -> int:
        """The features, from the embedded token: `RecurrentDecoder.step`, stage by stage."""
        decoder, plan = self.decoder, self.plan
        hidden = [plan.state(layer.hidden, self.dtype) for layer in self.state.layers]
        feed = context = None
        x = [embedded]
        if decoder.feeding == "input":
            assert self.state.feed is not None
            feed = plan.state(self.state.feed, self.dtype)
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
        state = self.state.layers[i]
        assert state.cell is not None
        if layer.given:
            gates, given = self.product(layer.of_hidden, hidden), x[0]
        else:
            gates = self.product(layer.of_both, self.plan.beside([*x, hidden], self.dtype))
            given = None
        cell = self.plan.state(state.cell, torch.float32)
        self.plan.lstm_cell(gates, given, hidden, cell)
        return hidden

    def ask(self, query: int) -> int:
        """The context that a query gets: `Attention.forward`, `MultiHeadAttention.forward`."""
        attention, attended = self.decoder.attention, self.state.attended
        assert isinstance(attended, Attended)
        if isinstance(attention, MultiHeadAttention):
            query = self.product(attention.query, query)
        elif isinstance(attention, Attention) and attention.kind == "scaled_dot":
            query = self.plan.scaled(query, self.plan.width(query), self.dtype)
        return self.plan.attend(query, attended.keys, attended.values, self.dtype)

    def product(self, linear: object, x: int) -> int:
        """A packed linear layer, if there is a kernel for it with few rows."""
        lay_out = getattr(linear, "for_kernels", None)
        blocked: Blocked | None = None if lay_out is None else lay_out()
        if blocked is None:
            self.possible = False
            return x
        return self.plan.product(blocked, x, self.dtype)
