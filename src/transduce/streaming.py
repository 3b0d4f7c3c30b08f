"""A model that hears while somebody speaks: each frame is encoded once, and the text grows."""

from __future__ import annotations

from typing import Any

import torch

from transduce.data.audio.activity import Array
from transduce.data.audio.online import OnlineLogMel
from transduce.data.speech import SpeechSide
from transduce.errors import UsageError
from transduce.model.seq2seq import Seq2Seq
from transduce.model.streaming import GrowingMemory, looks_ahead
from transduce.output import one_line
from transduce.recipe import SearchOptions
from transduce.recognition.live import ByFrames
from transduce.search.streaming import search_memory, writer_of
from transduce.transducer import Transducer


def listener(model: Transducer, **search: Any) -> ByFrames:
    """What hears for a model, frame by frame, for `recognition.live.listen`.

    Partial texts are those of its CTC or transducer by the best path, and only grow; the final one
    is what the search options (those of a call) find in the whole utterance, encoded once. Errors:
    UsageError, with the option to change, for a model that must wait for an utterance's end.
    """
    if reason := waits_for_the_end(model):
        raise UsageError(f"{_name(model)} cannot stream: {reason}")
    side = model.source
    assert isinstance(side, SpeechSide)
    options = model.search_options(**search)
    return ByFrames(
        Growing(model, options), lambda: OnlineLogMel(side.options), normalized=side.normalized
    )


def waits_for_the_end(model: Transducer) -> str | None:
    """Why a model cannot answer before the end of an utterance, and the option; None if it can."""
    if not isinstance(model.source, SpeechSide):
        return "its source is text"
    if not isinstance(model.model, Seq2Seq):
        return "it is an ensemble; name one model"
    if reason := looks_ahead(model.model):
        return reason
    if model.source.options.normalize == "utterance":
        return (
            "frames are normalised by the mean of the whole utterance (source.normalize: "
            "utterance); train it with `source.normalize: global`"
        )
    if model.model.transducer is None and not model.model.has_ctc:
        return "it has neither CTC (model.ctc.weight) nor a transducer (model.transducer)"
    return None


class Growing:
    """The text of one utterance after another, from their frames (`recognition.live.Incremental`).

    Its `memory` and `ids`, what was encoded and what was written of the utterance, are for those
    who want to know more than the text.
    """

    def __init__(self, model: Transducer, options: SearchOptions) -> None:
        assert isinstance(model.model, Seq2Seq)
        self._transducer, self._model = model, model.model
        self._options = options
        self._begin()

    def _begin(self) -> None:
        writer = writer_of(self._model, self._options)
        assert writer is not None
        self._writer = writer
        self.memory = GrowingMemory(self._model)

    @property
    def ids(self) -> list[int]:
        """The tokens of the utterance so far."""
        return self._writer.ids

    def partial(self, frames: Array) -> str:
        """The text so far, after (n, F) normalised frames more."""
        self._hear(frames, last=False)
        return self._text(self.ids)

    def final(self) -> str:
        """The text of the utterance; the next frames begin another."""
        nothing = torch.zeros(0, self._transducer.source.size)
        self._hear(nothing.numpy(), last=True)
        text = ""
        if self.memory.positions:
            searched = self._transducer._searched(self._options)
            text = self._text(search_memory(searched, self.memory.memory(), self._options).ids)
        self._begin()
        return text

    def _hear(self, frames: Array, *, last: bool) -> None:
        self._writer.push(self.memory.push(torch.from_numpy(frames), last=last))

    def _text(self, ids: list[int]) -> str:
        return one_line(self._transducer.target.decode(ids)).strip()


def _name(model: Transducer) -> str:
    return ", ".join(str(folder) for folder in model.folders) or "this model"
