"""The `transduce` command: parse, call, print.

Each command's work is in `commands/` and imported when it runs, because importing torch takes
longer than most of what a person asks of a command line.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from functools import wraps
from pathlib import Path
from typing import Annotated, Any, ParamSpec

import typer

from transduce import __version__
from transduce.errors import TransduceError

P = ParamSpec("P")

BROKEN_PIPE = 141  # what a shell reports for a program that SIGPIPE ended
INTERRUPTED = 130

app = typer.Typer(
    name="transduce",
    help="Sequence-to-sequence learning: train, run, evaluate and inspect encoder-decoder models.",
    no_args_is_help=True,
    rich_markup_mode=None,  # importing rich would take half of the time `--help` may take
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
figure_app = typer.Typer(
    help="Draw attention, training curves, or score by length.", no_args_is_help=True
)
data_app = typer.Typer(help="List, fetch and check data.", no_args_is_help=True)
app.add_typer(figure_app, name="figure")
app.add_typer(data_app, name="data")


def main() -> None:
    """Run the command line; ends the process with its exit code."""
    for stream in (sys.stdout, sys.stderr):
        if stream is not None and hasattr(stream, "reconfigure"):
            stream.reconfigure(encoding="utf-8", errors="replace")
    app()


def command(run: Callable[P, None]) -> Callable[P, None]:
    """Turn the errors meant for people into a message and an exit code, without a traceback."""

    @wraps(run)
    def guarded(*args: P.args, **kwargs: P.kwargs) -> None:
        try:
            run(*args, **kwargs)
            if sys.stdout is not None:
                sys.stdout.flush()
        except TransduceError as error:
            print(f"transduce: {error}", file=sys.stderr)
            raise typer.Exit(error.exit_code) from None
        except BrokenPipeError:
            # The reader has had enough. At exit Python would flush into the closed pipe again.
            os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
            raise typer.Exit(BROKEN_PIPE) from None
        except OSError as error:
            where = f"{error.filename}: " if error.filename else ""
            print(f"transduce: {where}{error.strerror or error}", file=sys.stderr)
            raise typer.Exit(1) from None
        except KeyboardInterrupt:
            raise typer.Exit(INTERRUPTED) from None

    return guarded


def _version(wanted: bool) -> None:
    if wanted:
        print(f"transduce {__version__}")
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    pass


# ---------------------------------------------------------------------------------- arguments

Model = Annotated[
    str, typer.Argument(help="Model folder; several joined by commas are an ensemble.")
]
Input = Annotated[str, typer.Argument(help="Text file, one input a line; - is standard input.")]
Device = Annotated[str, typer.Option(help="cpu, cuda, cuda:1, …, or auto.")]
Json = Annotated[bool, typer.Option("--json", help="One JSON object a line.")]
Data = Annotated[str | None, typer.Option(help="Catalogue name with split, such as cmudict:test.")]
SourceFile = Annotated[
    str | None, typer.Option("--source", help="Source file, or column of --table.")
]
TargetFile = Annotated[
    str | None, typer.Option("--target", help="Target file, or column of --table.")
]
Table = Annotated[str | None, typer.Option(help="A .tsv, .csv or .jsonl file with both sides.")]
Metric = Annotated[list[str] | None, typer.Option(help="Metric; may be given several times.")]
Limit = Annotated[int | None, typer.Option(min=1, help="Use the first so many examples only.")]
ImageFile = Annotated[Path | None, typer.Option("--output", "-o", help="Where to write the PNG.")]
Beam = Annotated[int | None, typer.Option(min=1, help="Beam width (default: the recipe's).")]
NBest = Annotated[
    int | None, typer.Option(min=1, help="Outputs per input; as text, separated by tabs.")
]
LengthPenalty = Annotated[
    float | None, typer.Option(min=0.0, help="Exponent of length normalisation.")
]
SearchBatch = Annotated[int | None, typer.Option("--batch-tokens", min=1, help="Size of a batch.")]
ReplaceUnknown = Annotated[
    bool | None, typer.Option(help="Replace unknown words by the source word attended most.")
]
OutputFile = Annotated[
    Path | None, typer.Option("--output", "-o", help="Write here, not to the screen.")
]
Window = Annotated[
    int | None,
    typer.Option(
        min=1, help="Lines read ahead; 1 answers each line at once (a terminal's default)."
    ),
]
Threads = Annotated[int | None, typer.Option(min=1, help="Threads of one operation on the CPU.")]


# ----------------------------------------------------------------------------- train and demo


@app.command()
@command
def demo(
    minutes: Annotated[float, typer.Option(min=0.01, help="Minutes of training.")] = 1.8,
    folder: Annotated[Path, typer.Option(help="Where the model goes.")] = Path("runs/demo"),
    fresh: Annotated[bool, typer.Option("--fresh", help="Train again from the start.")] = False,
) -> None:
    """Train a model to pronounce English, and show it (3 minutes)."""
    from transduce.commands.demo import run_demo

    run_demo(minutes=minutes, folder=folder, fresh=fresh)


@app.command()
@command
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


@app.command()
@command
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


# -------------------------------------------------------------------------- predict and score


def _predict(task: str | None) -> Callable[..., None]:
    def predict(
        model: Model,
        file: Input = "-",
        json: Json = False,
        beam: Beam = None,
        n_best: NBest = None,
        length_penalty: LengthPenalty = None,
        batch_tokens: SearchBatch = None,
        replace_unknown: ReplaceUnknown = None,
        output: OutputFile = None,
        window: Window = None,
        threads: Threads = None,
        device: Device = "auto",
    ) -> None:
        from transduce.commands.predict import run_predict

        search: dict[str, Any] = {
            "beam": beam,
            "n_best": n_best,
            "length_penalty": length_penalty,
            "batch_tokens": batch_tokens,
            "replace_unknown": replace_unknown,
        }
        run_predict(
            model,
            file,
            {key: value for key, value in search.items() if value is not None},
            json=json,
            output=output,
            window=window,
            threads=threads,
            device=device,
            task=task,
        )

    return command(predict)


app.command("predict", help="Text lines in, text lines out: one for one, in order.")(_predict(None))
app.command("translate", help="The same as predict, for a model that translates.")(
    _predict("translate")
)
app.command("transcribe", hidden=True, help="The same as predict, for a model that transcribes.")(
    _predict("transcribe")
)
app.command("summarize", hidden=True, help="The same as predict, for a model that summarizes.")(
    _predict("summarize")
)


@app.command()
@command
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
) -> None:
    """The log-probability of given targets, one number a line.

    For filtering a corpus, or choosing among outputs of another system."""
    from transduce.commands.predict import run_score

    run_score(model, file, source, target, json=json, output=output, device=device)


# ------------------------------------------------------------------------ evaluate and inspect


@app.command()
@command
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
    json: Annotated[bool, typer.Option("--json", help="Scores as one JSON object.")] = False,
    beam: Beam = None,
    length_penalty: LengthPenalty = None,
    device: Device = "auto",
) -> None:
    """Score a model on examples with known targets.

    Without data options these are the recipe's test set, or else its validation set."""
    from transduce.commands.evaluate import run_evaluate

    search = {"beam": beam, "length_penalty": length_penalty}
    run_evaluate(
        model,
        (data, source, target, table),
        metrics=metric,
        report=report,
        against=against,
        limit=limit,
        output=output,
        json=json,
        search={key: value for key, value in search.items() if value is not None},
        device=device,
    )


