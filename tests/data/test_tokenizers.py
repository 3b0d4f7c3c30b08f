"""Tokenizers: what goes in comes out, ids keep their meaning, sampling can be repeated."""

from __future__ import annotations

import threading
from collections.abc import Iterable
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from transduce.data.tokenizers import PAD, SPECIALS, UNK, Tokenizer, load_tokenizer, train_tokenizer
from transduce.data.tokenizers.base import sample_lines
from transduce.errors import DataError, UsageError
from transduce.recipe import TokenizerOptions

KINDS = ("bpe", "unigram", "characters", "words", "symbols", "bytes")
TEXT = ["ein Haus am See", "zwei Häuser am großen See", "das Haus war alt", "ein alter See"] * 5


def trained(kind: str, texts: Iterable[str] = TEXT, **options: object) -> Tokenizer:
    tree = {"kind": kind, "size": 60, **options}
    return train_tokenizer(TokenizerOptions.model_validate(tree), texts, seed=1)


@pytest.fixture(scope="module")
def tokenizers() -> dict[str, Tokenizer]:
    return {kind: trained(kind) for kind in KINDS}


@pytest.fixture(scope="module")
def spelling() -> dict[str, Tokenizer]:
    """With byte fallback, nothing is unknown."""
    return {kind: trained(kind, size=400, byte_fallback=True) for kind in KINDS}


@pytest.mark.parametrize("kind", KINDS)
def test_known_text_round_trips(tokenizers: dict[str, Tokenizer], kind: str) -> None:
    tokenizer = tokenizers[kind]
    for text in TEXT:
        ids = tokenizer.encode(text)
        assert tokenizer.decode(ids) == text
        assert tokenizer.decode_tokens(tokenizer.tokens(ids)) == text
        assert all(3 < i < tokenizer.size for i in ids)
    assert tokenizer.encode_batch(TEXT) == [tokenizer.encode(text) for text in TEXT]
    assert tokenizer.encode("") == []
    assert tokenizer.decode([]) == ""


@pytest.mark.parametrize("kind", KINDS)
def test_special_ids_mean_the_same_everywhere(tokenizers: dict[str, Tokenizer], kind: str) -> None:
    tokenizer = tokenizers[kind]
    assert tokenizer.tokens([0, 1, 2, 3]) == list(SPECIALS)
    assert tokenizer.kind == kind
    ids = tokenizer.encode("ein Haus")
    assert tokenizer.decode([1, *ids, 2, PAD, PAD]) == "ein Haus"
    assert tokenizer.decode([UNK]).strip() == "<unk>"
    assert tokenizer.tokens([10**6]) == ["<unk>"]  # an id of a larger vocabulary is no crash


@pytest.mark.parametrize("kind", KINDS)
def test_saved_and_loaded_is_the_same(
    tokenizers: dict[str, Tokenizer], kind: str, tmp_path: Path
) -> None:
    tokenizer = tokenizers[kind]
    path = tokenizer.save(tmp_path, "source")
    loaded = load_tokenizer(path)
    assert (loaded.kind, loaded.size) == (tokenizer.kind, tokenizer.size)
    assert loaded.fingerprint() == tokenizer.fingerprint()
    assert loaded.encode_batch(TEXT) == tokenizer.encode_batch(TEXT)


@pytest.mark.parametrize("kind", ["characters", "bytes"])
@given(text=st.text())
def test_any_text_round_trips_exactly(spelling: dict[str, Tokenizer], kind: str, text: str) -> None:
    assert spelling[kind].decode(spelling[kind].encode(text)) == text


@pytest.mark.parametrize("kind", ["words", "symbols"])
@given(text=st.text())
def test_any_words_round_trip_up_to_whitespace(
    spelling: dict[str, Tokenizer], kind: str, text: str
) -> None:
    assert spelling[kind].decode(spelling[kind].encode(text)) == " ".join(text.split())


@pytest.mark.parametrize("kind", ["bpe", "unigram"])
@given(text=st.text(st.characters(exclude_characters="▁", exclude_categories=["Cs", "Cc", "Z"])))
@settings(max_examples=50)
def test_any_text_round_trips_through_subwords(
    spelling: dict[str, Tokenizer], kind: str, text: str
) -> None:
    assert spelling[kind].decode(spelling[kind].encode(text)) == text


@given(text=st.text())
@settings(max_examples=50)
def test_unknown_characters_are_unknown(tokenizers: dict[str, Tokenizer], text: str) -> None:
    ids = tokenizers["characters"].encode(text)
    known = set("".join(TEXT))
    assert [i == UNK for i in ids] == [character not in known for character in text]


