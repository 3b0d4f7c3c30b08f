"""The user's object for an exported folder: it answers as the model folder does, without torch."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sacremoses import MosesPunctNormalizer

import transduce
import transduce.runtime
from transduce.errors import FolderError, UsageError
from transduce.export.exporting import graphs_of
from transduce.folder import MANIFEST, write_manifest
from transduce.model import build_model
from transduce.output import Output
from transduce.recipe import SearchOptions
from transduce.runtime import ExportedModel
from transduce.runtime.folder import FILES, Cutting, Reading
from transduce.transducer import Transducer

WORDS = ["cat", "back", "tacktack", "a", "cab" * 9, "zat", "backtackcab"]


@pytest.fixture(scope="module")
def original(untrained: Path) -> Transducer:
    return transduce.load(untrained, device="cpu", precision="fp32")


@pytest.fixture(scope="module")
def model(exported: Path) -> ExportedModel:
    return transduce.runtime.load(exported, threads=1)


@pytest.fixture(scope="module")
def model8(exported8: Path) -> ExportedModel:
    return transduce.runtime.load(exported8, threads=1)


def known(model: Transducer, **options: Any) -> dict[str, Any]:
    """A model's search options but for those that the runtime's search has no use for."""
    unused = ("shortlist", "refill", "ctc_weight", "times", "block_ngrams", "block_repeats")
    unused += ("coverage_penalty", "coverage_kind", "language_model", "language_weight")
    return {k: v for k, v in model.search_options(**options) if k not in unused}


def assert_same(one: Output, other: Output, within: float = 1e-4) -> None:
    assert (one.text, one.tokens, one.reason) == (other.text, other.tokens, other.reason)
    assert one.source_tokens == other.source_tokens
    assert one.score == pytest.approx(other.score, abs=within)
    assert one.token_scores == pytest.approx(other.token_scores, abs=within)
    assert (one.attention is None) == (other.attention is None)
    if one.attention is not None:
        np.testing.assert_allclose(one.attention, other.attention, atol=within)
    for left, right in zip(one.n_best, other.n_best, strict=True):
        assert_same(left, right, within)


@pytest.mark.parametrize("search", [{}, {"beam": 1}, {"beam": 4, "n_best": 3, "min_ratio": 0.5}])
def test_answers_are_those_of_the_model_folder(
    model: ExportedModel, original: Transducer, search: dict[str, Any]
) -> None:
    inputs = [*WORDS, "", " \t", "\x00", "ca\nb", "\ud800", "ß", b"c\xe4t", "a" * 1200, "∅∅"]
    expected = list(original.stream(inputs, **search))
    outputs = list(model.stream(inputs, **search))
    assert len(outputs) == len(inputs)
    for one, other in zip(outputs, expected, strict=True):
        assert_same(one, other)


def test_a_list_gives_a_list_and_an_iterable_streams(model: ExportedModel) -> None:
    assert isinstance(model("cat"), Output) and model([]) == []
    outputs = model(WORDS)
    assert [out.text for out in model(iter(WORDS))] == [out.text for out in outputs]
    taken: list[str] = []

    def endless() -> Iterator[str]:
        while True:
            for word in WORDS:
                taken.append(word)
                yield word

    stream = model.stream(endless(), window=3)
    assert [next(stream).text for _ in range(5)] == [out.text for out in outputs[:5]]
    assert len(taken) == 6


@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(texts=st.lists(st.one_of(st.text(max_size=12), st.binary(max_size=12)), max_size=6))
def test_any_texts_at_all(model: ExportedModel, texts: list[str | bytes]) -> None:
    outputs = list(model.stream(texts, beam=1))
    assert len(outputs) == len(texts)
    assert not any("\n" in out.text for out in outputs)


@settings(max_examples=15, deadline=None)
@given(order=st.permutations(WORDS), tokens=st.sampled_from([1, 60, 4000]))
def test_company_and_order_change_nothing(
    model: ExportedModel, model8: ExportedModel, order: list[str], tokens: int
) -> None:
    together = model(order, beam=3, n_best=2, batch_tokens=tokens)
    together8 = model8(order, beam=3, batch_tokens=tokens)
    for word, out, out8 in zip(order, together, together8, strict=True):
        assert_same(model(word, beam=3, n_best=2), out)
        # Rounding of float32 can move an input of a product to the next of its levels.
        assert model8(word, beam=3).score == pytest.approx(out8.score, abs=0.02)


def test_eight_bits_are_smaller_and_near(
    model: ExportedModel, model8: ExportedModel, exported: Path, exported8: Path
) -> None:
    for one, other in zip(model8(WORDS, beam=1), model(WORDS, beam=1), strict=True):
        for left, right in zip(one.token_scores[:2], other.token_scores[:2], strict=True):
            assert left == pytest.approx(right, abs=0.1)
    assert (model.precision, model8.precision) == ("fp32", "int8")
    assert (exported8 / "decoder.onnx").read_bytes() != (exported / "decoder.onnx").read_bytes()


def test_an_input_that_fails_is_answered_with_the_reason(
    model: ExportedModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = model.network.encode

    def encode(source: np.ndarray, lengths: np.ndarray) -> Any:
        if (lengths == 8).any():
            raise RuntimeError("Failed to allocate\nmemory")
        return real(source, lengths)

    monkeypatch.setattr(model.network, "encode", encode)
    outputs = model(["cat", "tacktac", "back"])
    assert outputs[0].text and outputs[2].text and not outputs[1].text
    assert outputs[1].reason == "failed: Failed to allocate memory"


def test_unknown_words_can_be_taken_from_the_source(model: ExportedModel) -> None:
    from transduce.hypotheses import Hypothesis
    from transduce.inputs import read_texts

    (source,) = read_texts(model.source, ["cqt"], 100)
    attention = np.eye(4, dtype=np.float32)[[1, 0, 3]]
    hypothesis = Hypothesis([3, 4], -1.0, -2.0, [-1.0, -0.5, -0.5], attention)
    replaced = model._output(source, [hypothesis], model.search_options(replace_unknown=True))
    assert replaced.tokens[0] == "q" and replaced.text.startswith("q ")


# -------------------------------------------------------------------------------- options


def test_the_recipes_search_options_hold_and_can_be_replaced(
    model: ExportedModel, original: Transducer
) -> None:
    assert dict(model.search_options()) == known(original)
    assert len(model("cat", beam=4, n_best=3).n_best) == 3


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"beem": 3}, r"unknown key `search\.beem`; did you mean `beam`\?"),
        ({"beam": "5"}, r"`search\.beam` is '5'; it must be an integer ≥ 1 and ≤ 1000"),
        ({"beam": True}, "it must be an integer"),
        ({"beam": 0}, "it must be an integer"),
        ({"beam": 1001}, "it must be an integer"),
        ({"n_best": 5}, "n_best 5 is more than beam 2"),
        ({"max_ratio": 0}, r"`search\.max_ratio` is 0; it must be a number > 0"),
        ({"length_penalty": float("nan")}, "it must be a number ≥ 0"),
        ({"length_penalty": float("inf")}, "it must be a number ≥ 0"),
        ({"normalization": "mean"}, "it must be `average` or `gnmt`"),
        ({"replace_unknown": 1}, "it must be true or false"),
    ],
)
def test_wrong_options_are_refused_as_a_recipe_would(
    model: ExportedModel, original: Transducer, options: dict[str, Any], message: str
) -> None:
    with pytest.raises(UsageError, match=message):
        model("cat", **options)
    with pytest.raises(UsageError):
        original("cat", **options)


def test_right_options_are_taken(model: ExportedModel, original: Transducer) -> None:
    for options in ({"length_penalty": 1}, {"normalization": "gnmt"}, {"max_extra": 0}):
        assert dict(model.search_options(**options)) == known(original, **options)
    assert {name for name, _ in model.search_options()} <= set(SearchOptions.model_fields)


# ---------------------------------------------------------------------------- without torch

ALONE = """
import importlib.abc, sys

