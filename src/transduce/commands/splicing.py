"""`data splice`: new recordings out of the words of old ones."""

from __future__ import annotations

import random
import sys
from collections import Counter
from collections.abc import Iterable
from pathlib import Path

from transduce.assessment import chosen_corpora
from transduce.commands.predict import load_models
from transduce.commands.showing import console
from transduce.data.audio.files import load
from transduce.data.audio.splicing import Spoken, cut, spliced
from transduce.data.corpus import open_corpora
from transduce.data.formats import Example
from transduce.data.speech import Speech, SpeechSide
from transduce.errors import DataError, UsageError
from transduce.recognition.times import word_times
from transduce.transducer import Transducer

TABLE = "table.tsv"


def run_splice(
    name: str,
    folder: Path,
    data: str | None,
    table: str | None,
    *,
    copies: int,
    seed: int,
    threads: int | None,
) -> None:
    """Write `copies` new recordings for each old one, and their table, into a new folder.

    The table is written last: a folder without one was not finished.
    """
    corpora = chosen_corpora(data, None, None, table)
    if not corpora:
        raise UsageError("say which recordings: --data NAME:SPLIT, or --table FILE")
    if folder.exists() and not (folder.is_dir() and next(folder.iterdir(), None) is None):
        raise UsageError(f"{folder} is there and not empty: name a new folder, or remove it")
    model = load_models(name, "cpu", threads, "fp32")
    if not isinstance(model.source, SpeechSide) or not model.model.has_ctc:
        raise UsageError(
            "splicing needs a model that hears and has CTC (model.ctc), which says where words are"
        )
    examples = (one for corpus in open_corpora(corpora, "speech") for one in corpus)
    voices, left_out = _voices(model, examples)
    seconds = write(voices, folder, model.source.options.rate, copies=copies, seed=seed)
    out = console()
    for reason, count in left_out.items():
        out.print(f"left out: {count:,} {reason}", markup=False)
    old = sum(map(len, voices.values()))
    out.print(
        f"{folder / TABLE}: {copies * old:,} recordings, {seconds / 3600:.1f} hours, of "
        f"{len(voices):,} voices, out of {old:,}",
        markup=False,
    )


Voices = dict[str, list[Spoken]]  # by speaker


def _voices(model: Transducer, examples: Iterable[Example]) -> tuple[Voices, Counter[str]]:
    """The recordings of each speaker in words, and how many were left out for which reason."""
    voices: Voices = {}
    left_out: Counter[str] = Counter()
    for example in examples:
        if example.speaker is None:
            left_out["without a speaker: words of different voices make no sentence"] += 1
            continue
        try:
            spoken = _spoken(model, example)
        except DataError as error:
            left_out["that cannot be read"] += 1
            print(f"left out: {error}", file=sys.stderr)
            continue
        if spoken is None:
            left_out["in which the model does not find the words of the text"] += 1
            continue
        voices.setdefault(example.speaker, []).append(spoken)
    if not voices:
        reasons = "; ".join(f"{count:,} {reason}" for reason, count in left_out.items())
        raise DataError(f"there is nothing to splice: {reasons or 'no recordings'}")
    return voices, left_out


def _spoken(model: Transducer, example: Example) -> Spoken | None:
    """A recording cut between its words; None where they are not found."""
    assert isinstance(model.source, SpeechSide)
    rate = model.source.options.rate
    wave, _ = load(example.source, rate)
    output = model.align(Speech(wave, rate), example.target or "")
    seconds = len(wave) / rate
    words = word_times(output, 0.0, seconds)
    # A reason says that the recording or the text was cut: then the last word would get the rest.
    if output.reason or not words or [word.text for word in words] != output.text.split():
        return None
    sounds = cut(wave, rate, [(word.start, word.end) for word in words])
    if not all(map(len, sounds)):
        return None
    return Spoken([word.text for word in words], sounds)


def write(voices: Voices, folder: Path, rate: int, *, copies: int, seed: int) -> float:
    """Write the recordings and their table; the seconds of them all. The same seed, the same."""
    import soundfile

    draw = random.Random(f"spliced, {seed}")
    rows = ["audio\ttext\tspeaker"]
    samples = 0
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for number, (speaker, voice) in enumerate(sorted(voices.items())):
            for n in range(copies * len(voice)):
                words, wave = spliced(voice, rate, draw)
                name = f"{number:04d}-{n:05d}.flac"
                soundfile.write(str(folder / name), wave, rate, subtype="PCM_16")
                rows.append(f"{name}\t{' '.join(words)}\t{speaker}")
                samples += len(wave)
        (folder / TABLE).write_text("\n".join(rows) + "\n", encoding="utf-8")
    except (OSError, RuntimeError) as error:  # soundfile's errors are the latter
        raise DataError(f"cannot write {folder}: {error}") from None
    return samples / rate
