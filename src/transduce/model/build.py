"""From a recipe's model section to a model with its weights initialised."""

from __future__ import annotations

import math

import torch
from torch import nn

from transduce.data.copying import Codes
from transduce.errors import UsageError
from transduce.model.copying import Copying
from transduce.model.decoder import RecurrentDecoder
from transduce.model.embedding import Embedding
from transduce.model.encoder import RecurrentEncoder
from transduce.model.output import OutputLayer
from transduce.model.rnn import GATES, RecurrentLayer
from transduce.model.seq2seq import Seq2Seq
from transduce.model.subsampling import Subsampling
from transduce.model.transducer import Transducer
from transduce.model.transformer import SelfAttentiveEncoder
from transduce.recipe import InitOptions, ModelOptions

OUTPUTS = ("output.weight", "ctc.weight")


def build_model(
    options: ModelOptions,
    source_size: int,
    target_size: int,
    bins: int | None = None,
    codes: Codes | None = None,
) -> Seq2Seq:
    """Build the model for vocabularies of these sizes.

    Where the source is speech, `bins` says how wide its frames are, and `source_size` nothing.
    Where words are copied, `codes` say as what; by default each id as itself.
    Errors: UsageError where sections of the recipe do not fit each other.
    """
    target = Embedding(target_size, options.embedding) if options.ctc.weight < 1 else None
    source = _source(options, source_size, target, bins)
    width = options.embedding if isinstance(source, nn.Embedding) else options.encoder.size
    encoder = _encoder(options, width)
    head = OutputLayer(encoder.memory_size, target_size)
    decoder, transducer, output = None, None, head
    if target is not None and options.transducer is not None:
        transducer = Transducer(options.transducer, options.embedding, encoder.memory_size)
        output = OutputLayer(options.transducer.joint, target_size)
    elif target is not None:
        decoder = RecurrentDecoder(
            options.decoder, options.embedding, encoder.memory_size, options.encoder.layers
        )
        tied = None if options.tie == "none" else target.weight
        output = OutputLayer(options.embedding, target_size, tied)
    copies = options.copies and bins is None
    model = Seq2Seq(
        source,
        target,
        encoder,
        decoder,
        output,
        copying=Copying(codes or Codes.identity(source_size, target_size)) if copies else None,
        transducer=transducer,
        ctc=head if options.ctc.weight and output is not head else None,
        ctc_weight=options.ctc.weight,
        embedding_scale=math.sqrt(options.embedding) if options.scale_embedding else 1.0,
        embedding_dropout=options.embedding_dropout,
        word_dropout=options.word_dropout,
        output_dropout=options.output_dropout,
    )
    initialize(model, options.init)
    return model


def _source(
    options: ModelOptions, size: int, target: nn.Embedding | None, bins: int | None
) -> nn.Embedding | Subsampling:
    """What stands before the encoder."""
    if bins is not None:
        return Subsampling(options.subsampling, bins, options.encoder.size)
    if options.encoder.chunk:
        raise UsageError("model.encoder.chunk is for speech; a text is not read while it is spoken")
    if options.encoder.pyramid:
        raise UsageError(
            "model.encoder.pyramid shortens the memory of speech; a text's positions are its tokens"
        )
    if options.tie == "all" and target is not None:
        return target
    return Embedding(size, options.embedding)


def _encoder(options: ModelOptions, width: int) -> RecurrentEncoder | SelfAttentiveEncoder:
    """What reads embeddings or subsampled frames of this width."""
    copied = options.has_decoder and options.decoder.start == "copy"
    if options.encoder.recurrent:
        return RecurrentEncoder(options.encoder, width, copied and options.decoder.kind == "lstm")
    if copied:
        raise UsageError(
            "decoder.start `copy` copies a recurrent encoder's states, and encoder.kind "
            f"`{options.encoder.kind}` has none; use `dense`"
        )
    return SelfAttentiveEncoder(options.encoder, width)


def initialize(model: Seq2Seq, options: InitOptions) -> None:
    """Draw every weight anew, in the order of the model's parameters."""
    done: set[int] = set()
    for name, parameter in model.named_parameters():
        if id(parameter) in done:  # tied
            continue
        done.add(id(parameter))
        _draw(name, parameter, options, "embedding" in name or name in OUTPUTS)
    for module in model.modules():
        if isinstance(module, RecurrentLayer):
            _recurrent(module, options)


def _draw(name: str, parameter: nn.Parameter, options: InitOptions, is_embedding: bool) -> None:
    with torch.no_grad():
        if "norms" in name:
            parameter.fill_(1.0 if name.endswith("weight") else 0.0)
        elif parameter.dim() < 2 and options.kind != "uniform":
            if not name.endswith("vector"):
                parameter.zero_()
        elif options.kind == "uniform":
            parameter.uniform_(-options.scale, options.scale)
        elif options.kind == "normal":
            parameter.normal_(0.0, options.scale)
        elif is_embedding:
            # Xavier of a lookup would shrink with the vocabulary; what matters is the width.
            parameter.normal_(0.0, 1 / math.sqrt(parameter.shape[1]))
        elif name.endswith("filters.weight"):
            # Each sees its own channel only; Glorot's rule would count the outputs of them all.
            parameter.uniform_(-1, 1).mul_(math.sqrt(3 / parameter.shape[2]))
        else:
            nn.init.xavier_uniform_(parameter)


def _recurrent(layer: RecurrentLayer, options: InitOptions) -> None:
    """Gate by gate, since the gates of one matrix are separate weights."""
    gates = GATES[layer.kind]
    with torch.no_grad():
        for name, parameter in layer.rnn.named_parameters():
            for index, gate in enumerate(parameter.chunk(gates)):
                if name.startswith("weight_hh") and options.orthogonal:
                    nn.init.orthogonal_(gate)
                elif name.startswith("weight") and options.kind == "xavier":
                    nn.init.xavier_uniform_(gate)
                elif name.startswith("bias_ih") and layer.kind == "lstm" and index == 1:
                    gate.fill_(options.forget_bias)  # torch's gate order: input, forget, cell, out
                elif name.startswith("bias_hh") and layer.kind == "lstm" and index == 1:
                    gate.zero_()
