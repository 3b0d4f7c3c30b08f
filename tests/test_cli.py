"""The command line: one line in, one line out; errors without tracebacks; quick help."""

from __future__ import annotations

import errno
import json
import math
import os
import subprocess
import sys
import types
from pathlib import Path

import pytest

from transduce import __version__
from transduce.cli.guard import BROKEN_PIPE

from .conftest import Run, make_folder


def lines_of(text: str) -> list[str]:
    assert text == "" or text.endswith("\n")
    return text.split("\n")[:-1]


# ------------------------------------------------------------------------------------- help


@pytest.mark.parametrize(
    "arguments",
    [
        *(
            [name, "--help"]
            for name in ["demo", "train", "predict", "translate", "score", "evaluate"]
        ),
        *([name, "--help"] for name in ["inspect", "figure", "data", "average", "transcribe"]),
        ["export", "--help"],
        *(["figure", name, "-h"] for name in ("attention", "curves", "lengths")),
        *(["data", name, "-h"] for name in ("list", "get", "check")),
        ["--help"],
    ],
)
def test_every_command_explains_itself(run: Run, arguments: list[str]) -> None:
    code, out, _ = run(*arguments)
    assert code == 0 and "Usage:" in out


def test_help_imports_nothing_slow() -> None:
    code = (
        "import sys, runpy; sys.argv = ['transduce', '--help']\n"
        "try: runpy.run_module('transduce', run_name='__main__')\n"
        "except SystemExit: pass\n"
        "print('slow:', [m for m in ('torch', 'numpy', 'rich', 'pydantic', 'yaml', 'matplotlib')\n"
        "                if m in sys.modules])"
    )
    shown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "predict" in shown.stdout and shown.stdout.endswith("slow: []\n")


def test_version(run: Run) -> None:
    assert run("--version") == (0, f"transduce {__version__}\n", "")


def test_an_unknown_command_or_option_is_a_usage_error(run: Run) -> None:
    for arguments in (["predikt"], ["predict"], ["predict", "x", "--beem", "3"], ["figure", "x"]):
        code, out, err = run(*arguments)
        assert code == 2 and not out and "Traceback" not in err


# ----------------------------------------------------------------------------------- predict


def test_one_line_in_one_line_out(run: Run, untrained: Path) -> None:
    given = [
        b"cat",
        b"",
        b"   ",
        b"a\x00b",
        b"c\xff\xfet",
        "cab\u2028tack\x0bx".encode(),
        b"back\r",
    ]
    code, out, err = run(
        "predict", untrained, "--precision", "fp32", stdin=b"\n".join(given)
    )  # no \n at the end
    answers = lines_of(out)
    assert code == 0 and len(answers) == len(given)
    assert answers[1] == answers[2] == ""
    assert all(answers[i] for i in (0, 3, 4, 5, 6))
    assert "line 2: blank input" in err and "line 3: blank input" in err
    assert "line 5: invalid UTF-8" in err
    assert run("predict", untrained, "--precision", "fp32", stdin=b"back\n")[1] == answers[6] + "\n"
    assert run("predict", untrained, stdin=b"") == (0, "", "")
    assert run("predict", untrained, stdin=b"\n")[1] == "\n"


def test_a_very_long_line_is_cut_and_says_so(run: Run, untrained: Path) -> None:
    given = b"cat\n" + b"a" * 100_000 + b"\ncat\n"
    code, out, err = run("predict", untrained, "--beam", "1", stdin=given)
    answers = lines_of(out)
    assert code == 0 and len(answers) == 3 and answers[0] == answers[2]
    assert "line 2: input of 100000 tokens cut to 1000" in err


def test_many_bad_lines_are_summed_up(run: Run, untrained: Path) -> None:
    code, out, err = run("predict", untrained, stdin=b"\n" * 100)
    assert code == 0 and out == "\n" * 100
    assert err.count("\n") == 21 and "and 80 more lines (blank input: 80)" in err


def test_json_lines(run: Run, untrained: Path) -> None:
    arguments = ["predict", untrained, "--json", "--n-best", 2, "--window", 1]
    code, out, _ = run(*arguments, stdin=b"cat\n\n")
    first, blank = (json.loads(line) for line in lines_of(out))
    assert code == 0 and first["line"] == 1 and first["text"] == " ".join(first["tokens"])
    assert len(first["attention"]) == len(first["token_scores"]) == len(first["tokens"]) + 1
    assert [len(row) for row in first["attention"]] == [4] * len(first["attention"])
    assert first["n_best"][0]["text"] == first["text"]
    assert blank["text"] == "" and blank["reason"] == "blank input" and blank["attention"] is None


