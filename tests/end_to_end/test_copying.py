"""A model that copies writes words that no vocabulary has, from raw files to text."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import pytest

import transduce
from transduce.errors import UsageError
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


def test_a_copied_word_can_be_scored_and_is_better_than_another(trained: Path) -> None:
    model = transduce.load(trained, precision="fp32")
    source = "call zyxwvu now"
    right, wrong = (model.score(source, f"call {who}").log_prob for who in ("zyxwvu", "abcdef"))
    assert right > wrong + 1
    decoded = model(source, beam=1)
    assert decoded.log_prob == pytest.approx(right, abs=1e-3)


def test_a_source_cut_before_the_word_still_answers(trained: Path) -> None:
    output = transduce.load(trained, precision="fp32")("call zyxwvu now", max_source=1)
    assert "zyxwvu" not in output.text and "cut to 1" in (output.reason or "")


def test_what_cannot_copy_says_so(trained: Path, tmp_path: Path) -> None:
    from transduce.export import export_model

    with pytest.raises(UsageError, match="there is no ONNX graph for"):
        export_model(trained, tmp_path / "exported")
    with pytest.raises(UsageError, match="shortlist"):
        transduce.load(trained, precision="fp32")("call me now", shortlist=5)


def test_an_emoji_that_was_never_seen_is_copied_by_a_model_of_subwords(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of what no piece can spell only the place is known; it comes out as it stood there."""
    monkeypatch.setenv("TRANSDUCE_CACHE", str(tmp_path / "cache"))
    draw = random.Random(3)
    tree = recipe_of(tmp_path).model_dump(mode="json")
    for stem, count, begin in (("train", 300, 0x1F300), ("valid", 20, 0x1F600)):
        rows = []
        for _ in range(count):
            kind, who = draw.randrange(4), chr(begin + draw.randrange(0x100))
            rows.append({"text": FRAMES[kind].format(who), "said": f"{SAID[kind]} {who}"})
        path = tmp_path / f"{stem}.jsonl"
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    cut = {"kind": "bpe", "size": 200, "coverage": 0.98}
    tree["source"]["tokenizer"] |= {**cut, "shared": True}
    tree["target"]["tokenizer"] |= cut
    result = train(recipe_from_dict(tree, where="test"), tmp_path / "model", progress=False)
    assert result.value >= 90
    model = transduce.load(tmp_path / "model", precision="fp32")
    family = "\U0001f469\u200d\U0001f469\u200d\U0001f467"
    sources = [frame.format(family) for frame in FRAMES]
    for output, said in zip(model(sources), SAID, strict=True):
        assert output.text == f"{said} {family}"
        at = output.tokens.index(family)
        assert output.copied is not None and output.copied[at] == pytest.approx(1.0, abs=1e-4)
        assert family in output.source_tokens
    right, wrong = (model.score(sources[0], f"call {who}").log_prob for who in (family, "\u2603"))
    assert right > wrong + 1


def test_stopping_and_going_on_loses_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TRANSDUCE_CACHE", str(tmp_path / "cache"))

    def losses(folder: Path, *stops: int) -> list[float]:
        for updates in stops:
            options: dict[str, Any] = {"epochs": None, "updates": updates, "report_every": 1}
            train(recipe_of(tmp_path, **options), folder, progress=False)
        rows = map(json.loads, (folder / "metrics.jsonl").read_text().splitlines())
        return [row["loss"] for row in rows if row["kind"] == "report"]

    assert losses(tmp_path / "parts", 3, 6) == losses(tmp_path / "whole", 6)


WRONG = [
    ({"model": {"decoder": {"attention": {"kind": "none"}}}}, "copies from where attention is"),
    ({"training": {"epochs": 1, "consistency": 1.0}}, "consistency"),
    ({"search": {"shortlist": 10}}, "shortlist"),
    ({"target": {"tokenizer": {"kind": "characters"}}, "source": {}}, "one kind of tokenizer"),
    ({"model": {"ctc": {"weight": 0.3}}}, "ctc.weight"),
    ({"model": {"decoder": {"attention": {"coverage": True}}}}, "attention `additive`"),
    (
        {"model": {"decoder": {"attention": {"kind": "additive", "coverage": True}}}},
        "`parallel` does not know",
    ),
]


@pytest.mark.parametrize(("change", "message"), WRONG)
def test_a_recipe_that_does_not_fit_says_what_to_do(change: dict[str, Any], message: str) -> None:
    tree: dict[str, Any] = {
        "data": {"train": "a:b", "valid": "a:b"},
        "source": {"tokenizer": {"shared": True}},
        "training": {"epochs": 1},
    } | change
    decoder = tree.setdefault("model", {}).setdefault("decoder", {})
    tree["model"] = {**tree["model"], "decoder": {"copy": "pointer", **decoder}}
    with pytest.raises(UsageError, match=message):
        recipe_from_dict(tree, where="test")
