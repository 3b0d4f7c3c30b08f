"""A file of any container that was cut short is told; a whole one, or one of a pipe, is not."""

from __future__ import annotations

import struct
from pathlib import Path
from typing import Any

import pytest
import soundfile

from transduce.data.audio.blocks import sound_blocks
from transduce.data.audio.containers import cut_short
from transduce.data.audio.files import load
from transduce.errors import DataError

from .conftest import RATE, tone

FORMATS = [
    ("a.wav", "WAV", "PCM_16", "FILE"),
    ("a.wav", "WAVEX", "PCM_24", "FILE"),
    ("a.rf64", "RF64", "PCM_16", "FILE"),
    ("a.w64", "W64", "FLOAT", "FILE"),
    ("a.aiff", "AIFF", "PCM_16", "FILE"),
    ("a.aifc", "AIFF", "FLOAT", "FILE"),
    ("a.au", "AU", "PCM_16", "BIG"),
    ("a.au", "AU", "PCM_16", "LITTLE"),
    ("a.ogg", "OGG", "VORBIS", "FILE"),
    ("a.opus", "OGG", "OPUS", "FILE"),
]


def written(folder: Path, name: str, format: str, subtype: str, endian: str) -> Path:
    path = folder / name
    soundfile.write(str(path), tone(6.0), RATE, subtype, endian, format)
    return path


@pytest.mark.parametrize(("name", "format", "subtype", "endian"), FORMATS)
def test_a_file_that_was_cut_is_told(
    tmp_path: Path, name: str, format: str, subtype: str, endian: str
) -> None:
    path = written(tmp_path, name, format, subtype, endian)
    assert not cut_short(path) and load(str(path), RATE)[1] == 6.0
    whole = path.read_bytes()
    path.write_bytes(whole + b"some tag at the end")
    assert not cut_short(path)
    path.write_bytes(whole[: len(whole) * 6 // 10])
    with pytest.raises(DataError, match="cut short") as raised:
        load(str(path), RATE)
    assert str(raised.value).startswith(f"{path}: ")
    blocks = sound_blocks(path, RATE)
    with pytest.raises(DataError, match="cut short"):
        heard = [len(next(blocks))]  # what there is comes first
        assert heard[0] > 0
        list(blocks)
    if format != "OGG":
        assert f"{len(whole) - len(whole) * 6 // 10:,} bytes" in str(raised.value)


@pytest.mark.parametrize(
    ("name", "format", "chunk", "skipped", "number", "lengths"),
    [
        ("a.wav", "WAV", b"data", 0, "<I", (0, 0x7FFFF000, 0x80000000, 0xFFFFFFFF)),
        ("a.aiff", "AIFF", b"SSND", 0, ">I", (0, 0x7F000008, 0x7EFFFFFC, 0xFFFFFFFF)),
        ("a.w64", "W64", b"data", 12, "<Q", (0, 2**63 - 1, 2**64 - 1)),
        ("a.rf64", "RF64", b"ds64", 12, "<Q", (0, 2**63 - 1, 2**64 - 1)),
        ("a.au", "AU", b".snd", 4, ">I", (0, 0xFFFFFFFF)),
    ],
)
def test_what_was_written_into_a_pipe_is_whole(
    tmp_path: Path, name: str, format: str, chunk: bytes, skipped: int, number: str, lengths: Any
) -> None:
    path = written(tmp_path, name, format, "PCM_16", "FILE")
    data = bytearray(path.read_bytes())
    at = data.index(chunk) + len(chunk) + skipped
    for length in lengths:
        struct.pack_into(number, data, at, length)
        path.write_bytes(data)
        assert not cut_short(path)


@pytest.mark.parametrize("kind", [b"RIFF", b"RF64", b"FORM", b"riff", b".snd", b"dns.", b"OggS"])
def test_a_header_alone_or_nonsense_is_read_to_an_end(tmp_path: Path, kind: bytes) -> None:
    path = tmp_path / "a"
    for rest in (b"", b"\0" * 100, b"\xff" * 100, b"ds64" * 30, bytes(range(256))):
        path.write_bytes(kind + rest)
        assert isinstance(cut_short(path), str)
