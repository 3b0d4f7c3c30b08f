"""`data check` of recordings: every fault is counted once, named by file and line."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from transduce.commands.data import run_check
from transduce.data.audio.check import check_recordings
from transduce.data.corpus import open_corpora
from transduce.recipe import CorpusOptions

from .conftest import RATE, tone, write


@pytest.fixture
def table(tmp_path: Path) -> Path:
    wave = tone(1.0)
    write(tmp_path / "good.wav", wave)
    write(tmp_path / "other.flac", tone(1.0, pitch=300.0))
    write(tmp_path / "again.wav", wave)
    write(tmp_path / "silent.wav", np.zeros(RATE))
    write(tmp_path / "loud.wav", np.clip(wave * 20, -1, 1))
    write(tmp_path / "low.wav", tone(1.0, 8000), 8000)
    write(tmp_path / "none.wav", np.zeros(0))
    write(tmp_path / "long.wav", np.tile(wave, 31))
    (tmp_path / "text.wav").write_text("not a sound")
    whole = (tmp_path / "good.wav").read_bytes()
    (tmp_path / "cut.wav").write_bytes(whole[:9000])
    huge = wave.copy()
    huge[7] = 3e38
    write(tmp_path / "huge.wav", huge, subtype="FLOAT")
    rows = [
        "good.wav\tYES",  # 2
        "other.flac\tNO",
        "again.wav\tYES",
        "silent.wav\tYES",
        "loud.wav\tYES",
        "low.wav\tYES",  # 7
        "none.wav\tYES",
        "text.wav\tYES",
        "cut.wav\tYES",
        "gone.wav\tYES",
        "good.wav#t=0.1,0.2\tMUCH TOO MUCH",  # 12
        "long.wav\tYES",
        "\tYES",
        "good.wav#t=0.2,0.9\t",
        "huge.wav\tYES",  # 16
    ]
    path = tmp_path / "t.tsv"
    path.write_text("audio\ttext\n" + "\n".join(rows) + "\n")
    return path


def test_every_fault_is_counted(table: Path) -> None:
    report = check_recordings(open_corpora([CorpusOptions(table=str(table))]))
    lines = {kind: [s.line for s in f.examples] for kind, f in report.findings.items()}
    assert lines == {
        "unreadable": [9, 10, 11, 16],
        "empty": [8, 14, 15],
        "silent": [5],
        "clipped": [6],
        "too short": [12],
        "over-long": [13],
        "rate mix": [7],
        "duplicate": [4],
    }
    assert all(f.count == len(f.examples) for f in report.findings.values())
    assert report.pairs == 15 and report.rates[8000] == 1
    assert "t.tsv:10" in str(report) and "cut short" in str(report)
    assert "15 recordings" in str(report)


def test_the_command_tells_text_from_speech(
    table: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run_check(None, None, None, str(table), json=True)
    found = json.loads(capsys.readouterr().out)
    assert found["findings"]["silent"]["count"] == 1
    run_check(None, "1", "2", str(table), json=True)
    assert "misaligned" in json.loads(capsys.readouterr().out)["findings"]


def test_a_clean_set_is_clean(tmp_path: Path) -> None:
    write(tmp_path / "a.wav", tone(1.0))
    (tmp_path / "t.tsv").write_text("audio\ttext\na.wav\tYES\n")
    report = check_recordings(open_corpora([CorpusOptions(table=str(tmp_path / "t.tsv"))]))
    assert report.clean and "nothing looks wrong" in str(report)


def test_rows_that_cannot_be_read_end_nothing(tmp_path: Path) -> None:
    for k in range(9):
        write(tmp_path / f"{k}.wav", tone(1.0, seed=k))
    rows = [f"{k}.wav\tYES\t0\t1".encode() for k in range(9)]
    rows[2] = b"2.wav"
    rows[4] = b"4.wav\tYES\tsoon\t1"
    rows[6] = b"6.wav\tS\xfc\xdf\t0\t1"
    path = tmp_path / "t.tsv"
    path.write_bytes(b"\n".join([b"audio\ttext\tstart\tend", *rows, b""]))
    report = check_recordings(open_corpora([CorpusOptions(table=str(path))]))
    wrong = report.findings["unreadable"]
    assert (report.pairs, report.rates, wrong.count) == (9, {RATE: 6}, 3)
    assert report.seconds == pytest.approx(6.0)
    assert [(seen.line, seen.note) for seen in wrong.examples] == [
        (4, "1 columns; column 2 is needed"),
        (6, "'soon' is not a time in seconds"),
        (8, "the row is not UTF-8, or has U+FFFD"),
    ]


def test_json_rows_that_cannot_be_read_end_nothing(tmp_path: Path) -> None:
    write(tmp_path / "a.wav", tone(1.0))
    write(tmp_path / "b.wav", tone(1.0, seed=1))
    path = tmp_path / "t.jsonl"
    rows = [
        '{"audio": "a.wav", "text": "YES"}',
        "{",
        '{"audio": 7}',
        '{"audio": "b.wav", "text": ""}',
    ]
    path.write_text("\n".join(rows) + "\n")
    report = check_recordings(open_corpora([CorpusOptions(table=str(path))]))
    assert report.pairs == 4 and report.rates == {RATE: 2}
    assert [seen.line for seen in report.findings["unreadable"].examples] == [2, 3]
    assert [seen.line for seen in report.findings["empty"].examples] == [4]


def test_what_was_read_before_the_rows_end_is_counted(tmp_path: Path) -> None:
    write(tmp_path / "a.wav", tone(1.0))
    (tmp_path / "wav.scp").write_text("u1 a.wav\nu2 sph2pipe b.sph |\n")
    (tmp_path / "text").write_text("u1 YES\nu2 NO\n")
    report = check_recordings(open_corpora([CorpusOptions(kaldi=str(tmp_path))]))
    assert report.pairs == 1 and report.rates == {RATE: 1}
    (seen,) = report.findings["unreadable"].examples
    assert "wav.scp:2" in seen.note and "is a command" in seen.note
