"""Connected digits made of isolated ones: strings of one speaker's clips with short pauses between.

Which recordings a split is made of: test, those of FSDD's test table (recordings 0 to 4 of each
digit and speaker); dev, recordings 5 to 9; train, all others. So no recording is in two splits.
Everything is drawn from a fixed seed by generators whose numbers never change.
"""

from __future__ import annotations

import os
import random
import shutil
import socket
from pathlib import Path

import numpy as np
import numpy.typing as npt

from transduce.data.audio.files import Waveform, load
from transduce.data.files import read_lines, sha256_of
from transduce.errors import DataError

RATE = 8000  # of FSDD
STRINGS = {"train": 3000, "dev": 300, "test": 300}
LONGEST = 7  # digits of a string; the shortest has one
_BETWEEN = (0.0, 0.25)  # seconds of silence between two digits
_AROUND = (0.05, 0.3)  # and before the first and after the last
_VERSION = 1  # of what is made: part of the folder's name
_DEV = range(5, 10)


def connected_digits(clips: Path, split: str, root: Path) -> Path:
    """The table (audio, text, speaker) of a split, made below `root` unless it is there.

    clips: FSDD's table of the recordings that the split is made of. Errors: DataError when a clip
    cannot be read or the files cannot be written.
    """
    folder = root / f"{split}-{_VERSION}-{sha256_of(clips)[:12]}"
    table = folder / "table.tsv"
    if table.is_file():
        return table
    beside = root / f"{folder.name}.new-{socket.gethostname()}-{os.getpid()}"
    try:
        shutil.rmtree(beside, ignore_errors=True)
        beside.mkdir(parents=True)
        _make(_clips(clips, split), split, beside)
        beside.rename(folder)
    except OSError as error:
        if not table.is_file():  # else another process was quicker
            raise DataError(f"cannot make {folder}: {error.strerror or error}") from None
    finally:
        shutil.rmtree(beside, ignore_errors=True)
    return table


Clips = dict[str, dict[str, list[Path]]]  # by speaker and word


def _clips(table: Path, split: str) -> Clips:
    """The clips that a split is made of; ids are digit_speaker_recording."""
    found: Clips = {}
    for number, line in enumerate(read_lines(table), 1):
        fields = line.split("\t")
        if number == 1 or not line:
            continue
        try:
            key, audio, speaker, word = fields
            recording = int(key.rpartition("_")[2])
        except ValueError:
            raise DataError(f"{table}:{number}: not `id audio speaker text` of FSDD") from None
        if split == "test" or (recording in _DEV) == (split == "dev"):
            found.setdefault(speaker, {}).setdefault(word, []).append(table.parent / audio)
    if not found:
        raise DataError(f"{table}: has no recordings for `{split}`")
    return found


def _make(clips: Clips, split: str, folder: Path) -> None:
    """Write every string of a split as FLAC, and their table."""
    import soundfile

    draw = random.Random(f"connected digits, {split}")
    noise = np.random.RandomState(draw.randrange(2**32))
    kept: dict[Path, Waveform] = {}
    rows = ["audio\ttext\tspeaker"]
    for i in range(STRINGS[split]):
        speaker = draw.choice(sorted(clips))
        words = draw.choices(sorted(clips[speaker]), k=draw.randint(1, LONGEST))
        sounds: list[npt.NDArray[np.float32]] = []
        for n, word in enumerate(words):
            path = draw.choice(clips[speaker][word])
            if path not in kept:
                kept[path] = load(str(path), RATE)[0]
            sounds.append(_pause(draw.uniform(*(_BETWEEN if n else _AROUND)), kept[path], noise))
            sounds.append(kept[path])
        sounds.append(_pause(draw.uniform(*_AROUND), kept[path], noise))
        name = f"{i:05d}.flac"
        soundfile.write(str(folder / name), np.concatenate(sounds), RATE, subtype="PCM_16")
        rows.append(f"{name}\t{' '.join(words)}\t{speaker}")
    (folder / "table.tsv").write_text("\n".join(rows) + "\n", encoding="utf-8")


def _pause(seconds: float, clip: Waveform, noise: np.random.RandomState) -> Waveform:
    """Noise as faint as the quietest 20 ms of a clip: digital silence would mark the words."""
    count, window = round(seconds * RATE), RATE // 50
    whole = clip[: len(clip) // window * window].reshape(-1, window)
    level = float(np.sqrt((whole**2).mean(axis=1)).min()) if len(whole) else 0.0
    return (noise.standard_normal(count) * max(level, 1e-4)).astype(np.float32)
