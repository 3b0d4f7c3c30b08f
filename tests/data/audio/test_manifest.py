"""Tables and Kaldi folders of recordings: rows become names, and faults have a file and line."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from transduce.data.audio.files import load, parts
from transduce.data.corpus import Corpus, open_corpora
from transduce.errors import DataError, UsageError
from transduce.recipe import CorpusOptions
from transduce.recipe_files import recipe_from_dict

from .conftest import RATE, tone, write


def opened(**options: str) -> Corpus:
    return open_corpora([CorpusOptions(**options)], "speech")[0]


def test_a_table_names_files_beside_it(tmp_path: Path) -> None:
    (tmp_path / "wav").mkdir()
    write(tmp_path / "wav" / "größer 1.wav", tone(1.0))
    table = tmp_path / "t.tsv"
    table.write_text("audio\ttext\tspeaker\nwav/größer 1.wav\tHELLO\tanna\n\nwav/x.wav\tNO\t\n")
    first, blank, last = opened(table=str(table))
    assert load(first.source, RATE)[1] == 1.0
    assert (first.target, first.speaker, first.line) == ("HELLO", "anna", 2)
    assert (blank.source, blank.line) == ("", 3)
    assert (last.speaker, last.line) == (None, 4)


def test_parts_of_long_files(tmp_path: Path) -> None:
    write(tmp_path / "long.flac", tone(3.0))
    rows = [
        {"audio": "long.flac", "text": "A", "start": 0.5, "end": 1.25},
        {"audio": "long.flac", "text": "B", "start": 2},
        {"audio": "long.flac", "text": "C"},
    ]
    lines = tmp_path / "t.jsonl"
    lines.write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert [load(e.source, RATE)[1] for e in opened(table=str(lines))] == [0.75, 1.0, 3.0]
    table = tmp_path / "t.csv"
    table.write_text("file,words,start,end\nlong.flac,A,0.5,1.25\nlong.flac,C,,\n")
    corpus = opened(table=str(table), source="file", target="words")
    assert [load(e.source, RATE)[1] for e in corpus] == [0.75, 3.0]
    table.write_text("file,words,start,end\nlong.flac,A,2,1\n")
    with pytest.raises(DataError, match=r"t\.csv:2: ends"):
        list(opened(table=str(table), source="file", target="words"))
    table.write_text("file,words,start,end\nlong.flac,A,soon,1\n")
    with pytest.raises(DataError, match=r"t\.csv:2: 'soon' is not a time"):
        list(opened(table=str(table), source="file", target="words"))


def test_a_missing_file_is_found_before_anything_is_read(tmp_path: Path) -> None:
    write(tmp_path / "a.wav", tone(0.5))
    table = tmp_path / "t.tsv"
    table.write_text("audio\ttext\na.wav\tA\nb.wav\tB\n")
    with pytest.raises(DataError, match=r"t\.tsv:3: .*b\.wav: does not exist"):
        opened(table=str(table)).fingerprint()


def test_other_sound_is_another_corpus_but_another_place_is_not(tmp_path: Path) -> None:
    sums = []
    for folder, pitch in (("one", 440.0), ("two", 440.0), ("three", 441.0)):
        (tmp_path / folder).mkdir()
        write(tmp_path / folder / "a.wav", tone(0.5, pitch=pitch))
        (tmp_path / folder / "t.tsv").write_text("audio\ttext\na.wav\tA\n")
        sums.append(opened(table=str(tmp_path / folder / "t.tsv")).fingerprint())
    assert sums[0] == sums[1] != sums[2]


def test_two_files_of_paths_and_texts(tmp_path: Path) -> None:
    write(tmp_path / "a.wav", tone(0.5))
    (tmp_path / "paths").write_text("a.wav\n")
    (tmp_path / "texts").write_text("A\n")
    (example,) = opened(source=str(tmp_path / "paths"), target=str(tmp_path / "texts"))
    assert parts(example.source)[0] == tmp_path / "a.wav" and example.target == "A"


def kaldi(folder: Path, **files: str) -> Corpus:
    for name, text in files.items():
        (folder / name.replace("_", ".")).write_text(text)
    return opened(kaldi=str(folder))


def test_kaldi_folders(tmp_path: Path) -> None:
    write(tmp_path / "r1.wav", tone(2.0))
    write(tmp_path / "r2.wav", tone(1.0))
    corpus = kaldi(tmp_path, text="u1 HELLO THERE\nu2 YES\n", wav_scp="u1 r1.wav\nu2 r2.wav\n")
    assert [(e.target, load(e.source, RATE)[1]) for e in corpus] == [
        ("HELLO THERE", 2.0),
        ("YES", 1.0),
    ]
    corpus = kaldi(
        tmp_path,
        wav_scp="r1 r1.wav\nr2 r2.wav\n",
        segments="u1 r1 0.5 1.0\nu2 r2 0.25 -1\n",
        utt2spk="u1 anna\nu2 ben\n",
    )
    assert [(e.speaker, load(e.source, RATE)[1]) for e in corpus] == [("anna", 0.5), ("ben", 0.75)]


def test_kaldi_files_with_tabs(tmp_path: Path) -> None:
    corpus = kaldi(tmp_path, text="u1\tHELLO THERE\nu2\n", wav_scp="u1\ta b.wav\nu2 \tc.wav\n")
    found = [(Path(e.source).name, e.target) for e in corpus]
    assert found == [("a b.wav", "HELLO THERE"), ("c.wav", "")]


def test_kaldi_faults_are_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"has no wav\.scp"):
        kaldi(tmp_path, text="u1 A\n")
    with pytest.raises(DataError, match="commands in data are not run"):
        list(kaldi(tmp_path, wav_scp="u1 sox a.wav -t wav - |\n"))
    with pytest.raises(DataError, match=r"text:2: utterance `u2`, but wav.scp .* has `u3`"):
        list(kaldi(tmp_path, text="u1 A\nu2 B\n", wav_scp="u1 a.wav\nu3 b.wav\n"))
    with pytest.raises(DataError, match="has no line for `u3`"):
        list(kaldi(tmp_path, text="u1 A\n", wav_scp="u1 a.wav\nu3 b.wav\n"))
    with pytest.raises(DataError, match=r"segments:1: wav.scp has no recording"):
        list(kaldi(tmp_path, wav_scp="r a.wav\n", segments="u1 other 0 1\n"))


def test_texts_and_recordings_are_not_confused(tmp_path: Path) -> None:
    table = tmp_path / "t.tsv"
    table.write_text("audio\ttext\na.wav\tA\n")
    with pytest.raises(UsageError, match=r"holds recordings, but source.kind .* is text"):
        open_corpora([CorpusOptions(table=str(table))], "text")
    with pytest.raises(UsageError, match=r"holds texts, but source.kind .* is speech"):
        open_corpora([CorpusOptions(name="cmudict:train")], "speech")


def test_recipes_say_what_speech_is() -> None:
    data = {"train": {"table": "t.tsv"}, "valid": {"kaldi": "dev"}}
    tree = {"task": "recognition", "data": data, "training": {"epochs": 1}}
    recipe = recipe_from_dict({**tree, "source": {"kind": "speech"}}, where="r")
    assert recipe.data.max_source_length == 3000  # frames
    assert recipe_from_dict(recipe.model_dump(mode="json"), where="r") == recipe
    text = recipe_from_dict(tree, where="r")
    assert text.source.kind == "text" and text.data.max_source_length == 200
    given = {**tree, "source": {"kind": "speech"}, "search": {"max_source": 77}}
    assert recipe_from_dict(given, where="r").search.max_source == 77
    faults = [
        ({"kind": "speach"}, r"`source.kind` is 'speach'.*did you mean `speech`"),
        ({"kind": "speech", "binz": 3}, r"unknown key `source.binz`; did you mean `bins`"),
        ({"kind": "speech", "bins": 1}, r"`source.bins` is 1"),
        ({"kind": "speech", "tokenizer": {}}, r"unknown key `source.tokenizer`"),
        ({"kind": "speech", "augment": {"speed": []}}, r"`source.augment.speed`"),
    ]
    for source, message in faults:
        with pytest.raises(UsageError, match=message):
            recipe_from_dict({**tree, "source": source}, where="r")
    with pytest.raises(UsageError, match="frames of speech have no embedding"):
        recipe_from_dict({**tree, "source": {"kind": "speech"}, "model": {"tie": "all"}}, where="r")
