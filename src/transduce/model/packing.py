"""The inference form of a model: its products packed for the processor, once, when it is loaded.

A product with a few rows is bound by reading its weights, and torch's default product lays them
out anew at every call. Here they are laid out once, for the kernels or for oneDNN, in the
precision asked for, and the gates of a recurrent cell become one product. Modules keep their
forward pass: only what multiplies is exchanged, so every architecture has an inference form.

    fp32  as trained
    bf16  weights and activations in bfloat16, products summed in fp32, cells kept in fp32
    int8  weights in 8 bits with a scale for each output, activations in 8 bits with a scale for
          each row, so that an answer does not depend on its batch-mates; the rest as in bf16
"""

from __future__ import annotations

import math
from typing import Literal

import torch
from torch import nn

from transduce.errors import UsageError
from transduce.model.encoder import BidirectionalLayer, RecurrentEncoder
from transduce.model.output import OutputLayer
from transduce.model.packed import Kept, PackedLinear, RowQuantized, can_pack, has_bf16, has_int8
from transduce.model.packed_rnn import PackedCell, PackedSequence, input_table
from transduce.model.rnn import RecurrentLayer
from transduce.model.seq2seq import Seq2Seq

Precision = Literal["fp32", "bf16", "int8"]
TABLE = 1 << 25  # most numbers of a table of the gates' inputs, 64 MiB in bf16


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
        _look_up_gates(model, kept, dtype)
        for module in list(model.modules()):
            if isinstance(module, RecurrentLayer):
                given = module is first and model.step_embedding is not None
                module.cell = PackedCell(module, kept, dtype, given)
                if module.packed is None and PackedSequence.fits(module, dtype):
                    module.packed = PackedSequence(module, kept, dtype)
            elif isinstance(module, OutputLayer):
                if dtype == torch.bfloat16 and can_pack(device, dtype):
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


def _look_up_gates(model: Seq2Seq, kept: Kept, dtype: torch.dtype) -> None:
    """A table of what each token says to the encoder's first layer, in place of that product."""
    embedding, encoder = model.source_embedding, model.encoder
    if embedding is None or not isinstance(encoder, RecurrentEncoder):
        return
    layers = encoder.fed_by_tokens()
    numbers = embedding.num_embeddings * sum(layer.gates for layer in layers)
    fits = all(PackedSequence.fits(layer, dtype) for layer in layers)
    if not layers or not fits or numbers > TABLE:
        return
    tables = [input_table(layer, embedding.weight) for layer in layers]
    for layer in layers:
        layer.packed = PackedSequence(layer, kept, dtype, given=True)
    lowest = encoder.layers[0]
    assert isinstance(lowest, BidirectionalLayer)
    lowest.given = True
    model.source_gates = nn.Embedding.from_pretrained(torch.cat(tables, dim=1))


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
