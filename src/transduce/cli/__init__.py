"""The `transduce` command: parse, call, print.

Each command's work is in `commands/` and imported when it runs, because importing torch takes
longer than most of what a person asks of a command line.
"""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from transduce import __version__
from transduce.cli import data, documents, exporting, figures, models, speech

app = typer.Typer(
    name="transduce",
    help="Sequence-to-sequence learning: train, run, evaluate and inspect encoder-decoder models.",
    no_args_is_help=True,
    rich_markup_mode=None,  # importing rich would take half of the time `--help` may take
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
figure_app = typer.Typer(
    help="Draw attention, a source shaded by it, training curves, or score by length.",
    no_args_is_help=True,
)
data_app = typer.Typer(help="List, fetch, check and splice data.", no_args_is_help=True)


def main() -> None:
    """Run the command line; ends the process with its exit code."""
    for stream in (sys.stdout, sys.stderr):
        if stream is not None and hasattr(stream, "reconfigure"):
            stream.reconfigure(encoding="utf-8", errors="replace")
    app()


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


_PREDICT = "Text lines in, text lines out: one for one, in order."
_SAME = "The same as predict, for a model that {task}s."

app.command("demo")(models.demo)
app.command("train")(models.train)
app.command("average")(models.average)
app.command("shortlist")(models.shortlist)
app.command("predict", help=_PREDICT)(models.predicting(None))
app.command("translate", help=_SAME.format(task="translate"))(models.predicting("translate"))
app.command("summarize")(documents.summarize)
app.command("transcribe")(speech.transcribe)
app.command("score")(models.score)
app.command("evaluate")(models.evaluate)
app.command("inspect")(models.inspect)
app.command("export")(exporting.export)
app.add_typer(figure_app, name="figure")
figure_app.command("attention")(figures.attention)
figure_app.command("source")(figures.source)
figure_app.command("curves")(figures.curves)
figure_app.command("lengths")(figures.lengths)
app.add_typer(data_app, name="data")
data_app.command("list")(data.list_sets)
data_app.command("get")(data.get)
data_app.command("check")(data.check)
data_app.command("splice")(data.splice)
