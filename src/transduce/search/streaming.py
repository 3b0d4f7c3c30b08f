"""What is said so far, from memory positions that come one after another.

The best path of CTC and the greedy search of a transducer decide about a position as soon as it is
there and never take anything back, so that what they have written only grows. They are the quick
partial answers; `search_memory` gives the whole utterance to the search that `decode` would use.
"""

from __future__ import annotations

from typing import Any, Protocol, cast

import torch
from torch import Tensor

from transduce.data.tokenizers.base import BOS, EOS
from transduce.hypotheses.hypothesis import Hypothesis
from transduce.hypotheses.scoring import max_tokens
from transduce.model.state import Memory
from transduce.recipe import SearchOptions
from transduce.search.ctc.choosing import is_transducer, search
from transduce.search.ctc.joint import CtcModel
from transduce.search.ctc.prefix import BLANK
from transduce.search.interface import SearchModel
from transduce.search.rnn_transducer import TransducerModel


class Writer(Protocol):
    """What writes down a growing memory; `ids` are the tokens so far."""

    ids: list[int]

    def push(self, values: Tensor) -> None:
        """(m, D) memory positions more."""
        ...


def writer_of(model: SearchModel, options: SearchOptions) -> Writer | None:
    """What writes while a model's memory grows, or None where neither CTC nor transducer can."""
    if is_transducer(model):
        return GreedyTransducer(cast(TransducerModel, model), options)
    if getattr(model, "has_ctc", False):
        return BestPath(cast(CtcModel, model))
    return None


class BestPath:
    """The most probable label of each position, repetitions and blanks removed (`best_paths`)."""

    def __init__(self, model: CtcModel) -> None:
        self._model = model
        self._last = BLANK
        self.ids: list[int] = []

    @torch.inference_mode()
    def push(self, values: Tensor) -> None:
        if not len(values):
            return
        labels = self._model.ctc_log_probs(memory_of(values)).squeeze(0)
        labels[:, [BOS, EOS]] = -torch.inf
        for label in labels.argmax(dim=1).tolist():
            if label not in (BLANK, self._last):
                self.ids.append(label)
            self._last = label


class GreedyTransducer:
    """The best label or blank at each node (`transducer_search` with a beam of 1)."""

    def __init__(self, model: TransducerModel, options: SearchOptions) -> None:
        self._model, self._options = model, options
        self._heard = 0
        self._said: tuple[Tensor, Any] | None = None  # prediction (1, 1, P) and its state
        self.ids: list[int] = []

    @torch.inference_mode()
    def push(self, values: Tensor) -> None:
        for value in values:
            self._heard += 1
            most = max_tokens(self._heard, self._options)
            if self._said is None:
                self._write(BOS, self._model.start(memory_of(value.unsqueeze(0))))
            while len(self.ids) < most:
                token = self._best(value)
                if token == BLANK:
                    break
                assert self._said is not None
                self.ids.append(token)
                self._write(token, self._said[1])

    def _best(self, value: Tensor) -> int:
        assert self._said is not None
        log_probs = self._model.join(value.view(1, 1, -1), self._said[0]).flatten()
        log_probs[[BOS, EOS]] = -torch.inf
        return int(log_probs.argmax())

    def _write(self, token: int, state: Any) -> None:
        given = torch.tensor([[token]], device=getattr(self._model, "device", None))
        self._said = self._model.predict(given, state)


def memory_of(values: Tensor) -> Memory:
    """Positions (m, D) as the memory of a batch of one."""
    whole = values.unsqueeze(0)
    return Memory(whole, torch.ones(whole.shape[:2], dtype=torch.bool, device=whole.device))


@torch.inference_mode()
def search_memory(model: SearchModel, memory: Memory, options: SearchOptions) -> Hypothesis:
    """The best hypothesis of one utterance whose memory is there already (a batch of one)."""
    encoded = cast(SearchModel, _Encoded(model, memory))
    return search(encoded, memory.values, memory.mask.sum(dim=1).cpu(), options)[0][0]


class _Encoded:
    """A model for which a source is its memory; everything else is the model's own."""

    def __init__(self, model: SearchModel, memory: Memory) -> None:
        self._model, self._memory = model, memory

    def encode(self, source: Tensor, lengths: Tensor) -> Memory:
        return self._memory

    def memory_lengths(self, lengths: Tensor) -> Tensor:
        return lengths

    def __getattr__(self, name: str) -> Any:
        return getattr(self._model, name)
