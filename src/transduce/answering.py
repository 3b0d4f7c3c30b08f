"""What the models that answer have in common: each input gives one output, in order.

A model says how it reads its inputs, which search options there are, and how it decodes; taking
inputs of every shape, reading ahead, and making outputs of hypotheses are written here, without
torch, for the model folder (`transducer`) and the exported one (`runtime`) alike.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from itertools import islice
from typing import Any, Generic, Protocol, TypeVar, cast, overload

from transduce.data.copying import target_text, target_tokens
from transduce.data.speech import SpeechSide
from transduce.data.text import TextSide
from transduce.data.tokenizers.base import UNK
from transduce.errors import DataError
from transduce.hypotheses import Hypothesis, replace_unknown
from transduce.inputs import (
    WINDOW,
    Input,
    Source,
    Text,
    at_rate,
    check_inputs,
    is_one,
    joined,
    read_texts,
)
from transduce.output import Output, one_line

Item = TypeVar("Item")
Result = TypeVar("Result")


class Options(Protocol):
    """What is asked of search options here."""

    @property
    def max_source(self) -> int: ...
    @property
    def length(self) -> str | None: ...
    @property
    def n_best(self) -> int: ...
    @property
    def replace_unknown(self) -> bool: ...


Chosen = TypeVar("Chosen", bound=Options)


class Answering(ABC, Generic[Chosen]):
    """Answers `str` with Output, a list with a list, any other iterable with an iterator.

    Each input gives exactly one output, in order: blank, over-long, undecodable and failing inputs
    too, whose Output has a `reason`. Results do not depend on what else is decoded beside an input.
    """

    source: TextSide | SpeechSide
    target: TextSide

    @abstractmethod
    def search_options(self, /, **overrides: Any) -> Chosen:
        """The recipe's search options with some replaced; UsageError names a wrong one."""

    @abstractmethod
    def _decode(self, sources: list[Source], options: Chosen) -> list[list[Hypothesis]]:
        """One n-best list a source, empty for a source that fails and then has its reason."""

    @overload
    def __call__(self, inputs: Any, rate: int, **search: Any) -> Output: ...
    @overload
    def __call__(self, inputs: Input, rate: None = None, **search: Any) -> Output: ...
    @overload
    def __call__(
        self, inputs: list[str] | tuple[str, ...], rate: None = None, **search: Any
    ) -> list[Output]: ...
    @overload
    def __call__(
        self, inputs: Iterable[Input], rate: None = None, **search: Any
    ) -> Iterator[Output]: ...

    def __call__(self, inputs: Any, rate: int | None = None, **search: Any) -> Any:
        """Decode; keywords override the recipe's search options (beam=1, n_best=3, …).

        Where the source is speech, an input is the path of a sound file, or (samples, rate);
        one of these may be given as two arguments: samples, (N,) or (N, channels), and `rate`, Hz.
        Errors: UsageError for what is no input, and for samples without their rate.
        """
        heard = isinstance(self.source, SpeechSide)
        if rate is not None:
            inputs = at_rate(inputs, rate, heard=heard)
        check_inputs(inputs, heard=heard)
        if is_one(inputs):
            return next(self.stream([inputs], **search))
        if isinstance(inputs, (list, tuple)):
            return list(self.stream(inputs, **search))
        return self.stream(inputs, **search)

    def stream(
        self, inputs: Iterable[Input], *, window: int = WINDOW, **search: Any
    ) -> Iterator[Output]:
        """Outputs one by one; `window` inputs are read ahead (1: each is answered at once)."""
        return self._stream(inputs, window, self.search_options(**search))

    def _stream(self, inputs: Iterable[Input], window: int, options: Chosen) -> Iterator[Output]:
        rest = iter(inputs)
        while taken := list(islice(rest, max(1, window))):
            sources = self._read(taken, options)
            for source, hypotheses in zip(sources, self._decode(sources, options), strict=True):
                yield self._output(source, hypotheses, options)

    def _read(self, taken: Sequence[Input], options: Options) -> list[Source]:
        """Inputs as what the model reads, each at most `options.max_source` long."""
        texts = cast(Sequence[Text], taken)
        return read_texts(cast(TextSide, self.source), texts, options.max_source, options.length)

    def _output(self, source: Source, hypotheses: list[Hypothesis], options: Chosen) -> Output:
        if not len(source.ids) or not hypotheses:
            return Output("", source_tokens=source.tokens, reason=source.reason)
        outputs = [self._one(source, hypothesis, options) for hypothesis in hypotheses]
        return replace(outputs[0], n_best=outputs) if options.n_best > 1 else outputs[0]

    def _one(self, source: Source, hypothesis: Hypothesis, options: Chosen) -> Output:
        tokens = target_tokens(self.target, hypothesis.ids, source.tokens)
        text = target_text(self.target, hypothesis.ids, source.tokens)
        if options.replace_unknown and hypothesis.attention is not None and UNK in hypothesis.ids:
            tokens = replace_unknown(tokens, source.tokens, hypothesis.attention)
            text = self.target.decode_tokens(tokens)
        reason = joined(source.reason, hypothesis.reason)
        if reason is None and not hypothesis.finished:
            reason = f"cut after {len(hypothesis.ids)} tokens, the longest allowed for this input"
        return Output(
            text=one_line(text),
            score=hypothesis.score,
            log_prob=hypothesis.log_prob,
            tokens=tokens,
            token_scores=hypothesis.token_scores,
            source_tokens=source.tokens,
            attention=hypothesis.attention,
            reason=reason,
            times=self._times(source, hypothesis),
            copied=hypothesis.copied,
        )

    def _times(self, source: Source, hypothesis: Hypothesis) -> list[tuple[float, float]] | None:
        """Seconds at which each token begins and ends."""
        if hypothesis.spans is None or not isinstance(self.source, SpeechSide):
            return None
        seconds = self.source.seconds_of(len(source.ids))
        return [(begin * seconds, end * seconds) for begin, end in hypothesis.spans.tolist()]


def each(
    items: list[Item],
    answer: Callable[[list[Item]], list[Result]],
    fail: Callable[[Item, str], Result],
) -> list[Result]:
    """The answers to items; a failure is halved down to the item it belongs to.

    `fail` makes the answer to that item from the failure's message, one line.
    """
    if not items:
        return []
    try:
        return answer(items)
    except (DataError, RuntimeError, MemoryError) as error:
        if len(items) == 1:
            return [fail(items[0], one_line(str(error)) or type(error).__name__)]
    half = len(items) // 2  # outside of `except`, which keeps the failed batch in memory
    return each(items[:half], answer, fail) + each(items[half:], answer, fail)


def failed(source: Source, message: str) -> None:
    """Note that a source cannot be answered, and why."""
    source.reason = joined(source.reason, f"failed: {message}")
