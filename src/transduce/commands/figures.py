"""`figure attention|source|curves|lengths`: PNG files, attention in the terminal and HTML too."""

from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from transduce.assessment import chosen_corpora, metric_names
from transduce.commands.evaluate import Chosen, assess_with_bar, lengths_of, trial_for
from transduce.commands.predict import load_models
from transduce.commands.searching import SearchChoice
from transduce.commands.showing import console, table
from transduce.data.audio.files import parts
from transduce.data.files import damage, open_bytes
from transduce.data.speech import SpeechSide
from transduce.disk import atomic_bytes
from transduce.errors import DataError, FolderError, TransduceError, UsageError
from transduce.evaluation.figures import (
    Spikes,
    attention_png,
    attention_text,
    curves_png,
    lengths_png,
    shaded,
    source_html,
    source_png,
    speech_png,
)
from transduce.evaluation.figures.canvas import FORMATS
from transduce.folder import FIGURES, METRICS, open_folder
from transduce.training.report import read_metrics

if TYPE_CHECKING:
    from transduce.transducer import Transducer

LOWEST = 20.0  # Hz: where Kaldi's lowest filter begins


def run_attention(
    model: str, text: str, output: Path | None, *, target: str | None, beam: int | None, device: str
) -> None:
    """Decode one input (or force a target on it) and draw its attention."""
    transducer = load_models(model, device, None)
    search: dict[str, Any] = {} if beam is None else {"beam": beam}
    if isinstance(transducer.source, SpeechSide):
        _draw_recording(transducer, text, output, target, search)
        return
    out = transducer(text, **search) if target is None else transducer.attend(text, target)
    if out.attention is None:
        raise _nothing("no attention to draw", out.reason, typed=True)
    path = _place(transducer, output, text)
    attention_png(
        out.attention, out.columns, out.rows, path, token_scores=out.token_scores, title=out.text
    )
    screen = console()
    screen.print(f"{out.text}   (score {out.score:.3f})", markup=False)
    screen.print(
        attention_text(out.attention, out.columns, out.rows, width=screen.width), markup=False
    )
    screen.print(f"figure: {path}", markup=False)


def run_source(
    model: str,
    text: str,
    output: Path | None,
    *,
    target: str | None,
    search: SearchChoice,
    device: str,
) -> None:
    """Draw a source, or the file that holds it, shaded by attention: as HTML, as PNG, or both."""
    if output is not None and output.suffix.lower() not in (".html", *FORMATS):
        kinds = ", ".join((".html", *FORMATS))
        raise UsageError(f"{output}: a source is drawn as {kinds}")
    transducer = load_models(model, device, None)
    if isinstance(transducer.source, SpeechSide):
        raise UsageError(f"{model}: its sources are recordings; draw one with `figure attention`")
    name, document = _document_of(text)
    out = (
        transducer(document, **search.options(transducer))
        if target is None
        else transducer.attend(document, target)
    )
    if out.attention is None:
        raise _nothing("nothing to draw", out.reason, typed=isinstance(document, str))
    drawn = shaded(out.attention, out.columns, out.rows, out.copied)
    if out.reason:
        print(f"transduce: {out.reason}", file=sys.stderr)
    folder = transducer.folders[0] / FIGURES
    stem = f"source-{_slug(name)}"
    paths = [output] if output is not None else [folder / f"{stem}{s}" for s in (".html", ".png")]
    screen = console()
    screen.print(f"{out.text}   (score {out.score:.3f})", markup=False)
    for path in paths:
        path.parent.mkdir(parents=True, exist_ok=True)
        if path.suffix.lower() == ".html":
            page = source_html(drawn, out.text or name)
            atomic_bytes(path, page.encode("utf-8", "replace"))
        else:
            source_png(drawn, path)
        screen.print(f"figure: {path}", markup=False)


