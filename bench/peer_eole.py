"""transduce and eole (PyPI: eole 0.6) side by side on Tatoeba, English to German.

    python bench/peer_eole.py --minutes 10 --threads 1 --eole-python ENV/bin/python

Both learn from the same lines cut by the same SentencePiece model, with an LSTM of the same depth
and widths, for the same wall time on the same number of threads, one after the other. Each then
translates dev with its own decoder, beam 5. Prints what either was told, then one table.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import re
import signal
import subprocess
import sys
import tempfile
import threading
import time
import venv
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from string import Template
from typing import Any

import yaml

from transduce.assessment import Trial, read_trial
from transduce.data.corpus import open_corpora
from transduce.data.text import TextSide
from transduce.data.tokenizers.base import SPECIALS
from transduce.evaluation.metrics import compute
from transduce.recipe import Recipe
from transduce.recipe_files import load_recipe
from transduce.training.setup import learn_sides

NAMES = ("transduce", "eole")
BEAM = 5
REPORT = 10  # updates between two reports
# One line of eole's log: the update, and the mean of source and target tokens of its batches.
STEP = re.compile(r"Step\s+(\d+)/.*bsz:\s*\d+/\s*(\d+)/")
PARAMETERS = re.compile(r"number of parameters: (\d+)")
COMMAND = ["-c", "from eole.bin.main import main; main()"]


@dataclass
class Trained:
    """What a training came to: weights, and how they were reached."""

    model: Path
    parameters: int
    updates: int
    seconds: float  # when these weights were reached
    rate: float  # real target tokens a second of that time


def main() -> None:
    options = arguments()
    folder = Path(options.folder or tempfile.mkdtemp(prefix="peer-eole-")).absolute()
    folder.mkdir(parents=True, exist_ok=True)
    overrides = recipe_overrides(options)
    recipe = load_recipe(options.recipe, overrides)
    print(f"in {folder}\ntransduce: {options.recipe} {' '.join(overrides)}")
    source, target = learn_sides(recipe, open_corpora(recipe.data.train))
    trial = read_trial(recipe.data.valid, group=True)
    lines = [source.normalize(line) for line in trial.sources]
    write(folder / "dev.en", lines)
    os.environ["OMP_NUM_THREADS"] = os.environ["MKL_NUM_THREADS"] = str(options.threads)
    rows = ["system parameters updates minutes tokens/s BLEU 95% decoding_s".split()]
    signature = ""
    for name in [options.only] if options.only else NAMES:
        if name == "eole":
            trained, command = run_eole(options, recipe, (source, target), folder)
        else:
            trained, command = run_transduce(options, overrides, source, folder)
        row, signature = judge(name, trained, command, trial, folder)
        rows.append(row)
    print(f"\n{len(lines)} sources of dev, beam {BEAM}, {options.threads} thread(s)\n{signature}\n")
    for row in rows:
        print("  ".join(cell.rjust(16 if i == 6 else 10) for i, cell in enumerate(row)))


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--minutes", type=float, default=10.0, help="of training, each")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--layers", type=int, default=2, help="of encoder and of decoder")
    parser.add_argument("--size", type=int, default=256, help="width of embeddings and layers")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--only", choices=NAMES)
    parser.add_argument("--recipe", type=Path, default=Path("recipes/tatoeba-en-de.yaml"))
    parser.add_argument("--eole-python", type=Path, help="default: an environment made in --folder")
    parser.add_argument("--eole-rate", type=float, default=0.002, help="its highest learning rate")
    parser.add_argument("--eole-input-feed", type=int, choices=(0, 1), default=1)
    parser.add_argument("--eole-dtype", choices=("fp32", "bf16"), default="fp32")
    parser.add_argument("--folder", help="where to work; default: a temporary folder, kept")
    return parser.parse_args()


def recipe_overrides(options: argparse.Namespace) -> list[str]:
    """What the comparison fixes on transduce's side.

    No validation but the one at the end: eole has no such choice by BLEU, so neither chooses its
    weights on dev and neither spends its minutes there.
    """
    return f"""
        data.train=tatoeba-en-de:train data.valid=tatoeba-en-de:dev
        source.tokenizer.size=8000 model.embedding={options.size}
        model.encoder.size={options.size} model.encoder.layers={options.layers}
        model.decoder.size={options.size} model.decoder.layers={options.layers}
        training.minutes={options.minutes} training.threads={options.threads}
        training.seed={options.seed} training.label_smoothing=0.1
        training.validate_every=1000000 training.average=0 training.report_every={REPORT}
        data.max_valid=100
    """.split()


def run_transduce(
    options: argparse.Namespace, overrides: list[str], source: TextSide, folder: Path
) -> tuple[Trained, list[str]]:
    """Train with transduce; its own clock is the training's, preparation left out."""
    run, transduce = folder / "transduce", [sys.executable, "-m", "transduce"]
    command = [*transduce, "train", str(options.recipe), *overrides, "--folder", str(run)]
    subprocess.run([*command, "--device", "cpu", "--fresh"], check=True)
    # It learns its pieces from the same lines by the same seed; this is what makes that a fact.
    if TextSide.load(run, "source", source.options).fingerprint() != source.fingerprint():
        raise SystemExit("transduce learnt other pieces than those given to eole")
    manifest = json.loads((run / "manifest.json").read_text())
    rows = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    reports = [row for row in rows if row["kind"] == "report"]
    if not reports:
        raise SystemExit(f"transduce made fewer than {REPORT} updates; give more --minutes")
    report = reports[-1]
    seconds, updates = 60 * report["minutes"], rows[-1]["update"]
    rate = report["tokens"] / seconds
    trained = Trained(run, manifest["parameters"], updates, 60 * options.minutes, rate)
    decode = [*transduce, "translate", str(run), str(folder / "dev.en"), "--beam", str(BEAM)]
    return trained, [*decode, "--output", str(folder / "transduce.de"), "--device", "cpu"]


