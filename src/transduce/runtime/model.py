"""The user's object for an exported folder: it answers texts with texts, as a Transducer does."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import replace
from functools import cached_property
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, overload

from transduce.data.tokenizers.base import UNK
from transduce.errors import FolderError
from transduce.folder import MANIFEST, RECIPE
from transduce.hypotheses import Hypothesis, replace_unknown
from transduce.inputs import WINDOW, Source, Text, joined, read_texts
from transduce.output import Output, one_line
from transduce.runtime.decode import decode
from transduce.runtime.folder import DECODER, ENCODER, ExportedFolder, open_exported
from transduce.runtime.network import Network
from transduce.runtime.options import Search

if TYPE_CHECKING:
    from transduce.recipe import Recipe


def load(folder: str | Path, *, threads: int | None = None) -> ExportedModel:
    """Load an exported folder; it runs on the CPU, with so many threads (None: all cores).

    Errors: FolderError when the folder is missing, incomplete or altered, UsageError when
    onnxruntime is not installed.
    """
    opened = open_exported(Path(folder))
    network = Network(opened.path / ENCODER, opened.path / DECODER, threads)
    try:
        return ExportedModel(opened, network)
    except (KeyError, TypeError, ValueError, re.error) as error:
        # The one file without a checksum.
        name = opened.path / MANIFEST
        raise FolderError(f"{name}: damaged ({error!r}). Export it again") from error


class ExportedModel:
    """Answers `str` with Output, a list with a list, any other iterable with an iterator.

    Each input gives exactly one output, in order: blank, over-long, undecodable and failing inputs
    too, whose Output has a `reason`. Results do not depend on what else is decoded beside an input.
    """

    def __init__(self, folder: ExportedFolder, network: Network) -> None:
        self.folder = folder
        self.network = network
        self.source = folder.side("source")
        self.target = folder.side("target")
        self.search_options()  # a damaged folder says so when it is loaded, not when it is asked

    @property
    def task(self) -> str:
        return str(self.folder.manifest["task"])

    @property
    def precision(self) -> str:
        """`fp32` or `int8`."""
        return str(self.folder.about["precision"])

    @property
    def parameters(self) -> int:
        """How many weights the model has, those shared by several layers counted once."""
        return int(self.folder.about["parameters"])

    @cached_property
    def recipe(self) -> Recipe:
        """The recipe of the model, read when asked for (it needs pydantic and PyYAML)."""
        from transduce.recipe_files import load_recipe

        return load_recipe(self.folder.path / RECIPE)

    def __repr__(self) -> str:
        return f"<ExportedModel {self.folder.path}: {self.task}, {self.precision}>"

    @overload
    def __call__(self, inputs: Text, **search: Any) -> Output: ...
    @overload
    def __call__(self, inputs: list[str] | tuple[str, ...], **search: Any) -> list[Output]: ...
    @overload
    def __call__(self, inputs: Iterable[Text], **search: Any) -> Iterator[Output]: ...

    def __call__(self, inputs: Any, **search: Any) -> Any:
        """Decode; keywords override the recipe's search options (beam=1, n_best=3, …)."""
        if isinstance(inputs, (str, bytes)):
            return next(self.stream([inputs], **search))
        if isinstance(inputs, (list, tuple)):
            return list(self.stream(inputs, **search))
        return self.stream(inputs, **search)

    def stream(
        self, inputs: Iterable[Text], *, window: int = WINDOW, **search: Any
    ) -> Iterator[Output]:
        """Outputs one by one; `window` inputs are read ahead (1: each is answered at once)."""
        return self._stream(inputs, window, self.search_options(**search))

    def search_options(self, /, **overrides: Any) -> Search:
        """The recipe's search options with some replaced; UsageError names a wrong one."""
        return self.folder.search(overrides)

    def _stream(self, inputs: Iterable[Text], window: int, options: Search) -> Iterator[Output]:
        rest = iter(inputs)
        while taken := list(islice(rest, max(1, window))):
            sources = read_texts(self.source, taken, options.max_source)

            def failed(index: int, reason: str, sources: list[Source] = sources) -> None:
                sources[index].reason = joined(sources[index].reason, f"failed: {one_line(reason)}")

            found = decode(self.network, [source.ids for source in sources], options, failed)
            for source, hypotheses in zip(sources, found, strict=True):
                yield self._output(source, hypotheses, options)

    def _output(self, source: Source, hypotheses: list[Hypothesis], options: Search) -> Output:
        if not source.ids or not hypotheses:
            return Output("", source_tokens=source.tokens, reason=source.reason)
        outputs = [self._one(source, hypothesis, options) for hypothesis in hypotheses]
        return replace(outputs[0], n_best=outputs) if options.n_best > 1 else outputs[0]

    def _one(self, source: Source, hypothesis: Hypothesis, options: Search) -> Output:
        tokens = self.target.tokens(hypothesis.ids)
        text = self.target.decode(hypothesis.ids)
        if options.replace_unknown and hypothesis.attention is not None and UNK in hypothesis.ids:
            tokens = replace_unknown(tokens, source.tokens, hypothesis.attention)
            text = self.target.decode_tokens(tokens)
        reason = source.reason
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
        )
