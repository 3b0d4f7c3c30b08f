"""The user's object: a model folder (or several, as an ensemble) that answers texts with texts."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import Any, TypeAlias, overload

import torch

from transduce.data.text import TextSide
from transduce.data.tokenizers.base import UNK
from transduce.errors import DataError, UsageError
from transduce.folder import ModelFolder, load_weights, open_folder
from transduce.model.build import build_model
from transduce.model.seq2seq import Seq2Seq
from transduce.output import Output, Scored, one_line
from transduce.recipe import Recipe, SearchOptions
from transduce.recipe_files import recipe_from_dict
from transduce.search.decode import decode
from transduce.search.ensemble import Ensemble
from transduce.search.forced import Forced, force_score
from transduce.search.hypothesis import Hypothesis
from transduce.search.scoring import normalise
from transduce.search.unknown import replace_unknown

WINDOW = 2048  # inputs read ahead, sorted by length and decoded together

Text: TypeAlias = str | bytes  # bytes: a line as it stands in a file, UTF-8 or not


@dataclass(slots=True)
class Source:
    """One input on its way into the model: its ids, empty if there is nothing to decode.

    `tokens` are as written, even those that the vocabulary does not know.
    """

    ids: list[int]
    tokens: list[str]
    reason: str | None


def load(folders: str | Path | Sequence[str | Path], device: str = "auto") -> Transducer:
    """Load a model folder, or several with the same vocabularies as one ensemble.

    `device` is "cpu", "cuda", "cuda:1", … or "auto": a GPU if there is one. Raises FolderError when
    a folder is missing, incomplete or altered, UsageError when models do not go together.
    """
    paths = [Path(folders)] if isinstance(folders, (str, Path)) else [Path(f) for f in folders]
    if not paths:
        raise UsageError("no model folder given")
    opened = [open_folder(path) for path in paths]
    where = _device(device)
    first = opened[0]
    source, target = _sides(first)
    for other in opened[1:]:
        _same_vocabulary(first, other)
    models = [_model(folder, source.size, target.size, where) for folder in opened]
    model: Seq2Seq | Ensemble = models[0] if len(models) == 1 else Ensemble(models)
    return Transducer(model, source, target, first.recipe, device=where, folders=paths)


class Transducer:
    """Answers `str` with Output, a list with a list, any other iterable with an iterator.

    Each input gives exactly one output, in order: blank, over-long, undecodable and failing inputs
    too, whose Output has a `reason`. Results do not depend on what else is decoded beside an input.
    """

    def __init__(
        self,
        model: Seq2Seq | Ensemble,
        source: TextSide,
        target: TextSide,
        recipe: Recipe,
        *,
        device: torch.device,
        folders: Sequence[Path] = (),
    ) -> None:
        self.model = model
        self.source = source
        self.target = target
        self.recipe = recipe
        self.device = device
        self.folders = list(folders)

    @property
    def task(self) -> str:
        return self.recipe.task

    @property
    def parameters(self) -> int:
        """How many weights there are, those shared by several layers counted once."""
        return sum(parameter.numel() for parameter in self.model.parameters())

    def __repr__(self) -> str:
        names = ", ".join(str(folder) for folder in self.folders)
        return f"<Transducer {names}: {self.task}, {self.parameters:,} parameters, {self.device}>"

    # ------------------------------------------------------------------------------- decoding

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
        options = self.search_options(**search)
        return self._stream(inputs, window, options)

    def search_options(self, **overrides: Any) -> SearchOptions:
        """The recipe's search options with some replaced; UsageError names a wrong one."""
        tree = self.recipe.model_dump(mode="json")
        tree["search"] |= overrides
        return recipe_from_dict(tree, where="search options").search

    def _stream(
        self, inputs: Iterable[Text], window: int, options: SearchOptions
    ) -> Iterator[Output]:
        rest = iter(inputs)
        while taken := list(islice(rest, max(1, window))):
            sources = self._read(taken, options.max_source)
            for source, hypotheses in zip(sources, self._decode(sources, options), strict=True):
                yield self._output(source, hypotheses, options)

    def _decode(self, sources: list[Source], options: SearchOptions) -> list[list[Hypothesis]]:
        """One n-best list a source; a failure is halved down to the source it belongs to."""
        ids = [source.ids for source in sources]
        try:
            return list(decode(self.model, ids, options, device=self.device, window=len(ids)))
        except (DataError, RuntimeError, MemoryError) as error:
            if half := len(sources) // 2:
                parts = sources[:half], sources[half:]
                return [found for part in parts for found in self._decode(part, options)]
            sources[0].reason = f"failed: {one_line(str(error)) or type(error).__name__}"
            return [[]]

    def _output(
        self, source: Source, hypotheses: list[Hypothesis], options: SearchOptions
    ) -> Output:
        if not source.ids or not hypotheses:
            return Output("", source_tokens=source.tokens, reason=source.reason)
        outputs = [self._one(source, hypothesis, options) for hypothesis in hypotheses]
        return replace(outputs[0], n_best=outputs) if options.n_best > 1 else outputs[0]

    def _one(self, source: Source, hypothesis: Hypothesis, options: SearchOptions) -> Output:
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

    # -------------------------------------------------------------------------------- scoring

    @overload
    def score(self, sources: Text, targets: Text) -> Scored: ...  # type: ignore[overload-overlap]
    @overload
    def score(  # type: ignore[overload-overlap]
        self, sources: list[str], targets: list[str]
    ) -> list[Scored]: ...
    @overload
    def score(self, sources: Iterable[Text], targets: Iterable[Text]) -> Iterator[Scored]: ...

    def score(self, sources: Any, targets: Any) -> Any:
        """The log-probability of each target given its source; inputs and results as in a call.

        Raises DataError when there are not as many targets as sources.
        """
        if isinstance(sources, (str, bytes)):
            return next(self._score([sources], [targets]))
        if isinstance(sources, (list, tuple)):
            return list(self._score(sources, targets))
        return self._score(sources, targets)

    def attend(self, source: Text, target: Text) -> Output:
        """The given target as an Output, with the attention the model would have had for it."""
        (read,), (wanted,), (forced,) = self._force([source], [target])
        reason = _joined(read.reason, wanted.reason)
        if forced is None:
            return Output("", source_tokens=read.tokens, reason=reason)
        return Output(
            text=self.target.decode_tokens(wanted.tokens),
            score=normalise(forced.log_prob, len(forced.token_scores), self.recipe.search),
            log_prob=forced.log_prob,
            tokens=wanted.tokens,
            token_scores=forced.token_scores,
            source_tokens=read.tokens,
            attention=forced.attention,
            reason=reason,
        )

    def _score(self, sources: Iterable[Text], targets: Iterable[Text]) -> Iterator[Scored]:
        pairs = _pairs(sources, targets)
        while taken := list(islice(pairs, WINDOW)):
            left, right = [source for source, _ in taken], [target for _, target in taken]
            for source, target, forced in zip(*self._force(left, right), strict=True):
                reason = _joined(source.reason, target.reason)
                if forced is None:
                    yield Scored(reason=reason)
                    continue
                length = len(forced.token_scores)
                yield Scored(
                    log_prob=forced.log_prob,
                    score=normalise(forced.log_prob, length, self.recipe.search),
                    tokens=target.tokens,
                    token_scores=forced.token_scores,
                    reason=reason,
                )

    def _force(
        self, sources: list[Text], targets: list[Text]
    ) -> tuple[list[Source], list[Source], list[Forced | None]]:
        """Both sides read, and the scores of the pairs that have two sides."""
        limit = self.recipe.search.max_source
        read = self._read(sources, limit)
        wanted = self._read(targets, limit, self.target)
        usable = [i for i, pair in enumerate(zip(read, wanted, strict=True)) if _both(*pair)]
        scored = force_score(
            self.model,
            [read[i].ids for i in usable],
            [wanted[i].ids for i in usable],
            device=self.device,
        )
        forced: list[Forced | None] = [None] * len(read)
        for i, one in zip(usable, scored, strict=True):
            forced[i] = one
        return read, wanted, forced

    # -------------------------------------------------------------------------------- reading

    def _read(
        self, texts: Sequence[Text], limit: int, side: TextSide | None = None
    ) -> list[Source]:
        """Texts to ids, at most `limit` each, and why one is blank, cut or damaged."""
        side = side or self.source
        decoded = [_text(text) for text in texts]
        normal = [side.normalize(text) for text, _ in decoded]
        sources = []
        for text, (_, damage), ids in zip(normal, decoded, side.segment(normal), strict=True):
            reason = damage
            if not text.strip():
                ids, reason = [], _joined(damage, "blank input")
            elif not ids:
                reason = _joined(damage, "nothing in the input is known to the model")
            elif len(ids) > limit:
                reason = _joined(damage, f"input of {len(ids)} tokens cut to {limit}")
            tokens = _written(side, text, ids)[:limit]
            sources.append(Source(list(ids[:limit]), tokens, reason))
        return sources


