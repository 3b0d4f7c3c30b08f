"""The model folder: its files, its manifest, and writing that a killed process cannot spoil.

    recipe.yaml            the resolved recipe
    source.* target.*      tokenizers
    weights.safetensors    the weights to be used
    manifest.json          format and package version, task, languages, sha256 of each file above
    metrics.jsonl          one line per report and per validation
    last/                  what resuming needs
    figures/

Tensors are safetensors and everything else JSON or YAML, so that nothing read here can run code.
"""

from __future__ import annotations

import errno
import fcntl
import hashlib
import json
import os
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from transduce.errors import FolderError

if TYPE_CHECKING:
    from torch import Tensor, nn

    from transduce.recipe import Recipe

FORMAT_VERSION = 1
RECIPE = "recipe.yaml"
WEIGHTS = "weights.safetensors"
MANIFEST = "manifest.json"
METRICS = "metrics.jsonl"
LAST = "last"
FIGURES = "figures"
LISTED = ("recipe.", "source.", "target.", "weights.")  # how files in the manifest begin
FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)

# ------------------------------------------------------------------------------------- writing


@contextmanager
def atomic_write(path: str | os.PathLike[str]) -> Iterator[Path]:
    """Give a temporary path beside `path`; when the block ends well, it becomes `path`.

    The file reaches the disk before it takes the name, so after a crash `path` is the old file or
    the new one. On failure the temporary file is removed and the old file stays.

    Errors: FolderError when the disk is full or not writable.
    """
    path = Path(path)
    temporary: Path | None = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(prefix=f".{path.name}.", suffix=".tmp", dir=path.parent)
        os.close(handle)
        temporary = Path(name)
        yield temporary
        temporary.chmod(0o666 & ~_umask())
        sync(temporary)
        os.replace(temporary, path)
        sync(path.parent)
    except OSError as error:
        raise write_error(path, error) from error
    finally:
        if temporary is not None:
            with suppress(OSError):
                temporary.unlink(missing_ok=True)


def atomic_bytes(path: str | os.PathLike[str], data: bytes) -> None:
    """Write a whole file, or nothing of it."""
    with atomic_write(path) as temporary:
        temporary.write_bytes(data)


def remove_temporary(folder: Path) -> None:
    """Remove what killed processes were writing. Only for the holder of the folder's lock."""
    for pattern in (".*.tmp", ".*.new", f"{LAST}/.*.tmp"):
        for path in folder.glob(pattern):
            path.unlink(missing_ok=True)


def write_error(path: Path, error: OSError) -> FolderError:
    """The explanation of a failed write."""
    if error.errno in FULL:
        return FolderError(
            f"{path}: the disk is full ({error.strerror}); nothing was replaced. "
            "Free some space and run the same command again"
        )
    return FolderError(f"{path}: cannot be written: {error.strerror or error}")


