"""Public data sets by name: where their files lie, and fetching those that do not lie there yet.

A file is looked for in $TRANSDUCE_DATA (also compressed, in the folders named in
`catalog_sets`), then in an installed package that carries it, then in the cache
($TRANSDUCE_CACHE or ~/.cache/transduce), and is fetched into the cache otherwise. Its content is
checked against the SHA-256 recorded here, wherever it comes from.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import http.client
import os
import socket
import urllib.error
import urllib.request
import warnings
from difflib import get_close_matches
from pathlib import Path

from transduce.data.catalog_sets import CATALOG
from transduce.data.datasets import Dataset, File, Split
from transduce.data.files import COMPRESSED, sha256_of
from transduce.data.formats import Layout
from transduce.errors import DataError, UsageError

__all__ = ["CATALOG", "Dataset", "File", "Split", "cache_root", "is_here", "layout_of", "resolve"]

_TIMEOUT = 30.0  # seconds without an answer
_NETWORK = (urllib.error.URLError, http.client.HTTPException, TimeoutError, ConnectionError)


def resolve(name: str) -> list[Path]:
    """The files of `set:split`, fetched if need be.

    Errors: UsageError, naming the nearest, for a set or split that is not there; DataError when a
    file cannot be fetched or is not the published one.
    """
    dataset, split = _find(name)
    return [_locate(dataset, file) for file in split.files]


def is_here(name: str) -> bool:
    """Whether all files of `set:split` are on this machine. Errors: UsageError, as `resolve`."""
    dataset, split = _find(name)
    return all(_here(dataset, file) is not None for file in split.files)


def layout_of(name: str) -> Layout:
    """The files of `set:split` and how to read them. Errors: as `resolve`."""
    _, split = _find(name)
    paths = tuple(resolve(name))
    if split.digits:
        from transduce.data.audio.digits import connected_digits

        made = cache_root() / "data" / "fsdd-connected"
        paths = (connected_digits(paths[0], split.digits, made),)
    return Layout(
        split.format,
        paths,
        split.source,
        split.target,
        split.part,
        audio=split.audio,
        more=split.more,
    )


def cache_root() -> Path:
    """The folder of fetched files and prepared corpora: $TRANSDUCE_CACHE or ~/.cache/transduce."""
    chosen = os.environ.get("TRANSDUCE_CACHE")
    return Path(chosen).expanduser() if chosen else Path.home() / ".cache" / "transduce"


def _find(name: str) -> tuple[Dataset, Split]:
    set_name, colon, split_name = name.partition(":")
    dataset = CATALOG.get(set_name)
    if dataset is None:
        raise UsageError(
            f"unknown data set `{set_name}`"
            + _nearest(set_name, list(CATALOG), "`transduce data list` shows all")
        )
    splits = ", ".join(dataset.splits)
    if not colon:
        raise UsageError(f"`{name}`: which split? write `{name}:<split>`; splits: {splits}")
    split = dataset.splits.get(split_name)
    if split is None:
        hint = _nearest(split_name, list(dataset.splits), f"splits: {splits}")
        raise UsageError(f"{set_name} has no split `{split_name}`{hint}")
    return dataset, split


def _nearest(name: str, known: list[str], otherwise: str) -> str:
    near = get_close_matches(name, known, n=1)
    return f"; did you mean `{near[0]}`? ({otherwise})" if near else f"; {otherwise}"


# -------------------------------------------------------------------------------- finding


def _locate(dataset: Dataset, file: File) -> Path:
    path, ours = _here(dataset, file) or (_kept(dataset, file), True)
    if not path.is_file():
        _fetch(dataset, file, path)
    _check(path, file, strict=ours)
    return path


def _here(dataset: Dataset, file: File) -> tuple[Path, bool] | None:
    """Where a file lies on this machine, and whether it must be the published one to the byte."""
    given = os.environ.get("TRANSDUCE_DATA")
    if given:
        base = Path(given).expanduser() / dataset.folder / file.path
        for suffix in ("", *COMPRESSED):
            path = base.with_name(base.name + suffix)
            if path.is_file():
                return path, True
    if file.package is not None and (found := _in_package(*file.package)) is not None:
        return found, False
    kept = _kept(dataset, file)
    return (kept, True) if kept.is_file() else None


def _kept(dataset: Dataset, file: File) -> Path:
    """Where a file lies once it has been fetched."""
    return cache_root() / "data" / dataset.folder / (file.path + file.packed)


def _in_package(package: str, path: str) -> Path | None:
    """A file inside an installed package, which is found but not imported."""
    import importlib.util

    spec = importlib.util.find_spec(package)
    for folder in (spec.submodule_search_locations if spec else None) or ():
        if (Path(folder) / path).is_file():
            return Path(folder) / path
    return None


def _check(path: Path, file: File, *, strict: bool = True) -> None:
    stat = path.stat()
    found = _sum_of(path, stat.st_size, stat.st_mtime_ns)
    if found == file.sha256:
        return
    if not strict:  # an installed package is what its publisher meant, if of another version
        warnings.warn(f"{path} is another version than results were published on", stacklevel=2)
        return
    raise DataError(
        f"{path} is not the published file (its content's sha256 is {found}, not {file.sha256}); "
        "delete or replace it"
    )


@functools.lru_cache(maxsize=1024)
def _sum_of(path: Path, size: int, modified: int) -> str:
    """Computed once for a file of this size and time (which are there to tell it from others)."""
    return sha256_of(path, decompressed=True)


# ------------------------------------------------------------------------------- fetching


def _fetch(dataset: Dataset, file: File, path: Path) -> None:
    """Download beside the name, check, and rename into place."""
    if file.url is None:
        place = f"$TRANSDUCE_DATA/{dataset.folder}/{file.path}"
        raise DataError(f"{dataset.name} is not to be had by download: {dataset.how.format(place)}")
    beside = path.with_name(f".{path.name}.{socket.gethostname()}-{os.getpid()}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        digest = hashlib.sha256()
        with urllib.request.urlopen(file.url, timeout=_TIMEOUT) as answer, beside.open("wb") as out:
            while block := answer.read(1 << 16):
                digest.update(block)
                out.write(block)
            out.flush()
            os.fsync(out.fileno())
        _check_fetched(beside, path, file)
        beside.replace(path)
    except _NETWORK as error:
        reason = getattr(error, "reason", error)
        raise DataError(
            f"cannot fetch {file.url}: {reason}. Without a network, place the file at "
            f"$TRANSDUCE_DATA/{dataset.folder}/{file.path} or at {path}"
        ) from None
    except OSError as error:
        raise DataError(f"cannot keep {file.url} at {path}: {error.strerror or error}") from None
    finally:
        with contextlib.suppress(OSError):
            beside.unlink()


def _check_fetched(beside: Path, path: Path, file: File) -> None:
    # Decompression goes by the name, which the file beside does not have yet.
    named = beside.with_name(beside.name + path.suffix)
    beside.rename(named)
    try:
        found = sha256_of(named, decompressed=True)
    finally:
        named.rename(beside)
    if found != file.sha256:
        raise DataError(
            f"{file.url} gave another file than published (its content's sha256 is {found}, "
            f"not {file.sha256}); nothing was kept"
        )
