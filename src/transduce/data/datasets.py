"""What the catalogue says of a data set: its splits, and the files they are read from."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from transduce.data.files import COMPRESSED
from transduce.data.formats import Format


@dataclass(frozen=True, slots=True)
class File:
    """A published file: `path` below the set's folder, uncompressed name; `sha256` of its content.

    `url` is None where there is no lasting address; `package` is an installed Python package that
    carries the file, and the path inside it.
    """

    path: str
    sha256: str
    url: str | None = None
    package: tuple[str, str] | None = None

    @property
    def packed(self) -> str:
        """The suffix of the compressed file that `url` gives, or nothing."""
        suffix = Path(self.url or "").suffix
        return suffix if suffix in COMPRESSED else ""


@dataclass(frozen=True, slots=True)
class Split:
    """The files of one split and how to read them (see `formats.Layout`)."""

    files: tuple[File, ...]
    format: Format
    source: str = "1"
    target: str = "2"
    part: str = ""
    audio: bool = False  # recordings, named by the table's column `audio`
    digits: str = ""  # of recordings that are made of those of the table: which split
    more: tuple[str, ...] = ()  # fields of further references


@dataclass(frozen=True, slots=True)
class Dataset:
    """A public set; `languages` are source and target; `how` tells where to place files by hand."""

    name: str
    description: str
    licence: str
    folder: str
    languages: tuple[str, str]
    splits: dict[str, Split]
    how: str = "place the file at {}"
