"""ROUGE is rouge-score's for English, and counts something for every other script too."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rouge_score.rouge_scorer import RougeScorer

from transduce.evaluation.metrics import compute, measure
from transduce.evaluation.words import sentences, words

KINDS = ["rouge1", "rouge2", "rougeL", "rougeLsum"]
sentence = st.lists(st.sampled_from("a b c d run runs running the".split()), max_size=9)
text = st.lists(sentence.map(" ".join), max_size=4).map("\n".join)


@settings(deadline=None, max_examples=60)
@given(st.lists(st.tuples(text, st.lists(text, min_size=1, max_size=3)), min_size=1, max_size=4))
def test_every_example_has_the_f_measure_of_rouge_score(
    examples: list[tuple[str, list[str]]],
) -> None:
    outputs, references = [o for o, _ in examples], [r for _, r in examples]
    theirs = RougeScorer(KINDS, use_stemmer=True)
    expected = [theirs.score_multi(refs, out) for out, refs in examples]
    for kind in KINDS:
        values = measure(kind, outputs, references, target_language="en").sentence_values()
        assert values.tolist() == pytest.approx([100 * e[kind].fmeasure for e in expected])


def test_the_best_reference_counts_and_the_corpus_is_the_mean() -> None:
    (score,) = compute(["rouge1"], ["the cat", "dogs"], [["a dog", "the cat"], ["no", "cat"]])
    assert score.value == pytest.approx(50.0) and score.low == 0.0 and score.high == 100.0
    assert "nrefs:2|multi:best|" in score.signature and "rouge-score:" in score.signature


def test_sentences_without_lines_are_found_for_rouge_lsum() -> None:
    output, reference = "Bob runs. Ann sleeps well.", "Ann sleeps well. Bob runs."
    whole, lsum = compute(["rougeL", "rougeLsum"], [output], [[reference]], bootstrap=0)
    assert whole.value < 70 and lsum.value == pytest.approx(100.0)
    assert "sent:lines-or-rule" in lsum.signature


@pytest.mark.parametrize(
    ("output", "reference", "language", "signature"),
    [
        ("привет мир", "Привет, мир!", None, "tok:words|stem:none"),
        ("東京に行く", "東京へ行く", None, "tok:words|stem:none"),
        ("हिन्दी में", "हिन्दी में लिखा", None, "tok:words|stem:none"),
        ("das Haus", "Die Häuser", "de-AT", "tok:words|stem:snowball-german"),
        ("houses", "the house", "en", "tok:rouge-score|stem:porter"),
        (
            "Zoë's house",
            "the houses of Zoë in the little town",
            None,
            "tok:rouge-score|stem:porter",
        ),
    ],
)
def test_scripts_that_rouge_score_drops_count(
    output: str, reference: str, language: str | None, signature: str
) -> None:
    (score,) = compute(["rouge1"], [output], [[reference]], target_language=language, bootstrap=0)
    assert score.value > 20 and signature in score.signature


def test_empty_outputs_and_references_are_zero() -> None:
    for score in compute(KINDS, ["", "...", "a"], [["a"], ["a"], [""]], bootstrap=0):
        assert score.value == 0.0


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ("It rains. Stay in!", ["It rains.", "Stay in!"]),
        ("Dr. J. Smith left. He ran.", ["Dr. J. Smith left.", "He ran."]),
        ('He said "stop." Then silence', ['He said "stop."', "Then silence"]),
        ("At 3 p.m. today... and so on.", ["At 3 p.m. today... and so on."]),
        ("一つ。二つ！三つ", ["一つ。", "二つ！", "三つ"]),
        ("#1: a. B\n\n#2: c", ["#1: a. B", "#2: c"]),
        ("", []),
        (" \n ", []),
    ],
)
def test_sentences_end_where_they_should(given: str, expected: list[str]) -> None:
    assert sentences(given) == expected


@given(st.text(max_size=60))
def test_any_text_has_sentences_and_words(text: str) -> None:
    assert "".join("".join(sentences(text)).split()) == "".join(text.split())
    assert all(words(text))


def test_words_of_any_script() -> None:
    assert words("Zoe\u0308’s 3 cats 👍🏽 東京 हिन्दी ไทย") == [
        *("zoë", "s", "3", "cats", "東", "京", "हिन्दी", "ไ", "ท", "ย")
    ]
