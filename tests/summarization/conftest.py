"""A model folder that summarizes, as training would leave it, with random weights."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

PAIRS = [
    ("Hello Ann, the meeting is on Friday at 10:30 in room 7. Please bring the report.", "Meeting"),
    ("Dear all, the report is late. We meet on Monday. Bob will send the new numbers.", "Report"),
    ("Please send the contract to Carl before noon, and tell Ann about the price.", "Contract"),
    ("Thank you for the lunch on Friday! The price of the new room is 120 dollars.", "Lunch"),
]


@pytest.fixture(scope="session")
def summarizer(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """E-mails to subject lines; reads at most 60 tokens, writes at most 6."""
    path = tmp_path_factory.mktemp("models") / "summarizer"
    return make_summarizer(path, {"kind": "bpe", "size": 90})


@pytest.fixture(scope="session", params=["bpe", "words"])
def copier(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same, but that it copies from its source all that it can, and looks at what it said."""
    decoder = {
        "copy": "pointer",
        "feeding": "input",
        "attention": {"kind": "additive", "coverage": True},
        "intra_attention": True,
    }
    path = tmp_path_factory.mktemp("models") / f"copier-{request.param}"
    return make_summarizer(path, {"kind": request.param, "size": 90}, decoder)


def make_summarizer(
    path: Path, tokenizer: dict[str, Any], decoder: dict[str, Any] | None = None
) -> Path:
    import torch

    from transduce.data.text import train_sides
    from transduce.folder import RECIPE, WEIGHTS, publish
    from transduce.model.build import build_model
    from transduce.model.weights import model_tensors, tensor_bytes
    from transduce.recipe_files import dump_recipe, recipe_from_dict

    tree = {
        "task": "summarization",
        "data": {"train": {"source": "a", "target": "b"}, "valid": {"source": "a", "target": "b"}},
        "source": {"language": "en", "tokenizer": {**tokenizer, "shared": True}},
        "target": {"language": "en"},
        "model": {
            "embedding": 8,
            "encoder": {"size": 8},
            "decoder": {"size": 8, **(decoder or {})},
        },
        "training": {"epochs": 1},
        "search": {"beam": 2, "max_ratio": 0.001, "max_extra": 6, "max_source": 60},
        "evaluation": {"bootstrap": 50},
    }
    recipe = recipe_from_dict(tree, where="test")
    path.mkdir()
    source, target = train_sides(recipe.source, recipe.target, lambda: PAIRS, seed=1)
    source.save(path, "source")
    target.save(path, "target")
    torch.manual_seed(3)
    model = build_model(recipe.model, source.size, target.size)
    if model.decoder is not None and model.decoder.gate is not None:
        torch.nn.init.constant_(model.decoder.gate.bias, -4.0)  # p_gen is 0.02
    weights = model_tensors(model)
    files = {RECIPE: dump_recipe(recipe).encode(), WEIGHTS: tensor_bytes(weights)}
    publish(path, files, task=recipe.task, source_language="en", target_language="en")
    return path
