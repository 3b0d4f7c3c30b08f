"""A language model from targets alone to its say in another model's search, by the commands."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

import transduce
from transduce.cli import app
from transduce.errors import UsageError

from ..conftest import make_folder

LINES = ["K AE T", "AE K T", "T AE K", "B AE K", "K AE B"]


def run(*words: object) -> None:
    with pytest.raises(SystemExit) as ended:
        app([str(word) for word in words])
    assert ended.value.code in (0, None)


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A model, and a language model of its targets that was trained beside it."""
    base = tmp_path_factory.mktemp("language")
    model = make_folder(base / "model", seed=1)
    (base / "targets.txt").write_text("\n".join(["K AE T"] * 60) + "\n")
    (base / "lm.yaml").write_text(
        "task: language\n"
        "data: {train: [{target: targets.txt}], valid: [{target: targets.txt}]}\n"
        f"target: {{tokenizer: {{kind: symbols}}, like: {model}}}\n"
        "model: {embedding: 8, decoder: {size: 16}}\n"
        "training: {epochs: 12, learning_rate: 0.02, batch_tokens: 40, schedule: {warmup: 4}}\n"
    )
    run("train", base / "lm.yaml", "--folder", base / "lm", "--device", "cpu")
    return model, base / "lm"


def test_it_prefers_what_it_was_trained_on(folders, tmp_path, capsys) -> None:
    _, lm = folders
    (tmp_path / "lines").write_text("K AE T\nT AE K\n\nB AE K\n")
    capsys.readouterr()
    run("score", lm, tmp_path / "lines", "--json")
    captured = capsys.readouterr()
    rows = [json.loads(line) for line in captured.out.splitlines()]
    assert [row["line"] for row in rows] == [1, 2, 3, 4]
    assert rows[2]["log_prob"] is None
    assert rows[0]["log_prob"] > max(rows[1]["log_prob"], rows[3]["log_prob"]) + 3
    assert "perplexity" in captured.err
    assert "12 tokens" in captured.err


def test_with_weight_enough_it_says_everything(folders) -> None:
    folder, lm = folders
    model = transduce.load(folder, device="cpu")
    alone = model(["cat", "back"])
    fused = model(["cat", "back"], language_model=str(lm), language_weight=20.0)
    assert [out.text for out in fused] == ["K AE T", "K AE T"]
    silent = model(["cat", "back"], language_model=str(lm), language_weight=0.0)
    assert [out.text for out in silent] == [out.text for out in alone]


def test_what_does_not_fit_is_said(folders, tmp_path) -> None:
    folder, _lm = folders
    model = transduce.load(folder, device="cpu")
    with pytest.raises(UsageError, match="was trained for pronunciation"):
        model("cat", language_model=str(folder))
    other = make_folder(tmp_path / "other", seed=1)
    (tmp_path / "t.txt").write_text("A B\nB A\n")
    (tmp_path / "lm.yaml").write_text(
        "task: language\n"
        "data: {train: [{target: t.txt}], valid: [{target: t.txt}]}\n"
        "target: {tokenizer: {kind: symbols}}\n"
        "model: {embedding: 4, decoder: {size: 4}}\n"
        "training: {updates: 1}\n"
    )
    run("train", tmp_path / "lm.yaml", "--folder", tmp_path / "lm", "--device", "cpu")
    with pytest.raises(UsageError, match=r"another target vocabulary.*target\.like"):
        transduce.load(other, device="cpu")("cat", language_model=str(tmp_path / "lm"))
