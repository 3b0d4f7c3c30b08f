"""How fast speech is heard: frames, recordings one by one and together, and live.

    python bench/speech.py runs/an4 an4:dev
    python bench/speech.py runs/an4-streaming an4:dev --aligner runs/an4-spliced-2
    python bench/speech.py --random

Recordings are a catalogue name or a table. Each precision has a process of its own. `features` is
log-mel and normalisation; `one by one` is file to text, a recording at a time; `together` leaves
batches to transduce. `stream` is what `transcribe --stream` does with chunks of sound that come
when they would be spoken: the delay from the end of the first word until a partial line begins with
it, which is the time of computing and of waiting for more sound together. A word that only the
final line has right has no delay, and is counted under the table. A word ends at the last sound
before the faintest place between its spike and that of the second, in a forced alignment by the CTC
of the model, or of `--aligner`: a one-way model hears words late itself, so an aligner that reads
both directions is the stricter one. Under the table are also the error rates of the recordings,
whole and live. `--random` hears noise with random weights.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from itertools import islice
from pathlib import Path
from typing import Any

import common
import numpy as np
from common import Contestant, LeftOut
from decoding import probe_of
from speech_ends import ends_of
from speech_folder import random_folder, recordings_of
from turns import Worker

from transduce.evaluation.metrics import measure

HERE = Path(__file__).resolve().parent
PRECISIONS = ("fp32", "bf16", "int8")
SOON = 500  # milliseconds after its end: a word shown by then is counted
HEAD = ["what", "unit", "precision", "threads", "median", "range", "probe GF/s"]


def main() -> None:
    options = options_of(common.parser(__doc__, runs=3))
    facts = common.machine()
    with ExitStack() as stack:
        work = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="speech-")))
        folder = options.model or random_folder(work / "model", options.overrides)
        rows = rows_of(options, folder, work)
        (work / "recordings").write_text(
            "".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8"
        )
        heard: dict[str, dict[str, Any]] = {}
        contestants, about = [], {}
        for precision in options.precisions:
            try:
                worker = start(folder, precision, options.threads, work)
            except LeftOut as reason:
                common.say(f"left out: {precision}: {reason}")
                continue
            stack.callback(worker.close)
            about = worker.about
            answers = heard.setdefault(precision, {})
            contestants += entries(worker, precision, options, answers)
        if not contestants:
            raise SystemExit("there is nothing to measure")
        common.take_turns(contestants, options.runs)
    facts = common.machine() | facts
    print(common.heading(facts))
    print(told_of(options, about, len(rows)))
    table = [HEAD, *([*c.label, *common.summary(c)] for c in contestants)]
    print(common.table(table, left=3) + common.reasons(contestants))
    errors = {name: errors_of(rows, answers) for name, answers in heard.items()}
    if not options.random:
        for name, lines in errors.items():
            print("\n".join(f"{name}: {line}" for line in lines))
    found = [c.facts() for c in contestants]
    common.write_json(options.json, options, facts | {"errors": errors}, found)


def options_of(parser: argparse.ArgumentParser) -> argparse.Namespace:
    """Parse the command line."""
    parser.add_argument("model", type=Path, nargs="?", help="model folder")
    parser.add_argument(
        "data", nargs="?", help="catalogue name or table (an4:dev; --random: noise)"
    )
    parser.add_argument("--random", action="store_true", help="random weights")
    parser.add_argument("--set", dest="overrides", nargs="+", default=[], metavar="key=value")
    parser.add_argument("--recordings", type=int, default=32, help="of a turn, the first ones (32)")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--precisions", type=common.names, default=list(PRECISIONS))
    parser.add_argument("--beam", type=int, help="default: the recipe's")
    parser.add_argument("--chunk", type=float, default=0.1, help="seconds of a chunk (0.1)")
    parser.add_argument("--every", type=float, default=0.2, help="seconds between texts (0.2)")
    parser.add_argument("--aligner", type=Path, help="model folder that says where words end")
    options = parser.parse_args()
    if bool(options.model) == options.random:
        parser.error("give a model folder, or --random")
    return options


# ---------------------------------------------------------------------------------- recordings


def rows_of(options: argparse.Namespace, folder: Path, work: Path) -> list[dict[str, Any]]:
    """The recordings: `audio`, `text`, and where the first word ends."""
    if options.random and options.data is None:
        return [row | {"end": None} for row in noise(work / "noise", options.recordings)]
    examples = list(islice(recordings_of(options.data or "an4:dev"), options.recordings))
    aligner = options.aligner or folder
    ends = [None] * len(examples) if options.random else ends_of(aligner, examples)
    return [
        {"audio": example.source, "text": example.target or "", "end": end}
        for example, end in zip(examples, ends, strict=True)
    ]


def noise(folder: Path, count: int) -> list[dict[str, Any]]:
    """Recordings of 2 to 6 seconds, faint noise with bursts of it."""
    import soundfile

    folder.mkdir()
    draw, rows = np.random.default_rng(1), []
    for number in range(count):
        wave = 0.001 * draw.standard_normal(round(16_000 * draw.uniform(2, 6)))
        for first in range(8_000, len(wave) - 8_000, 4_000):
            wave[first : first + 3_000] *= draw.uniform(1, 150)
        path = folder / f"{number}.wav"
        soundfile.write(path, wave, 16_000)
        rows.append({"audio": str(path), "text": ""})
    return rows


# --------------------------------------------------------------------------------- contestants


def start(folder: Path, precision: str, threads: int, work: Path) -> Worker:
    """A worker with the model in this precision."""
    command = [sys.executable, HERE / "worker_speech.py", folder, work / "recordings"]
    keywords = json.dumps({"precision": precision})
    log = work / f"{precision}.log"
    return Worker([*command, keywords, str(threads)], log, threads=threads)


def entries(
    worker: Worker, precision: str, options: argparse.Namespace, answers: dict[str, Any]
) -> list[Contestant]:
    """The lines of the table that one worker fills; `answers` gets what it said last."""
    audio = worker.about["audio"]
    search = {} if options.beam is None else {"beam": options.beam}
    live = {"how": "stream", "chunk": options.chunk, "every": options.every, "search": search}

    def ask(**question: Any) -> dict[str, Any]:
        answer = worker.ask(**question)
        if "left_out" in answer:
            raise LeftOut(answer["left_out"])
        answers[question["how"]] = answer
        return answer

    def factor(**question: Any) -> Callable[[], list[float]]:
        return lambda: [ask(**question)["seconds"] / audio]

    def speed(**question: Any) -> Callable[[], list[float]]:
        return lambda: [audio / ask(**question)["seconds"]]

    def late() -> list[float]:
        found: list[float] = ask(**live)["late"]
        if not found:
            raise LeftOut("no first word was right before a final line, or no end is known")
        return found

    kinds: list[tuple[str, str, Callable[[], Sequence[float]]]] = [
        ("features", "x real time", speed(how="features")),
        ("one by one", "real-time factor", factor(how="single", search=search)),
        ("together", "x real time", speed(how="bulk", search=search)),
        ("stream, computing", "real-time factor", factor(**live)),
    ]
    if not options.random:
        kinds.append(("stream, first word", "ms after its end", late))
    threads = str(options.threads)
    return [
        Contestant((what, unit, precision, threads), turn, options.threads, probe_of(precision))
        for what, unit, turn in kinds
    ]


# -------------------------------------------------------------------------------------- results


def errors_of(rows: Sequence[dict[str, Any]], answers: dict[str, Any]) -> list[str]:
    """Lines about error rates, of whole recordings and live, and about first words."""
    references = [[row["text"]] for row in rows]
    if not any(text for (text,) in references):
        return []
    lines = []
    kinds = (
        ("whole recordings", "single", "texts"),
        ("live, final texts", "stream", "texts"),
        ("live, the last partial texts", "stream", "partial"),
    )
    for name, how, key in kinds:
        if how in answers:
            rates = [
                f"{kind.upper()} {measure(kind, answers[how][key], references).value():.2f} %"
                for kind in ("cer", "wer")
            ]
            lines.append(f"{name}: {', '.join(rates)}")
    if "stream" in answers:
        lines += first_words(rows, answers["stream"])
    return lines


def first_words(rows: Sequence[dict[str, Any]], answer: dict[str, Any]) -> list[str]:
    """Lines about what became of the first words, and how soon those right in a partial came."""
    fates = [fate for row, fate in zip(rows, answer["fates"], strict=True) if row["text"]]
    pairs = zip(answer["fates"], answer["kept"], strict=True)
    kept = sum(fate == "partial" and right for fate, right in pairs)
    counts = [
        f"{fates.count('partial')} right in a partial line ({kept} in the final one too)",
        f"{fates.count('final')} in the final line only",
        f"{fates.count('never')} never right",
        f"{fates.count('nothing')} with nothing shown",
    ]
    lines = [f"first words of {len(fates)}: {', '.join(counts)}"]
    if late := answer["late"]:
        known = sum(row["end"] is not None for row in rows)
        slow = common.number(common.percentile(late, 0.95))
        soon, early = sum(ms <= SOON for ms in late), sum(ms < 0 for ms in late)
        lines.append(
            f"first words right in a partial line: 95th percentile {slow} ms after their end, "
            f"{early} of {len(late)} before it; {soon} of {known} with a known end within {SOON} ms"
        )
    return lines


def told_of(options: argparse.Namespace, about: dict[str, Any], count: int) -> str:
    """A line about model and work."""
    model = str(options.model) if options.model else "random weights"
    data = options.data or ("noise" if options.random else "an4:dev")
    return (
        f"{about['system']}, {model}: {about['parameters']:,} parameters; {count} recordings of "
        f"{data}, {about['audio']:.0f} s; {options.runs} turns"
    )


if __name__ == "__main__":
    main()