def run_eole(
    options: argparse.Namespace, recipe: Recipe, sides: tuple[TextSide, TextSide], folder: Path
) -> tuple[Trained, list[str]]:
    """Train with eole until its minutes are over, and take the last weights saved by then."""
    python = str((options.eole_python or make_environment(folder / "env")).absolute())
    work = Path(tempfile.mkdtemp(prefix="eole-", dir=folder))
    write_data(recipe, sides, work)
    config = eole_config(options, recipe, work)
    (work / "train.yaml").write_text(config)
    print(f"eole:\n{config}", flush=True)
    trained = train_eole([python, *COMMAND, "train", "--config", "train.yaml"], options, work)
    # eole's own defaults for the rest: scores over length, targets of at most twice the source.
    decode: dict[str, Any] = {"beam_size": BEAM, "batch_size": 64, "seed": options.seed}
    files = {"model_path": trained.model, "src": folder / "dev.en", "output": folder / "eole.de"}
    decode |= {key: str(path) for key, path in files.items()}
    (work / "predict.yaml").write_text(yaml.safe_dump(decode, sort_keys=False))
    return trained, [python, *COMMAND, "predict", "--config", str(work / "predict.yaml")]


def make_environment(folder: Path) -> Path:
    """An environment with eole. torch comes first, so that eole does not choose another one."""
    python = folder / "bin" / "python"
    if not python.exists():
        venv.create(folder, with_pip=True)
    for packages in (["torch==2.13.0"], ["eole>=0.6,<0.7", "aiohttp"]):
        subprocess.run([python, "-m", "pip", "install", "--quiet", *packages], check=True)
    return python


def write_data(recipe: Recipe, sides: tuple[TextSide, TextSide], work: Path) -> None:
    """Training text as transduce's tokenizer sees it, the pieces' model, and their list."""
    source, target = sides
    pairs = [
        (source.normalize(example.source), target.normalize(example.target or ""))
        for example in chain.from_iterable(open_corpora(recipe.data.train))
    ]
    pairs = [pair for pair in pairs if all(pair)]
    # eole shuffles within a bucket only, and takes buckets in the order of the file.
    random.Random(recipe.training.seed).shuffle(pairs)
    write(work / "train.en", [pair[0] for pair in pairs])
    write(work / "train.de", [pair[1] for pair in pairs])
    source.save(work, "pieces")
    # eole puts its own special symbols before these.
    pieces = source.tokens(range(source.size))
    write(work / "vocab.txt", [piece for piece in pieces if piece not in SPECIALS])