def sync(path: Path) -> None:
    """Wait until a file or the names in a directory are on the disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


# ------------------------------------------------------------------------------------- locking


@contextmanager
def lock(folder: str | os.PathLike[str]) -> Iterator[None]:
    """Hold `folder` for one writer; the system lets go of it whenever the process ends.

    Errors: FolderError naming the process that holds it.
    """
    folder = Path(folder)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        handle = os.open(folder / ".lock", os.O_RDWR | os.O_CREAT, 0o666)
    except OSError as error:
        raise write_error(folder, error) from error
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            holder = os.pread(handle, 32, 0).decode(errors="replace").strip() or "unknown"
            raise FolderError(
                f"{folder}: another training is writing here (process {holder}); "
                "wait for it, stop it, or choose another folder"
            ) from None
        os.ftruncate(handle, 0)
        with suppress(OSError):  # the number is only for the message above; a full disk may lose it
            os.pwrite(handle, f"{os.getpid()}\n".encode(), 0)
        yield
    finally:
        os.close(handle)


# ------------------------------------------------------------------------------------ manifest


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
) -> None:
    """List every file that loading needs, with sha256 and size. Written last.

    `replacing` names files that are about to be renamed into place: both the old and the new
    content are then valid, so that a process killed between two renames leaves a whole folder.
    """
    folder = Path(folder)
    listed = [p for p in folder.iterdir() if p.is_file() and p.name.startswith(LISTED)]
    files: dict[str, Any] = {path.name: digest(path) for path in listed}
    for name, path in (replacing or {}).items():
        old = files.get(name)
        files[name] = digest(path) | ({"before": old} if old else {})
    manifest = {
        "format": FORMAT_VERSION,
        "transduce": _package_version(),
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
) -> None:
    """Replace files of a model folder together with its manifest; it can be opened at any moment.

    Errors: FolderError when the disk is full or not writable; the old files then stay.
    """
    folder = Path(folder)
    staged: dict[str, Path] = {}
    describe = {
        "task": task,
        "source_language": source_language,
        "target_language": target_language,
        "extra": extra,
    }
    try:
        for name, data in files.items():
            staged[name] = folder / f".{name}.new"
            atomic_bytes(staged[name], data)
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


def _package_version() -> str:
    from importlib.metadata import PackageNotFoundError, version

    try:
        return version("transduce")
    except PackageNotFoundError:
        return "unknown"


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
        found = sorted(f for f in self.manifest["files"] if f.startswith(f"{name}."))
        if not found:
            raise FolderError(f"{self.path}: manifest.json lists no file of the {name} tokenizer")
        return self.path / found[0]


def open_folder(path: str | os.PathLike[str]) -> ModelFolder:
    """Open a model folder after checking its version and each file's size and sha256.

    Errors: FolderError naming the file that is missing, truncated or altered.
    """
    from transduce.recipe_files import load_recipe

    path = Path(path)
    for attempt in range(5):
        manifest = read_manifest(path)
        problem = _check(path, manifest)
        if problem is None:
            return ModelFolder(path, load_recipe(path / RECIPE), manifest)
        # A training may have replaced files while they were read: then the manifest is new, too.
        time.sleep(0.05 * attempt)
        if read_manifest(path) == manifest:
            break
    raise FolderError(f"{problem}. Copy the folder again, or train it again")


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


def _check(path: Path, manifest: dict[str, Any]) -> str | None:
    """What is wrong with the files of a folder, or None."""
    for name in (RECIPE, WEIGHTS):
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


# ------------------------------------------------------------------------------------- tensors


def tensor_bytes(tensors: Mapping[str, Tensor], metadata: dict[str, str] | None = None) -> bytes:
    """Tensors as the bytes of a safetensors file."""
    from safetensors.torch import save

    plain = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    return save(plain, metadata)


def read_tensors(path: str | os.PathLike[str]) -> dict[str, Tensor]:
    """Tensors of a safetensors file, on the CPU. Errors: FolderError."""
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        return load_file(path)
    except FileNotFoundError:
        raise FolderError(f"{path}: missing") from None
    except (SafetensorError, OSError, ValueError) as error:
        raise FolderError(f"{path}: not a whole safetensors file: {error}") from error


def model_tensors(model: nn.Module) -> dict[str, Tensor]:
    """Parameters (shared ones once) and persistent buffers by name."""
    kept = model.state_dict().keys()
    tensors: dict[str, Tensor] = {name: p.detach() for name, p in model.named_parameters()}
    tensors |= {name: b for name, b in model.named_buffers() if name in kept}
    return tensors


def load_weights(model: nn.Module, path: str | os.PathLike[str]) -> None:
    """Fill a model from a safetensors file.

    Errors: FolderError naming the first tensor that is missing, unknown, or of another shape.
    """
    import torch

    stored = read_tensors(path)
    wanted = model_tensors(model)
    for name, tensor in wanted.items():
        if name not in stored:
            raise FolderError(f"{path}: has no `{name}`; recipe.yaml describes another model")
        if stored[name].shape != tensor.shape:
            raise FolderError(
                f"{path}: `{name}` is {tuple(stored[name].shape)} where the recipe and the "
                f"tokenizers ask for {tuple(tensor.shape)}: weights, recipe and vocabulary do not "
                "belong together"
            )
    if unknown := sorted(stored.keys() - wanted.keys()):
        raise FolderError(f"{path}: `{unknown[0]}` is unknown to the model that recipe.yaml names")
    with torch.no_grad():
        for name, tensor in wanted.items():
            tensor.copy_(stored[name])