def _nothing(what: str, reason: str | None, *, typed: bool) -> TransduceError:
    """The error where there is no picture: `reason` is the input's, None: the model's.

    An input that was `typed` is to be written differently; one in a file is no wrong command.
    """
    if reason is not None and not typed:
        return DataError(f"{what}: {reason}")
    return UsageError(f"{what}: {reason or 'the model has no attention'}")


def _document_of(text: str) -> tuple[str, str | bytes]:
    """A name, and the document: the file that the text names, if there is one, or else itself."""
    try:
        there = Path(text).is_file()
    except (OSError, ValueError):  # too long for a name, or with a zero byte
        there = False
    if not there:
        return text, text
    with open_bytes(text) as stream, damage(text):
        return Path(text).stem, stream.read()


def _draw_recording(
    transducer: Transducer,
    name: str,
    output: Path | None,
    target: str | None,
    search: dict[str, Any],
) -> None:
    """Draw a recording: its spectrogram, where the decoder looked, and what CTC heard."""
    side = transducer.source
    assert isinstance(side, SpeechSide)
    heard = side.hear(name, transducer.recipe.search.max_source)
    if not len(heard.frames):
        raise _nothing(f"{name}: nothing to draw", heard.reason, typed=False)
    out = transducer(name, **search) if target is None else transducer.attend(name, target)
    log_probs = transducer.ctc_log_probs(name)
    names = [transducer.target.tokens([label])[0] for label in range(transducer.target.size)]
    path = _place(transducer, output, parts(name)[0].stem)
    speech_png(
        heard.frames,
        side.seconds_of(len(heard.frames)),
        path,
        tokens=out.tokens,
        attention=out.attention,
        ctc=None if log_probs is None else Spikes(log_probs, names),
        band=(LOWEST, side.options.rate / 2),
        title=out.text or None,
    )
    screen = console()
    if out.reason:
        print(f"transduce: {name}: {out.reason}", file=sys.stderr)
    screen.print(f"{out.text}   (score {out.score:.3f})", markup=False)
    screen.print(f"figure: {path}", markup=False)


def _place(transducer: Transducer, output: Path | None, name: str) -> Path:
    path = output or transducer.folders[0] / FIGURES / f"attention-{_slug(name)}.png"
    path.parent.mkdir(parents=True, exist_ok=True)
    return path


def run_curves(model: Path, output: Path | None) -> None:
    """Draw what metrics.jsonl recorded."""
    open_folder(model)
    path = output or model / FIGURES / "curves.png"
    path.parent.mkdir(parents=True, exist_ok=True)
    rows = read_metrics(model)
    if not rows:
        raise FolderError(f"{model / METRICS}: empty; training has reported nothing yet")
    curves_png(rows, path)
    console().print(f"figure: {path}", markup=False)


def run_lengths(
    model: str,
    chosen: Chosen,
    *,
    metric: str | None,
    limit: int | None,
    output: Path | None,
    device: str,
) -> None:
    """Score a model by source length; a table and a figure."""
    transducer = load_models(model, device, None)
    name = metric_names(transducer.recipe, [metric] if metric else None)[0]
    trial = trial_for(transducer, chosen_corpora(*chosen), limit)
    rows = lengths_of(transducer, assess_with_bar(transducer, trial, metrics=[name]))
    path = output or transducer.folders[0] / FIGURES / "lengths.png"
    path.parent.mkdir(parents=True, exist_ok=True)
    lengths_png(rows, path)
    screen = console()
    cells = [
        [
            row.span,
            f"{row.n:,}",
            f"{row.value:.2f}",
            "" if row.low is None else f"{row.low:.2f} to {row.high:.2f}",
        ]
        for row in rows
    ]
    head = [f"source {rows[0].unit}", "examples", rows[0].label, "95 % interval"]
    screen.print(table(head, cells, right=(1, 2)))
    screen.print(f"figure: {path}", markup=False)


def _slug(text: str) -> str:
    return re.sub(r"\W+", "-", text.lower()).strip("-")[:40] or "input"
