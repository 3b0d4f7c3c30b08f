"""The RNN-transducer: what was written so far joined with what is heard, at every pair of both.

Graves 2012 (1211.3711). A prediction network reads the target as a language model does; its output
at u tokens and the memory at position t together say the next token, or the blank (id 0), which
goes on to the next position. `lattice` sums over all ways.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from transduce.model.ctc import BLANK
from transduce.model.lattice import lattice_loss
from transduce.model.linear import Linear
from transduce.model.output import OutputLayer
from transduce.model.rnn import Dropout, LayerState, RecurrentLayer
from transduce.model.state import State
from transduce.recipe import TransducerOptions

CHUNK = 1 << 23  # logits alive at a time, 32 MiB


@dataclass(frozen=True)
class PredictionState(State):
    """The prediction network's state for (B, K) hypotheses: tensors (B, K, D), layer by layer."""

    layers: tuple[LayerState, ...]

    def select(self, hypotheses: Tensor) -> PredictionState:
        index = hypotheses.unsqueeze(2)
        return self.changed(lambda one: one.gather(1, index.expand(-1, -1, one.shape[2])))

    def keep(self, rows: Tensor) -> PredictionState:
        return self.changed(lambda one: one[rows])

    def join(self, other: PredictionState, width: int) -> PredictionState:
        others = iter(other._tensors())
        return self.changed(lambda one: torch.cat([one, next(others)]))

    def where(self, chosen: Tensor, other: PredictionState) -> PredictionState:
        """This state for the hypotheses `chosen` (B, K) boolean, `other` for the rest."""
        others = iter(other._tensors())
        return self.changed(lambda one: torch.where(chosen.unsqueeze(2), one, next(others)))

    def changed(self, change: Callable[[Tensor], Tensor]) -> PredictionState:
        """With `change` done to each tensor."""
        return PredictionState(
            tuple(
                LayerState(change(one.hidden), None if one.cell is None else change(one.cell))
                for one in self.layers
            )
        )

    def _tensors(self) -> list[Tensor]:
        pairs = ((one.hidden, one.cell) for one in self.layers)
        return [tensor for pair in pairs for tensor in pair if tensor is not None]


class Transducer(nn.Module):
    """Prediction network and joint; the output layer reads what they are joined to."""

    def __init__(self, options: TransducerOptions, embedding_size: int, memory_size: int) -> None:
        super().__init__()
        self.joint_size = options.joint
        self.with_cell = options.kind == "lstm"
        sizes = [embedding_size] + [options.size] * (options.layers - 1)
        self.layers = nn.ModuleList(RecurrentLayer(options.kind, s, options.size) for s in sizes)
        self.dropout = Dropout(options.dropout)
        self.memory = Linear(memory_size, options.joint)
        self.prediction = Linear(options.size, options.joint, bias=False)

    def start(self, values: Tensor) -> PredictionState:
        """The prediction network's first state for the sentences of a memory (B, S, D), K = 1."""
        layers = []
        for layer in self.layers:
            assert isinstance(layer, RecurrentLayer)
            zeros = values.new_zeros(len(values), 1, layer.rnn.hidden_size)
            layers.append(LayerState(zeros, zeros if self.with_cell else None))
        return PredictionState(tuple(layers))

    def step(self, embedded: Tensor, state: PredictionState) -> tuple[Tensor, PredictionState]:
        """Write one token more: embedded (B, K, E) -> its side of the joint (B, K, J), state."""
        hypotheses = embedded.shape[:2]
        x, layers = embedded.flatten(0, 1), []
        for layer, before in zip(
            self.layers, state.changed(lambda one: one.flatten(0, 1)).layers, strict=True
        ):
            assert isinstance(layer, RecurrentLayer)
            x, after = layer.step(x, before)
            layers.append(after)
        after_all = PredictionState(tuple(layers)).changed(lambda one: one.unflatten(0, hypotheses))
        return self.prediction(x).unflatten(0, hypotheses), after_all

    def join(self, values: Tensor, predicted: Tensor) -> Tensor:
        """Memory positions (..., D) and `step`'s side (..., J), broadcast -> input of the output
        layer (..., J)."""
        return _joined(self.memory(values), predicted)

    def predict(self, embedded: Tensor) -> Tensor:
        """All positions of given targets: embedded (B, U + 1, E), BOS first -> (B, U + 1, J)."""
        x = embedded
        for layer in self.layers:
            x = self.dropout(layer(x)[0])
        result: Tensor = self.prediction(x)
        return result

    def loss(
        self,
        memory: Tensor,
        lengths: Tensor,
        embedded: Tensor,
        targets: Tensor,
        target_lengths: Tensor,
        output: OutputLayer,
    ) -> Tensor:
        """Negative log-likelihood of each sentence in nats, (B,) float32.

        memory (B, S, D), lengths (B,) of it; embedded (B, U + 1, E), BOS first; targets (B, U) ids
        without end symbol, target_lengths (B,) of them. No more logits are alive than those of a
        few memory positions: the others are computed again for their gradients.
        """
        heard, predicted = self.memory(memory), self.predict(embedded)
        numbers = predicted.shape[0] * predicted.shape[1] * output.vocabulary
        parts = heard.split(max(1, CHUNK // numbers), dim=1)
        again = len(parts) > 1 and torch.is_grad_enabled()
        found = []
        for part in parts:
            if again:
                pair = checkpoint(
                    _ways, part, predicted, targets, output,
                    use_reentrant=False, preserve_rng_state=False,
                )  # fmt: skip
            else:
                pair = _ways(part, predicted, targets, output)
            found.append(pair)
        blank, token = (torch.cat(each, dim=1) for each in zip(*found, strict=True))
        return lattice_loss(blank, token, lengths, target_lengths)


def _joined(heard: Tensor, predicted: Tensor) -> Tensor:
    return torch.tanh(heard + predicted)


def _ways(
    heard: Tensor, predicted: Tensor, targets: Tensor, output: OutputLayer
) -> tuple[Tensor, Tensor]:
    """log-probabilities at each node of the blank (B, S, U + 1) and the next token (B, S, U)."""
    logits = output.logits(_joined(heard.unsqueeze(2), predicted.unsqueeze(1))).float()
    total = logits.logsumexp(dim=3)
    index = targets.view(len(targets), 1, -1, 1).expand(-1, heard.shape[1], -1, -1)
    tokens = logits[:, :, :-1].gather(3, index).squeeze(3)
    return logits[..., BLANK] - total, tokens - total[:, :, :-1]
