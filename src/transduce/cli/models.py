"""The commands that make a model, run it, judge it and show what it is."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import typer

from transduce.cli.arguments import (
    Beam,
    Data,
    Device,
    Input,
    Json,
    Length,
    LengthPenalty,
    Limit,
    Metric,
    Model,
    NBest,
    OutputFile,
    Precision,
    ReplaceUnknown,
    Search,
    SearchBatch,
    SourceFile,
    Table,
    TargetFile,
    Threads,
    Window,
    Workers,
)
from transduce.cli.guard import guarded


@guarded
def demo(
    minutes: Annotated[float, typer.Option(min=0.01, help="Minutes of training.")] = 1.8,
    folder: Annotated[Path, typer.Option(help="Where the model goes.")] = Path("runs/demo"),
    fresh: Annotated[bool, typer.Option("--fresh", help="Train again from the start.")] = False,
) -> None:
    """Train a model to pronounce English, and show it (3 minutes)."""
    from transduce.commands.demo import run_demo

    run_demo(minutes=minutes, folder=folder, fresh=fresh)


@guarded
def train(
    recipe: Annotated[Path, typer.Argument(help="Recipe, a YAML file.")],
    overrides: Annotated[
        list[str] | None,
        typer.Argument(metavar="key=value", help="Options that replace the recipe's."),
    ] = None,
    folder: Annotated[
        Path | None,
        typer.Option(help="Where the model goes (default: runs/ and the recipe's name)."),
    ] = None,
    fresh: Annotated[
        bool,
        typer.Option("--fresh", help="Start anew even if the folder holds a training to resume."),
    ] = False,
    device: Device = "auto",
) -> None:
    """Train a model, or go on with a training that was stopped."""
    from transduce.commands.training import run_train

    run_train(recipe, overrides or [], folder, fresh=fresh, device=device)


@guarded
def average(
    model: Annotated[Path, typer.Argument(help="Model folder.")],
    n: Annotated[int, typer.Option("-n", min=1, help="How many of the best checkpoints.")] = 5,
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", help="New model folder (default: MODEL-average)."),
    ] = None,
) -> None:
    """Average a training's best checkpoints into a new folder."""
    from transduce.commands.training import run_average

    run_average(model, n, output)


@guarded
def shortlist(
    model: Annotated[Path, typer.Argument(help="Model folder.")],
    candidates: Annotated[
        int, typer.Option(min=1, max=1000, help="Target tokens kept for each source token.")
    ] = 50,
    frequent: Annotated[
        int, typer.Option(min=0, help="The most frequent target tokens, on every shortlist.")
    ] = 200,
) -> None:
    """Learn which words a source may need, for faster decoding (--search shortlist=N)."""
    from transduce.commands.training import run_shortlist

    run_shortlist(model, candidates, frequent)


def predicting(task: str | None) -> Callable[..., None]:
    """`predict`, or the same for models whose task fits a name such as `translate`."""

    def predict(
        model: Model,
        file: Input = "-",
        json: Json = False,
        beam: Beam = None,
        n_best: NBest = None,
        length: Length = None,
        length_penalty: LengthPenalty = None,
        batch_tokens: SearchBatch = None,
        replace_unknown: ReplaceUnknown = None,
        search: Search = None,
        output: OutputFile = None,
        window: Window = None,
        threads: Threads = None,
        workers: Workers = 1,
        device: Device = "auto",
        precision: Precision = None,
    ) -> None:
        from transduce.commands.predict import run_predict
        from transduce.commands.searching import SearchChoice

        named: dict[str, Any] = {
            "beam": beam,
            "n_best": n_best,
            "length": length,
            "length_penalty": length_penalty,
            "batch_tokens": batch_tokens,
            "replace_unknown": replace_unknown,
        }
        run_predict(
            model,
            file,
            SearchChoice(named, search or []),
            json=json,
            output=output,
            window=window,
            threads=threads,
            device=device,
            precision=precision,
            workers=workers,
            task=task,
        )

    return guarded(predict)


@guarded
def score(
    model: Model,
    file: Annotated[
        str, typer.Argument(help="Lines of source, tab, target; - is standard input.")
    ] = "-",
    source: SourceFile = None,
    target: TargetFile = None,
    json: Json = False,
    output: OutputFile = None,
    device: Device = "auto",
    precision: Precision = None,
) -> None:
    """The log-probability of given targets, one number a line.

    For filtering a corpus, or choosing among outputs of another system."""
    from transduce.commands.predict import run_score

    run_score(
        model,
        file,
        source,
        target,
        json=json,
        output=output,
        device=device,
        precision=precision,
    )


@guarded
def evaluate(
    model: Model,
    data: Data = None,
    source: SourceFile = None,
    target: TargetFile = None,
    table: Table = None,
    metric: Metric = None,
    report: Annotated[Path | None, typer.Option(help="Write a report: .html or .md.")] = None,
    against: Annotated[str | None, typer.Option(help="Another model, to compare with.")] = None,
    limit: Limit = None,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="Write the outputs here.")
    ] = None,
    errors: Annotated[
        int | None,
        typer.Option(
            min=0, metavar="N", help="Count edits by kind, and show the N worst outputs aligned."
        ),
    ] = None,
    json: Annotated[bool, typer.Option("--json", help="Scores as one JSON object.")] = False,
    beam: Beam = None,
    length_penalty: LengthPenalty = None,
    search: Search = None,
    device: Device = "auto",
    precision: Precision = None,
) -> None:
    """Score a model on examples with known targets.

    Without data options these are the recipe's test set, or else its validation set."""
    from transduce.commands.evaluate import run_evaluate
    from transduce.commands.searching import SearchChoice

    named = {"beam": beam, "length_penalty": length_penalty}
    run_evaluate(
        model,
        (data, source, target, table),
        metrics=metric,
        report=report,
        against=against,
        limit=limit,
        output=output,
        aligned=errors,
        json=json,
        search=SearchChoice(named, search or []),
        device=device,
        precision=precision,
    )


@guarded
def inspect(
    model: Annotated[
        Path, typer.Argument(metavar="MODEL|RECIPE", help="Model folder or recipe file.")
    ],
    overrides: Annotated[
        list[str] | None,
        typer.Argument(metavar="key=value", help="For a recipe: options to replace."),
    ] = None,
    counts: Annotated[
        bool, typer.Option("--counts", help="Count the examples (fetching sets that are not here).")
    ] = False,
    json: Annotated[bool, typer.Option("--json", help="Everything as one JSON object.")] = False,
) -> None:
    """Show parameters, vocabularies, data counts and options."""
    from transduce.commands.inspecting import run_inspect

    run_inspect(model, overrides or [], counts=counts, json=json)
