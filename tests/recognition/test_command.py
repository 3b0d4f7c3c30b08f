"""`transcribe`: one line for each recording, in every format, and mistakes that are told."""

from __future__ import annotations

import io
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from transduce.cli import app
from transduce.commands import transcribe
from transduce.commands.listening import TextScreen
from transduce.recognition.live import Line

pytest.importorskip("soundfile")
RATE = 16000
Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def run(
    capfdbinary: pytest.CaptureFixture[bytes], monkeypatch: pytest.MonkeyPatch, clock: Any
) -> Run:
    """Run `transcribe MODEL …` with the recogniser `clock`; gives exit code, stdout, stderr."""
    monkeypatch.setattr(transcribe, "task_of", lambda names: "recognition")
    monkeypatch.setattr(transcribe, "load_recognizer", lambda request: (clock, RATE, {}))

    def call(*arguments: object, stdin: bytes = b"") -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(stdin)))
        with pytest.raises(SystemExit) as stop:
            app(["transcribe", "MODEL", *map(str, arguments)])
        sys.stdout.flush()
        out, err = capfdbinary.readouterr()
        return int(stop.value.code or 0), out.decode(), err.decode()

    return call


@pytest.fixture
def folder(tmp_path: Path, recording: Any) -> Path:
    recording(tmp_path / "in" / "a b ü.wav", (0.5, 2.5), seconds=3.0)
    recording(tmp_path / "in" / "deep" / "c.flac", (0.5, 1.5), seconds=2.0)
    (tmp_path / "in" / "deep" / "d.wav").write_text("no sound")
    (tmp_path / "in" / "notes.txt").write_text("x")
    return tmp_path / "in"


def test_every_recording_gives_its_line_in_order(run: Run, folder: Path) -> None:
    code, out, err = run(folder / "missing.wav", folder, folder / "a b ü.wav")
    assert (code, out) == (0, "\nheard 3.0\nheard 2.0\n\nheard 3.0\n")
    assert f"{folder / 'missing.wav'}: does not exist" in err
    assert f"{folder / 'deep' / 'd.wav'}: not a sound file" in err and "1 other files" in err
    code, out, _ = run(folder, "--names")
    assert [line.split("\t")[1] for line in out.splitlines()] == ["heard 3.0", "heard 2.0", ""]
    assert out.startswith(f"{folder / 'a b ü.wav'}\t")


@pytest.mark.skipif(sys.platform == "win32", reason="names cannot hold these")
def test_a_name_is_one_line_whatever_it_holds(run: Run, tmp_path: Path, recording: Any) -> None:
    held = tmp_path / "in"
    recording(held / "1 two\nlines.wav", (0.5, 2.5), seconds=3.0)
    recording(held / "2 a\tb\u2028c.wav", (0.5, 1.5), seconds=2.0)
    recording(held / "3 two\\nlines ü.wav", (0.5, 1.5), seconds=2.0)
    (held / "4 no\nsound.wav").write_text("x")
    code, out, err = run(held, "--names")
    assert code == 0
    assert [line.split("\t") for line in out.removesuffix("\n").split("\n")] == [
        [rf"{held}/1 two\nlines.wav", "heard 3.0"],
        [rf"{held}/2 a\tb\u2028c.wav", "heard 2.0"],
        [rf"{held}/3 two\\nlines ü.wav", "heard 2.0"],
        [rf"{held}/4 no\nsound.wav", ""],
    ]
    assert rf"transduce: {held}/4 no\nsound.wav: not a sound file" in err
    found = [json.loads(line)["audio"] for line in run(held, "--json")[1].splitlines()]
    assert found[0] == f"{held}/1 two\nlines.wav"


def test_json_has_times_of_segments_and_words(run: Run, folder: Path) -> None:
    code, out, _ = run(folder, "--format", "json")
    first, second, third = map(json.loads, out.splitlines())
    assert code == 0 and first["audio"].endswith("a b ü.wav") and first["seconds"] == 3.0
    (segment,) = first["segments"]
    assert segment["text"] == first["text"] == "heard 3.0" and first["reason"] is None
    assert [word["word"] for word in segment["words"]] == ["heard", "3.0"]
    assert 0 <= segment["words"][0]["start"] <= segment["words"][1]["end"] <= 3.0
    assert second["text"] == "heard 2.0"
    assert (third["text"], third["segments"]) == ("", []) and "not a sound" in third["reason"]
    assert run(folder, "--json")[1] == out


