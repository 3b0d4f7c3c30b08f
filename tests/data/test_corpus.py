"""Reading corpora: every format, every compression, and every way in which files are wrong."""

from __future__ import annotations

import bz2
import gzip
import json
import lzma
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import zstandard
from hypothesis import given
from hypothesis import strategies as st

from transduce.data.corpus import Corpus, open_bytes, open_corpora, read_lines
from transduce.data.files import sha256_of
from transduce.data.formats import word_split
from transduce.errors import DataError, UsageError
from transduce.recipe import CorpusOptions

from .conftest import SENTENCES, write_pairs

PACK: dict[str, Callable[[bytes], bytes]] = {
    "": bytes,
    ".gz": gzip.compress,
    ".xz": lzma.compress,
    ".zst": zstandard.compress,
}


def opened(**options: Any) -> Corpus:
    return open_corpora([CorpusOptions(**{k: str(v) for k, v in options.items()})])[0]


def pairs_of(corpus: Corpus) -> list[tuple[str, str | None]]:
    return [(example.source, example.target) for example in corpus]


def two_files(folder: Path, source: bytes, target: bytes) -> Corpus:
    (folder / "a.en").write_bytes(source)
    (folder / "a.de").write_bytes(target)
    return opened(source=folder / "a.en", target=folder / "a.de")


# ------------------------------------------------------------------------------------- formats


@pytest.mark.parametrize("suffix", PACK)
def test_line_aligned_files(tmp_path: Path, suffix: str) -> None:
    for name, side in (("a.en", 0), ("a.de", 1)):
        text = "".join(pair[side] + "\n" for pair in SENTENCES).encode()
        (tmp_path / f"{name}{suffix}").write_bytes(PACK[suffix](text))
    corpus = opened(source=tmp_path / f"a.en{suffix}", target=tmp_path / f"a.de{suffix}")
    assert pairs_of(corpus) == SENTENCES
    assert pairs_of(corpus) == SENTENCES  # as often as one likes
    last = list(corpus)[-1]
    assert (last.file, last.line) == (str(tmp_path / f"a.en{suffix}"), len(SENTENCES))


@pytest.mark.parametrize("suffix", PACK)
def test_tables(tmp_path: Path, suffix: str) -> None:
    rows = "".join(f"{i}\t{s}\t{t}\n" for i, (s, t) in enumerate(SENTENCES)).encode()
    (tmp_path / f"t.tsv{suffix}").write_bytes(PACK[suffix](rows))
    table = tmp_path / f"t.tsv{suffix}"
    assert pairs_of(opened(table=table, source="2", target="3")) == SENTENCES


def test_tables_with_a_header(tmp_path: Path) -> None:
    path = tmp_path / "t.tsv"
    path.write_text('id\ten\tde\n1\tsay "hi"\tsag „hallo“\n\n', encoding="utf-8")
    corpus = opened(table=path, source="en", target="de")
    assert pairs_of(corpus) == [('say "hi"', "sag „hallo“"), ("", "")]
    assert [example.line for example in corpus] == [2, 3]
    with pytest.raises(DataError, match=r"no column `fr` in the header: `id`, `en`, `de`"):
        pairs_of(opened(table=path, source="en", target="fr"))
    with pytest.raises(UsageError, match="both"):
        pairs_of(opened(table=path, source="en", target="2"))


def test_csv_with_quotes_commas_and_line_ends(tmp_path: Path) -> None:
    path = tmp_path / "t.csv"
    path.write_text('en,de\n"a, ""b""",x\n"two\nlines",y\nlast,z\n', encoding="utf-8")
    corpus = opened(table=path, source="en", target="de")
    assert pairs_of(corpus) == [('a, "b"', "x"), ("two\nlines", "y"), ("last", "z")]
    assert [example.line for example in corpus] == [2, 3, 5]
    path.write_text('en,de\n"never closed,x\n', encoding="utf-8")
    with pytest.raises(DataError, match=r"t\.csv:2: not CSV"):
        pairs_of(opened(table=path, source="en", target="de"))


def test_json_lines(tmp_path: Path) -> None:
    path = tmp_path / "t.jsonl"
    rows = [{"en": s, "translation": {"de": t}} for s, t in SENTENCES]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    assert pairs_of(opened(table=path, source="en", target="translation.de")) == SENTENCES
    for row, error in (
        ("{", "not JSON"),
        ('{"en": "a"}', "no field `de`; there is: `en`"),
        ('{"en": "a", "de": 3}', "field `de` is int"),
        ('{"en": "a", "de": null}', "field `de` is"),
        ("[1]", "no field"),
    ):
        path.write_text('{"en": "a", "de": "b"}\n' + row + "\n", encoding="utf-8")
        with pytest.raises(DataError, match=r"t\.jsonl:2: " + error):
            pairs_of(opened(table=path, source="en", target="de"))


