"""Pre-training on sources alone, going on from its weights, and classes of length, end to end."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner

from transduce.cli import app
from transduce.data.batches import BatchStream
from transduce.data.corpus import open_corpora
from transduce.data.objectives import Noise, mask_id, without_gaps
from transduce.data.prepare import prepare
from transduce.data.sides import learn_sides, load_sides
from transduce.errors import UsageError
from transduce.model.weights import read_tensors
from transduce.recipe import Recipe
from transduce.recipe_files import recipe_from_dict
from transduce.training import train
from transduce.transducer import load

from .conftest import rows_of

WORDS = "the draft plan is late early done gone now today here there".split()


@pytest.fixture(scope="module")
def table(tmp_path_factory: pytest.TempPathFactory) -> str:
    draw = random.Random(1)
    rows = []
    for _ in range(60):
        sentences = [" ".join(draw.choices(WORDS, k=draw.randint(2, 4))) + " ." for _ in range(3)]
        rows.append(
            {
                "body": "\n".join(sentences),
                "subject": " ".join(draw.choices(WORDS, k=draw.randint(1, 6))),
            }
        )
    path = tmp_path_factory.mktemp("mails") / "t.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(path)


def make(table: str, objective: str = "pairs", **more: Any) -> Recipe:
    corpus = {"table": table, "source": "body"}
    pairs = corpus | {"target": "subject"}
    tree: dict[str, Any] = {
        "task": "summarization",
        "data": {
            "train": [pairs if objective == "pairs" else corpus | {"objective": objective}],
            "valid": [pairs if objective == "pairs" else corpus | {"objective": objective}],
            "max_valid": 8,
        },
        "source": {"length_control": True, "tokenizer": {"kind": "words", "shared": True}},
        "model": {"embedding": 8, "encoder": {"size": 8}, "decoder": {"size": 8}},
        "training": {
            "updates": 6,
            "batch_tokens": 200,
            "precision": "fp32",
            "report_every": 1,
            "metric": "loss",
            "threads": 1,
        },
        "search": {"beam": 1, "max_ratio": 1.0, "max_extra": 3},
    }
    for key, value in more.items():
        tree[key] = {**tree[key], **value}
    return recipe_from_dict(tree, where="test")


@pytest.fixture(scope="module")
def pretrained(table: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("models") / "pretrained"
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TRANSDUCE_CACHE", str(folder.parent / "cache"))
        train(make(table, "denoise"), folder, progress=False, device="cpu")
    return folder


def stream_of(recipe: Recipe, cache: Path) -> tuple[BatchStream, Any]:
    corpora = open_corpora(recipe.data.train, "text")
    source, target = learn_sides(recipe, corpora)
    store = prepare(corpora, source, target, recipe.data, cache)
    options = recipe.training
    stream = BatchStream(
        store,
        source,
        target,
        batch_tokens=options.batch_tokens,
        seed=options.seed,
        noise=recipe.data.noise,
    )
    return stream, source


def test_damage_is_new_in_each_epoch_and_exact_after_seeking(table: str, tmp_path: Path) -> None:
    stream, side = stream_of(make(table, "denoise"), tmp_path)
    seen: dict[int, set[tuple[int, ...]]] = {}
    later, position = [], {}
    while stream.epoch < 3:
        if stream.epoch >= 1.5 and not position:
            position = stream.position()
        batch = next(stream)
        if position:
            later.append(batch.source.numpy())
        for row, index in zip(batch.source.tolist(), batch.indices.tolist(), strict=True):
            seen.setdefault(index, set()).add(tuple(row))
    stream.seek(position)
    for expected in later:
        np.testing.assert_array_equal(next(stream).source.numpy(), expected)
    stream.close()
    assert sum(len(versions) > 1 for versions in seen.values()) > 50
    mask = mask_id(side)
    assert any(mask in row for versions in seen.values() for row in versions)


def test_noise_replaces_its_share_and_keeps_the_rest_in_sentences(table: str) -> None:
    recipe = make(table, "denoise")
    side, _ = learn_sides(recipe, open_corpora(recipe.data.train))
    rng = np.random.default_rng(1)
    ids = side.encode("the draft is late . the plan is done . gone now today here . " * 20)
    none = recipe.data.noise.model_copy(update={"mask": 0.0, "permute": True})
    permuted = Noise(side, none)(ids, rng)
    assert sorted(permuted.tolist()) == sorted(ids)
    assert permuted.tolist() != ids
    assert side.decode(permuted.tolist()).count("the draft is late .") == 20
    only = recipe.data.noise.model_copy(update={"permute": False})
    left = [Noise(side, only)(ids, rng).tolist() for _ in range(50)]
    gone = [1 - sum(i != mask_id(side) for i in row) / len(ids) for row in left]
    assert 0.2 < np.mean(gone) < 0.31
    masks = [row.count(mask_id(side)) for row in left]
    assert np.mean(masks) == pytest.approx(0.3 * len(ids) / 3, rel=0.3)
    deleted = none.model_copy(update={"delete": 0.5, "permute": False})
    assert 0.3 < len(Noise(side, deleted)(ids, rng)) / len(ids) < 0.7
    assert len(Noise(side, recipe.data.noise)(ids[:1], rng)) >= 1


def test_gaps_are_the_sentences_that_say_most() -> None:
    text = "Lunch? Send the draft of the plan today. The draft plan is late. Bye."
    source, target = without_gaps(text, 0.3)
    assert target == "Send the draft of the plan today."
    assert source.split("\n") == ["Lunch?", "<|mask|>", "The draft plan is late.", "Bye."]
    assert without_gaps("Only one.", 0.3) == ("Only one.", "")
    assert without_gaps("Do it. Do it.", 0.9)[1] == "Do it."


def test_gap_sentences_train_and_short_texts_are_counted(table: str, tmp_path: Path) -> None:
    stream, _ = stream_of(make(table, "gap"), tmp_path)
    batch = next(stream)
    stream.close()
    assert (batch.target_lengths < batch.source_lengths).all()


def test_a_training_goes_on_from_other_weights(
    table: str, pretrained: Path, tmp_path: Path
) -> None:
    recipe = make(table, training={"start": str(pretrained), "learning_rate": 1e-9})
    train(recipe, tmp_path / "on", progress=False, device="cpu")
    before = read_tensors(pretrained / "weights.safetensors")
    after = read_tensors(tmp_path / "on" / "weights.safetensors")
    assert all((before[name] - after[name]).abs().max() < 1e-6 for name in before)
    assert (tmp_path / "on" / "source.json").read_bytes() == (
        pretrained / "source.json"
    ).read_bytes()
    # Its own targets, which are shorter than whole texts, say what short is.
    of = [load_sides(path, recipe)[0].lengths for path in (tmp_path / "on", pretrained)]
    assert of[0].long < of[1].long


def test_coverage_is_added_to_a_model_that_goes_on_as_it_was(
    table: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TRANSDUCE_CACHE", str(tmp_path / "cache"))

    def last(name: str, start: str | None, weight: float, rate: float, *, seen: bool) -> Any:
        """The last validation of a training; `seen`: attention knows the coverage."""
        attention = {"kind": "additive", "coverage": seen}
        own = {"size": 8, "copy": "pointer", "feeding": "context", "attention": attention}
        training = {"start": start, "coverage": weight, "learning_rate": rate}
        source = {"length_control": False}
        init = {"kind": "uniform", "scale": 0.1}
        model = {"decoder": own, "init": init}
        recipe = make(table, model=model, source=source, training=training)
        train(recipe, tmp_path / name)
        return rows_of(tmp_path / name)[-1]

    plain = last("plain", None, 0.0, 0.01, seen=False)
    there = str(tmp_path / "plain")
    same = last("same", there, 0.0, 1e-9, seen=True)
    assert same["loss"] == pytest.approx(plain["loss"], abs=1e-4)
    last("covering", there, 1.0, 0.01, seen=True)
    weights = read_tensors(tmp_path / "covering" / "weights.safetensors")
    assert weights["decoder.attention.cover"].abs().max() > 1e-4
    with pytest.raises(UsageError, match=r"cover.*coverage: true there, false here"):
        last("back", str(tmp_path / "covering"), 0.0, 0.01, seen=False)


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"model": {"embedding": 16}}, r"(?s)`.*`.*model\.embedding: 8 there, 16 here"),
        ({"source": {"tokenizer": {"kind": "characters"}}}, r"source\.tokenizer\.kind words"),
        ({"source": {"lowercase": True}}, r"source\.lowercase False, this recipe True"),
        ({"source": {"symbols": ["#A#"]}}, "has no symbol #A#"),
    ],
)
def test_a_start_that_does_not_fit_says_what_differs(
    table: str, pretrained: Path, tmp_path: Path, changed: dict[str, Any], message: str
) -> None:
    recipe = make(table, training={"start": str(pretrained)}, **changed)
    with pytest.raises(UsageError, match=message):
        train(recipe, tmp_path / "on", progress=False, device="cpu")


def test_resumed_pretraining_equals_uninterrupted(
    table: str, pretrained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TRANSDUCE_CACHE", str(tmp_path / "cache"))
    short = make(table, "denoise", training={"updates": 3, "validate_every": 100})
    whole = make(table, "denoise", training={"updates": 6, "validate_every": 100})
    train(short, tmp_path / "parts", progress=False, device="cpu")
    train(whole, tmp_path / "parts", progress=False, device="cpu")
    train(whole, tmp_path / "whole", progress=False, device="cpu")
    losses = [
        [row["loss"] for row in rows_of(tmp_path / name) if row["kind"] != "validation"]
        for name in ("parts", "whole")
    ]
    assert losses[0] == losses[1]
    assert len(losses[0]) == 6


def test_length_is_chosen_in_prediction(pretrained: Path, tmp_path: Path, table: str) -> None:
    model = load(pretrained, device="cpu", precision="fp32")
    tokens = [model("the draft", length=name).source_tokens[0] for name in ("short", "long")]
    assert tokens == ["<|short|>", "<|long|>"]
    assert model("the draft").source_tokens[0] == "<|medium|>"
    (tmp_path / "in").write_text("the draft is late\n\n")
    arguments = ["predict", str(pretrained), str(tmp_path / "in"), "--json"]
    done = CliRunner().invoke(app, [*arguments, "--length", "long"])
    assert done.exit_code == 0
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    assert "<|long|>" in lines[0]["source_tokens"]
    assert lines[1]["text"] == ""
    with pytest.raises(UsageError, match="one of short, medium, long or null"):
        model("the draft", length="tiny")


def test_length_needs_a_model_trained_for_it(untrained: Path) -> None:
    model = load(untrained, device="cpu", precision="fp32")
    with pytest.raises(UsageError, match=r"trained without `source.length_control: true`"):
        model("cat", length="short")


def test_an_exported_model_keeps_length_truncation_and_cleaning(table: str, tmp_path: Path) -> None:
    from transduce import runtime
    from transduce.export import export_model

    source = {
        "length_control": True,
        "truncate": {"tokens": 6, "keep": "both"},
        "clean": {"html": True},
        "tokenizer": {"kind": "words", "shared": True},
    }
    train(make(table, source=source), tmp_path / "m", progress=False, device="cpu")
    export_model(tmp_path / "m", tmp_path / "e", sample=["the draft is late"])
    model = load(tmp_path / "m", device="cpu", precision="fp32")
    exported = runtime.load(tmp_path / "e", threads=1)
    text = "<b>the draft</b> " + "plan is " * 10 + "gone now"
    expected, found = model(text, length="short"), exported(text, length="short")
    assert found.source_tokens == expected.source_tokens
    assert found.reason == expected.reason
    assert "tokens cut to" in str(found.reason)
    assert found.text == expected.text
    with pytest.raises(UsageError, match=r"search\.length"):
        exported(text, length="tiny")