def test_n_best_as_text_stays_one_line(run: Run, untrained: Path) -> None:
    _, out, _ = run("predict", untrained, "--beam", 3, "--n-best", 3, stdin=b"cat\nback\n")
    assert [line.count("\t") for line in lines_of(out)] == [2, 2]


def test_files_in_and_out(run: Run, untrained: Path, tmp_path: Path) -> None:
    import gzip

    source = tmp_path / "in.txt.gz"
    source.write_bytes(gzip.compress(b"\xef\xbb\xbfcat\nback\n"))
    out = tmp_path / "out.txt"
    assert run("predict", untrained, source, "--output", out)[:2] == (0, "")
    assert out.read_text() == run("predict", untrained, stdin=b"cat\nback\n")[1]
    source.write_bytes(gzip.compress(b"cat\n" * 1000)[:-20])
    code, _, err = run("predict", untrained, source)
    assert code == 1 and "damaged or cut short" in err
    code, _, err = run("predict", untrained, out, "--output", tmp_path)
    assert code == 1 and err == f"transduce: {tmp_path}: Is a directory\n"


def test_the_output_may_replace_the_input(run: Run, untrained: Path, tmp_path: Path) -> None:
    file = tmp_path / "words"
    file.write_bytes(b"cat\nback\n")
    assert run("predict", untrained, file, "--output", file)[0] == 0
    assert file.read_text() == run("predict", untrained, stdin=b"cat\nback\n")[1]


def test_the_output_may_be_a_link_to_the_input(run: Run, untrained: Path, tmp_path: Path) -> None:
    file, link = tmp_path / "words", tmp_path / "link"
    file.write_bytes(b"cat\nback\n")
    link.symlink_to(file)
    assert run("predict", untrained, file, "--output", link)[0] == 0
    assert link.is_symlink()
    assert file.read_text() == run("predict", untrained, stdin=b"cat\nback\n")[1]


def test_every_search_option_can_be_given(run: Run, untrained: Path, tmp_path: Path) -> None:
    shortest = ["--search", "max_ratio=0.1", "--search", "max_extra=1"]
    code, out, err = run("predict", untrained, *shortest, stdin=b"cat\n")
    assert code == 0 and len(out.split()) <= 1, err
    longer = ["--search", "max_ratio=3", "--search", "min_ratio=3"]
    code, out, err = run("predict", untrained, *longer, stdin=b"cat\n")
    assert code == 0 and len(out.split()) >= 9, err
    pairs = tmp_path / "pairs.tsv"
    pairs.write_text("cat\tK AE T\nback\tB AE K\n")
    data = ["--table", pairs, "--source", "1", "--target", "2"]
    report = tmp_path / "r.md"
    arguments = ["evaluate", untrained, *data, *shortest, "--beam", "3", "--report", report]
    out = run(*arguments, "--output", tmp_path / "out")[1]
    assert "pairs.tsv: 2 examples" in out
    lengths = [len(line.split()) for line in (tmp_path / "out").read_text().splitlines()]
    assert len(lengths) == 2 and max(lengths) <= 1
    told = report.read_text().replace("\\", "")
    assert "beam 3," in told and "max_ratio 0.1, max_extra 1" in told


def test_evaluate_shows_errors_by_kind_when_asked(
    run: Run, untrained: Path, tmp_path: Path
) -> None:
    pairs = tmp_path / "pairs.tsv"
    pairs.write_text("cat\tK AE T\nback\tB AE K\n")
    arguments = ["evaluate", untrained, "--table", pairs, "--source", "1", "--target", "2"]
    code, out, _ = run(*arguments, "--metric", "per", "--errors", "2")
    assert code == 0 and "errors by phone" in out and "most frequent" in out
    assert "REF: " in out and "OUT: " in out
    code, out, _ = run(*arguments, "--metric", "per", "--errors", "0", "--json")
    (total,) = json.loads(out)["errors"]["per"]
    assert total["n"] == 2 and set(total["counts"]) >= {"substitutions", "deletions", "insertions"}
    assert "errors by" not in run(*arguments, "--metric", "per")[1]
    code, _, err = run(*arguments, "--metric", "accuracy", "--errors", "2")
    assert code == 2 and "needs a metric that counts edits" in err


