"""Which recordings a command line names, and where what is made of each one goes."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from transduce.data.audio.files import SUFFIXES
from transduce.errors import UsageError


@dataclass(frozen=True, slots=True)
class Named:
    """A recording, and the folder it was found under if it was not named itself."""

    path: Path
    under: Path | None = None


def expanded(names: Iterable[str]) -> tuple[list[Named], list[str]]:
    """The recordings that some names of files and folders mean, in order.

    Of a folder, all sound files in it and below, by name; hidden ones are left out. The second list
    tells what else was left out. Errors: UsageError for a folder without a sound file, and
    for an empty name.
    """
    found: list[Named] = []
    notes: list[str] = []
    for name in names:
        if not name:  # of a variable that is not set; as a path it is the working directory
            raise UsageError("the name of a recording is empty")
        path = Path(name)
        if not os.path.isdir(path):  # Path's own raises for names that cannot be
            found.append(Named(path))
            continue
        inside = sorted(file for file in path.rglob("*") if _shown(file.relative_to(path), file))
        sounds = [file for file in inside if file.suffix.lower() in SUFFIXES]
        if not sounds:
            raise UsageError(f"{path}: holds no sound file ({', '.join(SUFFIXES)})")
        found += [Named(file, path) for file in sounds]
        if len(inside) > len(sounds):
            notes.append(f"{path}: {len(inside) - len(sounds):,} other files left out")
    return found, notes


def _shown(relative: Path, file: Path) -> bool:
    return not any(part.startswith(".") for part in relative.parts) and file.is_file()


def destinations(recordings: Sequence[Named], folder: Path, suffix: str) -> list[Path]:
    """Where the transcript of each recording goes: its name with another suffix, in `folder`.

    Below `folder` lie the folders that lay below the one that was named. Recordings that differ in
    their suffix only keep it (`a.wav.srt`). Errors: UsageError where two would still be one file.
    """
    places = [
        folder / (one.path.relative_to(one.under) if one.under else one.path.name)
        for one in recordings
    ]
    short = [place.with_name(place.stem + suffix) for place in places]
    times = Counter(short)
    chosen = [
        brief if times[brief] == 1 else place.with_name(place.name + suffix)
        for place, brief in zip(places, short, strict=True)
    ]
    first: dict[Path, Path] = {}
    for place, one in zip(chosen, recordings, strict=True):
        if place in first:
            raise UsageError(f"{first[place]} and {one.path} would both become {place}")
        first[place] = one.path
    return chosen