def test_half_a_character_in_json_can_be_encoded(tmp_path: Path) -> None:
    path = tmp_path / "t.jsonl"
    path.write_text('{"a": "x\\ud800", "b": "y"}\n', encoding="utf-8")
    assert pairs_of(opened(table=path, source="a", target="b")) == [("x?", "y")]


def test_a_row_that_is_too_short_names_its_line(tmp_path: Path) -> None:
    path = tmp_path / "t.tsv"
    path.write_text("a\tb\nonly\n", encoding="utf-8")
    with pytest.raises(DataError, match=r"t\.tsv:2: 1 columns; column 2 is needed"):
        pairs_of(opened(table=path, source="1", target="2"))


def test_an_unknown_kind_of_table(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"\.tsv, \.csv or \.jsonl"):
        opened(table=tmp_path / "t.xlsx", source="1", target="2")


# ------------------------------------------------------------------------------------- wrong


def test_files_of_different_length_name_both_counts(tmp_path: Path) -> None:
    corpus = two_files(tmp_path, b"a\nb\nc\n", b"x\ny\n")
    with pytest.raises(DataError, match=r"a\.en has 3 lines, .*a\.de has 2"):
        pairs_of(corpus)
    with pytest.raises(DataError, match=r"has 1 lines, .*a\.de has 0"):
        pairs_of(two_files(tmp_path, b"a\n", b""))


def test_empty_files(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="are empty"):
        pairs_of(two_files(tmp_path, b"", b""))
    for name, columns in (("t.tsv", "1 2"), ("t.csv", "a b"), ("t.jsonl", "a b")):
        (tmp_path / name).write_bytes(b"")
        source, target = columns.split()
        with pytest.raises(DataError, match="is empty"):
            pairs_of(opened(table=tmp_path / name, source=source, target=target))
    (tmp_path / "t.tsv").write_bytes(b"en\tde\n")
    with pytest.raises(DataError, match="but for its header"):
        pairs_of(opened(table=tmp_path / "t.tsv", source="en", target="de"))


def test_blank_lines_in_the_middle_are_examples(tmp_path: Path) -> None:
    corpus = two_files(tmp_path, b"a\n\nc\n", b"x\ny\n \n")
    assert pairs_of(corpus) == [("a", "x"), ("", "y"), ("c", " ")]
    assert [example.line for example in corpus] == [1, 2, 3]


def test_a_last_line_without_an_end_and_windows_line_ends(tmp_path: Path) -> None:
    corpus = two_files(tmp_path, b"\xef\xbb\xbfa\r\nb", b"x\ny\n")
    assert pairs_of(corpus) == [("a", "x"), ("b", "y")]


@pytest.mark.parametrize(
    "strange", ["\x0b", "\x0c", "\x1c", "\x85", "\u2028", "\u2029", "\r", "\0"]
)
def test_only_a_line_feed_ends_a_line(tmp_path: Path, strange: str) -> None:
    corpus = two_files(tmp_path, f"a{strange}b\nc\n".encode(), b"x\ny\n")
    assert pairs_of(corpus) == [(f"a{strange}b", "x"), ("c", "y")]


def test_invalid_utf8_names_file_and_line(tmp_path: Path) -> None:
    corpus = two_files(tmp_path, b"a\nb\n", b"x\nM\xfcll\n")
    with pytest.raises(DataError, match=r"a\.de:2: not UTF-8 \(byte 0xfc at 2\)"):
        pairs_of(corpus)
    assert list(read_lines(tmp_path / "a.de", "replace")) == ["x", "M\ufffdll"]
    with pytest.raises(DataError, match="UTF-16; make it UTF-8"):
        pairs_of(two_files(tmp_path, "hallo\n".encode("utf-16"), b"x\n"))


def test_a_line_of_100000_characters(tmp_path: Path) -> None:
    for text in ("wort " * 20_000, "ä" * 100_000):
        corpus = two_files(tmp_path, f"{text}\nb\n".encode(), b"x\ny\n")
        assert pairs_of(corpus)[0] == (text, "x")
    (tmp_path / "t.csv").write_text(f"{'x' * 200_000},b\n", encoding="utf-8")
    table = opened(table=tmp_path / "t.csv", source="1", target="2")
    assert len(pairs_of(table)[0][0]) == 200_000


