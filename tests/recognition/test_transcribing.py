"""Every recording gives its transcript, in order, whatever it holds and however long it is."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from transduce.data.audio.segmentation import Cutting
from transduce.errors import UsageError
from transduce.recognition.files import Named, destinations, expanded
from transduce.recognition.transcribing import transcripts

soundfile = pytest.importorskip("soundfile")
RATE = 16000


def test_short_recordings_are_whole_and_long_ones_are_cut(
    tmp_path: Path, clock: Any, recording: Any
) -> None:
    short = recording(tmp_path / "short.wav", (0.5, 1.5), (3.0, 4.0), seconds=5.0)
    long = recording(tmp_path / "long file ü.flac", (1.0, 3.0), (8.0, 11.0), seconds=30.0)
    found = list(transcripts(clock, [short, long], rate=RATE, cutting=Cutting(longest=10.0)))
    assert [one.audio for one in found] == [str(short), str(long)]
    assert [one.reason for one in found] == [None, None]
    (whole,) = found[0].parts
    assert (whole.start, whole.end, found[0].text) == (0.0, 5.0, "heard 5.0")
    assert [(round(p.start), round(p.end)) for p in found[1].parts] == [(1, 3), (8, 11)]
    assert found[1].seconds == pytest.approx(30.0)
    for part in found[1].parts:
        assert part.start <= part.words[0].start <= part.words[-1].end <= part.end


def test_every_piece_keeps_its_n_best(tmp_path: Path, clock: Any, recording: Any) -> None:
    long = recording(tmp_path / "long.wav", (1.0, 3.0), (8.0, 11.0), seconds=30.0)
    given = {"rate": RATE, "cutting": Cutting(longest=10.0)}
    (found,) = transcripts(clock, [long], **given, n_best=3)
    for part in found.as_dict()["segments"]:
        said = part["text"]
        assert part["n_best"] == [
            {"text": said, "score": -0.5},
            {"text": f"{said} 1", "score": -1},
            {"text": f"{said} 2", "score": -2},
        ]
    assert len(found.parts) == 2 and found.parts[0].text != found.parts[1].text
    (found,) = transcripts(clock, [long], **given)
    assert not any("n_best" in part for part in found.as_dict()["segments"])


def test_every_input_gives_its_transcript(tmp_path: Path, clock: Any, recording: Any) -> None:
    good = recording(tmp_path / "good.wav", (0.5, 2.5), seconds=3.0)
    silent, wrong, empty = (tmp_path / name for name in ("silent.wav", "wrong.flac", "empty.ogg"))
    soundfile.write(silent, np.zeros(RATE * 40), RATE)
    wrong.write_text("no sound at all")
    empty.write_bytes(b"")
    missing = tmp_path / "missing.mp3"
    torn = recording(tmp_path / "torn.flac", (1.0, 3.0), (20.0, 22.0), seconds=30.0)
    torn.write_bytes(torn.read_bytes()[: torn.stat().st_size // 2])
    paths = [silent, wrong, good, empty, missing, torn, good, silent]
    found = list(transcripts(clock, paths, rate=RATE, window=2))
    assert [one.audio for one in found] == [str(path) for path in paths]
    assert [bool(one.text) for one in found] == [
        False,
        False,
        True,
        False,
        False,
        True,
        True,
        False,
    ]
    reasons = [one.reason or "" for one in found]
    for reason, part in zip(
        reasons,
        ["no speech found in 40.0 s", "not a sound file", "", "the file is empty", "does not exist",
         "damaged after", "", "no speech found"],
        strict=True,
    ):  # fmt: skip
        assert (part in reason) if part else not reason
    assert not any(str(tmp_path) in reason for reason in reasons)  # the path is shown before it


def test_a_wav_that_was_cut_short_is_told_and_read_to_its_end(
    tmp_path: Path, clock: Any, recording: Any
) -> None:
    torn = recording(tmp_path / "torn.wav", (0.5, 1.5), seconds=3.0)
    torn.write_bytes(torn.read_bytes()[: 44 + 2 * RATE * 2])  # its header still says 3 s
    (found,) = transcripts(clock, [torn], rate=RATE)
    assert found.text == "heard 2.0"
    assert found.reason == "cut short: 32,000 bytes of its sound are missing"


def test_no_more_is_held_than_the_window(tmp_path: Path, clock: Any, recording: Any) -> None:
    spans = [(2.0 + 4 * k, 3.0 + 4 * k) for k in range(20)]
    long = recording(tmp_path / "a.wav", *spans, seconds=90.0)
    (found,) = transcripts(clock, [long], rate=RATE, window=3, beam=2)
    assert len(found.parts) == 20 and clock.most == 3 and clock.search == {"beam": 2}
    assert max(clock.lengths) < 2.0


def test_folders_are_expanded_in_order(tmp_path: Path) -> None:
    for name in ("b.wav", "a/c.FLAC", "a/notes.txt", ".hidden/d.wav", "a/.e.wav"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(b"x")
    found, notes = expanded([str(tmp_path / "x.wav"), str(tmp_path)])
    names = [one.path.relative_to(tmp_path).as_posix() for one in found]
    assert names == ["x.wav", "a/c.FLAC", "b.wav"]
    assert len(notes) == 1 and notes[0].endswith("1 other files left out")
    (tmp_path / "none").mkdir()
    with pytest.raises(UsageError, match="holds no sound file"):
        expanded([str(tmp_path / "none")])
    with pytest.raises(UsageError, match="empty"):  # and not the working directory
        expanded([str(tmp_path / "x.wav"), ""])


def test_no_two_transcripts_go_to_one_file(tmp_path: Path) -> None:
    top = Path("in")
    found = [Named(Path("in/a/x.wav"), top), Named(Path("in/b/x.wav"), top), Named(Path("y.wav"))]
    places = destinations(found, Path("out"), ".srt")
    assert places == [Path("out/a/x.srt"), Path("out/b/x.srt"), Path("out/y.srt")]
    alike = [Named(Path("x.wav")), Named(Path("x.flac"))]
    assert destinations(alike, Path("o"), ".txt") == [Path("o/x.wav.txt"), Path("o/x.flac.txt")]
    with pytest.raises(UsageError, match="would both become"):
        destinations([Named(Path("p/x.wav")), Named(Path("q/x.wav"))], Path("o"), ".txt")
