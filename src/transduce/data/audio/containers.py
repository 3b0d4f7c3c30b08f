"""Whether a sound file was cut short, by what its container says; libsndfile takes such a file for
a shorter one.

RIFF, RF64 and BW64 (EBU Tech 3306), Wave64, AIFF and AIFF-C announce their sound as a chunk with
its length, AU in its header; Ogg (RFC 3533) marks its last page. Of FLAC and MP3 libsndfile itself
tells; other formats are not looked at.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

# Programs that write into a pipe announce nothing, or all that 31 or 32 bits can hold or a little
# less: SoX 0x7f000000 and a rest in AIFF, 0x7ffff000 in WAV.
_UNKNOWN = 0x7EFF0000
_UNKNOWN_64 = 1 << 62
_PAGE = 27 + 255 + 255 * 255  # bytes of the longest page of Ogg
_IS_LAST = 4  # the flag of a page


@dataclass(frozen=True, slots=True)
class _Chunks:
    """How a container's chunks lie: where they begin, a chunk's head (name and length), the name of
    the sound, what lengths are rounded up to, how much of the head they count, and no length."""

    first: int
    head: str
    sound: bytes
    step: int = 2
    counted: int = 0
    unknown: int = _UNKNOWN


_CHUNKS = {
    b"RIFF": _Chunks(12, "<4sI", b"data"),
    b"RF64": _Chunks(12, "<4sI", b"data"),
    b"BW64": _Chunks(12, "<4sI", b"data"),
    b"FORM": _Chunks(12, ">4sI", b"SSND"),
    b"riff": _Chunks(40, "<16sQ", b"data", 8, 24, _UNKNOWN_64),  # its names are GUIDs
}


def cut_short(path: Path) -> str:
    """What a sound file lacks of what it announces, in words; "" where it lacks nothing, or where
    its container does not tell. Errors: OSError."""
    size = path.stat().st_size
    with path.open("rb") as file:
        kind = file.read(4)
        if kind == b"OggS":
            return "" if _ends(file, size) else "the page that ends it is missing"
        if kind in _CHUNKS:
            end = _end_of_chunks(file, size, _CHUNKS[kind])
        elif kind in (b".snd", b"dns."):
            end = _end_of_au(file, ">II" if kind == b".snd" else "<II")
        else:
            return ""
    return f"{end - size:,} bytes of its sound are missing" if end > size else ""


def _end_of_chunks(file: BinaryIO, size: int, layout: _Chunks) -> int:
    """Where the sound ends that is announced; 0 where none is, or where nobody knew."""
    file.seek(layout.first)
    long_size = 0  # of the sound, in RF64: its own length is 32 ones
    width = struct.calcsize(layout.head)
    while len(head := file.read(width)) == width:
        name, length = struct.unpack(layout.head, head)
        length = max(0, length - layout.counted)
        start = file.tell()
        if name[:4] == layout.sound:
            if long_size and length == 0xFFFFFFFF:
                return start + long_size if long_size < _UNKNOWN_64 else 0
            return start + length if length < layout.unknown else 0
        if name == b"ds64" and length >= 16:
            _, long_size = struct.unpack("<QQ", file.read(16).ljust(16, b"\0"))
        after = start + length + -length % layout.step
        if after > size:
            return 0
        file.seek(after)
    return 0


def _end_of_au(file: BinaryIO, numbers: str) -> int:
    start, length = struct.unpack(numbers, file.read(8).ljust(8, b"\0"))
    return start + length if length < _UNKNOWN else 0


def _ends(file: BinaryIO, size: int) -> bool:
    """Whether the last page of an Ogg file is whole and marked as the last."""
    file.seek(max(0, size - _PAGE))
    tail = file.read(_PAGE)
    at = tail.rfind(b"OggS")
    if at < 0:
        return True  # something else was appended, and all pages lie before it
    page = tail[at:]
    lengths = page[27 : 27 + page[26]] if len(page) > 26 else b""
    whole = len(page) > 26 and len(page) >= 27 + page[26] + sum(lengths)
    return whole and bool(page[5] & _IS_LAST)
