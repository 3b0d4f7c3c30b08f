"""The speech side, its stores and batches: what is heard, what is dropped, what is drawn anew."""

from __future__ import annotations

import os
import tracemalloc
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile

from transduce.data.audio.augment import with_edges
from transduce.data.batches import Batch, BatchStream
from transduce.data.corpus import Corpus, open_corpora
from transduce.data.prepare import prepare
from transduce.data.speech import Speech, SpeechSide, learn_speech
from transduce.data.store import Store
from transduce.data.text import TextSide, train_side
from transduce.errors import DataError
from transduce.recipe import CorpusOptions, DataOptions, SpeechOptions, TextOptions
from transduce.recipe import TokenizerOptions as Cut
from transduce.recipe_speech import SpeechAugmentOptions

from .conftest import RATE, tone, write

TEXTS = [f"{'ABCDE'[i % 5]} {'FGH'[i % 3]}" for i in range(24)]
DATA = DataOptions(train=[], valid=[], max_source_length=150)
Material = tuple[Store, SpeechSide, TextSide]


def options(**values: Any) -> SpeechOptions:
    values.setdefault("augment", SpeechAugmentOptions(frequency_width=4))
    return SpeechOptions(bins=20, **values)


@pytest.fixture(scope="session")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Corpus:
    folder = tmp_path_factory.mktemp("speech")
    rows = ["audio\ttext"]
    for i, text in enumerate(TEXTS):
        path = write(folder / f"{i}.wav", tone(0.3 + 0.04 * (i * 7 % 24), pitch=200 + 40 * i))
        rows.append(f"{path.name}\t{text}")
    (folder / "t.tsv").write_text("\n".join(rows) + "\n")
    return open_corpora([CorpusOptions(table=str(folder / "t.tsv"))])[0]


@pytest.fixture(scope="session")
def target() -> TextSide:
    return train_side(TextOptions(tokenizer=Cut(kind="characters")), TEXTS, seed=1)


@pytest.fixture(scope="session")
def material(
    corpus: Corpus, target: TextSide, tmp_path_factory: pytest.TempPathFactory
) -> Material:
    augment = SpeechAugmentOptions(speed=[0.9, 1.0, 1.1], frequency_width=4, time_warp=3)
    side = SpeechSide(options(augment=augment))
    return prepare([corpus], side, target, DATA, tmp_path_factory.mktemp("c")), side, target


def stream(material: Material, **given: Any) -> BatchStream:
    return BatchStream(*material, **{"batch_tokens": 400, "seed": 5, **given})


def test_stores_keep_every_version(material: Material, corpus: Corpus) -> None:
    store, side, _ = material
    assert store.versions == 3 and store.counts == {"kept": 24}
    for i, example in enumerate(corpus):
        plain = side.read(example.source).frames
        assert store.source_lengths[i] == len(plain)
        assert np.abs(store.frames(i, 1) - plain).max() < 0.01  # float16
        slow, fast = store.frames(i, 0), store.frames(i, 2)
        assert len(slow) > len(plain) > len(fast)
        assert len(slow) == pytest.approx(len(plain) / 0.9, abs=3)


def test_batches_fit_the_budget_and_hold_what_was_said(material: Material) -> None:
    store, _, target = material
    batches = stream(material)
    seen: list[int] = []
    for batch in islice(batches, 12):
        assert batch.source.shape[2] == 20 and batch.source.dtype.is_floating_point
        assert batch.source.shape[0] * batch.source.shape[1] <= 400 or batch.size == 1
        for b, index in enumerate(batch.indices):
            length = int(batch.source_lengths[b])
            assert not batch.source[b, length:].any()
            versions = [len(store.frames(int(index), k)) for k in range(3)]
            assert length in versions
            ids = batch.target_output[b, : int(batch.target_lengths[b]) - 1]
            assert target.decode(ids.tolist()) == TEXTS[index]
        seen += batch.indices.tolist()
    batches.close()
    assert set(seen) == set(range(24))