def test_an_output_that_is_a_link_or_a_pipe_is_written_through(
    run: Run, untrained: Path, tmp_path: Path
) -> None:
    file, link, pipe = tmp_path / "file", tmp_path / "link", tmp_path / "pipe"
    file.touch()
    link.symlink_to(file)
    os.mkfifo(pipe)
    assert run("predict", untrained, "--output", link, stdin=b"cat\n")[0] == 0
    assert link.is_symlink() and file.read_text().count("\n") == 1
    with subprocess.Popen(["cat", pipe], stdout=subprocess.PIPE) as reader:
        assert run("predict", untrained, "--output", pipe, stdin=b"cat\n")[0] == 0
        assert reader.communicate(timeout=30)[0] == file.read_bytes()
    assert pipe.is_fifo()


def test_aliases_know_their_tasks(run: Run, untrained: Path) -> None:
    assert run("transcribe", untrained, stdin=b"cat\n") == run("predict", untrained, stdin=b"cat\n")
    code, out, err = run("translate", untrained, stdin=b"cat\n")
    assert (code, out) == (2, "") and "a model for pronunciation, so use `transduce predict`" in err
    assert run("summarize", untrained, stdin=b"cat\n")[0] == 2


def test_several_models_are_an_ensemble(run: Run, untrained: Path, untrained_too: Path) -> None:
    code, out, _ = run("predict", f"{untrained},{untrained_too}", stdin=b"cat\n")
    assert code == 0 and len(lines_of(out)) == 1


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["predict", "nothing-here"], 1, "no such model folder"),
        (["predict", "{model}", "nothing.txt"], 1, "nothing.txt does not exist"),
        (["predict", "{model}", "."], 1, "is a folder"),
        (["predict", "{model}", "--n-best", "9"], 2, "n_best 9 is more than beam 2"),
        (["predict", "{model}", "--search", "beem=3"], 2, "did you mean `beam`?"),
        (["evaluate", "{model}", "--limit", "1", "--search", "beam=x"], 2, "an integer ≥ 1"),
        (["predict", "{model}", "--search", "n_best=3"], 2, "n_best 3 is more than beam 2"),
        (["predict", "{model}", "--search", "beam"], 2, "write `key=value`"),
        (["predict", "{model}", "--search", "self=1"], 2, "unknown key `search.self`"),
        (["predict", "{model}", "--search", "beam=3", "--beam", "2"], 2, "leave one out"),
        (["predict", "{model}", "--workers", "2", "--window", "1"], 2, "leave out --workers"),
        (["predict", "{model}", "--device", "warp"], 2, "device `warp` cannot be used"),
        (["evaluate", "{model}", "--metric", "blue"], 2, "did you mean `bleu`"),
        (["evaluate", "{model}", "--source", "x"], 2, "give both --source and --target"),
        (["evaluate", "{model}", "--report", "x.pdf"], 2, "a report is .html or .md"),
        (["score", "{model}", "--source", "x"], 2, "give both --source and --target"),
        (["inspect", "nothing.yaml"], 2, "there is no such recipe"),
        (["inspect", "{model}", "training.epochs=3"], 2, "for recipes"),
        (["train", "nothing.yaml"], 2, "there is no such recipe"),
        (["average", "{model}"], 2, "no kept checkpoints"),
        (["figure", "attention", "{model}", " "], 2, "blank input"),
        (["figure", "curves", "{model}"], 1, "metrics.jsonl"),
        (["data", "check"], 2, "say what to check"),
        (["data", "get", "cmudikt"], 2, "did you mean `cmudict`"),
    ],
)
def test_mistakes_get_a_message_and_no_traceback(
    run: Run, untrained: Path, arguments: list[str], code: int, message: str
) -> None:
    filled = [argument.format(model=untrained) for argument in arguments]
    found, out, err = run(*filled)
    assert (found, out) == (code, "")
    assert err.startswith("transduce: ") and message in err and "Traceback" not in err


def test_a_recipe_with_a_wrong_key(run: Run, tmp_path: Path) -> None:
    recipe = tmp_path / "r.yaml"
    recipe.write_text(
        "data: {train: 'cmudict:train', valid: 'cmudict:valid'}\n"
        "model:\n  encoder: {layer: 2}\ntraining: {epochs: 1}\n"
    )
    code, out, err = run("train", recipe, "--folder", tmp_path / "run")
    assert (code, out) == (2, "")
    assert "r.yaml:3" in err and "did you mean `layers`?" in err
    assert not (tmp_path / "run").exists()


