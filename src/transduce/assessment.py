"""Trying a model on examples whose targets are known: predictions, references, scores."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import Any

from transduce.data.audio.files import look, parts
from transduce.data.corpus import Example, open_corpora
from transduce.errors import DataError, UsageError
from transduce.evaluation.metrics import Score, compute, group_by_source, metric
from transduce.evaluation.recognition import UNITS, Errors, recognition_errors
from transduce.evaluation.summaries import Summaries, judge
from transduce.output import Output
from transduce.recipe import METRICS, CorpusOptions, Recipe
from transduce.runtime import ExportedModel
from transduce.transducer import Transducer


@dataclass(frozen=True)
class Assessment:
    """N sources, their references (one or more each), the model's outputs and their scores."""

    label: str
    sources: list[str]
    references: list[list[str]]
    outputs: list[Output]
    scores: list[Score]
    seconds: float  # of decoding
    speakers: list[str | None] | None = None  # of the N sources, where the corpus knows any
    names: list[str] | None = None  # of the N sources, where they are recordings

    @property
    def hypotheses(self) -> list[str]:
        return [output.text for output in self.outputs]

    def errors(self, bootstrap: int = 1000) -> list[Errors]:
        """Errors aligned and counted, for each of the scores that is a rate of edits."""
        return [
            recognition_errors(
                score.name,
                self.hypotheses,
                self.references,
                speakers=self.speakers,
                names=self.names,
                bootstrap=bootstrap,
            )
            for score in self.scores
            if score.name in UNITS
        ]

    def summaries(self, recipe: Recipe) -> Summaries | None:
        """Baselines and facts, where the task is to summarize texts."""
        if recipe.task != "summarization" or recipe.source.kind != "text":
            return None
        return judge(
            self.sources,
            self.hypotheses,
            self.references,
            metrics=[score.name for score in self.scores],
            copied=[output.copied for output in self.outputs],
            source_language=recipe.source.language,
            target_language=recipe.target.language,
            bootstrap=recipe.evaluation.bootstrap,
        )

    @property
    def source_lengths(self) -> list[int]:
        """In source tokens; of recordings in hundredths of a second, 0 where one cannot be read."""
        if self.names is not None:
            return [_frames(source) for source in self.sources]
        return [len(output.source_tokens) for output in self.outputs]


@dataclass(frozen=True)
class Trial:
    """What a model is tried on: N sources with their references."""

    label: str
    sources: list[str]
    references: list[list[str]]
    speakers: list[str | None] | None = None
    names: list[str] | None = None


def read_trial(
    corpora: Sequence[CorpusOptions],
    kind: str | None = None,
    *,
    group: bool = False,
    limit: int | None = None,
) -> Trial:
    """The examples of some corpora; with `group`, equal sources become one with several references.

    `kind` is that of the source, text or speech, as in `data.corpus.open_corpora`.
    Errors: DataError when there is none, or one has no target or is a recording whose file is
    missing.
    """
    opened = open_corpora(list(corpora), kind)
    label = " + ".join(corpus.label for corpus in opened)
    examples: Iterable[Example] = (example for corpus in opened for example in corpus)
    sources: list[str] = []
    answers: list[list[str]] = []
    speakers: list[str | None] = []
    for example in examples if group else islice(examples, limit):
        if example.target is None:
            raise DataError(f"{example.file}:{example.line}: has no target to compare with")
        if kind == "speech":
            _must_be_there(example)
        sources.append(example.source)
        answers.append(example.answers)
        speakers.append(example.speaker)
    if not sources:
        raise DataError(f"{label}: holds no example")
    if not group:
        known = speakers if any(speakers) else None
        names = [Path(source).name for source in sources] if kind == "speech" else None
        return Trial(label, sources, answers, known, names)
    pairs = [(s, target) for s, targets in zip(sources, answers, strict=True) for target in targets]
    distinct, references = group_by_source(*zip(*pairs, strict=True))
    return Trial(label, distinct[:limit], references[:limit])


def _frames(source: str) -> int:
    try:
        return round(100 * look(source).seconds)
    except DataError:
        return 0


def _must_be_there(example: Example) -> None:
    """A recording that is missing is no error of the model's. Errors: DataError naming the row."""
    where = f"{example.file}:{example.line}"
    if not example.source.strip():
        raise DataError(f"{where}: names no recording")
    path, _, _ = parts(example.source)
    if not path.exists():
        raise DataError(f"{where}: {path}: does not exist")


def assess(
    model: Transducer | ExportedModel,
    trial: Trial,
    *,
    metrics: Sequence[str] | None = None,
    progress: Callable[[int], None] | None = None,
    **search: Any,
) -> Assessment:
    """Decode the sources of a trial and score the outputs (the recipe's metrics by default).

    `progress` is told how many outputs there are so far. Errors: UsageError for an unknown metric.
    """
    recipe = model.recipe
    names = metric_names(recipe, metrics)
    outputs: list[Output] = []
    begin = time.perf_counter()
    for output in model.stream(trial.sources, **search):
        # A large set's attention would fill the memory and no metric asks for it.
        outputs.append(replace(output, attention=None, n_best=[]))
        if progress is not None:
            progress(len(outputs))
    seconds = time.perf_counter() - begin
    scores = compute(
        names,
        [output.text for output in outputs],
        trial.references,
        source_language=recipe.source.language,
        target_language=recipe.target.language,
        bootstrap=recipe.evaluation.bootstrap,
    )
    return Assessment(
        trial.label,
        trial.sources,
        trial.references,
        outputs,
        scores,
        seconds,
        trial.speakers,
        trial.names,
    )


def metric_names(recipe: Recipe, wanted: Sequence[str] | None) -> list[str]:
    """The metrics asked for, or else the recipe's, or else the task's."""
    names = list(wanted or recipe.evaluation.metrics or METRICS[recipe.task])
    for name in names:
        metric(name)
    return names


def test_corpora(recipe: Recipe) -> list[CorpusOptions]:
    """What a model is tried on when nothing else is said: the recipe's test set, or else valid."""
    return recipe.data.test or recipe.data.valid


def chosen_corpora(
    name: str | None, source: str | None, target: str | None, table: str | None
) -> list[CorpusOptions]:
    """The corpus that a command's options describe, if any. Errors: UsageError."""
    if name is None and source is None and target is None and table is None:
        return []
    if name is not None:
        if source or target or table:
            raise UsageError("give --data, or --source and --target (with or without --table)")
        return [CorpusOptions(name=name)]
    if table is not None and not source and not target:
        return [CorpusOptions(table=_file(table))]  # of recordings: columns audio and text
    if not (source and target):
        raise UsageError(
            "give both --source and --target" + (" (columns of the table)" if table else "")
        )
    if table is not None:
        return [CorpusOptions(table=_file(table), source=source, target=target)]
    return [CorpusOptions(source=_file(source), target=_file(target))]


def _file(name: str) -> str:
    return Path(name).expanduser().absolute().as_posix()
