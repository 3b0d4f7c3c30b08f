"""The model folder: its files, and the manifest that says which belong together.

    recipe.yaml            the resolved recipe
    source.* target.*      tokenizers (.model of SentencePiece, else .json)
    lengths.json           classes of target length, where the recipe has length control
    weights.safetensors    the weights to be used
    shortlist.safetensors  candidates for each source token, where `transduce shortlist` made them
    manifest.json          format and package version, task, languages, sha256 of each file above
    metrics.jsonl          one line per report and per validation
    last/                  what resuming needs
    figures/

Tensors are safetensors and everything else JSON or YAML, so that nothing read here can run code.
"""

from __future__ import annotations

import hashlib
import json
import os
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypedDict

from transduce import __version__
from transduce.disk import LOCK, atomic_bytes, sync, write_error
from transduce.errors import FolderError

if TYPE_CHECKING:
    from transduce.recipe import Recipe

FORMAT_VERSION = 1
EXPORTED = "exported"  # the manifest's entry that tells an exported folder (`runtime`, `export`)
RECIPE = "recipe.yaml"
WEIGHTS = "weights.safetensors"
SHORTLIST = "shortlist.safetensors"
LENGTHS = "lengths.json"
MANIFEST = "manifest.json"
METRICS = "metrics.jsonl"
LAST = "last"
FIGURES = "figures"
TENSORBOARD = "tensorboard"
TOKENIZER_SUFFIXES = (".model", ".json")
# What loading needs, by full name: a `source.en` that someone keeps here is no business of ours.
LISTED = frozenset(
    {RECIPE, WEIGHTS, SHORTLIST, LENGTHS}
    | {f"{side}{suffix}" for side in ("source", "target") for suffix in TOKENIZER_SUFFIXES}
)
# Everything transduce writes into a model folder, as patterns of names.
WRITTEN = (
    *sorted(LISTED),
    MANIFEST,
    METRICS,
    f"{LAST}/state.json",
    f"{LAST}/checkpoint-*.safetensors",
    f"{LAST}/best-*.safetensors",
    f"{FIGURES}/curves.png",
    f"{FIGURES}/lengths.png",
    f"{FIGURES}/attention.png",
    f"{FIGURES}/attention-*.png",
    f"{TENSORBOARD}/events.out.tfevents.*",
)


def temporary(folder: Path, patterns: Iterable[str] = WRITTEN) -> Iterator[Path]:
    """What processes that write such files are writing there, or were when they were killed."""
    for pattern in patterns:
        parent, name = os.path.split(pattern)
        # A file being written, one staged by `publish`, and one being written to be staged.
        for unfinished in (f".{name}.*.tmp", f".{name}.new", f"..{name}.new.*.tmp"):
            yield from (folder / parent).glob(unfinished)


def remove_temporary(folder: Path, patterns: Iterable[str] = WRITTEN) -> None:
    """Remove what killed processes were writing. Only for the holder of the folder's lock."""
    for path in list(temporary(folder, patterns)):
        path.unlink(missing_ok=True)


def is_unused(folder: Path, patterns: Iterable[str] = WRITTEN) -> bool:
    """Whether an existing folder holds nothing but what was left by killed processes."""
    return set(folder.iterdir()) <= {folder / LOCK, *temporary(folder, patterns)}


def remove_training(folder: Path) -> None:
    """Remove what transduce wrote in a folder, file by file, and nothing that somebody else put
    there. Only for the holder of the folder's lock."""
    remove_temporary(folder)
    for pattern in WRITTEN:
        for path in folder.glob(pattern):
            if path.is_symlink() or not path.is_dir():
                path.unlink(missing_ok=True)
    for name in (LAST, FIGURES, TENSORBOARD):
        with suppress(OSError):  # not there, or not empty
            (folder / name).rmdir()


# ------------------------------------------------------------------------------------ manifest


class Identity(TypedDict):
    """What every manifest says of its model."""

    task: str
    source_language: str | None
    target_language: str | None


def identity(manifest: Mapping[str, Any]) -> Identity:
    """What a manifest says of its model, in the words of `publish`."""
    return {
        "task": manifest.get("task", ""),
        "source_language": manifest.get("source_language"),
        "target_language": manifest.get("target_language"),
    }


