"""A model that copies writes words that no vocabulary has, from raw files to text."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import pytest

import transduce
from transduce.recipe import Recipe
from transduce.recipe_files import recipe_from_dict
from transduce.training.loop import train

FRAMES = ("call {} now", "please meet {} today", "{} is late again", "ask {} about lunch")
SAID = ("call", "meet", "late", "ask")


def name(draw: random.Random) -> str:
    return "".join(draw.choices("abcdefghijklmnopqrstuvwxyz", k=6))


def write(folder: Path, stem: str, count: int, seed: int) -> dict[str, str]:
    """Sources with a name that occurs once in the world; targets: the verb and the name."""
    draw = random.Random(seed)
    rows = []
    for _ in range(count):
        kind, who = draw.randrange(4), name(draw)
        rows.append({"text": FRAMES[kind].format(who), "said": f"{SAID[kind]} {who}"})
    path = folder / f"{stem}.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return {"table": str(path), "source": "text", "target": "said"}


def recipe_of(folder: Path, model: dict[str, Any] | None = None, **training: Any) -> Recipe:
    side = {"tokenizer": {"kind": "words", "size": 24, "shared": True}}
    part = {"size": 32, "dropout": 0.0}
    tree = {
        "task": "transduction",
        "data": {"train": write(folder, "train", 400, 1), "valid": write(folder, "valid", 30, 2)},
        "source": side,
        "target": {"tokenizer": {"kind": "words", "size": 24}},
        "model": {
            "embedding": 24,
            "embedding_dropout": 0.0,
            "output_dropout": 0.0,
            "encoder": part,
            "decoder": {
                **part,
                "layers": 1,
                "feeding": "input",
                "attention": {"kind": "additive"},
                "copy": "pointer",
                **(model or {}),
            },
        },
        "training": {
            "batch_tokens": 400,
            "learning_rate": 0.01,
            "schedule": {"warmup": 10},
            "precision": "fp32",
            "threads": 1,
            "epochs": 10,
            "coverage": 0.1,
            **training,
        },
        "search": {"beam": 2},
    }
    return recipe_from_dict(tree, where="test")


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("copying")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TRANSDUCE_CACHE", str(folder / "cache"))
        result = train(recipe_of(folder), folder / "model", progress=False)
    assert result.value >= 90
    return folder / "model"


def test_words_never_seen_are_copied_exactly(trained: Path) -> None:
    model = transduce.load(trained, precision="fp32")
    outputs = model([frame.format("zyxwvu") for frame in FRAMES])
    assert [output.text for output in outputs] == [f"{said} zyxwvu" for said in SAID]
    for output in outputs:
        assert output.tokens[1] == "zyxwvu"
        assert output.copied is not None and len(output.copied) == len(output.tokens)
        assert output.copied[1] == pytest.approx(1.0, abs=1e-4)  # it cannot be generated
        assert output.as_dict()["copied"] == [round(share, 4) for share in output.copied]
