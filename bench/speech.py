"""How fast speech is heard: frames, recordings one by one and together, and live.

    python bench/speech.py runs/an4 an4:dev
    python bench/speech.py runs/an4-streaming an4:dev --aligner runs/an4
    python bench/speech.py --random

Recordings are a catalogue name or a table. Each precision has a process of its own. `features` is
log-mel and normalisation; `one by one` is file to text, a recording at a time; `together` leaves
batches to transduce. `stream` is what `transcribe --stream` does with chunks of sound that come
when they would be spoken: the delay from the end of the first word until it is shown, which is the
time of computing and of waiting for more sound together. Where words end comes from a forced
alignment by the CTC of the model, or of `--aligner`: a one-way model hears a word late itself, so
an aligner that reads both directions is the stricter one. Under the table are the error rates of
the recordings that were heard, whole and live. `--random` hears noise with random weights.
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
from speech_folder import random_folder, recordings_of
from turns import Worker

from transduce.data.audio.files import load
from transduce.data.formats import Example
from transduce.evaluation.metrics import measure

HERE = Path(__file__).resolve().parent
PRECISIONS = ("fp32", "bf16", "int8")
RATE, SHIFT = 16_000, 160  # samples a second, and of a frame, where sound begins
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
    ends = (
        [None] * len(examples) if options.random else ends_of(options.aligner or folder, examples)
    )
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


def ends_of(folder: Path, examples: Sequence[Example]) -> list[float | None]:
    """The second at which the first word of each ends, by the best path of a model's CTC.

    None where a model without a sense of time has it end before there is any sound.
    """
    import torch

    import transduce
    from transduce.search.ctc.align import align
    from transduce.search.ctc.prefix import Frames

    model = transduce.load(folder, device="cpu", precision="fp32")
    if not getattr(model.model, "has_ctc", False):
        common.say(f"{folder} has no CTC: where words end is not known (--aligner)")
        return [None] * len(examples)

    def written(ids: Sequence[int]) -> list[str]:
        return model.target.decode(ids).split()

    ends: list[float | None] = []
    for example in examples:
        heard = model.source.hear(example.source)
        ids = model.target.encode(example.target or "")
        found = None
        words = written(ids)
        if len(heard.frames) and words:
            with torch.inference_mode():
                source = torch.from_numpy(heard.frames).unsqueeze(0)
                memory = model.model.encode(source, torch.tensor([source.shape[1]]))
                log_probs = model.model.ctc_log_probs(memory)
            positions = log_probs.shape[1]
            (found,) = align(Frames.of(log_probs, torch.tensor([positions])), [0], [ids])
        if found is None:
            ends.append(None)
            continue
        # The word's last token is that after which all the text so far is the word.
        last = max(t for t in range(len(ids)) if written(ids[: t + 1]) == words[:1])
        solid = [t for t in range(last + 1) if written(ids[t : t + 1])]
        shift = len(heard.frames) * model.source.options.shift_ms / 1000 / positions
        end = min(heard.seconds, float(found.ends[solid[-1]]) * shift)
        ends.append(end if end > onset(example.source) else None)
    return ends


def onset(name: str) -> float:
    """The second at which something is heard first: 25 dB below the loudest.

    A model that knows the whole may write the first token before there is any sound.
    """
    wave, _ = load(name, RATE)
    frames = wave[: len(wave) // SHIFT * SHIFT].reshape(-1, SHIFT)
    power = frames.var(axis=1)
    return float(np.argmax(power > power.max() / 316)) * SHIFT / RATE


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
            raise LeftOut("no first word was heard, or it is not known where any ends")
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
    """Lines about error rates, of whole recordings and live, and how many first words counted."""
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
        late = answers["stream"]["late"]
        lines.append(f"first words heard and counted: {len(late)} of {len(rows)}")
        if late:
            slow = common.number(common.percentile(late, 0.95))
            lines.append(f"first word after its end: 95th percentile {slow} ms")
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
