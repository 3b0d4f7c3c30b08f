"""Texts for summarization: several references, junk, truncation, symbols, classes of length."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from transduce.assessment import read_trial
from transduce.data.cleaning import cleaned
from transduce.data.corpus import open_corpora
from transduce.data.lengths import LengthClasses, learn_lengths, marked_for_search
from transduce.data.prepare import prepare
from transduce.data.text import TextSide, train_sides
from transduce.data.tokenizers import load_tokenizer, train_tokenizer
from transduce.data.truncation import sentences
from transduce.errors import DataError, UsageError
from transduce.inputs import read_texts
from transduce.recipe import CleaningOptions, CorpusOptions, DataOptions, TextOptions
from transduce.recipe import TokenizerOptions as Cut
from transduce.recipe_files import recipe_from_dict

MAIL = "The draft is late. Please send it today!\nWho has the old one? Mr. Li has.\nThanks, J. Orr"
KINDS = ("bpe", "unigram", "characters", "words", "symbols", "bytes")


def table(folder: Path, rows: list[Any], name: str = "t.jsonl") -> Path:
    path = folder / name
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def side(truncate: dict[str, Any] | None = None, kind: str = "words", **options: Any) -> TextSide:
    tokenizer: dict[str, Any] = {"kind": kind}
    if kind in ("bpe", "unigram"):
        tokenizer["size"] = 60
    tree = {"truncate": truncate, "tokenizer": tokenizer, **options}
    chosen = TextOptions.model_validate(tree)
    texts = [MAIL, "word " * 30, "Ünïted números 123 <|x|>"]
    return train_sides(chosen, chosen, lambda: [(t, t) for t in texts], seed=1)[0]


# --------------------------------------------------------------------------- several references


def test_references_are_fields_or_a_list_in_a_field(tmp_path: Path) -> None:
    rows = [
        {"body": "b", "subject": "s", "more": ["x", "y"], "ann": "a"},
        {"body": "b", "subject": "s", "more": [], "ann": None},
        {"body": "b", "subject": "s", "more": "x", "ann": " "},
    ]
    path = str(table(tmp_path, rows))
    options = CorpusOptions(table=path, source="body", target=["subject", "more", "ann"])
    (corpus,) = open_corpora([options])
    assert [example.target for example in corpus] == ["s", "s", "s"]
    assert [example.answers for example in corpus] == [["s", "x", "y", "a"], ["s"], ["s", "x"]]
    (lists,) = open_corpora([CorpusOptions(table=path, source="body", target="more")])
    assert [example.target for example in lists] == ["x", "", "x"]
    assert read_trial([options]).references[0] == ["s", "x", "y", "a"]
    one = CorpusOptions(table=path, source="body", target="subject")
    assert open_corpora([one])[0].fingerprint() != corpus.fingerprint()


def test_references_of_tables_and_of_aligned_files(tmp_path: Path) -> None:
    (tmp_path / "t.tsv").write_text("a\tb\tc\n1\t2\t\n")
    numbered = CorpusOptions(table=str(tmp_path / "t.tsv"), source="1", target=["2", "3"])
    assert [e.answers for e in open_corpora([numbered])[0]] == [["b", "c"], ["2"]]
    named = CorpusOptions(table=str(tmp_path / "t.tsv"), source="a", target=["b", "d"])
    with pytest.raises(DataError, match="no column `d`"):
        list(open_corpora([named])[0])
    for name, text in (("s", "x\ny\n"), ("r0", "1\n2\n"), ("r1", "3\n\n"), ("r2", "4\n")):
        (tmp_path / name).write_text(text)
    files = [str(tmp_path / name) for name in ("r0", "r1")]
    (lines,) = open_corpora([CorpusOptions(source=str(tmp_path / "s"), target=files)])
    assert [example.answers for example in lines] == [["1", "3"], ["2"]]
    files[1] = str(tmp_path / "r2")
    with pytest.raises(DataError, match=r"2 lines, .*r2 has 1"):
        list(open_corpora([CorpusOptions(source=str(tmp_path / "s"), target=files)])[0])


def test_a_missing_field_is_named_with_its_row(tmp_path: Path) -> None:
    path = str(table(tmp_path, [{"body": "b", "subject": "s"}, {"body": "b", "title": "s"}]))
    (corpus,) = open_corpora([CorpusOptions(table=path, source="body", target="subject")])
    with pytest.raises(DataError, match=r"t\.jsonl:2: no field `subject`; there is: `body`, `ti"):
        list(corpus)


def test_recipes_name_several_files_from_their_own_folder(tmp_path: Path) -> None:
    tree = {
        "data": {
            "train": {"source": "a", "target": "b"},
            "valid": {"source": "a", "target": ["b", "c"]},
        },
        "training": {"epochs": 1},
    }
    recipe = recipe_from_dict(tree, where="test", folder=tmp_path)
    assert recipe.data.valid[0].targets == [f"{tmp_path}/b", f"{tmp_path}/c"]


# ------------------------------------------------------------------------------------- cleaning


def test_junk_stays_unless_it_is_to_go() -> None:
    text = "<p>Hi &amp; bye</p>  > x"
    assert cleaned(text, CleaningOptions()) == text


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("<p>Hi <b>you</b> &amp; me</p><script>x()</script>", "Hi you & me"),
        ("write to <ann@example.org> if 3 < 4", "write to <ann@example.org> if 3 < 4"),
        ("<style>never closed", "never closed"),
        ("<!-- gone -->stays", "stays"),
        ("&lt;b&gt; is a tag", "<b> is a tag"),
    ],
)
def test_html_goes(text: str, expected: str) -> None:
    assert cleaned(text, CleaningOptions(html=True)).strip() == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Yes.\n> Do you?\n>> Do I?\nBye", "Yes.\nBye"),
        ("Yes. -----Original Message----- From: A To: B Do you?", "Yes."),
        ("Yes.\nOn Tue, Ann Lee wrote:\n> Do you?", "Yes."),
        ("See below.\n---------------------- Forwarded by Ann on 1/2/01 ---\nText", "See below."),
        ("See.\nFrom: Ann\nSent: Monday\nTo: Bob\nText", "See."),
        (
            "-----Original Message-----\nFrom: A\nThe only text",
            "-----Original Message-----\nFrom: A",
        ),
        ("> all of it", "> all of it"),
        ("a -- b --- c > d", "a -- b --- c > d"),
    ],
)
def test_quoted_mail_goes_unless_there_is_nothing_else(text: str, expected: str) -> None:
    assert cleaned(text, CleaningOptions(quoted=True)).strip().startswith(expected)
    assert ("Do you" in cleaned(text, CleaningOptions(quoted=True))) is False


def test_spaces_become_one_but_lines_stay() -> None:
    assert cleaned("a  \t b\n\n c", CleaningOptions(spaces=True)) == "a b\n\n c"


# ----------------------------------------------------------------------------------- truncation


def test_sentences_end_with_marks_and_lines_but_not_with_abbreviations() -> None:
    found = sentences('He said "no!" Then Dr. J. Li left.\nNo mark here\n\nA 3.5 b... 终。完！ok? ')
    assert found == [
        'He said "no!"',
        "Then Dr. J. Li left.",
        "No mark here",
        "A 3.5 b...",
        "终。",
        "完！",
        "ok?",
    ]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("keep", ["start", "end", "both"])
@pytest.mark.parametrize("whole", [True, False])
@pytest.mark.parametrize("tokens", [1, 2, 9, 40])
def test_what_is_left_fits_and_is_a_part_of_the_text(
    kind: str, keep: str, whole: bool, tokens: int
) -> None:
    cutting = side({"tokens": tokens, "keep": keep, "sentences": whole}, kind)
    for text in (MAIL, "x" * 300, "ab " * 50, "!?." * 40, "é👩‍👩‍👧 " * 20):
        (read,) = cutting.read([text])
        full = cutting.normalize(text)
        assert len(read.ids) <= tokens
        assert read.cut == (len(cutting.segment([full])[0]) > tokens)
        if not read.cut:
            assert read.text == full
        assert cutting.segment([read.text]) == [read.ids]
        if keep == "start":
            assert full.startswith(read.text)
        if keep == "end":
            assert full.endswith(read.text)


def test_whole_sentences_stay_from_the_chosen_end() -> None:
    def left(**options: Any) -> str:
        return side(options).read([MAIL])[0].text

    assert left(tokens=10, sentences=True) == "The draft is late. Please send it today!"
    assert left(tokens=10) == "The draft is late. Please send it today! Who has"
    assert left(tokens=7, keep="end", sentences=True) == "Mr. Li has. Thanks, J. Orr"
    both = left(tokens=8, keep="both", sentences=True)
    assert both == "The draft is late. Thanks, J. Orr"
    assert left(tokens=3, sentences=True) == "The draft is"  # not even one sentence fits


def test_short_texts_are_not_cut_and_cleaning_comes_first() -> None:
    short = side({"tokens": 40}, clean={"quoted": True})
    (read,) = short.read(["Two words.\n" + "> quoted\n" * 50])
    assert (read.text, read.cut) == ("Two words.", False)


def test_training_counts_what_it_cut_and_drops_nothing(tmp_path: Path) -> None:
    cutting = side({"tokens": 4})
    rows = [{"s": "The draft is late. Please", "t": "The"}, {"s": "draft", "t": "is late."}]
    corpora = open_corpora(
        [CorpusOptions(table=str(table(tmp_path, rows)), source="s", target="t")]
    )
    options = DataOptions(train=[], valid=[], max_source_length=4)
    store = prepare(corpora, cutting, side(), options, tmp_path / "c")
    assert store.counts == {"kept": 2}
    assert store.truncated() == {"source": 1}
    assert store.source_lengths.tolist() == [4, 1]
    other = prepare(corpora, side({"tokens": 3}), side(), options, tmp_path / "c")
    assert other.folder != store.folder  # what was prepared for another budget is not used


def test_limits_follow_the_truncation_or_contradict_it() -> None:
    tree: dict[str, Any] = {
        "data": {"train": "cmudict:train", "valid": "cmudict:valid"},
        "source": {"truncate": {"tokens": 400}},
        "training": {"epochs": 1},
    }
    assert recipe_from_dict(tree, where="test").data.max_source_length == 400
    tree["data"]["max_source_length"] = 300
    with pytest.raises(UsageError, match="would drop what source"):
        recipe_from_dict(tree, where="test")


# -------------------------------------------------------------------------------------- symbols


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("byte_fallback", [False, True])
def test_symbols_are_one_token_everywhere(tmp_path: Path, kind: Any, byte_fallback: bool) -> None:
    symbols = ["#Person1#", "#P#"]
    texts = ["#Person1#: Hi there, hello.", "#P# and him. "] * 20
    options = Cut(kind=kind, size=300, byte_fallback=byte_fallback)
    if kind in ("bpe", "unigram") and not byte_fallback:
        options = options.model_copy(update={"size": 40})
    made = train_tokenizer(options, texts, seed=1, symbols=symbols)
    path = made.save(tmp_path, "side")
    for tokenizer in (made, load_tokenizer(path)):
        for text in ("#Person1#: Hi #P#", "#P##P# #Person1#", "(#Person1#)"):
            tokens = tokenizer.tokens(tokenizer.encode(text))
            assert [t for t in tokens if t in symbols] == [
                s
                for s in text.replace(":", " ").replace("#P##P#", "#P# #P#").strip("()").split()
                if s in symbols
            ]
        assert "#Person1#" in tokenizer.decode(tokenizer.encode("Hi #Person1# there"))
    assert made.fingerprint() != train_tokenizer(options, texts, seed=1).fingerprint()


def test_a_symbol_never_seen_is_known() -> None:
    named = side(kind="words", symbols=["#Person7#"])
    assert named.tokens(named.encode("#Person7#'s")) == ["#Person7#", "<unk>"]
    lower = side(kind="words", symbols=["#Person7#"], lowercase=True)
    assert lower.tokens(lower.encode("#Person7#")) == ["#person7#"]


@pytest.mark.parametrize("symbols", [[""], ["a b"], ["a", "a"]])
def test_symbols_that_cannot_be(symbols: list[str]) -> None:
    with pytest.raises(ValueError, match="symbol"):
        TextOptions(symbols=symbols)


# ----------------------------------------------------------------------------- classes of length


def test_classes_are_the_thirds_of_the_targets(tmp_path: Path) -> None:
    words = side()
    classes = learn_lengths(words, ["draft " * n for n in range(1, 10)])
    assert [classes.of(n) for n in range(1, 10)] == ["short"] * 4 + ["medium"] * 2 + ["long"] * 3
    classes.save(tmp_path)
    assert LengthClasses.load(tmp_path) == classes
    with pytest.raises(DataError, match="no training target"):
        learn_lengths(words, ["", " "])
    (tmp_path / "lengths.json").write_text("{}")
    with pytest.raises(DataError, match="damaged"):
        LengthClasses.load(tmp_path)


@pytest.mark.parametrize("kind", KINDS)
def test_a_source_is_marked_with_one_symbol(kind: str) -> None:
    options = TextOptions.model_validate(
        {
            "length_control": True,
            "lowercase": True,
            "tokenizer": {"kind": kind, "size": 60 if kind in ("bpe", "unigram") else 300},
        }
    )
    pairs = [(MAIL, "word")]
    reserved = ["<|short|>", "<|medium|>", "<|long|>"]
    made, _ = train_sides(options, options, lambda: pairs, seed=1, reserved=reserved)
    read = made.read(["draft", ""])
    long, blank = marked_for_search(made, read, "long")
    assert "<|long|>" in made.tokens(long.ids)
    assert not blank.ids
    (unsaid,) = read_texts(made, ["draft"], 50)
    assert "<|medium|>" in unsaid.tokens
    assert unsaid.reason is None


# ------------------------------------------------------------------------------------- bad input

BAD = {
    "empty": "",
    "spaces": " \t ",
    "one word": "draft",
    "punctuation": "... !!! ???",
    "url": "https://example.org/a?b=c&d=%20#e",
    "long": "The draft is late. " * 12_500,
    "html": "<html><body><p>The draft</p></body></html>",
    "quoted": "> The draft\n> is late",
    "mixed": "The draft 草稿 черновик المسودة",
    "emoji": "draft 👩‍👩‍👧‍👦 é n̈ \u202e",
    "surrogate": "draft \ud800",
}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", BAD)
def test_any_text_is_read_or_has_a_reason(kind: str, name: str) -> None:
    cutting = side(
        {"tokens": 20, "sentences": True},
        kind,
        clean={"html": True, "quoted": True, "spaces": True},
    )
    (read,) = read_texts(cutting, [BAD[name]], 15)
    assert len(read.ids) <= 15
    assert bool(read.ids) or (read.reason or "").startswith(("blank", "nothing"))
    if name == "long":
        assert "tokens cut to" in (read.reason or "")
    assert len(read.tokens) == len(read.ids)