def eole_config(options: argparse.Namespace, recipe: Recipe, work: Path) -> str:
    """eole's settings: what has a counterpart in the recipe is like it, the rest its default."""
    train, dropout = recipe.training, recipe.source.tokenizer.dropout
    warmup = train.schedule.warmup
    return Template(Path(__file__).with_suffix(".yaml").read_text()).substitute(
        vars(options),
        work=work,
        report=REPORT,
        nbest=-1 if dropout else 1,
        alpha=dropout,
        longest_source=recipe.data.max_source_length,
        longest_target=recipe.data.max_target_length,
        warmup=warmup,
        rate=round(options.eole_rate * (options.size * warmup) ** 0.5, 6),
        batch=train.batch_tokens,
        dropout=recipe.model.decoder.dropout,
        smoothing=train.label_smoothing,
        decay=round(1 - train.ema, 6) if train.ema else 0.0,
        # So often that what is lost by stopping at a checkpoint is about a percent of the minutes.
        save=REPORT * max(1, round(options.minutes / 20)),
    )


def train_eole(command: list[str], options: argparse.Namespace, work: Path) -> Trained:
    """Run eole, kill it when its time is over, and read its log.

    Its clock starts at its first report: starting, reading, the first bucket and ten updates cost
    it nothing.
    """
    environment = {**os.environ, "PYTHONUNBUFFERED": "1", "CUDA_VISIBLE_DEVICES": ""}
    output: dict[str, Any] = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
    process = subprocess.Popen(command, cwd=work, env=environment, start_new_session=True, **output)
    stop = threading.Timer(60 * options.minutes, os.killpg, (process.pid, signal.SIGKILL))
    begin, parameters = 0.0, 0
    tokens: dict[int, tuple[float, int]] = {}  # update: seconds, target tokens since the clock
    assert process.stdout is not None
    try:
        with (work / "train.log").open("w") as log:
            for line in process.stdout:
                log.write(line)
                if found := PARAMETERS.search(line):
                    parameters = int(found[1])
                if not (found := STEP.search(line)):
                    continue
                now, update = time.time(), int(found[1])
                if not begin:
                    begin = now
                    stop.start()
                before, more = tokens[update - REPORT][1] if tokens else 0, REPORT * int(found[2])
                tokens[update] = (now - begin, before + more if now > begin else 0)
    finally:
        stop.cancel()
        if process.poll() is None and sys.exc_info()[0] is not None:  # this program was interrupted
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
    if process.returncode != -signal.SIGKILL:
        raise SystemExit(f"eole ended by itself:\n{(work / 'train.log').read_text()[-3000:]}")
    # config.json is what it writes last; half a second, lest the kill came in the midst of that.
    limit = begin + 60 * options.minutes - 0.5
    whole = {
        int(path.parent.name.removeprefix("step_")): path.stat().st_mtime
        for path in (work / "model").glob("step_*/config.json")
    }
    in_time = [update for update, saved in whole.items() if saved <= limit and update in tokens]
    if not in_time:
        raise SystemExit(f"eole saved nothing in {options.minutes} minutes; see {work}/train.log")
    update = max(in_time)
    seconds, count = tokens[update]
    model = work / "model" / f"step_{update}"
    return Trained(model, parameters, update, seconds, count / max(seconds, 1e-9))


def judge(
    name: str, trained: Trained, command: list[str], trial: Trial, folder: Path
) -> tuple[list[str], str]:
    """Translate dev by `command` and score it; a row of the table, and BLEU's signature."""
    start = time.perf_counter()
    with (folder / f"{name}.decode.log").open("w") as log:
        subprocess.run(command, check=True, stdout=log, stderr=log)
    seconds = time.perf_counter() - start
    outputs = (folder / f"{name}.de").read_text(encoding="utf-8").split("\n")[:-1]
    score = compute(["bleu"], outputs, trial.references, target_language="de")[0]
    row = [name, f"{trained.parameters:,}", f"{trained.updates:,}", f"{trained.seconds / 60:.2f}"]
    row += [f"{trained.rate:,.0f}", f"{score.value:.2f}", f"{score.low:.2f}-{score.high:.2f}"]
    return [*row, f"{seconds:.0f}"], score.signature


def write(path: Path, lines: list[str]) -> None:
    path.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")


if __name__ == "__main__":
    main()