def test_every_epoch_hears_recordings_anew(material: Material) -> None:
    batches = stream(material)
    heard: dict[int, list[Any]] = {}
    while batches.epoch < 4:
        batch = batches.next()
        for b, index in enumerate(batch.indices):
            frames = batch.source[b, : int(batch.source_lengths[b])].numpy()
            heard.setdefault(int(index), []).append(frames)
    batches.close()
    assert all(len(times) >= 4 for times in heard.values())
    for times in heard.values():
        assert len({frames.tobytes() for frames in times}) == len(times)
    assert max(len({len(frames) for frames in times}) for times in heard.values()) == 3


def same(one: Batch, other: Batch) -> bool:
    return bool(
        one.source.shape == other.source.shape
        and (one.source == other.source).all()
        and (one.indices == other.indices).all()
    )


def test_seeking_gives_the_same_frames(material: Material) -> None:
    batches = stream(material)
    made, positions = [], []
    for _ in range(14):
        positions.append(batches.position())
        made.append(batches.next())
    batches.close()
    for at in (0, 3, 9):
        again = stream(material)
        again.seek(positions[at])
        assert all(same(again.next(), batch) for batch in made[at:])
        again.close()


def test_shares_hear_what_one_stream_hears(material: Material) -> None:
    whole = stream(material)
    shares = [stream(material, share=(r, 2)) for r in range(2)]
    for _ in range(5):
        for share in shares:
            assert same(share.next(), whole.next())
    for one in (whole, *shares):
        one.close()


def test_what_is_dropped_is_counted_by_reason(tmp_path: Path, target: TextSide) -> None:
    write(tmp_path / "good.wav", tone(0.5))
    write(tmp_path / "long.wav", tone(4.0))
    write(tmp_path / "silent.wav", np.zeros(RATE))
    write(tmp_path / "short.wav", tone(0.01))
    rows = ["audio\ttext", "good.wav\tA F", "long.wav\tA F", "silent.wav\tA F", "short.wav\tA F"]
    (tmp_path / "t.tsv").write_text("\n".join([*rows, "good.wav\t", ""]))
    corpora = open_corpora([CorpusOptions(table=str(tmp_path / "t.tsv"))])
    store = prepare(corpora, SpeechSide(options()), target, DATA, tmp_path / "c")
    assert store.counts == {
        "kept": 1,
        "source longer than 150 frames": 1,
        "source silent, or shorter than a frame": 2,
        "empty target": 1,
    }


def test_a_recording_too_short_at_one_of_the_speeds_is_dropped(
    tmp_path: Path, target: TextSide
) -> None:
    """Whatever version is drawn, no example of a batch is without frames: its loss is no number."""
    write(tmp_path / "good.wav", tone(0.5))
    write(tmp_path / "short.wav", tone(0.03))
    (tmp_path / "t.tsv").write_text("audio\ttext\ngood.wav\tA\nshort.wav\tB\n")
    corpora = open_corpora([CorpusOptions(table=str(tmp_path / "t.tsv"))])
    for speeds, kept in (([1.0], 2), ([1.0, 1.5], 1)):
        side = SpeechSide(options(augment=SpeechAugmentOptions(speed=speeds, frequency_width=4)))
        store = prepare(corpora, side, target, DATA, tmp_path / "c")
        assert store.counts["kept"] == kept
        for version in range(store.versions):
            versions = np.full(kept, version)
            assert store.frame_counts(np.arange(kept), versions).min() > 0


def test_a_broken_recording_is_an_error_with_its_row(tmp_path: Path, target: TextSide) -> None:
    write(tmp_path / "good.wav", tone(0.5))
    (tmp_path / "bad.wav").write_text("not a sound")
    (tmp_path / "t.tsv").write_text("audio\ttext\ngood.wav\tA\nbad.wav\tB\n")
    corpora = open_corpora([CorpusOptions(table=str(tmp_path / "t.tsv"))])
    with pytest.raises(DataError, match=r"t\.tsv:3: .*bad\.wav: not a sound file"):
        prepare(corpora, SpeechSide(options()), target, DATA, tmp_path / "c")


