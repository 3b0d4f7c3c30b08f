"""Tests that need a GPU; TRANSDUCE_GPU_TESTS=cpu runs them on a processor, to try the tests."""

from __future__ import annotations

import itertools
import os
import random
from pathlib import Path
from typing import Any

import pytest
import torch

from transduce.data.batches import Batch, collate
from transduce.model import Seq2Seq, build_model
from transduce.recipe import ModelOptions, Recipe
from transduce.recipe_files import recipe_from_dict

SYMBOLS = range(4, 8)  # ids after the special ones
ROWS = [list(row) for n in (1, 2, 3) for row in itertools.product(SYMBOLS, repeat=n)]
MODELS = {
    "lstm": {},
    "gru": {"kind": "gru", "attention": {"kind": "general"}},
    "rnn": {"kind": "rnn", "attention": {"kind": "scaled_dot"}},
    "input": {"feeding": "input", "attention": {"kind": "additive"}},
    "context": {"feeding": "context", "attention": {"kind": "dot"}},
    "copy": {"start": "copy"},
    "deep": {"layers": 2, "residual": True, "layer_norm": True, "start": "mean"},
}


@pytest.fixture(scope="session")
def device() -> torch.device:
    name = os.environ.get("TRANSDUCE_GPU_TESTS", "cuda")
    if name == "cuda" and not torch.cuda.is_available():
        pytest.skip("needs a GPU")
    return torch.device(name)


@pytest.fixture(autouse=True)
def own_cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TRANSDUCE_CACHE", str(tmp_path_factory.mktemp("cache")))


def make_model(name: str, dropout: float = 0.0) -> Seq2Seq:
    """A small model, the same at every call."""
    decoder: dict[str, Any] = {"size": 16, "dropout": dropout, **MODELS[name]}
    encoder = {key: decoder[key] for key in ("kind", "layers", "size") if key in decoder}
    torch.manual_seed(1)
    tree = {
        "embedding": 12,
        "embedding_dropout": dropout,
        "output_dropout": dropout,
        "encoder": encoder | {"dropout": dropout},
        "decoder": decoder,
    }
    return build_model(ModelOptions.model_validate(tree), 8, 8)


def batch_of(rows: list[list[int]]) -> Batch:
    return collate(rows, [row[::-1] for row in rows], range(len(rows)))


@pytest.fixture(scope="session")
def recipe(tmp_path_factory: pytest.TempPathFactory) -> Recipe:
    """Reverse a row of symbols: some seconds of training."""
    folder = tmp_path_factory.mktemp("pairs")
    named: dict[str, dict[str, str]] = {}
    for name, count in (("train", 400), ("valid", 30)):
        draw = random.Random(name)
        rows = [draw.choices("abcdef", k=draw.randint(1, 6)) for _ in range(count)]
        named[name] = {side: str(folder / f"{name}.{side}") for side in ("source", "target")}
        text = "".join(" ".join(row) + "\n" for row in rows)
        Path(named[name]["source"]).write_text(text)
        Path(named[name]["target"]).write_text("".join(" ".join(row[::-1]) + "\n" for row in rows))
    side = {"tokenizer": {"kind": "symbols"}}
    tree = {
        "task": "transduction",
        "data": named,
        "source": side,
        "target": side,
        "model": {
            "embedding": 16,
            "encoder": {"size": 32, "dropout": 0.0},
            "decoder": {"size": 32},
        },
        "training": {
            "epochs": 12,
            "batch_tokens": 160,
            "learning_rate": 0.02,
            "schedule": {"warmup": 10},
            "label_smoothing": 0.0,
            "report_every": 10,
            "validate_every": 4.0,
        },
        "search": {"beam": 2},
    }
    return recipe_from_dict(tree, where="test")