def further(manifest: Mapping[str, Any]) -> dict[str, Any]:
    """What a manifest says beyond that, to be handed on as the `extra` of `publish`."""
    known = {"format", "transduce", "files", *Identity.__annotations__}
    return {key: value for key, value in manifest.items() if key not in known}


def digest(path: Path) -> dict[str, Any]:
    """The entry of a file in the manifest: {"sha256": hex, "bytes": size}."""
    with path.open("rb") as stream:
        found = hashlib.file_digest(stream, "sha256") if hasattr(hashlib, "file_digest") else None
        if found is None:  # Python 3.10
            found = hashlib.sha256()
            while block := stream.read(1 << 20):
                found.update(block)
    return {"sha256": found.hexdigest(), "bytes": path.stat().st_size}


def write_manifest(
    folder: str | os.PathLike[str],
    *,
    task: str,
    source_language: str | None,
    target_language: str | None,
    extra: Mapping[str, Any] | None = None,
    replacing: Mapping[str, Path] | None = None,
    names: frozenset[str] = LISTED,
) -> None:
    """List every file of `names` there is, with sha256 and size. Written last.

    `replacing` names files that are about to be renamed into place: both the old and the new
    content are then valid, so that a process killed between two renames leaves a whole folder.
    """
    folder = Path(folder)
    listed = [p for p in folder.iterdir() if p.is_file() and p.name in names]
    files: dict[str, Any] = {path.name: digest(path) for path in listed}
    for name, path in (replacing or {}).items():
        old = files.get(name)
        files[name] = digest(path) | ({"before": old} if old else {})
    manifest = {
        "format": FORMAT_VERSION,
        "transduce": __version__,
        "task": task,
        "source_language": source_language,
        "target_language": target_language,
        **(extra or {}),
        "files": dict(sorted(files.items())),
    }
    text = json.dumps(manifest, indent=2, ensure_ascii=False) + "\n"
    atomic_bytes(folder / MANIFEST, text.encode())


def publish(
    folder: str | os.PathLike[str],
    files: Mapping[str, bytes],
    *,
    task: str,
    source_language: str | None,
    target_language: str | None,
    extra: Mapping[str, Any] | None = None,
    names: frozenset[str] = LISTED,
) -> None:
    """Replace files of a model folder together with its manifest; it can be opened at any moment.

    The manifest lists every file of `names` in the folder, replaced or not.

    Errors: FolderError when the disk is full or not writable; the old files then stay.
    """
    folder = Path(folder)
    staged: dict[str, Path] = {}
    describe = {
        "task": task,
        "source_language": source_language,
        "target_language": target_language,
        "extra": extra,
        "names": names,
    }
    try:
        for name, data in files.items():
            staged[name] = folder / f".{name}.new"
            atomic_bytes(staged[name], data)
        if (folder / MANIFEST).exists():
            # A new file goes first: nobody asks for what is not listed, but listed it must exist.
            for name in [name for name in staged if not (folder / name).exists()]:
                os.replace(staged.pop(name), folder / name)
        write_manifest(folder, **describe, replacing=staged)  # type: ignore[arg-type]
        for name, path in staged.items():
            os.replace(path, folder / name)
        sync(folder)
        write_manifest(folder, **describe)  # type: ignore[arg-type]
    except OSError as error:
        raise write_error(folder, error) from error
    finally:
        for path in staged.values():
            with suppress(OSError):
                path.unlink(missing_ok=True)


def publish_more(folder: ModelFolder, files: Mapping[str, bytes]) -> None:
    """Add files to a finished model folder, or replace them, leaving what its manifest says.

    Errors: FolderError when the disk is full or not writable; the old files then stay.
    """
    manifest = folder.manifest
    publish(folder.path, files, **identity(manifest), extra=further(manifest))


# ------------------------------------------------------------------------------------- opening


