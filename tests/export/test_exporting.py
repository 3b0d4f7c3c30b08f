"""`transduce export`: what it writes, what it refuses, and what the other commands make of it."""

from __future__ import annotations

import hashlib
import itertools
import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

import transduce.runtime
from transduce.cli import app
from transduce.disk import lock
from transduce.errors import FolderError, TransduceError, UsageError
from transduce.export import export_model, exporting, recurrent
from transduce.export.parity import Parity
from transduce.folder import MANIFEST, RECIPE, WEIGHTS, open_folder, publish
from transduce.model.weights import read_tensors, tensor_bytes
from transduce.recipe import ModelOptions
from transduce.recipe_files import dump_recipe, load_recipe

Run = Callable[..., tuple[int, str, str]]
WRITTEN = {"encoder.onnx", "decoder.onnx", "source.json", "target.json", RECIPE, MANIFEST}
WORDS = ["cat", "back", "tack"]


@pytest.fixture
def run(capfd: pytest.CaptureFixture[str]) -> Run:
    """Run a command in this process; gives exit code, stdout, stderr."""

    def call(*arguments: object) -> tuple[int, str, str]:
        with pytest.raises(SystemExit) as stop:
            app([str(argument) for argument in arguments])
        out, err = capfd.readouterr()
        return int(stop.value.code or 0), out, err

    return call


def test_the_folder_is_whole_and_says_how_far_it_is(exported: Path, untrained: Path) -> None:
    assert {path.name for path in exported.iterdir()} == WRITTEN
    manifest = json.loads((exported / MANIFEST).read_text())
    assert set(manifest["files"]) == WRITTEN - {MANIFEST}
    for name, entry in manifest["files"].items():
        data = (exported / name).read_bytes()
        assert entry == {"sha256": hashlib.sha256(data).hexdigest(), "bytes": len(data)}
    for name in ("source.json", "target.json", RECIPE):
        assert (exported / name).read_bytes() == (untrained / name).read_bytes()
    entry = manifest["exported"]
    assert (manifest["task"], entry["precision"]) == ("pronunciation", "fp32")
    parity = entry["parity"]
    assert parity["equal"] == parity["sources"] == 5 and 0 < parity["log_prob"] < 1e-4
    assert parity["checked_on"] == "lines of the sample"


def test_command(run: Run, untrained: Path, tmp_path: Path) -> None:
    sample, out = tmp_path / "sample", tmp_path / "new" / "out"
    sample.write_text("cat\n\nback\n")
    code, told, err = run("export", untrained, out, "--sample", sample)
    assert (code, err) == (0, "")
    assert f"{out}: fp32, " in told and "checked on 2 lines of the sample" in told
    assert "2 of 2 hypotheses are equal" in told
    # Again, over itself: small weights hold on to their answers in 8 bits as well.
    code, told, _ = run("export", untrained, out, "--sample", sample, "--precision", "int8")
    assert code == 0 and f"{out}: int8, " in told
    assert {path.name for path in out.iterdir()} == WRITTEN


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["nothing-here", "{new}"], 1, "no such model folder"),
        (["{model}", "{new}", "--precision", "int4"], 2, "it is fp32 or int8"),
        (["{model}", "{model}"], 2, "is a model folder; export to another one"),
        (["{model}", "{full}"], 2, "is not empty"),
        (["{model}", "{file}"], 2, "is a file"),
        (["{model}", "{new}", "--sample", "{blank}"], 2, "no line that the model can read"),
        (["{exported}", "{new}"], 1, "an exported folder, which can predict"),
    ],
)
def test_mistakes_get_a_message_and_write_nothing(
    run: Run, untrained: Path, exported: Path, tmp_path: Path,
    arguments: list[str], code: int, message: str,
) -> None:  # fmt: skip
    full, file, blank = tmp_path / "full", tmp_path / "file", tmp_path / "blank"
    full.mkdir()
    (full / "notes.txt").write_text("mine")
    file.write_text("mine")
    blank.write_text("\n \n")
    before = sorted(untrained.iterdir())
    names = {"model": untrained, "exported": exported, "new": tmp_path / "new"}
    filled = [a.format(**names, full=full, file=file, blank=blank) for a in arguments]
    found, out, err = run("export", *filled)
    assert (found, out) == (code, "")
    assert err.startswith("transduce: ") and message in err and "Traceback" not in err
    assert not (tmp_path / "new").exists() and sorted(untrained.iterdir()) == before


