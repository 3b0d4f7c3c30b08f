"""The exported folder: its files, and what its manifest tells the runtime.

    encoder.onnx           source ids -> memory and first state
    decoder.onnx           one step of K hypotheses
    source.* target.*      tokenizers (.model of SentencePiece, else .json)
    recipe.yaml            the recipe of the model
    manifest.json          as in a model folder; under `exported` what the runtime needs of the
                           recipe, the precision, and how far the graphs are from the model

The runtime does not read recipe.yaml: checking a recipe takes longer than answering.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from transduce.data.text import Rules, TextSide
from transduce.errors import FolderError
from transduce.folder import (
    EXPORTED,
    LISTED,
    MANIFEST,
    RECIPE,
    WEIGHTS,
    is_exported,
    read_manifest,
    verified_manifest,
)
from transduce.runtime.options import Search, search_options

EXPORT_FORMAT = 1  # of the graphs' inputs and outputs and of the manifest's entry
ENCODER = "encoder.onnx"
DECODER = "decoder.onnx"
FILES = (LISTED - {WEIGHTS}) | {ENCODER, DECODER}


@dataclass(frozen=True)
class Cutting:
    """Which kind of tokenizer a side has."""

    kind: str
    dropout: float = 0.0  # of training only


@dataclass(frozen=True)
class Cleaning:
    """What is removed from a text first; `recipe.CleaningOptions` says what each means."""

    html: bool = False
    quoted: bool = False
    spaces: bool = False


@dataclass(frozen=True)
class Truncation:
    """How a long text is cut; `recipe.TruncationOptions` says what each means."""

    tokens: int
    keep: str
    sentences: bool


@dataclass(frozen=True)
class Reading:
    """How a side is normalised before its tokenizer."""

    lowercase: bool
    normalize: str
    language: str | None
    tokenizer: Cutting
    clean: Cleaning = Cleaning()
    truncate: Truncation | None = None
    length_control: bool = False


@dataclass(frozen=True)
class ExportedFolder:
    """A verified exported folder."""

    path: Path
    manifest: dict[str, Any]

    @property
    def about(self) -> dict[str, Any]:
        """The manifest's entry for the runtime."""
        entry: dict[str, Any] = self.manifest[EXPORTED]
        return entry

    def side(self, name: str) -> TextSide:
        """The text side `source` or `target`. Errors: FolderError, DataError."""
        entry = self.about[name]
        cutting = Cutting(entry["tokenizer"])
        # Folders exported before there was truncation do not say.
        truncate = entry.get("truncate")
        reading = Reading(
            entry["lowercase"],
            entry["normalize"],
            entry["language"],
            cutting,
            Cleaning(**entry.get("clean", {})),
            Truncation(**truncate) if truncate else None,
            entry.get("length_control", False),
        )
        rules: Rules | None = None
        if entry.get("punctuation"):
            rules = tuple((find, put) for find, put in entry["punctuation"])
        return TextSide.load(self.path, name, reading, rules)

    def search(self, overrides: dict[str, Any]) -> Search:
        """The recipe's search options with some replaced. Errors: UsageError."""
        entry = self.about["search"]
        values = entry["values"] | overrides
        return search_options(values, entry["allowed"], where="search options")


def open_exported(path: Path) -> ExportedFolder:
    """Open an exported folder after checking each file's size and sha256.

    Errors: FolderError naming the file that is missing, truncated or altered.
    """
    if not is_exported(path):
        read_manifest(path)  # for its errors
        raise FolderError(
            f"{path}: a model folder, not an exported one; make one of it: "
            f"transduce export {path} {path}-exported"
        )
    manifest = verified_manifest(path, (ENCODER, DECODER, RECIPE), again="export it again")
    entry = manifest[EXPORTED]
    version = entry.get("format") if isinstance(entry, dict) else None
    if not isinstance(version, int):
        raise FolderError(f"{path / MANIFEST}: not the manifest of an exported folder")
    if version > EXPORT_FORMAT:
        raise FolderError(
            f"{path}: export format {version} is newer than this transduce reads "
            f"({EXPORT_FORMAT}); upgrade transduce, or export again with this one"
        )
    missing = {"search", "source", "target"} - entry.keys()
    if missing:
        raise FolderError(f"{path / MANIFEST}: `{EXPORTED}` lacks {', '.join(sorted(missing))}")
    return ExportedFolder(path, manifest)
