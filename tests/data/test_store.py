"""Prepared corpora: what is dropped is counted; what is whole is reused, what is not is remade."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from transduce.data import writing as module
from transduce.data.corpus import Corpus, open_corpora
from transduce.data.prepare import prepare
from transduce.data.store import META, Store
from transduce.data.text import TextSide
from transduce.errors import DataError
from transduce.recipe import CorpusOptions, DataOptions

from .conftest import DATA, SENTENCES, sides_for, text_options, write_pairs

Sides = tuple[TextSide, TextSide]


def test_everything_is_there_in_order(
    store: Store, plain: Sides, words: list[tuple[str, str]], corpus: Corpus
) -> None:
    assert store.counts == {"kept": len(words)}
    assert len(store) == len(words)
    some = np.array([3999, 0, 17, 17])
    for ids, i in zip(store.source_ids(some), some, strict=True):
        assert plain[0].decode(ids.tolist()) == words[i][0]
    for ids, i in zip(store.target_ids(some), some, strict=True):
        assert plain[1].decode(ids.tolist()) == words[i][1]
    assert store.source_lengths[17] == len(words[17][0])
    assert store.target_lengths[17] == len(words[17][1])
    assert store.where(17) == (str(corpus.layout.paths[0]), 18)
    longer = np.maximum(store.source_lengths, store.target_lengths).astype(int) + 1
    assert store.padded_tokens == longer.sum()
    assert store.target_tokens == store.target_lengths.sum() + len(store)


def test_texts_are_kept_where_segmentation_is_sampled(
    sampled_store: Store, store: Store, words: list[tuple[str, str]]
) -> None:
    assert sampled_store.source_text([5, 2]) == [words[5][0], words[2][0]]
    assert sampled_store.target_text([5]) == [words[5][1]]
    assert not (store.folder / "source.text").exists()


def test_what_is_dropped_is_counted_by_reason(tmp_path: Path, plain: Sides) -> None:
    pairs = [
        ("a", "B"),
        ("", "B"),
        (" \t", "B"),
        ("a", ""),
        ("", ""),
        ("aaaa", "B"),
        ("a", "BBBBBB"),
        ("\x00", "B"),
        ("b", "A"),
    ]
    options = DataOptions(train=[], valid=[], max_source_length=3, max_target_length=5)
    store = prepare(open_corpora([write_pairs(tmp_path, pairs)]), *plain, options, tmp_path / "c")
    assert store.counts == {
        "kept": 2,
        "empty source": 4,
        "empty target": 1,
        "source longer than 3 tokens": 1,
        "target longer than 5 tokens": 1,
    }
    assert sum(store.counts.values()) == len(pairs)
    assert store.where(1)[1] == 9
    assert "kept" not in store.dropped()


def test_a_line_of_100000_characters_is_dropped_and_counted(tmp_path: Path) -> None:
    sides = sides_for(SENTENCES, text_options(kind="bpe", size=120))
    pairs = [*SENTENCES, ("w" * 100_000, "x"), ("x", "wort " * 20_000)]
    store = prepare(open_corpora([write_pairs(tmp_path, pairs)]), *sides, DATA, tmp_path / "c")
    assert store.counts == {
        "kept": 10,
        "source longer than 200 tokens": 1,
        "target longer than 200 tokens": 1,
    }


def test_nothing_left_is_an_error_that_says_why(tmp_path: Path, plain: Sides) -> None:
    corpora = open_corpora([write_pairs(tmp_path, [("", "B"), ("a", "")])])
    with pytest.raises(DataError, match="1 empty source, 1 empty target"):
        prepare(corpora, *plain, DATA, tmp_path / "c")
    assert list((tmp_path / "c").iterdir()) == []


def test_no_target_is_an_error(tmp_path: Path, plain: Sides, corpus: Corpus) -> None:
    class SourceOnly(Corpus):
        def __iter__(self) -> Any:
            from dataclasses import replace

            return (replace(example, target=None) for example in super().__iter__())

    half = SourceOnly(corpus.options, corpus.label, corpus.layout)
    with pytest.raises(DataError, match=":1: no target"):
        prepare([half], *plain, DATA, tmp_path)


def test_a_second_time_the_same_folder_is_opened(
    tmp_path: Path, corpus: Corpus, plain: Sides, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = prepare([corpus], *plain, DATA, tmp_path)
    monkeypatch.setattr("transduce.data.prepare.Writer", None)  # writing again would fail
    assert prepare([corpus], *plain, DATA, tmp_path).folder == first.folder


def test_what_changes_the_ids_changes_the_folder(
    tmp_path: Path, corpus: Corpus, plain: Sides
) -> None:
    lower = TextSide(plain[0].options.model_copy(update={"lowercase": True}), plain[0].tokenizer)
    shorter = DATA.model_copy(update={"max_source_length": 5})
    stores = [
        prepare([corpus], *plain, DATA, tmp_path),
        prepare([corpus], lower, plain[1], DATA, tmp_path),
        prepare([corpus], *plain, shorter, tmp_path),
        prepare([corpus], *plain, DATA, tmp_path, limit=10),
        prepare([corpus, corpus], *plain, DATA, tmp_path),
    ]
    assert len({store.folder for store in stores}) == len(stores)
    assert [len(store) for store in stores[3:]] == [10, 2 * len(stores[0])]


@pytest.mark.parametrize(
    "harm",
    [
        lambda folder: (folder / "source.ids").unlink(),
        lambda folder: (folder / "lines").write_bytes(b"short"),
        lambda folder: (folder / META).write_text("{"),
        lambda folder: (folder / META).unlink(),
    ],
)
def test_a_damaged_folder_is_made_anew(
    tmp_path: Path, corpus: Corpus, plain: Sides, harm: Callable[[Path], object]
) -> None:
    store = prepare([corpus], *plain, DATA, tmp_path)
    harm(store.folder)
    with pytest.raises(DataError):
        Store(store.folder)
    again = prepare([corpus], *plain, DATA, tmp_path)
    assert len(again) == len(store)


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT])
def test_a_full_disk_leaves_nothing_and_says_so(
    tmp_path: Path, corpus: Corpus, plain: Sides, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    append = module.Writer._append

    def full(self: Any, name: str, values: Any) -> None:
        if name == "lines":
            raise OSError(number, os.strerror(number))
        append(self, name, values)

    monkeypatch.setattr(module.Writer, "_append", full)
    with pytest.raises(DataError, match="the disk is full"):
        prepare([corpus], *plain, DATA, tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_what_killed_processes_left_is_removed(
    tmp_path: Path, corpus: Corpus, plain: Sides
) -> None:
    import socket

    dead = subprocess.Popen([sys.executable, "-c", ""])
    dead.wait()
    left = tmp_path / f"abc.new-{socket.gethostname()}-{dead.pid}"
    alive = tmp_path / f"abc.new-{socket.gethostname()}-{os.getppid()}"
    left.mkdir()
    alive.mkdir()
    prepare([corpus], *plain, DATA, tmp_path)
    assert not left.exists()
    assert alive.exists()


def test_two_corpora_with_their_places_and_weights(tmp_path: Path, plain: Sides) -> None:
    first = write_pairs(tmp_path, [("a", "A"), ("b", "B")], "first")
    second = write_pairs(tmp_path, [("c", "C")], "second").model_copy(update={"weight": 2.5})
    seen: list[int] = []
    store = prepare(open_corpora([first, second]), *plain, DATA, tmp_path / "c", seen.append)
    assert [(p.start, p.stop, p.weight) for p in store.parts] == [(0, 2, 1.0), (2, 3, 2.5)]
    assert store.where(2) == (str(tmp_path / "second.src"), 1)
    assert seen == [2, 3]
    with pytest.raises(IndexError):
        store.where(3)


def test_large_vocabularies_need_wider_ids(tmp_path: Path) -> None:
    pairs = [
        (" ".join(f"w{i}" for i in range(start, start + 100)), "x")
        for start in range(0, 70_000, 100)
    ]
    sides = sides_for(pairs, text_options(kind="words", size=100_000))
    store = prepare(open_corpora([write_pairs(tmp_path, pairs)]), *sides, DATA, tmp_path / "c")
    assert sides[0].size > 2**16
    ids = store.source_ids(range(len(pairs)))
    assert sides[0].decode(ids[-1].tolist()) == pairs[-1][0]
    assert ids[0].dtype == np.uint32
    assert store.target_ids([0])[0].dtype == np.uint16


def test_released_pages_read_the_same(sampled_store: Store) -> None:
    before = [zlib.crc32(row) for row in sampled_store.source_ids(range(100))]
    sampled_store.release()
    assert [zlib.crc32(row) for row in sampled_store.source_ids(range(100))] == before


def test_a_failing_corpus_leaves_nothing(tmp_path: Path, plain: Sides) -> None:
    (tmp_path / "a").write_bytes(b"x\ny\n")
    (tmp_path / "b").write_bytes(b"x\n\xff\n")
    options = CorpusOptions(source=str(tmp_path / "a"), target=str(tmp_path / "b"))
    with pytest.raises(DataError, match="b:2: not UTF-8"):
        prepare(open_corpora([options]), *plain, DATA, tmp_path / "c")
    assert list((tmp_path / "c").iterdir()) == []
