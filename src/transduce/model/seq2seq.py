"""The whole model: embeddings, encoder, decoder, output layer, and the three calls of search."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor, nn

from transduce.errors import UsageError
from transduce.kernels.plan import Plan
from transduce.model.copying import Copying
from transduce.model.decoder import DecoderState, RecurrentDecoder
from transduce.model.embedding import Embedding
from transduce.model.encoder import RecurrentEncoder
from transduce.model.output import OutputLayer
from transduce.model.plan import plan_of
from transduce.model.plan_source import plan_from_source
from transduce.model.rnn import Dropout, RecurrentLayer, drop_words
from transduce.model.state import (
    Draft,
    Features,
    Given,
    Memory,
    Pointer,
    State,
    Step,
    StepFeatures,
)
from transduce.model.subsampling import Subsampling
from transduce.model.transducer import PredictionState, Transducer
from transduce.model.transformer import SelfAttentiveEncoder


class Seq2Seq(nn.Module):
    """Encoder, memory, and what reads it: a decoder with attention or a transducer, CTC, or both.

    Training asks for `features` (all T target positions at once) and the output layer's loss;
    search asks for `encode`, `start` and `step` (K hypotheses of each sentence), or for
    `ctc_log_probs`, or for `start`, `predict` and `join`. Where there is CTC alone, the
    output layer reads the memory.
    """

    def __init__(
        self,
        source: nn.Embedding | Subsampling,
        target_embedding: nn.Embedding | None,
        encoder: RecurrentEncoder | SelfAttentiveEncoder,
        decoder: RecurrentDecoder | None,
        output: OutputLayer,
        *,
        copying: Copying | None = None,
        transducer: Transducer | None = None,
        ctc: OutputLayer | None = None,
        ctc_weight: float = 0.0,
        embedding_scale: float = 1.0,
        embedding_dropout: float = 0.0,
        word_dropout: float = 0.0,
        output_dropout: float = 0.0,
    ) -> None:
        super().__init__()
        self.source_embedding = source if isinstance(source, nn.Embedding) else None
        self.subsampling = source if isinstance(source, Subsampling) else None
        self.target_embedding = target_embedding
        self.encoder = encoder
        self.decoder = decoder
        self.output = output
        self.copying = copying
        self.transducer = transducer
        self.ctc = ctc
        self.ctc_weight = ctc_weight
        # In the inference form: what each token says to the first layer of the decoder, and to that
        # of the encoder, both directions side by side (`packing`).
        self.step_embedding: nn.Embedding | None = None
        self.source_gates: nn.Embedding | None = None
        self.embedding_scale = embedding_scale
        self.embedding_dropout = Dropout(embedding_dropout)
        self.word_dropout = word_dropout
        self.output_dropout = Dropout(output_dropout)

    def _embed(
        self, embedding: nn.Embedding, ids: Tensor, readers: Sequence[RecurrentLayer] = ()
    ) -> Tensor:
        """`readers`: the layers that alone read it, whole, if it is known."""
        if readers and isinstance(embedding, Embedding):
            embedded = embedding(ids, all(layer.kind == "lstm" for layer in readers))
        else:
            embedded = embedding(ids)
        if self.embedding_scale != 1:
            embedded = embedded * self.embedding_scale
        return drop_words(self.embedding_dropout(embedded), self.word_dropout, self.training)

    def encode(self, source: Tensor, lengths: Tensor) -> Memory:
        """source (B, S) int64 padded with 0, or (B, S, F) frames padded with zeros; lengths (B,) of
        at least 1 -> Memory, of `memory_lengths(lengths)` positions. Where words are copied, source
        ids are those of `data.copying`."""
        if self.subsampling is not None:
            x = self.subsampling(source, lengths)
            lengths = self.subsampling.lengths(lengths)
        else:
            assert self.source_embedding is not None
            ids = source if self.copying is None else self.copying.source_ids(source)
            if self.source_gates is not None:
                x = self.source_gates(ids)
            else:
                readers = []
                if isinstance(self.encoder, RecurrentEncoder):
                    readers = self.encoder.fed_by_tokens()
                x = self._embed(self.source_embedding, ids, readers)
        memory: Memory = self.encoder(x, lengths)
        if self.copying is not None:
            memory = replace(memory, copies=self.copying.copies(source))
        return memory

    def memory_lengths(self, lengths: Tensor) -> Tensor:
        """Real memory positions of sources with so many real positions: (B,) int64 -> (B,)."""
        if self.subsampling is not None:
            lengths = self.subsampling.lengths(lengths)
        return self.encoder.memory_lengths(lengths)

    @property
    def has_ctc(self) -> bool:
        """Whether there are `ctc_log_probs`."""
        return self.ctc_weight > 0

    def ctc_log_probs(self, memory: Memory) -> Tensor:
        """What each memory position says: (B, S', V) float32, normalised; the blank is id 0.

        Errors: UsageError for a model without CTC.
        """
        if not self.has_ctc:
            raise UsageError("this model was trained without CTC (model.ctc.weight 0)")
        return (self.ctc or self.output).log_probs(memory.values)

    def start(self, memory: Memory) -> State:
        """The state before the first target position, one hypothesis a sentence (K = 1)."""
        if self.transducer is not None:
            return self.transducer.start(memory.values)
        return self._decoder().start(memory)

    def _decoder(self) -> RecurrentDecoder:
        if self.decoder is None:
            by = "CTC" if self.transducer is None else "transducer"
            raise UsageError(f"this model has no decoder: it is searched by its {by} alone")
        return self.decoder

    # -------------------------------------------------------------------- where it is a transducer

    def predict(self, tokens: Tensor, state: State) -> tuple[Tensor, State]:
        """Write tokens (B, K) int64, BOS at first -> their side of the joint (B, K, J), state."""
        assert isinstance(state, PredictionState) and self.target_embedding is not None
        return self._transducer().step(self._embed(self.target_embedding, tokens), state)

    def join(self, values: Tensor, predicted: Tensor) -> Tensor:
        """What is said at memory positions (..., D) after `predict`'s (..., J), broadcast:
        log-probabilities (..., V) float32 of tokens and, at 0, the blank."""
        return self.output.log_probs(self._transducer().join(values, predicted))

    def transducer_loss(
        self, memory: Memory, target_input: Tensor, target_lengths: Tensor
    ) -> Tensor:
        """Negative log-likelihoods (B,) in nats of targets as those of a batch: target_input
        (B, T), BOS first; target_lengths (B,), end symbols (which are not written) included."""
        transducer, embedding = self._transducer(), self.target_embedding
        assert embedding is not None
        return transducer.loss(
            memory.values,
            memory.mask.sum(dim=1),
            self._embed(embedding, target_input),
            target_input[:, 1:],
            target_lengths - 1,
            self.output,
        )

    def _transducer(self) -> Transducer:
        if self.transducer is None:
            raise UsageError("this model is no transducer")
        return self.transducer

    # ------------------------------------------------------------------------ where it is a decoder

    def step(self, tokens: Tensor, state: State, memory: Memory) -> Step:
        """Extend K hypotheses by one position.

        tokens: (B, K) int64, the last token of each hypothesis (BOS at first).
        """
        features = self.step_features(tokens, state)
        logits, attention = self.output.logits(features.values), features.attention
        if self.copying is None:
            return Step(logits, features.state, attention)
        assert features.gate is not None and attention is not None and memory.copies is not None
        pointer = Pointer(features.gate, attention, memory.copies)
        return Step(Draft(logits, pointer), features.state, attention, copied=pointer)

    def step_features(self, tokens: Tensor, state: State) -> StepFeatures:
        """A step as far as the output layer."""
        assert isinstance(state, DecoderState)
        assert self.target_embedding is not None
        word = None
        if self.copying is not None:
            tokens = self.copying.target_ids(tokens)
            if self.step_embedding is not None:
                word = self._embed(self.target_embedding, tokens)
        if self.step_embedding is not None:
            embedded = self.step_embedding(tokens)
        else:
            embedded = self._embed(self.target_embedding, tokens)
        step = self._decoder().step(embedded, state, word=word)
        return replace(step, values=self.output_dropout(step.values))

    def features(self, memory: Memory, target_input: Tensor) -> Features:
        """All target positions, teacher-forced. target_input (B, T) int64, BOS first."""
        decoder = self._decoder()
        assert self.target_embedding is not None
        if self.copying is not None:
            target_input = self.copying.target_ids(target_input)
        first = self.first_fed_by_tokens() if self.copying is None else None  # whose gate reads it
        embedded = self._embed(self.target_embedding, target_input, [first] if first else [])
        features = decoder.features(memory, embedded)
        return replace(features, values=self.output_dropout(features.values))

    def plan(
        self, memory: Memory, state: State, output: object = None, words: Tensor | None = None
    ) -> Plan | None:
        """A step for the only sentence of a memory written down, where it can be; `output` is the
        output layer's product where it is for some `words` (U,) only."""
        table = self.step_embedding or self.target_embedding
        assert table is not None
        return plan_of(self.decoder, table.weight, state, output or self.output.product, words)

    def plan_from_source(self, source: Tensor, lengths: Tensor) -> Plan | None:
        """The search of sources (B, S), padded with 0, written down from their tokens on, where it
        can be; lengths (B,)."""
        asked, table = self.source_embedding, self.step_embedding or self.target_embedding
        if self.decoder is None or self.copying is not None or asked is None or table is None:
            return None
        least, most = torch.aminmax(source)
        if not 0 <= int(least) <= int(most) < asked.num_embeddings:
            return None  # which kernels would not see
        said = self.source_gates or asked
        product = self.output.product
        return plan_from_source(self.encoder, self.decoder, said.weight, table.weight, product)

    def forward(
        self, source: Tensor, lengths: Tensor, target_input: Tensor
    ) -> tuple[Tensor, Tensor | None]:
        """Log-probabilities (B, T, V) and attention (B, T, S) of teacher-forced targets."""
        given = self.given(source, lengths, target_input)
        return given.log_probs, given.attention

    def given(self, source: Tensor, lengths: Tensor, target_input: Tensor) -> Given:
        """What the model says of teacher-forced targets, `target_input` (B, T) int64, BOS first.

        Where words are copied, V is wider by columns of words that are only in the source (see
        `copying`): `columns` says which column each target is in.
        """
        memory = self.encode(source, lengths)
        features = self.features(memory, target_input)
        if self.copying is None:
            return Given(self.output.log_probs(features.values), features.attention)
        gate, attention, copies = features.gate, features.attention, memory.copies
        assert gate is not None and attention is not None and copies is not None
        logits = self.output.logits(features.values)
        pointer = Pointer(gate, attention, copies)
        return Given(torch.log_softmax(pointer.mixed(logits), dim=-1), attention, pointer)

    def columns(self, source: Tensor, target: Tensor) -> Tensor:
        """Where `forward` has the log-probabilities of targets (B, T): themselves, but for words
        that are copied from sources (B, S)."""
        return target if self.copying is None else self.copying.columns(source, target)

    def first_fed_by_tokens(self) -> RecurrentLayer | None:
        """The decoder's first layer, if it is fed by the embedded token and nothing else."""
        if self.decoder is None:
            return None
        first = self.decoder.layers[0]
        assert isinstance(first, RecurrentLayer)
        return first if self.decoder.feeding == "parallel" else None

    def scale_embeddings(self) -> None:
        """Multiply the scale of embeddings into their weights, untying them from the output."""
        shared = self.source_embedding is self.target_embedding
        if self.target_embedding is not None:
            self.target_embedding = _scaled(self.target_embedding, self.embedding_scale)
        if shared:
            self.source_embedding = self.target_embedding
        elif self.source_embedding is not None:
            self.source_embedding = _scaled(self.source_embedding, self.embedding_scale)
        self.embedding_scale = 1.0

    @property
    def varies(self) -> str | None:
        """What makes the work of training on a batch of ids depend on more than its shape, or wait
        for the device; None if nothing does."""
        if self.subsampling is not None:
            return "the source is speech"
        if self.copying is not None:
            return "words are copied from the source"
        if self.decoder is None or self.ctc_weight:
            return "the loss is one of CTC or of a transducer"
        if self.encoder.tells_lengths:
            return "decoder.start `copy` tells cuDNN the lengths of every batch"
        return None

    @property
    def device(self) -> torch.device:
        return self.output.bias.device


def _scaled(embedding: nn.Embedding, scale: float) -> nn.Embedding:
    return nn.Embedding.from_pretrained(embedding.weight.detach() * scale)