def test_a_missing_file_and_one_nearby(tmp_path: Path) -> None:
    write_pairs(tmp_path, SENTENCES)
    with pytest.raises(DataError, match=r"gone\.de does not exist"):
        opened(source=tmp_path / "text.src", target=tmp_path / "gone.de")
    (tmp_path / "there.de.gz").write_bytes(gzip.compress(b"x\n"))
    with pytest.raises(DataError, match=r"there\.de does not exist \(but there\.de\.gz does\)"):
        open_bytes(tmp_path / "there.de")
    with pytest.raises(DataError, match="nor does the folder"):
        open_bytes(tmp_path / "nowhere" / "a.de")


def test_a_folder_instead_of_a_file(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="is a folder; a file is needed"):
        opened(source=tmp_path, target=tmp_path)


def test_no_permission(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "secret.en"
    path.write_text("a\n")

    def refuse(*_: object, **__: object) -> None:  # simulated: a superuser may read everything
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "open", refuse)
    with pytest.raises(DataError, match=r"secret\.en cannot be read: no permission"):
        open_bytes(path)


def test_a_disk_that_fails_while_being_read(tmp_path: Path) -> None:
    class Failing:
        name = "failing.en"

        def readline(self, size: int = -1) -> bytes:
            raise OSError(5, "Input/output error")

    with pytest.raises(DataError, match=r"failing\.en cannot be read to its end"):
        list(read_lines(Failing()))  # type: ignore[arg-type]


@pytest.mark.parametrize("suffix", [".gz", ".xz", ".zst"])
@pytest.mark.parametrize("harm", ["cut", "flipped", "other"])
def test_damaged_compressed_files(tmp_path: Path, suffix: str, harm: str) -> None:
    packed = PACK[suffix]("".join(f"Zeile {i * i}\n" for i in range(20_000)).encode())
    path = tmp_path / f"a.en{suffix}"
    if harm == "cut":
        packed = packed[: len(packed) // 2]
    elif harm == "flipped":
        packed = packed[:3] + bytes([packed[3] ^ 0xFF]) + packed[4:]
    else:
        packed = bz2.compress(b"another format\n")
    path.write_bytes(packed)
    with pytest.raises(DataError, match=r"a\.en"):
        list(read_lines(path))


def test_compressed_files_of_several_frames(tmp_path: Path) -> None:
    for suffix in (".gz", ".xz", ".zst"):
        path = tmp_path / f"a{suffix}"
        path.write_bytes(PACK[suffix](b"one\ntw") + PACK[suffix](b"o\n") + PACK[suffix](b"three"))
        assert list(read_lines(path)) == ["one", "two", "three"]


# ------------------------------------------------------------------------------------- others


@given(lines=st.lists(st.text(st.characters(exclude_characters="\n", exclude_categories=["Cs"]))))
def test_lines_come_back_as_they_were(
    tmp_path_factory: pytest.TempPathFactory, lines: list[str]
) -> None:
    path = tmp_path_factory.mktemp("lines") / "a.zst"
    path.write_bytes(zstandard.compress("".join(line + "\n" for line in lines).encode()))
    wanted = [line.removesuffix("\r") for line in lines]
    if wanted:
        wanted[0] = wanted[0].removeprefix("\ufeff")
    assert list(read_lines(path)) == wanted


def test_the_fingerprint_follows_the_bytes_and_the_columns(tmp_path: Path) -> None:
    path = tmp_path / "t.tsv"
    path.write_text("a\tb\tc\n")
    first = opened(table=path, source="1", target="2").fingerprint()
    assert opened(table=path, source="1", target="2").fingerprint() == first
    assert opened(table=path, source="1", target="3").fingerprint() != first
    path.write_text("a\tb\td\n")
    assert opened(table=path, source="1", target="2").fingerprint() != first
    (tmp_path / "t.gz").write_bytes(gzip.compress(b"abc"))
    (tmp_path / "t.txt").write_bytes(b"abc")
    assert sha256_of(tmp_path / "t.gz", decompressed=True) == sha256_of(tmp_path / "t.txt")


def test_words_are_split_by_themselves_alone() -> None:
    splits = [word_split(f"word{i}") for i in range(5000)]
    assert 0.01 < splits.count("valid") / 5000 < 0.03
    assert 0.04 < splits.count("test") / 5000 < 0.06
    assert word_split("read") == word_split("read")


def test_a_stream_without_line_ends_does_not_fill_the_memory(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("transduce.data.files.LONGEST_LINE", 1 << 20)
    with open("/dev/zero", "rb") as endless, pytest.raises(DataError, match=r"zero:1: .*text file"):
        next(read_lines(endless))
