"""Reading sound files: any format that libsndfile knows, as float32 mono at one rate.

A recording is named by its path, or by a path and times, `a.flac#t=1.5,3.25`: seconds from 1.5 up
to 3.25 (either may be left out), as media fragments are written. A file whose whole name looks like
that is that file.
"""

from __future__ import annotations

import math
import os
import re
import stat
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from transduce.data.audio.containers import cut_short
from transduce.errors import DataError

Waveform: TypeAlias = npt.NDArray[np.float32]

SUFFIXES = (".wav", ".flac", ".ogg", ".oga", ".opus", ".mp3", ".aiff", ".aif", ".au", ".sph")
_SECONDS = r"(\d*\.?\d*(?:e[-+]?\d+)?)"  # as Python writes them: 1e-05 too
_TIMES = re.compile(rf"^(.*)#t={_SECONDS}(?:,{_SECONDS})?$", re.DOTALL)
_BLOCK = 1 << 18  # samples read at once: little memory, and all channels of them
SILENCE = 2e-4  # no sample is further from the mean: -74 dB of full scale, six steps of 16 bits
CLIPPED = 0.999  # of full scale
_CHANNELS = 64  # more of them are samples that lie the other way round
_FARTHEST = 1e6  # of full scale: no sound, and the squares of much more are no float32


@dataclass(frozen=True, slots=True)
class Sound:
    """What a file holds, by its header: seconds, Hz, channels, and its format's name."""

    seconds: float
    rate: int
    channels: int
    format: str


def named(path: Path | str, start: float | None = None, end: float | None = None) -> str:
    """The name of a recording: a path, and the seconds it begins and ends at if it is a part."""
    if start is None and end is None:
        return str(path)
    until = "" if end is None else f",{end!r}"
    return f"{path}#t={start or 0.0!r}{until}"


def parts(name: str) -> tuple[Path, float, float | None]:
    """Path, start and end (None: the file's) of a recording's name. Errors: DataError."""
    match = _TIMES.match(name)
    if match is None or os.path.exists(name):  # unlike Path's it raises nothing
        return Path(name), 0.0, None
    try:
        start, end = float(match[2] or 0.0), None if not match[3] else float(match[3])
    except ValueError:  # a lone point, say
        return Path(name), 0.0, None
    if not math.isfinite(start + (end or 0.0)):
        raise DataError(f"{name}: times have to be finite")
    if end is not None and end <= start:
        raise DataError(f"{name}: ends ({end:g} s) before it starts ({start:g} s)")
    return Path(match[1]), start, end


def look(name: str) -> Sound:
    """What a recording's header says. Errors: DataError, as `load`."""
    path, start, end = parts(name)
    with opened(path) as file:
        whole = len(file) / file.samplerate
        seconds = max(0.0, min(whole, math.inf if end is None else end) - start)
        return Sound(seconds, file.samplerate, file.channels, f"{file.format} {file.subtype}")


