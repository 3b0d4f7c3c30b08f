"""The user's object: a model folder (or several, as an ensemble) that answers texts with texts."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Any, cast, overload

import numpy as np
import torch

from transduce.answering import Answering, Options, each, failed
from transduce.data.batch import collate_source
from transduce.data.copying import CopySource
from transduce.data.corpus import NO_SOURCE
from transduce.data.lengths import check_length
from transduce.data.sides import SourceSide
from transduce.data.speech import SpeechSide
from transduce.data.text import TextSide
from transduce.errors import UsageError
from transduce.folder import open_folder
from transduce.hypotheses.hypothesis import Hypothesis
from transduce.hypotheses.scoring import normalise
from transduce.inputs import (
    SPEECH_WINDOW,
    WINDOW,
    Input,
    Source,
    Text,
    check_inputs,
    in_pairs,
    is_one,
    joined,
    read_sounds,
    read_texts,
)
from transduce.loading import (
    check_same_vocabulary,
    model_of,
    shortlist_of,
    sides_of,
    vocabulary_of,
)
from transduce.model.device import bound_kernel_caches, find_device
from transduce.model.inference import Chosen, settle
from transduce.model.packing import pack
from transduce.model.seq2seq import Seq2Seq
from transduce.model.shortlist import Shortlist, Shortlisted
from transduce.output import Output, Scored
from transduce.recipe import Recipe, SearchOptions
from transduce.recipe_files import search_from_dict
from transduce.search.ctc.joint import CtcModel
from transduce.search.ctc.times import timed
from transduce.search.decode import decode
from transduce.search.ensemble import Ensemble
from transduce.search.forced import Forced, force_score
from transduce.search.interface import SearchModel
from transduce.search.language import Advised, Language


def load(
    folders: str | Path | Sequence[str | Path], device: str = "auto", precision: str = "auto"
) -> Transducer:
    """Load a model folder, or several with the same vocabularies as one ensemble.

    `device` is "cpu", "cuda", "cuda:1", … or "auto": a GPU if there is one. `precision` is "fp32"
    (as trained), "bf16", "int8" (CPUs only), or "auto": bf16 where this machine is measured to be
    faster in it, else fp32. Raises FolderError when a folder is missing, incomplete or altered,
    UsageError when models do not go together or the device cannot do the precision.
    """
    paths = [Path(folders)] if isinstance(folders, (str, Path)) else [Path(f) for f in folders]
    if not paths:
        raise UsageError("no model folder given")
    opened = [open_folder(path) for path in paths]
    where = find_device(device)
    bound_kernel_caches()
    first = opened[0]
    source, target = sides_of(first)
    for other in opened[1:]:
        check_same_vocabulary(first, other)
    chosen = settle(precision, where)
    models = [model_of(folder, source, target, where) for folder in opened]
    count = [sum(p.numel() for p in model.parameters()) for model in models]
    models = [pack(model, chosen.precision) for model in models]
    model: Seq2Seq | Ensemble = models[0] if len(models) == 1 else Ensemble(models)
    return Transducer(
        model,
        source,
        target,
        first.recipe,
        device=where,
        folders=paths,
        precision=chosen,
        parameters=sum(count),
        shortlist=shortlist_of(first, source.size, target.size),
    )


class Transducer(Answering[SearchOptions]):
    """A model folder, or several as an ensemble, that answers as `Answering` says."""

    def __init__(
        self,
        model: Seq2Seq | Ensemble,
        source: SourceSide,
        target: TextSide,
        recipe: Recipe,
        *,
        device: torch.device,
        precision: Chosen,
        parameters: int,
        shortlist: Shortlist | None = None,
        folders: Sequence[Path] = (),
    ) -> None:
        self.model = model
        self.source = source
        self.target = target
        self.recipe = recipe
        self.device = device
        self.precision = precision
        self.parameters = parameters  # weights, those shared by several layers counted once
        self.shortlist = shortlist
        self._languages: dict[str, Language] = {}  # by folder
        self._views: dict[int, Shortlisted] = {}  # by how many candidates a source token has
        self._last: tuple[str, SearchOptions] | None = None  # asked for, as text
        self.folders = list(folders)

    @property
    def task(self) -> str:
        return self.recipe.task

    def __repr__(self) -> str:
        names = ", ".join(str(folder) for folder in self.folders)
        where = f"{self.device} {self.precision.precision}"
        return f"<Transducer {names}: {self.task}, {self.parameters:,} parameters, {where}>"

    # ------------------------------------------------------------------------------- decoding

    def stream(
        self, inputs: Iterable[Input], *, window: int = WINDOW, **search: Any
    ) -> Iterator[Output]:
        """Outputs one by one; `window` inputs are read ahead (1: each is answered at once)."""
        if isinstance(self.source, SpeechSide):
            window = min(window, SPEECH_WINDOW)
        return super().stream(inputs, window=window, **search)

    def search_options(self, /, **overrides: Any) -> SearchOptions:
        """The recipe's search options with some replaced; UsageError names a wrong one."""
        if not overrides:
            return self.recipe.search
        if overrides.get("times") and not isinstance(self.source, SpeechSide):
            raise UsageError("search.times: texts have no times; leave it out")
        asked, last = repr(overrides), self._last
        if last is not None and last[0] == asked:  # as a server asks, again and again
            return last[1]
        tree = self.recipe.search.model_dump(mode="json") | overrides
        options = search_from_dict(tree, where="search options")
        check_length(self.source, options.length)
        self._last = asked, options
        return options

    def _read(self, taken: Sequence[Input], options: Options) -> list[Source]:
        """Inputs as what the model reads, each at most `options.max_source` long."""
        if isinstance(self.source, SpeechSide):
            return read_sounds(self.source, taken, options.max_source)
        return super()._read(taken, options)

    def _decode(self, sources: list[Source], options: SearchOptions) -> list[list[Hypothesis]]:
        model = self._searched(options)

        def answer(part: list[Source]) -> list[list[Hypothesis]]:
            ids = [source.ids for source in part]
            found = list(decode(model, ids, options, device=self.device, window=len(ids)))
            return self._timed(ids, found) if options.times else found

        def fail(source: Source, message: str) -> list[Hypothesis]:
            failed(source, message)
            return []

        return each(sources, answer, fail)

    def _timed(self, ids: list[Any], found: list[list[Hypothesis]]) -> list[list[Hypothesis]]:
        """The same, with the times of tokens if there is a CTC head to say."""
        if not self.model.has_ctc:
            return found
        return timed(cast(CtcModel, self.model), ids, found, device=self.device)

    def _searched(self, options: SearchOptions) -> SearchModel:
        """The model, or a view of it that chooses among shortlists or has a language model beside
        it."""
        model = self._shortlisted(options)
        if options.language_model is None or not options.language_weight:
            return model
        return cast(SearchModel, Advised(model, self._language(options.language_model)))

    def _language(self, folder: str) -> Language:
        """The language model of a folder. Errors: FolderError; UsageError when it does not fit."""
        if folder not in self._languages:
            opened, own = open_folder(folder), open_folder(self.folders[0])
            if opened.recipe.task != "language":
                raise UsageError(
                    f"search.language_model: {folder} was trained for {opened.recipe.task}; a "
                    "language model is trained with `task: language`"
                )
            if vocabulary_of(opened, "target") != vocabulary_of(own, "target"):
                raise UsageError(
                    f"search.language_model: {folder} has another target vocabulary than "
                    f"{own.path}; train it with `target.like: {own.path}`"
                )
            source, target = sides_of(opened)
            model = model_of(opened, source, target, self.device)
            model = pack(model, self.precision.precision)
            prompt = cast(TextSide, source).encode(NO_SOURCE)
            self._languages[folder] = Language(model, prompt)
        return self._languages[folder]

    def _shortlisted(self, options: SearchOptions) -> SearchModel:
        """The model, or a view of it that chooses among shortlists."""
        if not options.shortlist:
            return self.model
        if self.recipe.model.copies:
            raise UsageError("search.shortlist: a model that copies cannot use one; set it to 0")
        if self.shortlist is None or not isinstance(self.model, Seq2Seq):
            raise UsageError(
                "search.shortlist: an ensemble cannot use one; set it to 0"
                if len(self.folders) > 1
                else f"search.shortlist: {self.folders[0]} has none; make one with "
                f"`transduce shortlist {self.folders[0]}`, or set it to 0"
            )
        count = min(options.shortlist, self.shortlist.candidates.shape[1])
        if count not in self._views:  # made once: it copies the table
            self._views[count] = Shortlisted(self.model, self.shortlist.first(count))
        return self._views[count]

    # -------------------------------------------------------------------------------- scoring

    @overload
    def score(self, sources: Input, targets: Text) -> Scored: ...  # type: ignore[overload-overlap]
    @overload
    def score(  # type: ignore[overload-overlap]
        self, sources: list[str], targets: list[str]
    ) -> list[Scored]: ...
    @overload
    def score(self, sources: Iterable[Input], targets: Iterable[Text]) -> Iterator[Scored]: ...

    def score(self, sources: Any, targets: Any) -> Any:
        """The log-probability of each target given its source; inputs and results as in a call.

        Raises DataError when there are not as many targets as sources.
        """
        check_inputs(sources, heard=isinstance(self.source, SpeechSide))
        if is_one(sources):
            return next(self._score([sources], [targets]))
        if isinstance(sources, (list, tuple)):
            return list(self._score(sources, targets))
        return self._score(sources, targets)

    def attend(self, source: Input, target: Text) -> Output:
        """The given target as an Output, with the attention the model would have had for it."""
        (read,), (wanted,), (forced,) = self._force([source], [target])
        reason = joined(read.reason, wanted.reason)
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
            copied=forced.copied,
        )

    def align(self, sound: Input, target: Text) -> Output:
        """The given target as an Output with the times of its tokens, by the best path of CTC.

        There are no times where the model has no CTC, or the sound is too short for the target.
        """
        options = self.recipe.search
        (read,) = self._read([sound], options)
        (wanted,) = read_texts(self.target, [target], options.max_source)
        reason = joined(read.reason, wanted.reason)
        if not len(read.ids) or not len(wanted.ids):
            return Output("", reason=reason)
        given = Hypothesis(list(wanted.ids), score=0.0, log_prob=0.0, token_scores=[])
        ((timed,),) = self._timed([read.ids], [[given]])
        return Output(
            text=self.target.decode_tokens(wanted.tokens),
            tokens=wanted.tokens,
            reason=reason,
            times=self._times(read, timed),
        )

    def ctc_log_probs(self, sound: Input) -> np.ndarray | None:
        """What CTC says at each position of the memory of one recording: (S', V), the blank first.

        None where the model has no CTC head, or there is nothing to read in the recording.
        """
        (read,) = self._read([sound], self.recipe.search)
        if not self.model.has_ctc or not len(read.ids):
            return None
        frames, lengths = collate_source([read.ids])
        model = cast(CtcModel, self.model)
        with torch.inference_mode():
            log_probs = model.ctc_log_probs(model.encode(frames.to(self.device), lengths))
        return log_probs[0].float().numpy(force=True)

    def _score(self, sources: Iterable[Input], targets: Iterable[Text]) -> Iterator[Scored]:
        pairs = in_pairs(sources, targets)
        window = SPEECH_WINDOW if isinstance(self.source, SpeechSide) else WINDOW
        while taken := list(islice(pairs, window)):
            left, right = [source for source, _ in taken], [target for _, target in taken]
            for source, target, forced in zip(*self._force(left, right), strict=True):
                reason = joined(source.reason, target.reason)
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
                    copied=forced.copied,
                )

    def _force(
        self, sources: Sequence[Input], targets: Sequence[Text]
    ) -> tuple[list[Source], list[Source], list[Forced | None]]:
        """Both sides read, and the scores of the pairs that have two sides and do not fail."""
        options = self.recipe.search
        read = self._read(sources, options)
        wanted = read_texts(self.target, targets, options.max_source)
        if isinstance(self.source, CopySource):
            for given, its in zip(read, wanted, strict=True):
                its.ids = self.source.copied(given.tokens, given.ids, its.tokens, its.ids)

        def answer(part: list[int]) -> list[Forced | None]:
            sources, targets = [read[i].ids for i in part], [wanted[i].ids for i in part]
            return [*force_score(self.model, sources, targets, device=self.device)]

        def fail(index: int, message: str) -> None:
            failed(read[index], message)

        usable = [i for i, _ in enumerate(read) if len(read[i].ids) and len(wanted[i].ids)]
        forced: list[Forced | None] = [None] * len(read)
        for i, one in zip(usable, each(usable, answer, fail), strict=True):
            forced[i] = one
        return read, wanted, forced