@dataclass(frozen=True)
class ModelFolder:
    """A verified model folder."""

    path: Path
    recipe: Recipe
    manifest: dict[str, Any]

    @property
    def weights(self) -> Path:
        return self.path / WEIGHTS

    def side(self, name: str) -> Path:
        """The tokenizer file of the side `source` or `target`."""
        for file in (f"{name}{suffix}" for suffix in TOKENIZER_SUFFIXES):
            if file in self.manifest["files"]:
                return self.path / file
        raise FolderError(f"{self.path}: manifest.json lists no file of the {name} tokenizer")


def open_folder(path: str | os.PathLike[str]) -> ModelFolder:
    """Open a model folder after checking its version and each file's size and sha256.

    Errors: FolderError naming the file that is missing, truncated or altered.
    """
    from transduce.recipe_files import load_recipe

    path = Path(path)
    if is_exported(path):
        raise FolderError(
            f"{path}: an exported folder, which can predict and be evaluated; for anything else "
            "give the model folder it was made from"
        )
    manifest = verified_manifest(path, (RECIPE, WEIGHTS), again="train it again")
    return ModelFolder(path, load_recipe(path / RECIPE), manifest)


def is_exported(path: str | os.PathLike[str]) -> bool:
    """Whether this is a folder that `transduce export` wrote, whole or not."""
    try:
        manifest = json.loads((Path(path) / MANIFEST).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False
    return isinstance(manifest, dict) and EXPORTED in manifest


def verified_manifest(path: Path, needed: Sequence[str], *, again: str) -> dict[str, Any]:
    """The manifest of a folder whose files are those it lists, `needed` ones among them.

    `again` is the advice for a damaged folder. Errors: FolderError.
    """
    for attempt in range(5):
        manifest = read_manifest(path)
        problem = _check(path, manifest, needed)
        if problem is None:
            return manifest
        # A training may have replaced files while they were read: then the manifest is new, too.
        time.sleep(0.05 * attempt)
        if read_manifest(path) == manifest:
            break
    raise FolderError(f"{problem}. Copy the folder again, or {again}")


def read_manifest(path: Path) -> dict[str, Any]:
    """The manifest of the folder `path`. Errors: FolderError."""
    if not path.exists():
        raise FolderError(f"{path}: no such model folder")
    if not path.is_dir():
        raise FolderError(f"{path}: not a folder; give the folder that `transduce train` wrote")
    try:
        manifest = json.loads((path / MANIFEST).read_text(encoding="utf-8"))
    except FileNotFoundError:
        if (path / LAST).is_dir():
            message = "its training has not reached its first validation yet; let it go on"
        else:
            message = f"not a model folder (it has no {MANIFEST})"
        raise FolderError(f"{path}: {message}") from None
    except (OSError, ValueError) as error:
        raise FolderError(f"{path / MANIFEST}: cannot be read: {error}") from error
    version = manifest.get("format") if isinstance(manifest, dict) else None
    if not isinstance(version, int) or not isinstance(manifest.get("files"), dict):
        raise FolderError(f"{path / MANIFEST}: not the manifest of a model folder")
    if version > FORMAT_VERSION:
        raise FolderError(
            f"{path}: format {version} is newer than this transduce reads ({FORMAT_VERSION}); "
            "upgrade transduce"
        )
    return manifest


def _check(path: Path, manifest: dict[str, Any], needed: Sequence[str]) -> str | None:
    """What is wrong with the files of a folder, or None."""
    for name in needed:
        if name not in manifest["files"]:
            return f"{path / MANIFEST}: lists no {name}"
    for name, entry in manifest["files"].items():
        file = path / name
        if Path(name).name != name or not isinstance(entry, dict):
            return f"{path / MANIFEST}: `{name}` is not a file of this folder"
        valid = [entry, entry["before"]] if "before" in entry else [entry]
        try:
            found = digest(file)
        except FileNotFoundError:
            return f"{file}: missing"
        except OSError as error:
            return f"{file}: cannot be read: {error.strerror or error}"
        if any(found["sha256"] == one.get("sha256") for one in valid):
            continue
        sizes = [one.get("bytes") for one in valid]
        if found["bytes"] < min(size for size in sizes if isinstance(size, int)):
            return f"{file}: truncated ({found['bytes']:,} bytes of {sizes[0]:,})"
        return f"{file}: altered since it was written (its sha256 differs from manifest.json)"
    return None