@app.command()
@command
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


# ------------------------------------------------------------------------------------- figures


@figure_app.command("attention")
@command
def figure_attention(
    model: Model,
    text: Annotated[str, typer.Argument(help="The input to decode.")],
    output: ImageFile = None,
    target: Annotated[
        str | None, typer.Option(help="Attend for this target, not the model's own.")
    ] = None,
    beam: Beam = None,
    device: Device = "auto",
) -> None:
    """Draw where the model looked while it wrote its answer to TEXT."""
    from transduce.commands.figures import run_attention

    run_attention(model, text, output, target=target, beam=beam, device=device)


@figure_app.command("curves")
@command
def figure_curves(
    model: Annotated[Path, typer.Argument(help="Model folder.")], output: ImageFile = None
) -> None:
    """Draw loss and metrics over the training."""
    from transduce.commands.figures import run_curves

    run_curves(model, output)


@figure_app.command("lengths")
@command
def figure_lengths(
    model: Model,
    data: Data = None,
    source: SourceFile = None,
    target: TargetFile = None,
    table: Table = None,
    metric: Annotated[str | None, typer.Option(help="Metric (default: the task's first).")] = None,
    limit: Limit = None,
    output: ImageFile = None,
    device: Device = "auto",
) -> None:
    """Draw the score by source length.

    Without data options on the recipe's test set, or else its validation set."""
    from transduce.commands.figures import run_lengths

    run_lengths(
        model,
        (data, source, target, table),
        metric=metric,
        limit=limit,
        output=output,
        device=device,
    )


# ---------------------------------------------------------------------------------------- data


@data_app.command("list")
@command
def data_list(json: Json = False) -> None:
    """The sets of the catalogue: names, splits, languages, licences."""
    from transduce.commands.data import run_list

    run_list(json=json)


@data_app.command("get")
@command
def data_get(
    name: Annotated[str, typer.Argument(help="Name of the catalogue, with or without :split.")],
) -> None:
    """Fetch a set of the catalogue, verify its checksums, and print its files."""
    from transduce.commands.data import run_get

    run_get(name)


@data_app.command("check")
@command
def data_check(
    name: Annotated[
        str | None, typer.Argument(help="Recipe, or catalogue name with split.")
    ] = None,
    source: SourceFile = None,
    target: TargetFile = None,
    table: Table = None,
    json: Annotated[bool, typer.Option("--json", help="The findings as one JSON object.")] = False,
) -> None:
    """Find pairs that look wrong: counts and examples.

    Misaligned, empty, duplicate, over-long, wrongly encoded and probably untranslated ones."""
    from transduce.commands.data import run_check

    run_check(name, source, target, table, json=json)
