"""The recipe's section `model`."""

from __future__ import annotations

import warnings
from typing import Annotated, Literal

from pydantic import Field, field_validator, model_validator

from transduce.recipe_base import Count, Options, Positive, Probability

# `DecoderOptions.copy` hides a method of pydantic's that nobody here calls.
warnings.filterwarnings("ignore", 'Field name "copy" in "DecoderOptions"', UserWarning)

Share = Annotated[float, Field(ge=0.0, le=1.0)]


class SubsamplingOptions(Options):
    """How frames of speech become fewer and wider positions, below the encoder; not for text.

    conv: two or three 2-D convolutions (3 x 3) over time and bins, each with half the bins of the
    one before, and a linear layer. stack: `factor` neighbouring frames side by side, and a linear
    layer. none: a linear layer alone.
    """

    kind: Literal["none", "conv", "stack"] = "conv"  # as above
    factor: Literal[1, 2, 4, 8] = 4  # conv and stack: frames to a position
    channels: Positive = 32  # conv: of each convolution
    dropout: Probability = 0.1  # on its output


class RecurrentOptions(Options):
    """What recurrent encoders and decoders share."""

    layers: Positive = 1  # how deep
    size: Positive = 256  # width of the output; a bidirectional encoder has half of it each way
    dropout: Probability = 0.2  # on the output of each layer
    variational: bool = False  # one dropout mask for all positions (1512.05287)
    residual: bool = False  # around every layer whose input and output widths agree
    layer_norm: bool = False  # after every layer


class EncoderOptions(RecurrentOptions):
    """The recurrent kinds read every option but the last four; transformer and conformer read
    `layers`, `size`, `dropout` (on what each module adds) and the last four."""

    # the recurrent unit (rnn is tanh), or self-attention: 1706.03762, 2005.08100
    kind: Literal["lstm", "gru", "rnn", "transformer", "conformer"] = "lstm"
    bidirectional: bool = True  # read the source in both directions
    # speech: so many layers above the first halve time (1508.01211, section 3.1)
    pyramid: Count = 0
    # speech, to be heard live: the direction from the end reads no more than so many positions, one
    # such piece after the other; 0: all of the source
    chunk: Count = 0
    heads: Positive = 4  # of self-attention
    feed_forward: Positive | None = None  # inner width; default: 4 x size
    kernel: Positive = 15  # conformer: positions that a convolution sees, an odd number
    # rotary: by distance (2104.09864), default of conformer; sinusoidal: by place (1706.03762,
    # section 3.5), default of transformer
    positions: Literal["rotary", "sinusoidal"] | None = None

    @property
    def recurrent(self) -> bool:
        """Whether it is one of the recurrent kinds."""
        return self.kind in ("lstm", "gru", "rnn")

    @model_validator(mode="after")
    def _widths(self) -> EncoderOptions:
        if self.recurrent and self.bidirectional and self.size % 2:
            raise ValueError("a bidirectional encoder needs an even `size` (half of it each way)")
        if not self.recurrent and self.size % (2 * self.heads):
            raise ValueError(
                f"size {self.size} is not a multiple of twice the heads ({self.heads})"
            )
        return self

    @model_validator(mode="after")
    def _parts_fit(self) -> EncoderOptions:
        if not self.recurrent and (self.pyramid or not self.bidirectional):
            name = "pyramid" if self.pyramid else "bidirectional: false"
            raise ValueError(f"`{name}` is for recurrent encoders, not for `{self.kind}`")
        if self.chunk and not (self.recurrent and self.bidirectional):
            raise ValueError(
                f"`chunk` {self.chunk} is for recurrent encoders that read in both directions; set "
                "it to 0"
            )
        if self.chunk % 2**self.pyramid:
            raise ValueError(
                f"chunk {self.chunk} is not a multiple of {2**self.pyramid}, by which `pyramid` "
                "shortens it"
            )
        if self.pyramid >= self.layers:
            raise ValueError(
                f"pyramid {self.pyramid} is of layers above the first, and there are {self.layers}"
                " layers in all"
            )
        if self.kernel % 2 == 0:
            raise ValueError(f"kernel {self.kernel} is even; an odd one has a middle")
        return self


class AttentionOptions(Options):
    # how a query scores the memory; unscaled scores (dot, general) saturate easily
    kind: Literal["none", "dot", "scaled_dot", "general", "additive", "multi_head", "location"] = (
        "multi_head"
    )
    # inner width of additive, location and multi_head; default: the decoder's
    size: Positive | None = None
    heads: Positive = 4  # multi_head only
    dropout: Probability = 0.0  # on the attention weights
    # location only (1506.07503): filters over the weights of the step before, and their width
    filters: Positive = 10
    kernel: Positive = 31  # location only: an odd number
    cumulative: bool = False  # location only: over the sum of the weights of all steps before
    # additive only: the sum of the weights of all steps before joins the score of each position
    # (1704.04368, equation 11)
    coverage: bool = False

    @field_validator("kernel")
    @classmethod
    def _odd(cls, kernel: int) -> int:
        if kernel % 2 == 0:
            raise ValueError(f"{kernel} is even; an odd one has a middle")
        return kernel


