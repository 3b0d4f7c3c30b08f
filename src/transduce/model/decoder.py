"""The recurrent decoder: Q queries over one memory, fed in one of three ways.

parallel  the first layer runs over all T at once, one batched attention follows, and its context
          joins the input of the layers above (as in GNMT, Wu et al. 2016, 1609.08144, section 3)
input     Luong's input feeding: the attentional vector of the step before joins the input
          (Luong et al. 2015, 1508.04025, section 3.3)
context   Bahdanau's decoder: the state before the step asks, its context joins the input
          (Bahdanau et al. 2015, 1409.0473, appendix A.2)
Without attention the decoder lives on the encoder's end alone (Sutskever et al. 2014, 1409.3215).
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from transduce.kernels import bend, takes
from transduce.model.attention import Attended, Attention, build_attention
from transduce.model.bridge import Bridge
from transduce.model.gate import Gate
from transduce.model.intra import Earlier, IntraAttention
from transduce.model.linear import Linear
from transduce.model.rnn import Dropout, LayerState, RecurrentLayer
from transduce.model.state import Features, Memory, State, StepFeatures
from transduce.recipe import DecoderOptions


@dataclass(frozen=True)
class DecoderState(State):
    """layers: each layer's state, (B x K, D), hypotheses of a sentence side by side; feed: (B x K,
    E), the last read-out, where it is fed back; beam: K; attended: the memory, projected once,
    shared by all K hypotheses of a sentence; seen: (B x K, S), the attention weights so far, where
    attention looks at them (`location`, coverage); earlier: the outputs so far, where the decoder
    looks at them (`intra`)."""

    layers: tuple[LayerState, ...]
    feed: Tensor | None
    attended: Attended | None
    beam: int = 1
    seen: Tensor | None = None
    earlier: Earlier | None = None

    def select(self, hypotheses: Tensor) -> DecoderState:
        batch, beam = hypotheses.shape
        ends = batch * self.beam
        first = torch.arange(0, ends, self.beam, device=hypotheses.device).unsqueeze(1)
        return self._rows((first + hypotheses).flatten(), self.attended, beam)

    def keep(self, rows: Tensor) -> DecoderState:
        index = rows
        if self.beam > 1:
            slots = torch.arange(self.beam, device=rows.device)
            index = (rows.unsqueeze(1) * self.beam + slots).flatten()
        attended = None if self.attended is None else self.attended.keep(rows)
        return self._rows(index, attended, self.beam)

    def join(self, other: DecoderState, width: int) -> DecoderState:
        assert self.beam == other.beam
        attended = feed = None
        if self.attended is not None and other.attended is not None:
            attended = self.attended.join(other.attended, width)
        if self.feed is not None and other.feed is not None:
            feed = torch.cat([self.feed, other.feed])
        seen = None
        if self.seen is not None and other.seen is not None:
            wide = [nn.functional.pad(x, (0, width - x.shape[1])) for x in (self.seen, other.seen)]
            seen = torch.cat(wide)
        earlier = None
        if self.earlier is not None and other.earlier is not None:
            earlier = self.earlier.join(other.earlier)
        layers = tuple(a.join(b) for a, b in zip(self.layers, other.layers, strict=True))
        return DecoderState(layers, feed, attended, self.beam, seen, earlier)

    def _rows(self, index: Tensor, attended: Attended | None, beam: int) -> DecoderState:
        layers = tuple(
            LayerState(
                layer.hidden.index_select(0, index),
                None if layer.cell is None else layer.cell.index_select(0, index),
            )
            for layer in self.layers
        )
        feed = None if self.feed is None else self.feed.index_select(0, index)
        seen = None if self.seen is None else self.seen.index_select(0, index)
        earlier = None if self.earlier is None else self.earlier.rows(index)
        return DecoderState(layers, feed, attended, beam, seen, earlier)


class Readout(nn.Module):
    """From decoder output, context (and embedding) to the width of the output layer.

    tanh: Luong's attentional vector; maxout: Bahdanau's deep output (appendix A.2.2).
    """

    def __init__(self, kind: str, input_size: int, size: int) -> None:
        super().__init__()
        self.kind = kind
        self.size = size
        self.linear = Linear(input_size, 2 * size if kind == "maxout" else size)

    def forward(self, parts: list[Tensor]) -> Tensor:
        """parts: tensors (..., D_i) side by side -> (..., size)."""
        x = self.linear(torch.cat(parts, dim=-1))
        if self.kind == "tanh":
            return bend(x) if takes(x) else torch.tanh(x)
        if self.kind == "maxout":
            return x.unflatten(-1, (-1, 2)).amax(dim=-1)
        return x


class RecurrentDecoder(nn.Module):
    """Embedded target positions in, features (input of the output layer) and attention out."""

    def __init__(
        self, options: DecoderOptions, embedding_size: int, memory_size: int, encoder_layers: int
    ) -> None:
        super().__init__()
        self.feeding = options.feeding
        self.residual = options.residual
        self.attention = build_attention(options.attention, options.size, memory_size)
        context = self.attention.context_size if self.attention is not None else 0
        first, above = embedding_size, options.size
        if self.feeding == "parallel":
            above += context
        elif self.feeding == "input":
            first += embedding_size
        else:
            first += context
        sizes = [first] + [above] * (options.layers - 1)
        self.layers = nn.ModuleList(RecurrentLayer(options.kind, s, options.size) for s in sizes)
        self.norms = nn.ModuleList(
            nn.LayerNorm(options.size) if options.layer_norm else nn.Identity() for _ in sizes
        )
        self.dropout = Dropout(options.dropout, options.variational)
        self.bridge = Bridge(
            options.start, options.kind, options.layers, options.size, memory_size, encoder_layers
        )
        self.intra = IntraAttention(options.size) if options.intra_attention else None
        if self.intra is not None:
            context += options.size
        self.gate = None
        if options.copy != "none":
            self.gate = Gate(options.size + context + embedding_size)
        deep = embedding_size if self.feeding == "context" else 0
        self.readout = Readout(options.readout, options.size + context + deep, embedding_size)

    # ------------------------------------------------------------------------------- interface

    def start(self, memory: Memory) -> DecoderState:
        """The state before the first target position, K = 1."""
        hidden, cell = self.bridge(memory)
        cells = [None] * len(self.layers) if cell is None else cell.unbind(0)
        layers = tuple(LayerState(h, c) for h, c in zip(hidden.unbind(0), cells, strict=True))
        feed = None
        if self.feeding == "input":
            feed = hidden.new_zeros(hidden.shape[1], self.readout.size)
        attended = None
        if self.attention is not None:
            attended = self.attention.prepare(memory.values, memory.mask)
        seen = None
        if self.attention is not None and self.attention.looks_back:
            seen = torch.zeros(memory.mask.shape, device=hidden.device)
        earlier = None if self.intra is None else Earlier.none(hidden[-1])
        return DecoderState(layers, feed, attended, seen=seen, earlier=earlier)

    def step(
        self,
        embedded: Tensor,
        state: DecoderState,
        masks: list[Tensor | None] | None = None,
        word: Tensor | None = None,
    ) -> StepFeatures:
        """One target position for K hypotheses, embedded (B, K, E).

        `masks` are one variational dropout mask (B, 1, D) a layer, for loops over time in training.
        `word` (B, K, E) is for the gate, where `embedded` is what it says to the first layer.
        """
        beam = embedded.shape[1]
        embedded = embedded.flatten(0, 1)  # (N, E), N = B x K
        context = weights = None
        # 1. What joins the embedding: nothing, the last read-out, or the context asked for by
        #    the top layer's state before this step.
        x = embedded
        if self.feeding == "input":
            assert state.feed is not None
            x = torch.cat([embedded, state.feed.to(embedded.dtype)], dim=-1)
        elif self.feeding == "context":
            context, weights = self._ask(state.layers[-1].hidden, state, beam)
            x = torch.cat([embedded, context.to(embedded.dtype)], dim=-1)
        # 2. Layer by layer; with parallel feeding the first layer's output is the query.
        layers = []
        for i, layer in enumerate(self.layers):
            assert isinstance(layer, RecurrentLayer)
            outputs, after = layer.step(x, state.layers[i])
            layers.append(after)
            outputs = self.norms[i](outputs)
            if self.training:
                mask = None if masks is None else masks[i]
                outputs = self.dropout(outputs.unsqueeze(1), mask).squeeze(1)
            above = self._join(i, x, outputs)
            if self.feeding == "parallel" and i == 0 and self.attention is not None:
                context, weights = self._ask(above, state, beam)
            x = self._with_context(i, above, context)
        # 3. Input feeding asks with the top layer's output.
        if self.feeding == "input":
            context, weights = self._ask(above, state, beam)
        # 4. What the steps before have said.
        earlier = state.earlier
        if self.intra is not None and earlier is not None:
            context = _beside(context, self.intra.step(above, earlier))
            earlier = self.intra.keep(earlier, above)
        # 5. Read out.
        features = self._read_out(above, context, embedded)
        gate = self._gate(above, context, embedded if word is None else word.flatten(0, 1))
        feed = features if self.feeding == "input" else None
        seen = self._saw(state, weights)
        after_all = DecoderState(tuple(layers), feed, state.attended, beam, seen, earlier)
        return StepFeatures(
            features.unflatten(0, (-1, beam)),
            after_all,
            weights,
            None if gate is None else gate.unflatten(0, (-1, beam)),
        )

    def features(self, memory: Memory, embedded: Tensor) -> Features:
        """All target positions. embedded (B, T, E) -> Features of (B, T, E)."""
        state = self.start(memory)
        if self.feeding == "parallel":
            return self._whole(embedded, state)
        masks = [self.dropout.mask(layer.hidden.unsqueeze(1)) for layer in state.layers]
        steps = []
        for position in range(embedded.shape[1]):
            steps.append(self.step(embedded[:, position : position + 1], state, masks))
            state = steps[-1].state  # type: ignore[assignment]
        return Features(
            torch.cat([step.values for step in steps], dim=1),
            torch.cat([step.attention for step in steps], dim=1),  # type: ignore[misc]
            None if self.gate is None else torch.cat([step.gate for step in steps], dim=1),  # type: ignore[misc]
        )

    # ---------------------------------------------------------------------------------- inside

    def _whole(self, embedded: Tensor, state: DecoderState) -> Features:
        """Parallel feeding: one call a layer, one attention for all queries."""
        context = weights = None
        x = above = embedded
        for i, layer in enumerate(self.layers):
            outputs, _ = layer(x, state.layers[i])
            above = self._join(i, x, self.dropout(self.norms[i](outputs)))
            if i == 0 and self.attention is not None:
                context, weights = self._attend(above, state)
            x = self._with_context(i, above, context)
        if self.intra is not None:
            context = _beside(context, self.intra(above))
        gate = self._gate(above, context, embedded)
        return Features(self._read_out(above, context, embedded), weights, gate)

    def _ask(self, query: Tensor, state: DecoderState, beam: int) -> tuple[Tensor, Tensor]:
        """query (B x K, D) -> context (B x K, C), weights (B, K, S)."""
        context, weights = self._attend(query.view(-1, beam, query.shape[1]), state)
        return context.flatten(0, 1), weights

    def _attend(self, query: Tensor, state: DecoderState) -> tuple[Tensor, Tensor]:
        assert self.attention is not None and state.attended is not None
        result: tuple[Tensor, Tensor]
        if state.seen is not None:
            seen = state.seen.view(*query.shape[:2], -1)
            result = self.attention(query, state.attended, seen)
        else:
            result = self.attention(query, state.attended)
        return result

    def _saw(self, state: DecoderState, weights: Tensor | None) -> Tensor | None:
        if state.seen is None or weights is None:
            return None
        assert isinstance(self.attention, Attention)
        return self.attention.saw(state.seen, weights.flatten(0, 1))

    def _join(self, i: int, x: Tensor, outputs: Tensor) -> Tensor:
        """The residual connection: around layers above the first, without the context."""
        if not self.residual or i == 0:
            return outputs
        return outputs + x[..., : outputs.shape[-1]]

    def _with_context(self, i: int, above: Tensor, context: Tensor | None) -> Tensor:
        if self.feeding == "parallel" and context is not None and i + 1 < len(self.layers):
            return torch.cat([above, context.to(above.dtype)], dim=-1)
        return above

    def _gate(self, above: Tensor, context: Tensor | None, embedded: Tensor) -> Tensor | None:
        """The logit of p_gen (...), float32, where words are copied."""
        if self.gate is None or context is None:
            return None
        gate: Tensor = self.gate([above, context, embedded])
        return gate

    def _read_out(self, above: Tensor, context: Tensor | None, embedded: Tensor) -> Tensor:
        parts = [above]
        if context is not None:
            parts.append(context.to(above.dtype))
        if self.feeding == "context":
            parts.append(embedded.to(above.dtype))
        result: Tensor = self.readout(parts)
        return result


def _beside(context: Tensor | None, more: Tensor) -> Tensor:
    """Two contexts (..., C) as one."""
    return more if context is None else torch.cat([context.to(more.dtype), more], dim=-1)
