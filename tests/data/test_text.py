"""The text side: normal forms, one line in one line out, saving and loading."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from transduce.data.text import TextSide, clean, normalizer, train_side, train_sides
from transduce.data.tokenizers import UNK
from transduce.errors import DataError
from transduce.recipe import TextOptions

from .conftest import SENTENCES, sides_for, text_options


def normal(text: str, **options: object) -> str:
    return normalizer(TextOptions.model_validate(options))(text)


def test_control_characters_and_line_ends_become_spaces() -> None:
    assert normal("a\x00b\tc\x1bd\x85e\u2028f\rg\x0bh") == "a b c d e f g h"
    assert clean("a\nb") == "a b"
    assert normal("\x00\x01") == ""


def test_joiners_stay() -> None:
    assert normal("👩\u200d🔬") == "👩\u200d🔬"


def test_normal_forms() -> None:
    assert normal("Stra\u00dfe e\u0301") == "Straße é"
    assert normal("e\u0301", normalize="none") == "e\u0301"
    assert normal("ﬁ ２", normalize="nfkc") == "fi 2"
    assert normal("ÄB", lowercase=True) == "äb"


def test_moses_punctuation_depends_on_the_language() -> None:
    raw = "„Nein“ – sagte er ( leise )"
    assert normal(raw, normalize="punctuation", language="de") == '"Nein" - sagte er (leise)'
    assert normal('"so", sagte er', normalize="punctuation", language="de") == '"so", sagte er'
    assert normal('"so", he said', normalize="punctuation", language="en") == '"so," he said'


@given(text=st.text())
def test_normalized_text_is_one_stripped_line(text: str) -> None:
    for form in ("none", "nfc", "nfkc"):
        line = normal(text, normalize=form)
        assert line == line.strip()
        assert line.splitlines() in ([line], [])


@given(ids=st.lists(st.integers(0, 300)))
def test_decoding_gives_one_line(ids: list[int]) -> None:
    side = sides_for(SENTENCES, text_options(kind="bytes"))[0]
    assert len(side.decode(ids).splitlines()) <= 1


def test_encoding_normalizes() -> None:
    side = sides_for(SENTENCES, text_options(kind="characters"))[0]
    assert side.encode(" The\triver\n") == side.encode("The river")
    assert side.encode_batch(["The river\r"]) == [side.encode("The river")]
    assert side.encode(" \x00 ") == []


@pytest.mark.parametrize("kind", ["bpe", "characters"])
def test_a_side_is_saved_and_loaded(kind: str, tmp_path: Path) -> None:
    options = text_options(kind=kind, size=100, dropout=0.2)
    side = sides_for(SENTENCES, options)[0]
    side.save(tmp_path, "source")
    loaded = TextSide.load(tmp_path, "source", options)
    texts = [source for source, _ in SENTENCES]
    assert loaded.fingerprint() == side.fingerprint()
    assert loaded.encode_batch(texts, seed=3) == side.encode_batch(texts, seed=3)
    assert loaded.samples == (kind == "bpe")


def test_the_wrong_kind_of_tokenizer_is_an_error(tmp_path: Path) -> None:
    sides_for(SENTENCES, text_options(kind="characters"))[0].save(tmp_path, "source")
    with pytest.raises(DataError, match="the recipe says words"):
        TextSide.load(tmp_path, "source", text_options(kind="words"))
    with pytest.raises(DataError, match=r"source\.model"):
        TextSide.load(tmp_path, "source", text_options(kind="bpe"))


def test_a_shared_tokenizer_knows_both_sides() -> None:
    options = text_options(kind="characters", shared=True)
    source, target = sides_for(SENTENCES, options)
    assert source.tokenizer is target.tokenizer
    assert UNK not in source.encode("über schläft")
    apart = text_options(kind="characters")
    source, target = train_sides(apart, apart, lambda: SENTENCES, seed=1)
    assert UNK in source.encode("über")
    assert UNK not in target.encode("über")


def test_a_fingerprint_changes_with_what_changes_ids() -> None:
    tokenizer = sides_for(SENTENCES, text_options(kind="characters"))[0].tokenizer
    prints = {
        TextSide(TextOptions.model_validate(tree), tokenizer).fingerprint()
        for tree in ({}, {"lowercase": True}, {"normalize": "nfkc"})
    }
    assert len(prints) == 3


def test_unknown_words_are_written_into_the_text() -> None:
    side = sides_for(SENTENCES, text_options(kind="bpe", size=120))[1]
    assert (
        side.decode_tokens([*side.tokens(side.encode("Der Fluss")), "▁Ørsted"])
        == "Der Fluss Ørsted"
    )


def test_tokens_are_as_written_also_around_symbols() -> None:
    options = TextOptions.model_validate({"tokenizer": {"kind": "words"}, "symbols": ["#A#"]})
    side = train_side(options, ["#A#: hello there"], seed=1)
    ids = side.encode("#A#: hello zorbo")
    assert ids.count(UNK) == 1
    assert side.written("#A#: hello zorbo", ids) == ["#A#", ":", "hello", "zorbo"]