def test_subtitles_go_to_a_folder_or_one_to_the_screen(run: Run, folder: Path) -> None:
    out = folder.parent / "out"
    code, printed, _ = run(folder, "--format", "srt", "--out", out)
    assert (code, printed) == (0, "")
    assert (out / "a b ü.srt").read_text("utf-8").startswith("1\n00:00:00,")
    assert "heard 2.0" in (out / "deep" / "c.srt").read_text("utf-8")
    assert (out / "deep" / "d.srt").read_text("utf-8") == ""
    code, printed, _ = run(folder / "a b ü.wav", "-f", "vtt")
    assert code == 0 and printed.startswith("WEBVTT\n\n00:00:00.") and printed.endswith("3.0\n")
    run(folder / "a b ü.wav", "--out", out)
    assert (out / "a b ü.txt").read_text("utf-8") == "heard 3.0\n"


def test_mistakes_get_a_message(run: Run, folder: Path, tmp_path: Path) -> None:
    (tmp_path / "none").mkdir()
    for arguments, code, told in (
        ([], 2, "name sound files or folders"),
        ([folder, "--format", "srt"], 2, "name a folder, --out"),
        ([folder, "--pause", "0"], 2, "a pause of 0 s"),
        ([folder, "--longest", "0.1"], 2, "pieces of at most 0.1 s: a number from 1 to"),
        ([folder, "--longest", "inf"], 2, "pieces of at most inf s: a number from 1 to"),
        ([""], 2, "the name of a recording is empty"),
        ([folder, "--rate", "8000"], 2, "--rate is of --stream"),
        ([folder, "--out", folder / "notes.txt"], 2, "notes.txt: is no folder"),
        ([folder, "--stream"], 2, "--stream reads standard input"),
        (["--stream", "--format", "srt"], 2, "--stream reads standard input"),
        ([tmp_path / "none"], 2, "holds no sound file"),
        ([folder / "x.wav", folder / "y.wav"], 1, "none of 2 can be read"),
        (["no name of a file " * 300, folder / "y.wav"], 1, "File name too long"),
    ):
        found, _, err = run(*arguments)
        assert found == code and told in err and "Traceback" not in err, err


def test_a_stream_gives_final_lines_and_json_partial_ones(run: Run, waveform: Any) -> None:
    data = (waveform((2.5, 4.5), (6.5, 8.0), seconds=10.0) * 32767).astype("<i2").tobytes()
    code, out, _ = run("--stream", stdin=data)
    assert code == 0 and len(out.splitlines()) == 2
    code, out, _ = run("--stream", "--json", "--every", "0.5", stdin=data)
    lines = [json.loads(line) for line in out.splitlines()]
    assert [line["final"] for line in lines].count(True) == 2
    assert any(not line["final"] and line["text"] for line in lines)
    assert np.all(np.diff([line["end"] for line in lines]) > -1.0)
    assert run("--stream", stdin=b"") == (0, "", "")


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_on_a_terminal_one_line_grows_until_it_is_final(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "20")
    out = Terminal()
    show = TextScreen(out)
    for text, final in (("one", False), ("one " * 9, False), ("one two", True), ("", True)):
        show.line(Line(text.strip(), 0.0, 1.0, final))
    grown, long, said, taken_back = out.getvalue().split("\r\x1b[K")[1:]
    assert (grown, said, taken_back) == ("one", "one two\n", "")
    assert len(long) <= 19 and long.startswith("…") and long.endswith("one one")
    plain = io.StringIO()
    TextScreen(plain).line(Line("growing", 0.0, 1.0, False))
    TextScreen(plain).line(Line("said", 0.0, 1.0, True))
    assert plain.getvalue() == "said\n"


def test_models_that_pronounce_still_read_lines(
    untrained: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    words = tmp_path / "words.txt"
    words.write_text("cat\n")
    with pytest.raises(SystemExit) as stop:
        app(["transcribe", str(untrained), str(words), "--format", "srt"])
    assert stop.value.code == 2 and "transduce predict" in capfd.readouterr().err
    with pytest.raises(SystemExit) as stop:
        app(["transcribe", str(untrained), str(words)])
    assert not stop.value.code