class DecoderOptions(RecurrentOptions):
    """`feeding` is how attention enters the recurrence.

    parallel: the first layer runs over the whole target, attends once, and the context joins the
    layers above (no loop over time; the arrangement of GNMT v2). input: Luong's input feeding
    (1508.04025, section 3.3). context: Bahdanau's decoder (1409.0473), whose query is the state
    before the step.
    """

    kind: Literal["lstm", "gru", "rnn"] = "lstm"  # the recurrent unit; rnn is tanh
    feeding: Literal["parallel", "input", "context"] = "parallel"
    attention: AttentionOptions = AttentionOptions()  # how memory is looked at
    # the decoder attends to its own earlier outputs too (1705.04304, section 2.2)
    intra_attention: bool = False
    # how the encoder's end becomes the first state
    start: Literal["dense", "copy", "mean", "zeros"] = "dense"
    readout: Literal["tanh", "maxout", "linear"] = "tanh"  # between decoder and vocabulary
    # pointer: a word is generated from the vocabulary or copied from where attention is, by a
    # gate (1704.04368, section 2.2)
    copy: Literal["none", "pointer"] = "none"  # type: ignore[assignment]

    @model_validator(mode="after")
    def _feeding_fits_attention(self) -> DecoderOptions:
        if self.attention.kind == "none" and self.feeding != "parallel":
            raise ValueError(
                f"feeding `{self.feeding}` needs attention; without attention use `parallel`"
            )
        if self.attention.kind == "location" and self.feeding == "parallel":
            raise ValueError(
                "attention `location` looks at the weights of the step before, which feeding "
                "`parallel` does not know; use `input` or `context`"
            )
        if self.copy != "none" and self.attention.kind == "none":
            raise ValueError("copy `pointer` copies from where attention is; `none` has no place")
        self._coverage_fits()
        if self.attention.kind == "multi_head":
            inner = self.attention.size or self.size
            if inner % self.attention.heads:
                raise ValueError(
                    f"attention size {inner} is not a multiple of heads {self.attention.heads}"
                )
        return self

    def _coverage_fits(self) -> None:
        if not self.attention.coverage:
            return
        if self.attention.kind != "additive":
            with_it = "set `cumulative: true` instead" if self.attention.kind == "location" else ""
            raise ValueError(
                "attention.coverage is a part of attention `additive`, not of "
                f"`{self.attention.kind}`; {with_it or 'use that kind'}. (The coverage loss, "
                "training.coverage, goes with every kind)"
            )
        if self.feeding == "parallel":
            raise ValueError(
                "attention.coverage looks at the weights of all steps before, which feeding "
                "`parallel` does not know; use `input` or `context`. (The coverage loss, "
                "training.coverage, goes with `parallel` too)"
            )


class CtcOptions(Options):
    """Connectionist temporal classification (Graves et al. 2006) of the memory.

    The loss is (1 - weight) x the decoder's + weight x CTC's (1609.06773).
    """

    weight: Share = 0.0  # 0: no CTC; 1: nothing but CTC, without a decoder


class TransducerOptions(Options):
    """The RNN-transducer (1211.3711), in place of the decoder: `model.decoder` is not read, and
    `model.tie` ties no output layer."""

    kind: Literal["lstm", "gru", "rnn"] = "lstm"  # the prediction network's recurrent unit
    layers: Positive = 1  # how deep
    size: Positive = 256  # its width
    dropout: Probability = 0.2  # on the output of each of its layers
    joint: Positive = 256  # width of what memory and prediction network are joined to


class InitOptions(Options):
    """Initial weights: `uniform` is Luong's (0.1) and Sutskever's (0.08), `xavier` Glorot's."""

    kind: Literal["uniform", "normal", "xavier"] = "xavier"
    scale: Annotated[float, Field(gt=0.0)] = 0.1  # uniform: its range; normal: its deviation
    orthogonal: bool = True  # recurrent matrices orthogonal, gate by gate
    forget_bias: float = 1.0  # of LSTM (Jozefowicz et al. 2015)


class ModelOptions(Options):
    embedding: Positive = 256  # width of source and target embeddings
    # embeddings x sqrt(width) (1706.03762, section 3.4): rows drawn small enough to be tied to the
    # output layer are too faint for a recurrence to hear, and learning starts late
    scale_embedding: bool = True
    embedding_dropout: Probability = 0.2  # on components of embeddings
    # whole source and target-input tokens hidden (1512.05287, section 4)
    word_dropout: Probability = 0.0
    # target embedding = output layer; all: the source's too
    tie: Literal["none", "target", "all"] = "target"
    subsampling: SubsamplingOptions = SubsamplingOptions()  # of speech
    encoder: EncoderOptions = EncoderOptions()
    decoder: DecoderOptions = DecoderOptions()
    ctc: CtcOptions = CtcOptions()  # beside or instead of the decoder
    transducer: TransducerOptions | None = None  # instead of the decoder
    output_dropout: Probability = 0.2  # on the read-out, before the vocabulary
    init: InitOptions = InitOptions()

    @property
    def has_decoder(self) -> bool:
        """Whether there is a decoder with attention: neither CTC alone nor a transducer."""
        return self.transducer is None and self.ctc.weight < 1

    @property
    def copies(self) -> bool:
        """Whether the decoder may copy words from the source."""
        return self.has_decoder and self.decoder.copy != "none"

    @model_validator(mode="after")
    def _one_way_out(self) -> ModelOptions:
        if self.decoder.copy != "none" and (self.ctc.weight or self.transducer is not None):
            other = "`transducer`" if self.transducer is not None else "`ctc.weight`"
            raise ValueError(
                f"decoder.copy `{self.decoder.copy}` does not go with {other}, which cannot copy"
            )
        if self.decoder.intra_attention and not self.has_decoder:
            other = "`transducer`" if self.transducer is not None else "`ctc.weight` 1"
            raise ValueError(
                f"decoder.intra_attention is of a decoder, and with {other} there is none; set it "
                "to false"
            )
        if self.transducer is not None and self.ctc.weight == 1:
            raise ValueError("`ctc.weight` 1 is CTC alone; a transducer needs a weight below 1")
        return self