@pytest.mark.parametrize(
    ("changed", "named"),
    [
        ({"encoder": {"kind": "conformer"}}, "`model.encoder.kind` conformer"),
        (
            {"decoder": {"attention": {"kind": "location"}, "feeding": "input"}},
            "`model.decoder.attention.kind` location",
        ),
        ({"ctc": {"weight": 1.0}}, "`model.ctc.weight` 1"),
        ({"transducer": {}}, "`model.transducer`"),
    ],
)
def test_parts_without_a_graph_are_named(
    untrained: Path, tmp_path: Path, changed: dict[str, object], named: str
) -> None:
    recipe = load_recipe(untrained / RECIPE)
    other = recipe.model_copy(update={"model": ModelOptions.model_validate(changed)})
    copied(untrained, tmp_path / "model", {RECIPE: dump_recipe(other).encode()})
    with pytest.raises(UsageError, match=f"no ONNX graph for {named}"):
        export_model(tmp_path / "model", tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_graphs_that_answer_otherwise_are_not_written(
    untrained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(recurrent.ORDER, "lstm", [0, 1, 2, 3])
    with pytest.raises(TransduceError, match=r"log-probabilities differ by up to .*Nothing was"):
        export_model(untrained, tmp_path / "out", sample=WORDS)
    assert not (tmp_path / "out").exists()
    # In 8 bits differences are expected, so a large one is told and not refused.
    done = export_model(untrained, tmp_path / "out", sample=WORDS, precision="int8")
    assert done.warnings and "log-probabilities" in done.warnings[0]


def test_weights_that_are_no_numbers_are_not_written(untrained: Path, tmp_path: Path) -> None:
    weights = read_tensors(untrained / WEIGHTS)
    weights["output.bias"] = torch.full_like(weights["output.bias"], torch.nan)
    copied(untrained, tmp_path / "broken", {WEIGHTS: tensor_bytes(weights)})
    with pytest.raises(TransduceError, match="differ by up to nan"):
        export_model(tmp_path / "broken", tmp_path / "out", sample=WORDS)


def test_what_is_not_a_number_is_beyond_every_tolerance() -> None:
    from transduce.export.parity import TOLERANCES

    nan = float("nan")
    for tolerance in TOLERANCES.values():
        assert len(Parity(4, 9, nan, nan, nan, 0).beyond(tolerance)) == 3
        assert Parity(4, 9, 1e-6, 1e-7, 1e-6, 4).beyond(tolerance) == []


def test_without_a_sample_the_validation_data_is_looked_at_or_random_words(
    untrained: Path, tmp_path: Path
) -> None:
    (tmp_path / "v.en").write_text("cat\nback\n")
    (tmp_path / "v.ph").write_text("K AE T\nB AE K\n")
    recipe = load_recipe(untrained / RECIPE)
    valid = [{"source": str(tmp_path / "v.en"), "target": str(tmp_path / "v.ph")}]
    for corpora, label, count in (
        (valid, "sources of the validation data", 2),
        ([{"name": "tatoeba-en-de:nothing"}], "sources of random words", 32),
        ([{"source": "/nowhere/a", "target": "/nowhere/b"}], "sources of random words", 32),
    ):
        data = type(recipe.data).model_validate({**recipe.data.model_dump(), "valid": corpora})
        changed = recipe.model_copy(update={"data": data})
        copied(untrained, tmp_path / "model", {RECIPE: dump_recipe(changed).encode()})
        done = export_model(tmp_path / "model", tmp_path / "out")
        assert (done.checked_on, done.parity.sources) == (label, count)


def test_a_search_option_that_the_runtime_does_not_know_is_refused(
    untrained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from transduce.export import exporting

    known = tuple(name for name in exporting.SEARCH_NAMES if name != "beam")
    monkeypatch.setattr(exporting, "SEARCH_NAMES", known)
    with pytest.raises(UsageError, match=r"`search\.beam` is 2, which exported models do not"):
        export_model(untrained, tmp_path / "out", sample=WORDS)


def written_until(call: int, out: Path, files: Path, model: Path) -> bool:
    """Write an exported folder in a process that is gone at its n-th renaming; whether it was."""
    graphs = {name: (files / name).read_bytes() for name in ("encoder.onnx", "decoder.onnx")}
    entry = json.loads((files / MANIFEST).read_text())["exported"]
    folder, rename = open_folder(model), os.replace
    child = os.fork()
    if child == 0:
        calls = itertools.count(1)
        os.replace = lambda *names: os._exit(9) if next(calls) == call else rename(*names)  # type: ignore[assignment]
        try:
            exporting._write(out, folder, graphs, entry)
            os._exit(0)
        finally:
            os._exit(1)
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    assert code in (0, 9)
    return code == 0


@pytest.mark.parametrize("over", [False, True])
def test_writing_can_stop_anywhere_and_be_done_again(
    untrained: Path, exported: Path, exported8: Path, tmp_path: Path, over: bool
) -> None:
    for call in itertools.count(1):
        out = tmp_path / str(call)
        if over:  # what was there stays usable
            shutil.copytree(exported8, out)
            (out / "source.model").write_text("of a former export with another tokenizer")
        done = written_until(call, out, exported, untrained)
        if over:
            assert transduce.runtime.load(out, threads=1)("cat").tokens
        if done:
            break
        if call in (1, 3, 9):  # all would take long
            export_model(untrained, out, sample=WORDS)
            assert {path.name for path in out.iterdir()} == WRITTEN
            assert transduce.runtime.load(out, threads=1)("cat").tokens
    assert call > 2 * (len(WRITTEN) - 1)
    assert {path.name for path in out.iterdir()} == WRITTEN


def test_a_folder_that_another_export_writes_to_is_left_alone(
    untrained: Path, tmp_path: Path
) -> None:
    with lock(tmp_path / "out"), pytest.raises(FolderError, match="another export is writing"):
        export_model(untrained, tmp_path / "out", sample=WORDS)
    assert [path.name for path in (tmp_path / "out").iterdir()] == [".lock"]


def copied(model: Path, to: Path, files: dict[str, bytes]) -> None:
    """A copy of a model folder with some files replaced and a manifest that fits."""
    to.mkdir(exist_ok=True)
    whole = {p.name: p.read_bytes() for p in model.iterdir() if p.is_file() and p.name != MANIFEST}
    publish(to, whole | files, task="pronunciation", source_language=None, target_language=None)


# ------------------------------------------------------------------------- other commands


def test_predict_answers_from_an_exported_folder(
    run: Run, untrained: Path, exported: Path, tmp_path: Path
) -> None:
    words = tmp_path / "words"
    words.write_bytes(b"cat\n\nc\xfft\n" + b"a" * 1200 + b"\nback\n")
    options = [words, "--beam", "3", "--n-best", "2", "--search", "max_ratio=1.5", "--threads", "1"]
    code, out, err = run("predict", exported, *options)
    assert code == 0 and out.count("\n") == 5
    assert (code, out, err) == run("predict", untrained, *options, "--precision", "fp32")
    code, out, _ = run("transcribe", exported, words, "--json", "--threads", "1")
    assert code == 0 and json.loads(out.splitlines()[0])["source_tokens"] == ["c", "a", "t"]


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["predict", "{exported}", "--device", "cuda"], 2, "an exported model runs on the CPU"),
        (["predict", "{exported}", "--n-best", "9"], 2, "n_best 9 is more than beam 2"),
        (["predict", "{exported}", "--search", "beem=3"], 2, "did you mean `beam`?"),
        (["predict", "{exported}", "--search", "beam=x"], 2, "must be an integer"),
        (["translate", "{exported}"], 2, "a model for pronunciation"),
        (["predict", "{exported},{exported}"], 1, "an exported folder"),
        (["score", "{exported}"], 1, "an exported folder"),
        (["inspect", "{exported}"], 1, "an exported folder"),
        (["average", "{exported}"], 1, "an exported folder"),
    ],
)
def test_what_an_exported_folder_cannot_do_is_said(
    run: Run, exported: Path, arguments: list[str], code: int, message: str
) -> None:
    found, out, err = run(*(argument.format(exported=exported) for argument in arguments))
    assert (found, out) == (code, "")
    assert err.startswith("transduce: ") and message in err and "Traceback" not in err


def test_evaluate_scores_an_exported_folder_beside_its_model(
    run: Run, untrained: Path, exported: Path, tmp_path: Path
) -> None:
    pairs, report = tmp_path / "pairs.tsv", tmp_path / "r.md"
    pairs.write_text("cat\tK AE T\nback\tB AE K\n")
    data = ["--table", pairs, "--source", "1", "--target", "2"]
    code, out, err = run("evaluate", exported, *data, "--against", untrained, "--report", report)
    assert code == 0, err
    assert "pairs.tsv: 2 examples" in out and "difference to" in out and "+0.00" in out
    assert "beam 2" in report.read_text()
