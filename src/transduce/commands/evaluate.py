"""`evaluate`: decode examples with known targets, score the outputs, compare, report."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from rich.console import Console

from transduce.assessment import (
    Assessment,
    Trial,
    assess,
    chosen_corpora,
    metric_names,
    read_trial,
    test_corpora,
)
from transduce.commands.predict import line_writer, load_any
from transduce.commands.searching import SearchChoice
from transduce.commands.showing import console, progress_bar, scores_table, table
from transduce.errors import DataError, UsageError
from transduce.evaluation import errors_view, summaries_view
from transduce.evaluation.buckets import LengthRow, score_by_length
from transduce.evaluation.metrics import Score
from transduce.evaluation.recognition import UNITS, Errors
from transduce.evaluation.report import ReportRow, write_report
from transduce.evaluation.significance import Comparison, compare
from transduce.evaluation.summaries import Summaries
from transduce.output import json_line
from transduce.runtime import ExportedModel
from transduce.transducer import Transducer

Model = Transducer | ExportedModel
Chosen = tuple[str | None, str | None, str | None, str | None]  # --data --source --target --table


def run_evaluate(
    model: str,
    chosen: Chosen,
    *,
    metrics: Sequence[str] | None,
    report: Path | None,
    against: str | None,
    limit: int | None,
    output: Path | None,
    aligned: int | None,
    json: bool,
    search: SearchChoice,
    device: str,
    precision: str | None,
) -> None:
    """Score a model, print the table, and whatever else was asked for."""
    if report is not None and report.suffix not in (".html", ".md"):
        raise UsageError(f"{report}: a report is .html or .md")
    corpora = chosen_corpora(*chosen)
    first = load_any(model, device, None, precision, otherwise="fp32")
    names = metric_names(first.recipe, metrics)  # before minutes of decoding
    if aligned is not None and not UNITS.keys() & set(names):
        raise UsageError(f"--errors needs a metric that counts edits: {', '.join(UNITS)}")
    options = search.options(first)
    trial = trial_for(first, corpora, limit)
    assessment = assess_with_bar(first, trial, metrics=names, **options)
    comparisons: list[Comparison] = []
    if against is not None:
        second = load_any(against, device, None, precision, otherwise="fp32")
        if second.task != first.task:
            raise UsageError(
                f"{against}: a model for {second.task}, while {model} is for {first.task}"
            )
        other = assess_with_bar(second, trial, metrics=names, **search.options(second))
        # The difference is the model's minus that of the one it is held against.
        comparisons = compare(
            names,
            other.hypotheses,
            assessment.hypotheses,
            trial.references,
            source_language=first.recipe.source.language,
            target_language=first.recipe.target.language,
        )
    if output is not None:
        with line_writer(output) as write:
            for hypothesis in assessment.hypotheses:
                write(hypothesis)
    # In other tasks the kinds of edit say little; there they are shown when asked for.
    wanted = aligned is not None or first.task == "recognition"
    errors = assessment.errors(first.recipe.evaluation.bootstrap) if wanted else []
    summaries = assessment.summaries(first.recipe)
    if report is not None:
        _write_report(report, model, first, assessment, comparisons, options, errors, summaries)
    if json:
        print(json_line(_as_dict(model, assessment, comparisons, errors, summaries)))
        return
    show(console(), model, assessment, comparisons, against)
    show_errors(console(), errors, aligned or 0)
    if summaries is not None:
        show_summaries(console(), assessment.scores, summaries)
    if report is not None:
        console().print(f"report: {report}", markup=False)


def trial_for(model: Model, corpora: list[Any], limit: int | None) -> Trial:
    """The examples chosen on the command line, or else those the recipe names for testing."""
    if model.task == "language":
        raise UsageError("a language model answers nothing; `transduce score` tells its perplexity")
    # One word of a dictionary may have several right pronunciations, any of which will do.
    group = model.task == "pronunciation"
    if corpora:
        return read_trial(corpora, model.recipe.source.kind, group=group, limit=limit)
    try:
        recipe = model.recipe
        return read_trial(test_corpora(recipe), recipe.source.kind, group=group, limit=limit)
    except DataError as error:
        raise DataError(
            f"the recipe's own test data cannot be read: {error}\n"
            "Name other data with --data, or with --source and --target"
        ) from None


def assess_with_bar(model: Model, trial: Trial, **options: Any) -> Assessment:
    """`assess` with a bar on the terminal."""
    with progress_bar("decoding", len(trial.sources)) as progress:
        return assess(model, trial, progress=progress, **options)


def show(
    out: Console,
    model: str,
    assessment: Assessment,
    comparisons: Sequence[Comparison] = (),
    against: str | None = None,
) -> None:
    """Print the scores and comparisons."""
    count, seconds = len(assessment.outputs), assessment.seconds
    speed = f"{count / max(seconds, 1e-9):,.0f} a second"
    several = sum(len(refs) > 1 for refs in assessment.references)
    more = f", {several:,} of them with several references" if several else ""
    out.print(
        f"{model} on {assessment.label}: {count:,} examples{more}, "
        f"decoded in {seconds:.1f} s ({speed})",
        markup=False,
    )
    out.print(scores_table(assessment.scores))
    if cut := sum(output.reason is not None for output in assessment.outputs):
        reasons = sorted({o.reason.split(";")[0] for o in assessment.outputs if o.reason})
        out.print(f"empty or cut outputs: {cut:,} (such as: {reasons[0]})", markup=False)
    if comparisons:
        out.print(f"\ndifference to {against} (approximate randomisation, paired):", markup=False)
        rows = [
            [
                c.label,
                f"{c.first:.2f}",
                f"{c.second:.2f}",
                f"{c.delta:+.2f}",
                _span(c),
                f"{c.p_value:.4f}",
            ]
            for c in comparisons
        ]
        head_row = ["metric", "against", "model", "difference", "95 % interval", "p"]
        out.print(table(head_row, rows, right=(1, 2, 3, 5)))


def show_errors(out: Console, errors: Sequence[Errors], worst: int) -> None:
    """Print the edits by kind and speaker, the commonest, and the `worst` outputs aligned."""
    for one in errors:
        head = [f"errors by {one.unit}", *errors_view.HEAD[1:]]
        out.print()
        out.print(table(head, errors_view.cells(one), right=range(1, len(head))))
    for one in errors if worst else ():
        out.print(f"\nmost frequent errors by {one.unit}:", markup=False)
        for line in errors_view.confusion_lines(one, worst):
            out.print(f"  {line}", markup=False)
        for utterance in one.worst(worst):
            out.print(f"\n{errors_view.heading(utterance)}", markup=False)
            width = min(out.width, 120)
            text = errors_view.aligned_text(utterance.columns, one.unit, width=width)
            out.print(text, markup=False)


def show_summaries(out: Console, scores: Sequence[Score], summaries: Summaries) -> None:
    """Print the baselines beside the model, then facts of outputs and references."""
    views = summaries_view.score_rows(scores, summaries), summaries_view.fact_rows(summaries)
    for head, rows in views:
        out.print()
        out.print(table(head, rows, right=range(1, len(head))))
    out.print(f"\n{summaries_view.rules(summaries)}", markup=False)


def _span(comparison: Comparison) -> str:
    return f"{comparison.low:+.2f} to {comparison.high:+.2f}"


def _as_dict(
    model: str,
    assessment: Assessment,
    comparisons: Sequence[Comparison],
    errors: Sequence[Errors],
    summaries: Summaries | None,
) -> dict[str, Any]:
    return {
        "model": model,
        "data": assessment.label,
        "examples": len(assessment.outputs),
        "seconds": round(assessment.seconds, 3),
        "scores": [asdict(score) for score in assessment.scores],
        "comparisons": [asdict(comparison) for comparison in comparisons],
        "errors": {
            one.metric: [asdict(row) for row in (one.total, *one.speakers)] for one in errors
        },
        "summaries": None if summaries is None else summaries.as_dict(),
    }


def _write_report(
    path: Path,
    name: str,
    model: Model,
    assessment: Assessment,
    comparisons: Sequence[Comparison],
    options: dict[str, Any],
    errors: Sequence[Errors],
    summaries: Summaries | None,
) -> None:
    rows = [
        ReportRow(source, references, output.text)
        for source, references, output in zip(
            assessment.sources, assessment.references, assessment.outputs, strict=True
        )
    ]
    write_report(
        path,
        f"{name} on {assessment.label}",
        assessment.scores,
        rows,
        # Outputs of speech do not know how long their sources were.
        by_length=[] if model.recipe.source.kind == "speech" else lengths_of(model, assessment),
        comparisons=comparisons,
        details={
            "model": f"{name} ({model.task}, {model.parameters:,} parameters)",
            "data": f"{assessment.label}, {len(rows):,} examples",
            "search": ", ".join(f"{k} {v}" for k, v in model.search_options(**options)),
        },
        errors=errors,
        summaries=summaries,
        target_language=model.recipe.target.language,
    )


def lengths_of(model: Model, assessment: Assessment) -> list[LengthRow]:
    """The first score of an assessment by source length, in tokens or frames."""
    return score_by_length(
        assessment.scores[0].name,
        assessment.hypotheses,
        assessment.references,
        assessment.source_lengths,
        unit="tokens" if assessment.names is None else "frames of 10 ms",
        source_language=model.recipe.source.language,
        target_language=model.recipe.target.language,
        bootstrap=model.recipe.evaluation.bootstrap,
    )