# ------------------------------------------------------------------------------------- helpers


def _text(text: Text) -> tuple[str, str | None]:
    """Any input as text that UTF-8 can hold, and what had to be replaced for it."""
    if isinstance(text, bytes):
        try:
            return text.decode("utf-8"), None
        except UnicodeDecodeError as error:
            reason = f"invalid UTF-8 (byte 0x{text[error.start]:02x} at {error.start + 1}) replaced"
            return text.decode("utf-8", errors="replace"), reason
    if not isinstance(text, str):
        raise TypeError(f"an input is a str, not {type(text).__name__}")
    if text.isascii():
        return text, None
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        clean = text.encode("utf-16", "surrogatepass").decode("utf-16", errors="replace")
        return clean, "lone surrogates replaced"
    return text, None


def _written(side: TextSide, text: str, ids: Sequence[int]) -> list[str]:
    """The tokens of a text as they stand in it, where tokens are parts of it one by one."""
    if UNK in ids:
        units = list(text) if side.tokenizer.kind == "characters" else text.split()
        if len(units) == len(ids):
            return units
    return side.tokens(ids)


def _both(source: Source, target: Source) -> bool:
    return bool(source.ids and target.ids)


def _pairs(sources: Iterable[Text], targets: Iterable[Text]) -> Iterator[tuple[Text, Text]]:
    left, right = iter(sources), iter(targets)
    nothing: Any = object()
    count = 0
    while True:
        source, target = next(left, nothing), next(right, nothing)
        if source is nothing and target is nothing:
            return
        if source is nothing or target is nothing:
            short, more = ("sources", "targets") if source is nothing else ("targets", "sources")
            raise DataError(f"there are {count} {short} but more {more}; they must be in line")
        count += 1
        yield source, target


def _joined(*reasons: str | None) -> str | None:
    return "; ".join(dict.fromkeys(reason for reason in reasons if reason)) or None


def _device(name: str) -> torch.device:
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:
        first = str(error).splitlines()[0]
        raise UsageError(f"device `{name}` cannot be used: {first}") from None
    return device


def _sides(folder: ModelFolder) -> tuple[TextSide, TextSide]:
    recipe = folder.recipe
    source = TextSide.load(folder.path, "source", recipe.source)
    target = TextSide.load(folder.path, "target", recipe.target)
    return source, target


def _same_vocabulary(first: ModelFolder, other: ModelFolder) -> None:
    for side in ("source", "target"):
        if _vocabulary(first, side) != _vocabulary(other, side):
            raise UsageError(
                f"{first.path} and {other.path} have different {side} vocabularies; "
                "an ensemble needs the same"
            )


def _vocabulary(folder: ModelFolder, side: str) -> bytes:
    return folder.side(side).read_bytes()


def _model(
    folder: ModelFolder, source_size: int, target_size: int, device: torch.device
) -> Seq2Seq:
    """The trained model on its device, ready to decode."""
    model = build_model(folder.recipe.model, source_size, target_size)
    load_weights(model, folder.weights)
    return model.to(device).eval()