# ------------------------------------------------------------------------- score and inspect


def test_scores_one_number_a_line(run: Run, untrained: Path, tmp_path: Path) -> None:
    pairs = b"cat\tK AE T\n\tK\nback\ncat\tT T T\n"
    code, out, err = run("score", untrained, stdin=pairs)
    numbers = [float(line) for line in lines_of(out)]
    assert code == 0 and len(numbers) == 4
    assert [number == number for number in numbers] == [True, False, False, True]
    assert "line 2: blank input" in err and "line 3: blank input" in err
    source, target = tmp_path / "s", tmp_path / "t"
    source.write_bytes(b"cat\ncat\n")
    target.write_bytes(b"K AE T\nT T T\n")
    code, out, _ = run("score", untrained, "--source", source, "--target", target, "--json")
    rows = [json.loads(line) for line in lines_of(out)]
    assert [row["log_prob"] for row in rows] == pytest.approx([numbers[0], numbers[3]], abs=1e-4)
    assert rows[0]["tokens"] == ["K", "AE", "T"]
    target.write_bytes(b"K AE T\n")
    code, out, err = run("score", untrained, "--source", source, "--target", target)
    assert code == 1 and "1 targets but more sources" in err


@pytest.fixture
def fast_in_bf16(monkeypatch: pytest.MonkeyPatch) -> None:
    """Makes this a machine where the precision `auto` is bf16."""
    from transduce.model import inference

    monkeypatch.setattr(inference, "has_bf16", lambda device: True)
    monkeypatch.setattr(inference, "_gain", lambda device: 2.0)


@pytest.mark.usefixtures("fast_in_bf16")
def test_scores_are_exact_unless_asked_otherwise(run: Run, untrained: Path) -> None:
    def scored(*arguments: str) -> str:
        code, out, err = run("score", untrained, *arguments, stdin=b"cat\tK AE T\n")
        assert (code, err) == (0, "")
        return out

    assert scored() == scored("--precision", "fp32") != scored("--precision", "bf16")
    assert scored("--precision", "auto") == scored("--precision", "bf16")


