"""A small transduction that trains in a second: copy or reverse a row of symbols."""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from transduce.recipe import Recipe
from transduce.recipe_files import recipe_from_dict

SYMBOLS = "a b c d e f".split()
MakeRecipe = Callable[..., Recipe]


@pytest.fixture(autouse=True)
def one_thread_and_own_cache(
    tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> Any:
    monkeypatch.setenv("TRANSDUCE_CACHE", str(tmp_path_factory.mktemp("cache")))
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def write_pairs(folder: Path, name: str, count: int, longest: int, reverse: bool) -> dict[str, str]:
    """Write random rows and their copies or reverses; how a recipe names them."""
    draw = random.Random(f"{name} {reverse}")
    rows = [draw.choices(SYMBOLS, k=draw.randint(1, longest)) for _ in range(count)]
    source, target = folder / f"{name}.source", folder / f"{name}.target"
    source.write_text("".join(" ".join(row) + "\n" for row in rows))
    target.write_text("".join(" ".join(row[::-1] if reverse else row) + "\n" for row in rows))
    return {"source": str(source), "target": str(target)}


@pytest.fixture(scope="session")
def make_recipe(tmp_path_factory: pytest.TempPathFactory) -> MakeRecipe:
    """Make the recipe of a tiny model; keywords replace options of `training` and `model`."""
    folder = tmp_path_factory.mktemp("pairs")
    corpora = {
        reverse: {
            "train": write_pairs(folder, f"train-{reverse}", 400, 6, reverse),
            "valid": write_pairs(folder, f"valid-{reverse}", 20, 6, reverse),
        }
        for reverse in (False, True)
    }

    def make(
        *,
        reverse: bool = True,
        model: dict[str, Any] | None = None,
        tokenizer: dict[str, Any] | None = None,
        **training: Any,
    ) -> Recipe:
        side = {"tokenizer": tokenizer or {"kind": "symbols"}}
        tree = {
            "task": "transduction",
            "data": corpora[reverse],
            "source": side,
            "target": side,
            "model": {
                "embedding": 12,
                "embedding_dropout": 0.1,
                "encoder": {"size": 12, "dropout": 0.1},
                "decoder": {"size": 12, "dropout": 0.1},
                **(model or {}),
            },
            "training": {
                "batch_tokens": 160,
                "learning_rate": 0.01,
                "schedule": {"warmup": 10},
                "precision": "fp32",
                "report_every": 1,
                "threads": 1,
                **training,
            },
            "search": {"beam": 2},
        }
        return recipe_from_dict(tree, where="test")

    return make


def rows_of(folder: Path) -> list[dict[str, Any]]:
    """The rows of metrics.jsonl without what depends on the clock."""
    clock = ("minutes", "seconds", "tokens_per_second", "memory_mib")
    lines = (folder / "metrics.jsonl").read_text().splitlines()
    return [{k: v for k, v in json.loads(line).items() if k not in clock} for line in lines]
