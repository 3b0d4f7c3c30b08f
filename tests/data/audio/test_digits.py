"""Connected digits: made once, the same each time, of disjoint recordings."""

from __future__ import annotations

from pathlib import Path

import pytest

from transduce.data.audio import digits
from transduce.data.audio.digits import connected_digits
from transduce.data.audio.files import load
from transduce.errors import DataError

from .conftest import tone, write

WORDS = ["zero", "one"]


@pytest.fixture
def clips(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """FSDD in small: clips whose pitch tells digit, speaker and recording."""
    monkeypatch.setattr(digits, "STRINGS", {"train": 20, "dev": 10, "test": 10})
    rows = ["id\taudio\tspeaker\ttext"]
    for d, word in enumerate(WORDS):
        for s, speaker in enumerate(("ann", "bob")):
            for k in range(4, 12):
                name = f"{d}_{speaker}_{k}"
                wave = tone(0.1, digits.RATE, pitch=300 + 50 * k, seed=100 * d + 10 * s)
                write(tmp_path / f"{name}.wav", wave, digits.RATE)
                rows.append(f"{name}\t{name}.wav\t{speaker}\t{word}")
    table = tmp_path / "clips.tsv"
    table.write_text("\n".join(rows) + "\n")
    return table


def test_strings_are_made_of_their_split(clips: Path, tmp_path: Path) -> None:
    assert {k for k in digits._clips(clips, "dev")["ann"]} == set(WORDS)
    dev = {
        path.name
        for words in digits._clips(clips, "dev").values()
        for p in words.values()
        for path in p
    }
    train = {
        path.name
        for words in digits._clips(clips, "train").values()
        for p in words.values()
        for path in p
    }
    assert not dev & train and len(dev | train) == 32
    table = connected_digits(clips, "train", tmp_path / "made")
    rows = [line.split("\t") for line in table.read_text().splitlines()[1:]]
    assert len(rows) == 20 and {row[2] for row in rows} == {"ann", "bob"}
    for audio, text, _ in rows:
        words = text.split()
        assert 1 <= len(words) <= digits.LONGEST and set(words) <= set(WORDS)
        seconds = load(str(table.parent / audio), digits.RATE)[1]
        assert 0.1 * len(words) + 0.1 <= seconds <= 0.35 * len(words) + 0.6


def test_they_are_the_same_each_time(clips: Path, tmp_path: Path) -> None:
    made = [connected_digits(clips, "dev", tmp_path / name) for name in ("one", "two")]
    assert made[0].read_text() == made[1].read_text()
    for path in made[0].parent.glob("*.flac"):
        assert path.read_bytes() == (made[1].parent / path.name).read_bytes()
    stamp = made[0].stat().st_mtime_ns
    assert connected_digits(clips, "dev", tmp_path / "one").stat().st_mtime_ns == stamp
    other = connected_digits(clips, "test", tmp_path / "one")
    assert other.parent != made[0].parent


def test_another_table_is_refused(tmp_path: Path) -> None:
    (tmp_path / "t.tsv").write_text("a\tb\nx\ty\n")
    with pytest.raises(DataError, match=r"t\.tsv:2: not"):
        connected_digits(tmp_path / "t.tsv", "train", tmp_path / "made")
    assert not list((tmp_path / "made").glob("*"))
