"""Writing that neither a killed process nor a full disk can spoil, and one writer at a time."""

from __future__ import annotations

import errno
import fcntl
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from transduce.errors import FolderError

LOCK = ".lock"  # the file by which a folder is held
FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


@contextmanager
def atomic_write(path: str | os.PathLike[str]) -> Iterator[Path]:
    """Give a temporary path beside `path`; when the block ends well, it becomes `path`.

    The file reaches the disk before it takes the name, so after a crash `path` is the old file or
    the new one. On failure the temporary file is removed and the old file stays. A symbolic link
    stays one: what it points to is replaced.

    Errors: FolderError when the disk is full or not writable.
    """
    path = Path(os.path.realpath(path))
    temporary: Path | None = None
    try:
        if path.is_symlink():  # realpath gives up on links that lead in a circle
            raise OSError(errno.ELOOP, os.strerror(errno.ELOOP))
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


@contextmanager
def lock(folder: str | os.PathLike[str], work: str = "training") -> Iterator[None]:
    """Hold `folder` for one writer; the system lets go of it whenever the process ends.

    `work` is what such writers do there, for people.

    Errors: FolderError naming the process that holds it.
    """
    folder = Path(folder)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        handle = os.open(folder / LOCK, os.O_RDWR | os.O_CREAT, 0o666)
    except OSError as error:
        raise write_error(folder, error) from error
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            holder = os.pread(handle, 32, 0).decode(errors="replace").strip() or "unknown"
            raise FolderError(
                f"{folder}: another {work} is writing here (process {holder}); "
                "wait for it, stop it, or choose another folder"
            ) from None
        os.ftruncate(handle, 0)
        with suppress(OSError):  # the number is only for the message above; a full disk may lose it
            os.pwrite(handle, f"{os.getpid()}\n".encode(), 0)
        yield
    finally:
        os.close(handle)