class Missing(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {missing!r}:
            raise ModuleNotFoundError(f"No module named {{name!r}}", name=name)

sys.meta_path.insert(0, Missing())
{code}
"""
NEEDLESS = ("torch", "pydantic", "yaml", "safetensors", "sacremoses", "rich", "onnx", "matplotlib")


def run_without(missing: tuple[str, ...], code: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", ALONE.format(missing=missing, code=code)]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def test_torch_and_all_that_is_slow_to_import_may_be_missing(
    exported: Path, model: ExportedModel
) -> None:
    code = (
        "import transduce.runtime\n"
        f"out = transduce.runtime.load({str(exported)!r}, threads=1)('tack')\n"
        "print(type(out).__module__, out.text, out.attention.shape, sep='|')\n"
    )
    run = run_without(NEEDLESS, code)
    assert run.returncode == 0, run.stderr
    out = model("tack")
    assert out.attention is not None
    assert run.stdout == f"transduce.output|{out.text}|{out.attention.shape}\n"


def test_predict_needs_no_torch_for_an_exported_folder(
    exported: Path, model: ExportedModel, tmp_path: Path
) -> None:
    words = tmp_path / "words"
    words.write_text("cat\n\nback\n")
    code = (
        "import sys\nfrom transduce.cli import main\n"
        f"sys.argv = ['transduce', 'predict', {str(exported)!r}, {str(words)!r}, '--threads=1']\n"
        "main()\n"
    )
    # typer has its own use for pydantic.
    run = run_without(tuple(name for name in NEEDLESS if name != "pydantic"), code)
    assert run.returncode == 0, run.stderr
    assert run.stdout == f"{model('cat').text}\n\n{model('back').text}\n"
    assert run.stderr == "transduce: line 2: blank input\n"


def test_a_model_folder_without_torch_is_a_message_and_no_traceback(untrained: Path) -> None:
    code = (
        "import sys\nfrom transduce.cli import main\n"
        f"sys.argv = ['transduce', 'predict', {str(untrained)!r}]\nmain()\n"
    )
    run = run_without(("torch",), code)
    assert (run.returncode, run.stdout) == (1, "")
    assert run.stderr.startswith("transduce: this needs torch, which is not installed")


def test_without_onnxruntime_it_is_said_what_to_install(exported: Path) -> None:
    code = f"import transduce.runtime\ntransduce.runtime.load({str(exported)!r})\n"
    run = run_without(("onnxruntime",), code)
    assert "UsageError: exported models need onnxruntime: pip install" in run.stderr


@pytest.mark.parametrize("language", ["en", "de", "fr", "cs", None])
def test_rules_of_punctuation_are_those_of_moses(language: str | None) -> None:
    from transduce.data.text import moses_punctuation, normalizer

    reading = Reading(False, "punctuation", language, Cutting("words"))
    kept = json.loads(json.dumps(moses_punctuation(language)))  # as the manifest keeps them
    normalize = normalizer(reading, tuple((find, put) for find, put in kept))
    moses = MosesPunctNormalizer(lang=language or "en")
    for text in (
        'He said: "Yes" , (or »no«) … 5 % , 3\u00a0000 ',
        "„Gut“, sagte sie – ’s ist ‚so‘; c’est l’été !",
        "l'a dit.\", 1,5 \u00ab a \u00bb `x' ''y''",
    ):
        assert normalize(text) == moses.normalize(text).strip()


# ------------------------------------------------------------------------- damaged folders


@pytest.fixture
def copy(exported: Path, tmp_path: Path) -> Path:
    return shutil.copytree(exported, tmp_path / "copy")


@pytest.mark.parametrize(
    "name", ["encoder.onnx", "decoder.onnx", "source.json", "target.json", "recipe.yaml"]
)
def test_a_file_that_is_missing_cut_or_altered_is_named(copy: Path, name: str) -> None:
    whole = (copy / name).read_bytes()
    (copy / name).write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
    with pytest.raises(FolderError, match=rf"{name}: altered .* or export it again"):
        transduce.runtime.load(copy)
    (copy / name).write_bytes(whole[:-1])
    with pytest.raises(FolderError, match=f"{name}: truncated"):
        transduce.runtime.load(copy)
    (copy / name).unlink()
    with pytest.raises(FolderError, match=f"{name}: missing"):
        transduce.runtime.load(copy)


def rewrite(folder: Path, **changes: Any) -> None:
    """Give the folder a manifest that fits its files, with changes to the runtime's entry."""
    entry = json.loads((folder / MANIFEST).read_text())["exported"] | changes
    entry = {key: value for key, value in entry.items() if value is not None}
    write_manifest(
        folder, task="pronunciation", source_language=None, target_language=None,
        extra={"exported": entry}, names=FILES,
    )  # fmt: skip


def test_graphs_that_are_none_or_do_not_belong_together(copy: Path, original: Transducer) -> None:
    options = original.recipe.model
    fed = options.decoder.model_copy(update={"feeding": "input"})
    options = options.model_copy(update={"decoder": fed})
    other = build_model(options, original.source.size, original.target.size)
    graphs = graphs_of(other, options, original.target.size, "fp32")
    (copy / "decoder.onnx").write_bytes(graphs["decoder.onnx"])
    rewrite(copy)
    with pytest.raises(FolderError, match="do not belong together"):
        transduce.runtime.load(copy)
    (copy / "decoder.onnx").write_bytes(b"not a graph")
    rewrite(copy)
    with pytest.raises(FolderError, match=r"decoder\.onnx: onnxruntime cannot load it"):
        transduce.runtime.load(copy)


def test_a_newer_or_incomplete_entry_is_refused(copy: Path) -> None:
    rewrite(copy, format=99)
    with pytest.raises(FolderError, match="format 99 is newer"):
        transduce.runtime.load(copy)
    rewrite(copy, format=1, search=None)
    with pytest.raises(FolderError, match="lacks search"):
        transduce.runtime.load(copy)
    rewrite(copy, format=None)
    with pytest.raises(FolderError, match="not the manifest of an exported folder"):
        transduce.runtime.load(copy)


@pytest.mark.parametrize(
    "changes",
    [
        {"source": {"tokenizer": "characters"}},
        {"target": "symbols"},
        {"search": {"values": {}}},
        {"search": {"values": {"beam": 5}, "allowed": {"beam": {"type": "integer"}}}},
    ],
    ids=str,
)
def test_a_damaged_entry_is_told_and_no_traceback(copy: Path, changes: dict[str, Any]) -> None:
    rewrite(copy, **changes)
    with pytest.raises(FolderError, match=r"manifest\.json: damaged"):
        transduce.runtime.load(copy)


def test_each_kind_of_folder_says_which_it_is(untrained: Path, exported: Path) -> None:
    with pytest.raises(FolderError, match="a model folder, not an exported one"):
        transduce.runtime.load(untrained)
    with pytest.raises(FolderError, match="an exported folder, which can predict"):
        transduce.load(exported)
    with pytest.raises(FolderError, match="no such model folder"):
        transduce.runtime.load("nothing-here")


def test_facts(model: ExportedModel, original: Transducer) -> None:
    assert (model.task, model.parameters) == (original.task, original.parameters)
    assert model.recipe == original.recipe
    assert "fp32" in repr(model)
