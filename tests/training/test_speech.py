"""Training on recordings: it learns, goes on where it was stopped, and its model answers."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import torch

from transduce.data.sides import load_sides
from transduce.errors import DataError
from transduce.model import build_model
from transduce.model.inference import settle
from transduce.model.weights import load_weights
from transduce.recipe import Recipe
from transduce.recipe_files import recipe_from_dict
from transduce.training.interruption import Interrupted
from transduce.training.loop import train
from transduce.training.update import Updater
from transduce.transducer import Transducer

from .conftest import rows_of

RATE = 8000
NOTES = {"low": 300.0, "middle": 900.0, "high": 2700.0}
BINS = 24


def melody(names: list[str], seed: int) -> Any:
    """Notes of a fifth of a second each, in noise."""
    time = np.arange(RATE // 5) / RATE
    sound = np.concatenate([0.3 * np.sin(2 * np.pi * NOTES[name] * time) for name in names])
    return sound + np.random.default_rng(seed).normal(0, 0.01, len(sound))


@pytest.fixture(scope="module")
def tables(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("melodies")
    draw = np.random.default_rng(1)
    for split, count in (("train", 120), ("valid", 12)):
        rows = ["audio\ttext"]
        for i in range(count):
            names = draw.choice(list(NOTES), size=draw.integers(1, 4)).tolist()
            soundfile.write(folder / f"{split}{i}.wav", melody(names, i), RATE)
            rows.append(f"{split}{i}.wav\t{' '.join(names)}")
        (folder / f"{split}.tsv").write_text("\n".join(rows) + "\n")
    return folder


@pytest.fixture
def recipe(tables: Path) -> Callable[..., Recipe]:
    def make(**training: Any) -> Recipe:
        small = {"size": 16, "dropout": 0.0}
        tree = {
            "task": "recognition",
            "data": {split: {"table": f"{tables}/{split}.tsv"} for split in ("train", "valid")},
            "source": {
                "kind": "speech",
                "rate": RATE,
                "bins": BINS,
                "augment": {"speed": [0.95, 1.0], "frequency_width": 2, "time_width": 3},
            },
            "target": {"tokenizer": {"kind": "symbols"}},
            "model": {
                "embedding": 16,
                "embedding_dropout": 0.0,
                "scale_embedding": False,
                "subsampling": {"kind": "none"},
                "encoder": {**small, "kind": "gru"},
                "decoder": {**small, "kind": "gru"},
            },
            "training": {
                "batch_tokens": 900,
                "learning_rate": 0.01,
                "schedule": {"warmup": 10},
                "precision": "fp32",
                "report_every": 1,
                "threads": 1,
                **training,
            },
            "search": {"beam": 2, "max_ratio": 0.1, "max_extra": 4},
        }
        return recipe_from_dict(tree, where="test")

    return make


def opened(recipe: Recipe, folder: Path) -> Transducer:
    source, target = load_sides(folder, recipe)
    model = build_model(recipe.model, source.size, target.size, BINS)
    load_weights(model, folder / "weights.safetensors")
    cpu = torch.device("cpu")
    return Transducer(
        model.eval(), source, target, recipe, device=cpu, precision=settle("fp32", cpu),
        parameters=0, folders=[folder],
    )  # fmt: skip


def test_melodies_are_learnt_and_every_input_is_answered(
    recipe: Callable[..., Recipe], tmp_path: Path
) -> None:
    made = recipe(epochs=12, validate_every=12, batch_tokens=400, learning_rate=0.02)
    result = train(made, tmp_path / "run", progress=False)
    assert result.scores["wer"] < 50.0  # 25 when this was written; guessing gives some 80
    model = opened(made, tmp_path / "run")
    wave = melody(["high", "low"], 99)
    path = tmp_path / "zwei Töne.flac"
    soundfile.write(path, wave, RATE)
    by_path, by_wave = model(str(path)), model((wave, RATE))
    assert by_path.text == by_wave.text == model(path).text
    assert by_path.attention is not None and by_path.reason is None
    (tmp_path / "text.wav").write_text("no sound")
    many = [
        str(path),
        str(tmp_path / "text.wav"),
        "",
        (np.zeros(RATE), RATE),
        bytes(path),
        (melody(["low"], 1), RATE),
    ]
    outputs = model(many)
    assert [bool(output.text) for output in outputs] == [True, False, False, False, True, True]
    reasons = [output.reason or "" for output in outputs]
    assert "not a sound file" in reasons[1] and "blank" in reasons[2] and "silence" in reasons[3]
    assert outputs[0].text == outputs[4].text == by_path.text
    assert [output.text for output in model(iter(many))] == [output.text for output in outputs]
    scored = model.score(str(path), "high low")
    assert scored.log_prob > model.score(str(path), "middle middle middle").log_prob


def test_stopping_loses_nothing(
    recipe: Callable[..., Recipe], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = recipe(epochs=2, validate_every=0.7)
    train(made, tmp_path / "whole", progress=False)
    original, count = Updater.apply, 0

    def apply(self: Updater, *arguments: Any) -> None:
        nonlocal count
        count += 1
        if count in (3, 8):
            os.kill(os.getpid(), signal.SIGINT)
        original(self, *arguments)

    monkeypatch.setattr(Updater, "apply", apply)
    for _ in range(2):
        with pytest.raises(Interrupted):
            train(made, tmp_path / "parts", progress=False)
    train(made, tmp_path / "parts", progress=False)
    assert rows_of(tmp_path / "parts") == rows_of(tmp_path / "whole")
    weights = [(tmp_path / run / "weights.safetensors").read_bytes() for run in ("parts", "whole")]
    assert weights[0] == weights[1]


def test_a_row_without_its_file_stops_before_training(
    recipe: Callable[..., Recipe], tables: Path, tmp_path: Path
) -> None:
    made = recipe(epochs=1)
    table = tables / "broken.tsv"
    table.write_text("audio\ttext\ntrain0.wav\tlow\ngone.wav\thigh\n")
    data = {"train": [{"table": str(table)}], "valid": made.data.model_dump()["valid"]}
    broken = recipe_from_dict({**made.model_dump(mode="json"), "data": data}, where="test")
    with pytest.raises(DataError, match=r"broken\.tsv:3: .*gone\.wav: does not exist"):
        train(broken, tmp_path / "run", progress=False)
