"""Preparing corpora: text and sound files in, the memory-mapped folder of a `Store` out.

Everything streams in chunks of a few thousand examples. The folder is built beside its name and
renamed into place, so that a killed process leaves nothing that could be taken for a whole one.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import socket
from collections.abc import Sequence
from pathlib import Path

from transduce.data.speech import SpeechSide
from transduce.data.store import FORMAT_VERSION, META, Store
from transduce.data.text import TextSide
from transduce.data.writing import Progress, Readable, Writer
from transduce.disk import FULL
from transduce.errors import DataError
from transduce.recipe import DataOptions


def prepare(
    corpora: Sequence[Readable],
    source: TextSide | SpeechSide,
    target: TextSide,
    options: DataOptions,
    cache: Path,
    progress: Progress | None = None,
    *,
    limit: int | None = None,
) -> Store:
    """Tokenize corpora into a folder of `cache` named by their content, or open the one there.

    Recordings become frames. Blank sides, silence, and examples above the length limits of
    `options` are dropped and counted, by reason, in `Store.counts`. `limit` reads so many
    examples of each corpus only.
    Errors: DataError as from the corpora, when no example is left, or when the disk is full.
    """
    folder = cache / _content_hash(corpora, source, target, options, limit)
    weights = [corpus.options.weight for corpus in corpora]
    noisy = [corpus.options.objective == "denoise" for corpus in corpora]
    if folder.exists():
        try:
            return Store(folder, weights=weights, noisy=noisy)
        except DataError:  # damaged since it was made: made anew
            shutil.rmtree(folder, ignore_errors=True)
    beside = cache / f"{folder.name}.new-{socket.gethostname()}-{os.getpid()}"
    try:
        _remove_abandoned(cache)
        beside.mkdir(parents=True)
        with Writer(beside, source, target, options) as writer:
            writer.write(corpora, progress, limit)
        _rename(beside, folder)
    except OSError as error:
        if error.errno in FULL:
            raise DataError(f"the disk is full: cannot prepare the corpus in {cache}") from None
        raise DataError(f"cannot prepare the corpus in {cache}: {error}") from None
    finally:
        shutil.rmtree(beside, ignore_errors=True)
    return Store(folder, weights=weights, noisy=noisy)


def _content_hash(
    corpora: Sequence[Readable],
    source: TextSide | SpeechSide,
    target: TextSide,
    options: DataOptions,
    limit: int | None,
) -> str:
    """32 hexadecimal digits that change with anything the prepared files depend on."""
    tree = [
        FORMAT_VERSION,
        [[corpus.label, corpus.fingerprint()] for corpus in corpora],
        [[side.fingerprint(), side.samples] for side in (source, target)],
        [options.max_source_length, options.max_target_length, limit],
    ]
    return hashlib.sha256(json.dumps(tree).encode()).hexdigest()[:32]


def _rename(beside: Path, folder: Path) -> None:
    try:
        beside.rename(folder)
    except OSError:
        if not (folder / META).exists():  # else another process was quicker, with the same content
            raise


def _remove_abandoned(cache: Path) -> None:
    """Remove what killed processes of this machine left half made."""
    here = f".new-{socket.gethostname()}-"
    for path in cache.glob(f"*{here}*"):
        pid = path.name.rpartition("-")[2]
        if pid.isdigit() and not _alive(int(pid)):
            shutil.rmtree(path, ignore_errors=True)


def _alive(pid: int) -> bool:
    if pid == os.getpid():
        return False  # this process prepares one corpus at a time: what bears its name is old
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except OSError:
        pass  # it exists and belongs to another user
    return True