def test_reading_answers_everything(tmp_path: Path) -> None:
    side = SpeechSide(options())
    wave = tone(1.0)
    path = write(tmp_path / "ein Satz mit Ü.wav", wave)
    heard = side.read(path)
    assert heard.reason is None and heard.frames.shape == (98, 20)
    assert np.abs(side.read((wave, RATE)).frames - heard.frames).max() < 0.05
    stereo = np.stack([tone(1.0, 44_100)] * 2, axis=1)
    assert side.read((stereo, 44_100)).frames.shape == (98, 20)
    cut = side.read(path, limit=50)
    assert len(cut.frames) == 50 and "cut to 0.5 s" in (cut.reason or "")
    reasons = {
        str(tmp_path / "no.wav"): "does not exist",
        " ": "blank input",
    }
    for sound, reason in reasons.items():
        nothing = side.read(sound)
        assert nothing.frames.shape == (0, 20) and reason in (nothing.reason or "")
    for samples, reason in (
        (np.zeros(RATE), "silence"),
        (np.zeros(0), "silence"),
        (tone(0.01), "too short"),
        (np.full(RATE, np.nan), "not numbers"),
    ):
        nothing = side.read((samples, RATE))
        assert not len(nothing.frames) and reason in (nothing.reason or "")


@pytest.mark.parametrize(
    ("sound", "reason"),
    [
        ("no line of text is a path " * 300, "too long"),
        ("a\0b.wav", "null byte"),
        ("a.wav#t=.", "does not exist"),
        ("a.wav#t=1e999", "finite"),
        ((tone(0.5), float("nan")), "a rate is"),
        ((tone(0.5), float("inf")), "a rate is"),
        ((tone(0.5), -8000), "a rate is"),
        ((np.array(0.5), RATE), "samples are"),
        (([[0.1, 0.2], [0.3]], RATE), "samples are"),
    ],
)
def test_what_is_no_sound_at_all_is_a_reason_too(sound: Any, reason: str) -> None:
    """A line of any text, in a list of paths, must not take the others' answers with it."""
    for limit in (None, 50):
        heard = SpeechSide(options()).read(sound, limit)
        assert not len(heard.frames) and reason in (heard.reason or "")


def test_names_of_files_need_not_be_utf8(tmp_path: Path) -> None:
    plain = write(tmp_path / "plain.wav", tone(0.5))
    latin = os.fsencode(tmp_path) + b"/caf\xe9.wav"
    try:
        os.rename(plain, latin)
    except OSError:
        pytest.skip("a file system of characters")
    assert len(SpeechSide(options()).read(os.fsdecode(latin)).frames) == 48


def test_loudness_and_offset_change_nothing() -> None:
    side, wave = SpeechSide(options()), tone(1.0)
    expected = side.features(wave)
    assert np.abs(side.features(wave * 0.25) - expected).max() < 0.05
    assert np.abs(side.features(wave + 0.2) - expected).max() < 0.05
    assert np.isfinite(side.features(np.clip(wave * 50, -1, 1))).all()


def test_global_statistics_are_learnt_and_kept(tmp_path: Path, corpus: Corpus) -> None:
    names = [example.source for example in corpus]
    side = learn_speech(options(normalize="global"), names)
    everything = np.concatenate([side.read(name).frames for name in names])
    assert np.abs(everything.mean(axis=0)).max() < 1e-2
    assert np.abs(everything.std(axis=0) - 1).max() < 1e-2
    side.save(tmp_path, "source")
    again = SpeechSide.load(tmp_path, "source", side.options)
    assert again.fingerprint() == side.fingerprint()
    assert np.array_equal(again.read(names[3]).frames, side.read(names[3]).frames)
    with pytest.raises(DataError, match="other frames than the recipe says"):
        SpeechSide.load(tmp_path, "source", options(normalize="global", shift_ms=5.0))
    (tmp_path / "source.json").write_text('{"mean": [1]}')
    with pytest.raises(DataError, match="damaged"):
        SpeechSide.load(tmp_path, "source", side.options)