def test_words_keep_the_most_frequent_and_symbols_keep_all() -> None:
    text = ["a a a a b b b c c d"] + [f"rare{i}" for i in range(30)]
    words = trained("words", text, size=8)
    assert words.size == 8
    assert words.tokens(range(4, 8)) == ["a", "b", "c", "d"]
    assert trained("symbols", text, size=8).size == 4 + 34


def test_coverage_leaves_the_rarest_characters_out() -> None:
    text = ["a" * 500 + "b" * 480 + "ж"]
    assert UNK in trained("characters", text, coverage=0.99).encode("ж")
    assert UNK not in trained("characters", text).encode("ж")


def test_a_byte_token_in_the_text_is_no_byte() -> None:
    tokenizer = trained("words", ["<0x41> is printed"], size=400, byte_fallback=True)
    assert tokenizer.decode(tokenizer.encode("<0x41> was unseen")) == "<0x41> was unseen"


@pytest.mark.parametrize("kind", ["bpe", "unigram"])
def test_sampling_is_a_function_of_texts_and_seed(kind: str) -> None:
    tokenizer = trained(kind, dropout=0.3)
    best, first = tokenizer.encode_batch(TEXT), tokenizer.encode_batch(TEXT, seed=7)
    tokenizer.encode_batch(TEXT, seed=8)  # another draw in between changes nothing
    assert tokenizer.encode_batch(TEXT, seed=7) == first
    assert tokenizer.encode_batch(TEXT, seed=8) != first
    assert first != best
    assert tokenizer.encode_batch(TEXT) == best
    assert all(tokenizer.decode(ids) == text for ids, text in zip(first, TEXT, strict=True))


def test_sampling_does_not_depend_on_the_thread() -> None:
    tokenizer = trained("bpe", dropout=0.3)
    wanted = {seed: tokenizer.encode_batch(TEXT, seed=seed) for seed in range(8)}
    found: dict[int, list[list[int]]] = {}

    def work(seed: int) -> None:
        found[seed] = tokenizer.encode_batch(TEXT, seed=seed)

    threads = [threading.Thread(target=work, args=(seed,)) for seed in wanted]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == wanted


def test_training_twice_gives_the_same_pieces() -> None:
    assert trained("bpe").fingerprint() == trained("bpe").fingerprint()
    assert trained("bpe").fingerprint() != trained("bpe", size=50).fingerprint()


def test_a_small_corpus_gets_fewer_pieces_instead_of_an_error() -> None:
    assert trained("bpe", size=8000).size < 200
    assert trained("unigram", size=8000).size < 200


def test_too_small_a_size_says_what_is_needed() -> None:
    with pytest.raises(UsageError, match=r"tokenizer.size 8 is too small.*at least \d+"):
        trained("bpe", size=8)


@pytest.mark.parametrize("kind", ["bpe", "unigram", "characters", "words", "symbols"])
def test_nothing_to_learn_from_is_an_error(kind: str) -> None:
    with pytest.raises(DataError, match="empty"):
        trained(kind, ["", ""] if kind == "characters" else ["", "  "])


def test_a_very_long_line_is_learnt_from() -> None:
    line = "wolkenbruch " * 9000  # 108,000 characters
    tokenizer = trained("bpe", [line], size=30)
    assert tokenizer.decode(tokenizer.encode("wolkenbruch")) == "wolkenbruch"
    assert len(tokenizer.encode(line)) >= 9000


@pytest.mark.parametrize("name", ["source.model", "source.json"])
@pytest.mark.parametrize("content", [b"", b"\x00\xff damaged", b'{"kind": "words"}', b"[1]"])
def test_a_damaged_file_is_an_error(tmp_path: Path, name: str, content: bytes) -> None:
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(DataError, match=name):
        load_tokenizer(path)


def test_a_truncated_model_is_an_error_or_no_worse(tmp_path: Path) -> None:
    path = trained("bpe").save(tmp_path, "source")
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(DataError, match=r"source\.model"):
        load_tokenizer(path)


def test_a_missing_file_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"source\.json"):
        load_tokenizer(tmp_path / "source.json")


def test_a_sample_is_uniform_and_repeatable() -> None:
    lines = [str(i) for i in range(2000)]
    assert sample_lines(lines, 5000, seed=1) == lines
    sample = sample_lines(iter(lines), 200, seed=1)
    assert sample == sample_lines(lines, 200, seed=1)
    assert len(set(sample)) == 200
    # The mean of a uniform sample of 200 lies within five standard errors of the middle.
    assert abs(sum(map(int, sample)) / 200 - 1000) < 5 * 577 / 200**0.5