@pytest.mark.usefixtures("fast_in_bf16")
def test_models_are_judged_as_trained_unless_asked_otherwise(
    run: Run, untrained: Path, untrained_too: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from transduce import transducer

    taken: list[str] = []
    real = transducer.pack

    def pack(model, precision):  # type: ignore[no-untyped-def]
        taken.append(precision)
        return real(model, precision)

    monkeypatch.setattr(transducer, "pack", pack)
    pairs = tmp_path / "pairs.tsv"
    pairs.write_text("cat\tK AE T\nback\tB AE K\n")
    data = ["--table", pairs, "--source", "1", "--target", "2"]
    arguments = ["evaluate", untrained, *data, "--against", untrained_too]
    assert run(*arguments)[0] == 0 and taken == ["fp32", "fp32"]
    assert run(*arguments, "--precision", "auto")[0] == 0 and taken[2:] == ["bf16", "bf16"]
    assert run("predict", untrained, stdin=b"cat\n")[0] == 0 and taken[4:] == ["bf16"]


def test_a_pair_that_does_not_fit_keeps_its_line(
    run: Run, untrained: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from transduce.model.seq2seq import Seq2Seq

    real = Seq2Seq.given

    def given(self, source, lengths, target_input):  # type: ignore[no-untyped-def]
        if source.shape[1] > 100:
            raise RuntimeError("DefaultCPUAllocator: can't allocate memory")
        return real(self, source, lengths, target_input)

    monkeypatch.setattr(Seq2Seq, "given", given)
    pairs = b"cat\tK AE T\n" + b"c" * 500 + b"\tK\nback\tB AE K\n"
    code, out, err = run("score", untrained, stdin=pairs)
    assert code == 0 and [line == "nan" for line in lines_of(out)] == [False, True, False]
    assert "line 2: failed: an input of 501 positions does not fit into memory" in err


def test_inspect_a_model(run: Run, untrained: Path) -> None:
    code, out, _ = run("inspect", untrained)
    assert code == 0
    for part in ("pronunciation", "encoder", "total", "characters", "learning_rate:"):
        assert part in out
    code, out, _ = run("inspect", untrained, "--json")
    facts = json.loads(out)
    from transduce.transducer import load

    assert facts["parameters"]["total"] == load(untrained).parameters
    assert facts["recipe"]["search"]["beam"] == 2


@pytest.mark.parametrize("part", [{"ctc": {"weight": 1.0}}, {"transducer": {"size": 8}}])
def test_models_without_a_decoder_are_shown_and_answer(run: Run, tmp_path: Path, part) -> None:
    model = make_folder(tmp_path / "model", seed=1, **part)
    code, out, err = run("inspect", model, "--json")
    assert code == 0, err
    assert ("bf16" in json.loads(out)["precision"]["distance"]) == ("ctc" in part)
    assert run("predict", model, stdin=b"cat\nact\n")[0] == 0


def test_models_of_ctc_alone_score_and_are_ensembles(
    run: Run, untrained: Path, tmp_path: Path
) -> None:
    one, other = (
        make_folder(tmp_path / f"{seed}", seed=seed, ctc={"weight": 1.0}) for seed in (1, 2)
    )
    code, out, err = run("score", one, stdin=b"cat\tK AE T\ntack\tT\na\tK AE T\n")
    scores = [float(line) for line in lines_of(out)]
    assert code == 0 and all(score < 0 for score in scores), err
    assert scores[2] == -math.inf  # two positions cannot say three tokens
    code, out, err = run("predict", f"{one},{other}", stdin=b"cat\nact\n")
    assert code == 0 and len(lines_of(out)) == 2, err
    assert (
        run("predict", f"{one},{one}", stdin=b"tack\n")[1]
        == run("predict", one, stdin=b"tack\n")[1]
    )
    transducer = make_folder(tmp_path / "transducer", seed=1, transducer={"size": 8})
    for names, why in (
        (f"{one},{untrained}", "all have a decoder"),
        (f"{transducer},{transducer}", "a transducer cannot be in an ensemble"),
    ):
        code, _, err = run("predict", names, stdin=b"cat\n")
        assert code == 2 and why in err


@pytest.mark.usefixtures("fast_in_bf16")
def test_inspect_tells_what_rounding_changes(run: Run, untrained: Path) -> None:
    facts = json.loads(run("inspect", untrained, "--json")[1])["precision"]
    assert facts["auto"] == "bf16" and "2.0 times as fast" in facts["reason"]
    assert 0 < facts["distance"]["bf16"] < 0.1
    assert 0 < facts["distance"].get("int8", 0.01) < 0.1  # not every torch has int8
    out = run("inspect", untrained)[1]
    assert "precision auto is bf16 here" in out
    assert f"bf16: log-probabilities of tokens differ by {facts['distance']['bf16']:.4f}" in out


def test_a_model_whose_weights_are_no_numbers_is_shown_and_answers(
    run: Run, untrained: Path, tmp_path: Path
) -> None:
    import shutil

    import torch

    from transduce.folder import WEIGHTS, open_folder, publish_more
    from transduce.model.weights import read_tensors, tensor_bytes

    path = shutil.copytree(untrained, tmp_path / "broken")
    broken = {k: torch.full_like(v, torch.nan) for k, v in read_tensors(path / WEIGHTS).items()}
    publish_more(open_folder(path), {WEIGHTS: tensor_bytes(broken)})
    code, out, _ = run("predict", path, "--json", "--n-best", 2, stdin=b"cat\nback\n")
    rows = [json.loads(line) for line in lines_of(out)]
    assert code == 0 and [row["line"] for row in rows] == [1, 2]
    assert all(row["score"] is None for row in rows)
    assert {weight for row in rows[0]["attention"] for weight in row} == {None}
    assert json.loads(run("inspect", path, "--json")[1])["precision"]["distance"]["bf16"] is None
    assert "bf16: not known" in run("inspect", path)[1]


def test_inspect_a_recipe(run: Run, tmp_path: Path) -> None:
    recipe = tmp_path / "r.yaml"
    recipe.write_text(
        "data: {train: 'cmudict:train', valid: 'cmudict:valid'}\ntraining: {epochs: 1}\n"
    )
    code, out, _ = run("inspect", recipe, "model.encoder.layers=3", "--json")
    facts = json.loads(out)
    assert code == 0 and facts["recipe"]["model"]["encoder"]["layers"] == 3
    assert facts["parameters"]["total"] > 1_000_000
    assert "every option" in run("inspect", recipe, "source.tokenizer.kind=characters")[1]


def test_attention_in_the_terminal_and_as_a_picture(
    run: Run, untrained: Path, tmp_path: Path
) -> None:
    picture = tmp_path / "new" / "a.png"
    code, out, _ = run("figure", "attention", untrained, "cat", "--output", picture)
    assert code == 0 and "c   a   t" in out and picture.read_bytes().startswith(b"\x89PNG")
    code, out, _ = run(
        *("figure", "attention", untrained, "cat", "--target", "K AE T", "--output", picture)
    )
    assert code == 0 and out.startswith("K AE T ")


# ------------------------------------------------------------------------------------- pipes


def test_a_reader_that_leaves_is_no_error(untrained: Path) -> None:
    command = f"{sys.executable} -m transduce predict {untrained} --beam 1 | head -n 1"
    lines = b"cat\n" * 40_000
    done = subprocess.run(command, shell=True, input=lines, capture_output=True, check=False)
    assert done.stdout.count(b"\n") == 1 and done.returncode == 0
    assert b"Traceback" not in done.stderr and b"Broken" not in done.stderr


def test_a_broken_pipe_ends_quietly(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    from transduce.commands import data

    def broken(**_: object) -> None:
        raise BrokenPipeError(errno.EPIPE, "Broken pipe")

    monkeypatch.setattr(data, "run_list", broken)
    before = os.dup(1)
    try:
        assert run("data", "list") == (BROKEN_PIPE, "", "")
    finally:
        os.dup2(before, 1)
        os.close(before)


def test_closed_streams(untrained: Path) -> None:
    command = f"{sys.executable} -m transduce predict {untrained}"
    closed = subprocess.run(f"{command} <&-", shell=True, capture_output=True, check=False)
    assert closed.returncode == 2 and b"standard input is closed" in closed.stderr
    closed = subprocess.run(
        f"echo cat | {command} >&-", shell=True, capture_output=True, check=False
    )
    assert closed.returncode == 2 and b"standard output is closed" in closed.stderr


def test_help_says_what_is_read_ahead_and_what_is_checked(run: Run) -> None:
    assert "Pieces of recordings read ahead" in " ".join(run("transcribe", "--help")[1].split())
    assert "Lines read ahead" in " ".join(run("predict", "--help")[1].split())
    assert "Of recordings: unreadable, silent" in run("data", "check", "--help")[1]


def test_a_blank_file_is_no_wrong_command(run: Run, untrained: Path, tmp_path: Path) -> None:
    (tmp_path / "blank.txt").write_text(" \n")
    code, _, err = run("figure", "source", untrained, tmp_path / "blank.txt")
    assert code == 1 and "nothing to draw: blank input" in err
    assert run("figure", "source", untrained, " ")[0] == 2


def test_a_line_is_answered_before_the_next_is_sent(untrained: Path) -> None:
    command = [sys.executable, "-m", "transduce", "predict", str(untrained), "--window", "1"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdin is not None and process.stdout is not None
        for _ in range(2):
            process.stdin.write(b"cat\n")
            process.stdin.flush()
            assert process.stdout.readline().endswith(b"\n")
        process.stdin.close()
        assert process.wait(timeout=60) == 0


def test_ctrl_c_has_its_exit_code(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(**_: object) -> None:
        raise KeyboardInterrupt

    fake = types.ModuleType("transduce.commands.demo")
    fake.run_demo = interrupted  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "transduce.commands.demo", fake)
    assert run("demo")[0] == 130


def test_ctrl_c_while_torch_is_imported_ends_at_once(untrained: Path, tmp_path: Path) -> None:
    # torch's own import aborts when an exception comes up in it.
    (tmp_path / "torch.py").write_text(
        "import os, signal, time\n"
        "try:\n    os.kill(os.getpid(), signal.SIGINT)\n    time.sleep(60)\n"
        "except KeyboardInterrupt:\n    os.abort()\n"
    )
    command = [sys.executable, "-m", "transduce", "predict", str(untrained)]
    path = os.pathsep.join([str(tmp_path), *filter(None, [os.environ.get("PYTHONPATH")])])
    done = subprocess.run(
        command, env={**os.environ, "PYTHONPATH": path}, input=b"", capture_output=True, check=False
    )
    assert (done.returncode, done.stdout, done.stderr) == (130, b"", b"")
