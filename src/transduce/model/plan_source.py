"""What an encoder makes of one source, as the beginning of a plan of kernels (`kernels.plan`).

For the inference forms in bf16 and 8 bits of LSTMs over tokens, in one direction or both. With it a
sentence is searched in one call, from its tokens to its hypotheses.
"""

from __future__ import annotations

from typing import cast
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn

from transduce import kernels
from transduce.kernels.plan import Plan, Rows
from transduce.model.attention import Attention, MultiHeadAttention
from transduce.model.bridge import Bridge
from transduce.model.decoder import RecurrentDecoder
from transduce.model.encoder import BidirectionalLayer, RecurrentEncoder
from transduce.model.packed_rnn import PackedSequence
from transduce.model.plan import Begun, NoKernel, add_steps, can_plan, product
from transduce.model.rnn import RecurrentLayer

_DTYPE = torch.bfloat16
_Places = list[tuple[int, int]]  # buffers and columns

_Made = tuple[tuple[object, ...], Plan | None]  # what of, and the plan

# By decoder, and not in a model: a copy of one has weights elsewhere, and needs a plan of its own.
_PLANS: WeakKeyDictionary[RecurrentDecoder, _Made] = WeakKeyDictionary()


def plan_from_source(
    encoder: nn.Module,
    decoder: RecurrentDecoder,
    source_table: Tensor,
    target_table: Tensor,
    output: object,
) -> Plan | None:
    """The plan of a whole search, made once for a model in its inference form; None where there is
    none.

    source_table (V, D): what each token says to the encoder, embedding or gates; target_table: to
    the decoder's first layer; output: the output layer's product.
    """
    if source_table.dtype != _DTYPE or not kernels.takes(target_table):
        return None
    # A parameter stays itself when it is moved, or given other numbers; then these are elsewhere.
    made_of = source_table.data_ptr(), target_table.data_ptr(), encoder, output
    known = _PLANS.get(decoder)
    if known is None or known[0] != made_of:
        known = _PLANS[decoder] = (
            made_of,
            _written(encoder, decoder, source_table, target_table, output),
        )
    return known[1]


def _written(
    encoder: nn.Module,
    decoder: RecurrentDecoder,
    source_table: Tensor,
    target_table: Tensor,
    output: object,
) -> Plan | None:
    if not can_plan(decoder, target_table) or not isinstance(encoder, RecurrentEncoder):
        return None
    plan = Plan()
    try:
        begun = _begun(plan, encoder, decoder, source_table)
        add_steps(plan, decoder, begun, target_table, output)
    except NoKernel:
        return None
    return plan


def _begun(
    plan: Plan, encoder: RecurrentEncoder, decoder: RecurrentDecoder, table: Tensor
) -> Begun:
    """`RecurrentEncoder.forward`, and `RecurrentDecoder.start`."""
    # Text models have neither pyramid nor chunks so far; were they to, nothing here would do them.
    if encoder.pyramid or not all(isinstance(norm, nn.Identity) for norm in encoder.norms):
        raise NoKernel
    x, final = plan.embed(table, Rows.POSITIONS), -1
    for module in encoder.layers:
        outputs, final = _layer(plan, cast(BidirectionalLayer, module), x)
        if encoder.residual and plan.width(outputs) == plan.width(x):
            plan.add(outputs, x)
        x = outputs
    hidden, cell = _states(plan, decoder.bridge, final)
    return Begun(hidden, cell, *_attended(plan, decoder.attention, x))


def _layer(plan: Plan, layer: BidirectionalLayer, x: int) -> tuple[int, int]:
    """`BidirectionalLayer.forward`: outputs (S, size) and last states (1, size)."""
    if layer.chunk or layer.with_cell:
        raise NoKernel
    directions = [layer.forwards] + ([] if layer.backwards is None else [layer.backwards])
    sizes = [direction.rnn.hidden_size for direction in directions]
    outputs = plan.buffer(sum(sizes), _DTYPE, Rows.POSITIONS)
    final = plan.buffer(sum(sizes), _DTYPE, Rows.SENTENCE)
    for i, direction in enumerate(directions):
        packed = _packed(direction)
        said, column = x, i * 4 * sizes[0]
        if not layer.given:
            said, column = _product(plan, packed.of_input, x), 0
        to = outputs, i * sizes[0]
        plan.lstm(packed.of_hidden, sizes[i], (said, column), to, final, backwards=i == 1)
    return outputs, final


def _states(plan: Plan, bridge: Bridge, final: int) -> tuple[_Places, _Places]:
    """`Bridge.forward`: each layer's hidden state and cell before the first step."""
    if bridge.kind != "dense" or bridge.states != 2:
        raise NoKernel
    states = _product(plan, bridge.linear, final)
    plan.tanh(states)
    places = [(states, i * bridge.size) for i in range(2 * bridge.layers)]
    return places[: bridge.layers], places[bridge.layers :]


def _attended(
    plan: Plan, attention: Attention | MultiHeadAttention | None, memory: int
) -> tuple[int, int, int, bool]:
    """`prepare` of an attention by products: keys, values, heads, and whether keys lie across."""
    if isinstance(attention, MultiHeadAttention):
        heads = attention.heads
        values, keys = (_product(plan, x, memory) for x in (attention.value, attention.key))
        keys = plan.scaled(keys, plan.width(values) // heads, _DTYPE)
        keys = plan.split(keys, heads, _DTYPE, across=True)
        return keys, plan.split(values, heads, _DTYPE, across=False), heads, True
    assert attention is not None
    key = getattr(attention, "key", None)
    return memory if key is None else _product(plan, key, memory), memory, 1, False


def _packed(layer: RecurrentLayer) -> PackedSequence:
    if not isinstance(layer.packed, PackedSequence):
        raise NoKernel
    return layer.packed


def _product(plan: Plan, linear: object, x: int) -> int:
    return product(plan, linear, x, _DTYPE)
