"""Reading files of text: compression, encoding and line ends, with errors that say where.

Only a line feed ends a line. Python's own text files also end lines at carriage returns, form feeds
and U+2028, which would shift every line after one that contains such a character.
"""

from __future__ import annotations

import hashlib
import io
import lzma
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any, BinaryIO, Literal, cast

from transduce.errors import DataError, TransduceError

COMPRESSED = (".gz", ".xz", ".zst")
_UTF16 = (b"\xff\xfe", b"\xfe\xff")
_BOM = b"\xef\xbb\xbf"


def open_bytes(path: Path | str) -> BinaryIO:
    """The bytes of a file, decompressed when its name ends in .gz, .xz or .zst.

    Errors: DataError when it is missing, a folder, or not readable; damage in a compressed file
    is found while reading (`damage` turns it into a DataError).
    """
    path = Path(path)
    if path.is_dir():
        raise DataError(f"{path} is a folder; a file is needed")
    try:
        raw = path.open("rb")
    except FileNotFoundError:
        raise DataError(f"{path} does not exist{_near(path)}") from None
    except PermissionError:
        raise DataError(f"{path} cannot be read: no permission") from None
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror}") from None
    return _decompressed(raw, path.suffix)


def _decompressed(raw: BinaryIO, suffix: str) -> BinaryIO:
    if suffix == ".gz":
        import gzip

        return cast(BinaryIO, gzip.GzipFile(fileobj=raw, mode="rb"))
    if suffix == ".xz":
        return cast(BinaryIO, lzma.LZMAFile(raw, "rb"))
    if suffix == ".zst":
        return cast(BinaryIO, io.BufferedReader(_Zstd(raw), 1 << 16))
    return raw


class _Zstd(io.RawIOBase):
    """Decompressed bytes of one or more Zstandard frames.

    The package's own stream reader takes a file that was cut short for a whole one.
    """

    def __init__(self, raw: BinaryIO) -> None:
        import zstandard

        self._raw = raw
        self._new = zstandard.ZstdDecompressor().decompressobj
        self._frame = self._new()
        self._inside = False  # a frame has begun and not ended
        self._ready = memoryview(b"")

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        while not self._ready:
            packed = self._frame.unused_data if self._frame.eof else b""
            if self._frame.eof:
                self._frame, self._inside = self._new(), False
            packed = packed or self._raw.read(1 << 16)
            if not packed:
                if self._inside:
                    raise EOFError("the file ends in the middle of a Zstandard frame")
                return 0
            self._inside = True
            self._ready = memoryview(self._frame.decompress(packed))
            if self._frame.eof:
                self._inside = False
        count = min(len(buffer), len(self._ready))
        buffer[:count] = self._ready[:count]
        self._ready = self._ready[count:]
        return count

    def close(self) -> None:
        self._raw.close()
        super().close()


def _near(path: Path) -> str:
    """A hint for a missing file that lies there under a compressed or uncompressed name."""
    for suffix in COMPRESSED:
        if path.with_name(path.name + suffix).exists():
            return f" (but {path.name}{suffix} does)"
    if path.suffix in COMPRESSED and path.with_suffix("").exists():
        return f" (but {path.stem} does)"
    if not path.parent.exists():
        return f" (nor does the folder {path.parent})"
    return ""


@contextmanager
def damage(name: str) -> Iterator[None]:
    """Turns what a broken file or disk raises while being read into a DataError."""
    try:
        yield
    except (EOFError, lzma.LZMAError, zlib.error) as error:
        raise DataError(f"{name} is damaged or cut short: {error}") from None
    except OSError as error:
        raise DataError(f"{name} cannot be read to its end: {error}") from None
    except Exception as error:
        if type(error).__name__ != "ZstdError":  # named, not imported: the package is optional here
            raise
        raise DataError(f"{name} is damaged or cut short: {error}") from None


LONGEST_LINE = 64 << 20  # bytes; a stream without line ends would otherwise fill the memory


def read_lines(
    file: Path | str | IO[bytes],
    errors: Literal["strict", "replace"] = "strict",
    *,
    name: str | None = None,
) -> Iterator[str]:
    """Lines of UTF-8 without their end (LF or CR LF); a byte order mark at the start is skipped.

    `strict` raises DataError with file and line at the first byte that is not UTF-8; `replace`
    puts U+FFFD there. A line longer than LONGEST_LINE is a DataError. `name` is what errors call
    a stream.
    """
    if isinstance(file, str | Path):
        with open_bytes(file) as stream:
            yield from read_lines(stream, errors, name=name or str(file))
        return
    name = name or str(getattr(file, "name", "input"))
    number = 0
    while True:
        with damage(name):
            raw = file.readline(LONGEST_LINE)
        if not raw:
            return
        number += 1
        if len(raw) == LONGEST_LINE and not raw.endswith(b"\n"):
            raise DataError(
                f"{name}:{number}: the line has more than {LONGEST_LINE >> 20} MiB; "
                "is this a text file?"
            )
        if number == 1:
            raw = raw.removeprefix(_BOM)
        raw = raw.removesuffix(b"\n").removesuffix(b"\r")
        try:
            yield raw.decode("utf-8")
        except UnicodeDecodeError as error:
            if errors == "strict":
                raise DataError(_not_utf8(name, number, raw, error.start)) from None
            yield raw.decode("utf-8", "replace")


def _not_utf8(name: str, number: int, raw: bytes, at: int) -> str:
    if number == 1 and raw.startswith(_UTF16):
        return f"{name} is UTF-16; make it UTF-8: iconv -f UTF-16 -t UTF-8 {name} > new"
    return (
        f"{name}:{number}: not UTF-8 (byte 0x{raw[at]:02x} at {at + 1}); "
        f"if the file is Latin-1: iconv -f LATIN1 -t UTF-8 {name} > new"
    )


def count_lines(path: Path | str) -> int:
    """The number of lines `read_lines` would give, without decoding them."""
    with open_bytes(path) as stream, damage(str(path)):
        return sum(1 for _ in stream)


def sha256_of(path: Path | str, *, decompressed: bool = False) -> str:
    """The SHA-256 of a file's bytes, as they lie or decompressed."""
    digest = hashlib.sha256()
    if not decompressed:
        open_bytes(path).close()  # for its errors
    with open_bytes(path) if decompressed else open(path, "rb") as stream, damage(str(path)):
        while block := stream.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


class UntilError(Iterator[bytes]):
    """The inputs up to the first that cannot be had, and the error that says why.

    Inputs are read ahead, a window at a time: an error there would take with it the answers to all
    that were read before.
    """

    def __init__(self, inputs: Iterator[bytes]) -> None:
        self._inputs = inputs
        self.error: TransduceError | None = None

    def __next__(self) -> bytes:
        if self.error is not None:
            raise StopIteration
        try:
            return next(self._inputs)
        except TransduceError as error:
            self.error = error
            raise StopIteration from None