def load(
    name: str, rate: int, *, speed: float = 1.0, longest: float | None = None
) -> tuple[Waveform, float]:
    """The samples of a recording, (N,) float32 at `rate` Hz, channels averaged; and its seconds.

    `speed` 1.1 plays it so much faster (and higher). Of a recording longer than `longest` seconds
    only so many are read, whatever its length, and the seconds returned tell.
    Errors: DataError naming the file when it is missing, no sound, empty, cut short, outside its
    times, or holds samples that are not numbers or far beyond full scale.
    """
    path, start, end = parts(name)
    with opened(path) as file:
        given = file.samplerate
        whole = len(file)
        first = round(start * given)
        last = whole if end is None else min(whole, round(end * given))
        if whole == 0:
            raise DataError(f"{path}: holds no sound")
        if first >= whole or (end is not None and round(end * given) > whole + given // 2):
            raise DataError(f"{name}: the file has only {whole / given:.2f} s")
        wanted = whole_part = last - first
        if longest is not None:
            wanted = min(wanted, math.ceil(longest * speed * given))
        samples = _mono(file, path, first, wanted)
    if not len(samples):
        raise DataError(f"{name}: holds no sound")
    if len(samples) < wanted:
        raise DataError(
            f"{path}: cut short: {(first + len(samples)) / given:.2f} of {whole / given:.2f} s"
        )
    if end is None and wanted == whole_part and (missing := cut_short(path)):
        raise DataError(f"{path}: cut short: {missing}")
    return resampled(samples, given * speed, rate, name), (last - first) / given


def resampled(samples: npt.NDArray[Any], given: float, rate: int, name: str) -> Waveform:
    """Samples at `given` Hz, (N,) or (N, channels) of any number type -> (N',) float32 at `rate`.

    Integers are scaled to -1 … 1. Errors: DataError, in which `name` is what they are called.
    """
    try:
        found = np.asarray(samples)
    except ValueError:  # lists of different lengths
        raise DataError(f"{name}: samples are (N,) or (N, channels)") from None
    if found.dtype.kind in "iu":
        info = np.iinfo(found.dtype)
        middle = 0.0 if found.dtype.kind == "i" else (info.max + 1) / 2
        found = (found.astype(np.float64) - middle) / (info.max / 2 if middle else info.max + 1.0)
    elif found.dtype.kind != "f":
        raise DataError(f"{name}: samples are numbers, not {found.dtype}")
    if found.ndim not in (1, 2):
        raise DataError(f"{name}: samples are (N,) or (N, channels), not {found.shape}")
    if found.ndim == 2 and not 1 <= found.shape[1] <= _CHANNELS:
        raise DataError(
            f"{name}: samples are (N,) or (N, channels); these have {found.shape[1]:,} channels"
        )
    if not 1 <= given < 1e9:
        raise DataError(f"{name}: a rate is a number of samples a second, not {given}")
    if wrong := fault(found):
        count = int((~np.isfinite(found)).sum())
        raise DataError(f"{name}: {f'{count:,} {wrong}' if count else wrong}")
    mono = found.mean(axis=1) if found.ndim == 2 else found
    wave = np.ascontiguousarray(mono, dtype=np.float32)
    if given == rate or not len(wave):
        return wave
    import soxr

    return np.asarray(soxr.resample(wave, given, rate), dtype=np.float32)


def fault(samples: npt.NDArray[Any]) -> str:
    """Why samples, of any shape, can be no sound: some are no numbers, or far too large; or ""."""
    peak = float(np.abs(samples).max(initial=0.0))
    if peak <= _FARTHEST:
        return ""
    if math.isfinite(peak):
        return f"samples far beyond full scale, which is 1 (peak {peak:.3g})"
    return "samples are not numbers (NaN or infinite)"


def is_silent(wave: Waveform) -> bool:
    """Whether nothing can be heard: no sample is far from the mean."""
    return not len(wave) or float(np.abs(wave - wave.mean()).max()) < SILENCE


def clipped_share(wave: Waveform) -> float:
    """The share of samples that lie beside others at the limit of the scale."""
    if len(wave) < 2:
        return 0.0
    full = np.abs(wave) >= CLIPPED
    return float((full[1:] & full[:-1]).mean())


def _mono(file: Any, path: Path, first: int, wanted: int) -> npt.NDArray[np.float32]:
    """Samples from `first` on, as many as there are but not more than `wanted`."""
    blocks = []
    left = wanted
    try:
        if first:
            file.seek(first)
        while left > 0:
            block = file.read(min(left, _BLOCK), dtype="float32", always_2d=True)
            if not len(block):
                break
            if block.shape[1] > 1 and (wrong := fault(block)):  # a mean could hide it
                raise DataError(f"{path}: {wrong}")
            blocks.append(block[:, 0] if block.shape[1] == 1 else block.mean(axis=1))
            left -= len(block)
    except (RuntimeError, OSError) as error:  # libsndfile's are RuntimeErrors
        raise DataError(f"{path}: cannot be read to its end: {said(error)}") from None
    return np.concatenate(blocks) if blocks else np.zeros(0, dtype=np.float32)


def opened(path: Path) -> Any:
    """The file as a `soundfile.SoundFile`. Errors: DataError naming it, where it is none."""
    import soundfile

    try:
        found = path.stat()
    except OSError as error:
        reason = "does not exist" if isinstance(error, FileNotFoundError) else error.strerror
        raise DataError(f"{path}: {reason}") from None
    except ValueError as error:  # a name with a null byte
        raise DataError(f"{path}: no name of a file: {error}") from None
    if stat.S_ISDIR(found.st_mode):
        raise DataError(f"{path} is a folder; a sound file is needed")
    if not stat.S_ISREG(found.st_mode):
        raise DataError(f"{path}: is not a regular file: sound is read from files, not from pipes")
    if found.st_size == 0:
        raise DataError(f"{path}: the file is empty")
    try:
        # Bytes, since names need not be UTF-8; only Windows has names of characters.
        return soundfile.SoundFile(str(path) if os.name == "nt" else os.fsencode(path))
    except (RuntimeError, TypeError, OSError) as error:
        # Of damaged MP3 it says that there is no file, which is not so.
        told = "" if "does not exist" in said(error) else f": {said(error)}"
        raise DataError(f"{path}: not a sound file that can be read{told}") from None


def said(error: Exception) -> str:
    """What libsndfile said, without the path, which it repeats."""
    told = str(getattr(error, "error_string", error)).strip().removeprefix("Error : ").rstrip(".")
    return told or type(error).__name__