def test_copies_are_versions_too(corpus: Corpus, target: TextSide, tmp_path: Path) -> None:
    augment = SpeechAugmentOptions(speed=[0.9, 1.0], copies=1, frequency_width=4)
    side = SpeechSide(options(augment=augment))
    store = prepare([corpus], side, target, DATA, tmp_path)
    assert store.versions == 4 and side.plain == 1
    clean, copy = store.frames(2, 1), store.frames(2, 3)
    assert clean.shape == copy.shape and not np.array_equal(clean, copy)
    more = SpeechSide(options(augment=augment.model_copy(update={"noise": 0.9})))
    assert more.fingerprint() != side.fingerprint()


def test_an_hour_is_read_no_further_than_wanted(tmp_path: Path) -> None:
    path = tmp_path / "hour.flac"
    with soundfile.SoundFile(path, "w", 8000, 1) as file:
        minute = tone(60.0, 8000)
        for _ in range(60):
            file.write(minute)
    side = SpeechSide(options(rate=8000))
    tracemalloc.start()
    heard = side.read(path, limit=500)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert len(heard.frames) == 500 and "3600.0 s cut to 5.0 s" in (heard.reason or "")
    assert peak < 20e6  # all of it would be 115 MB


def test_training_hears_other_voices_where_the_recipe_says_so() -> None:
    frames = np.random.default_rng(1).normal(size=(30, 12)).astype(np.float32)
    still = {"frequency_masks": 0, "time_masks": 0, "frequency_width": 4}
    for least, most in ((1.0, 1.0), (1.1, 1.3)):
        augment = SpeechAugmentOptions(vocal_tract=(least, most), **still)
        side = SpeechSide(options(augment=augment))
        made = [side.augmented(frames, np.random.default_rng(seed)) for seed in (1, 1, 2)]
        assert np.array_equal(made[0], made[1])
        assert np.array_equal(made[0], frames) == (least == most)
        assert np.array_equal(made[0], made[2]) == (least == most)  # a factor of its own each time


def test_views_of_a_recording_differ_in_what_is_hidden_only(
    corpus: Corpus, target: TextSide, tmp_path: Path
) -> None:
    augment = SpeechAugmentOptions(vocal_tract=(0.8, 1.25), frequency_width=4, time_width=5)
    side = SpeechSide(options(augment=augment))
    side.views = 2
    batches = stream((prepare([corpus], side, target, DATA, tmp_path), side, target))
    for batch in islice(batches, 8):
        assert batch.source.shape[2:] == (2, 20)
        one, other = batch.source.unbind(dim=2)
        same = float((one == other).float().mean())
        assert 0.4 < same < 1.0  # another voice would leave nothing alike
    batches.close()


@pytest.mark.parametrize("kind", ["noise", "hum"])
def test_what_is_no_speech_is_a_reason(kind: str) -> None:
    """Of noise and held tones a model would make words."""
    count = 8 * RATE
    sound = np.random.default_rng(0).normal(0, 0.05, count)
    if kind == "hum":
        sound = 0.1 * np.sin(2 * np.pi * 50 * np.arange(count) / RATE)
    side = SpeechSide(options())
    heard = side.read((sound, RATE))
    assert not len(heard.frames) and heard.reason == "no speech found in 8.0 s"
    assert len(side.read(Speech(sound, RATE)).frames)  # somebody who knows better says so
    assert len(side.read((tone(2.0), RATE)).frames)


def test_edges_are_background_of_the_recording_itself() -> None:
    frames = np.zeros((60, 4), dtype=np.float32)
    frames[:20] = 3
    frames[40:] = 5
    made = [with_edges(frames, 30, np.random.default_rng(seed)) for seed in range(40)]
    longer = [one for one in made if len(one) > 60]
    assert any(one is frames for one in made) and len(longer) > 10
    for one in longer:
        start = int((one[:, 0] > 0).argmax())
        assert start <= 30 and len(one) <= 120
        assert np.array_equal(one[start : start + 60], frames)
        assert not one[:start].any() and not one[start + 60 :].any()
    assert len({len(one) for one in longer}) > 5
    side = SpeechSide(
        options(augment=SpeechAugmentOptions(edges=0.3, time_masks=0, frequency_masks=0))
    )
    normal = side.features(tone(1.0))
    seen = [side.augmented(normal, np.random.default_rng(seed)) for seed in range(12)]
    assert {len(one) > len(normal) for one in seen} == {True, False}
