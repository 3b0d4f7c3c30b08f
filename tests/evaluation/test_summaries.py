"""Facts of summaries and baselines: what is counted, and what is not."""

from __future__ import annotations

import pytest

from transduce.evaluation.summaries import baselines, judge
from transduce.evaluation.summary_facts import numbers, repeats_thrice, summary_facts

SOURCE = "Ann sold 1,200 shares at 10:30 on 3/14/2001. Person1 bought two. The rest is with Bob."


def test_what_the_source_does_not_have_is_novel() -> None:
    facts = summary_facts("output", [SOURCE], ["Ann sold two cars."])
    assert facts.novel == pytest.approx((25.0, 200 / 3, 100.0))
    assert facts.compression == pytest.approx(20 / 4) and facts.words == 4


@pytest.mark.parametrize(
    ("text", "there", "invented"),
    [
        ("1200 shares at 10:30", 2, 0),
        ("at 10 on the 14", 2, 0),
        ("2 shares", 1, 0),  # written as a word
        ("1,300 shares, 30% of 4.5", 3, 2),  # 30 is in 10:30
        ("Person1 and A4", 0, 0),  # names
        ("no number", 0, 0),
    ],
)
def test_numbers_that_are_not_in_the_source(text: str, there: int, invented: int) -> None:
    facts = summary_facts("output", [SOURCE], [text])
    assert (facts.numbers, facts.invented_numbers) == (there, invented)


def test_numbers_are_read_as_they_are_meant() -> None:
    assert numbers("007, 1,000,000.5 and 0; 12.3.4 ３") == ["7", "1000000.5", "0", "12.3.4", "3"]
    assert numbers("9" * 10_000) == ["9" * 10_000]


def test_capitalised_words_that_are_not_in_the_source() -> None:
    facts = summary_facts("output", [SOURCE], ["Mary met Bob and Carl. Then Ann left."])
    assert (facts.names, facts.invented_names) == (3, 1)  # not Mary and Then: they begin sentences


@pytest.mark.parametrize(
    ("text", "thrice"),
    [("no no no", True), ("a b, a b, a b", True), ("a b a b", False), ("the x the y the", False)],
)
def test_what_is_said_three_times(text: str, thrice: bool) -> None:
    assert repeats_thrice(text) == thrice


def test_repeated_trigrams_and_copied_tokens() -> None:
    facts = summary_facts("output", ["s"] * 2, ["a b c d a b c", "a b c"], [[1.0, 0.0], None])
    assert facts.repeating == 50.0 and facts.copied == 50.0


def test_facts_of_nothing_are_no_division_by_zero() -> None:
    facts = summary_facts("output", ["", "x"], ["", "..."])
    assert facts.novel == (None, None, None) and facts.compression is None and facts.copied is None


def test_baselines_are_as_long_as_references_and_do_not_change() -> None:
    sources = [SOURCE, "Short.", "", "東京に行く。次。"]
    references = [["One two. Three four."], ["A b. C d."], ["X y. Z w."], ["A b. C d."]]
    found = {one.name: one.texts for one in baselines(sources, references)}
    assert list(found) == ["lead-1", "lead-3", "lead-4w", "random-4w"]
    assert found["lead-1"] == [SOURCE.split(" Person1")[0], "Short.", "", "東京に行く。"]
    assert found["lead-4w"] == ["Ann sold 1,200", "Short", "", "東京に行"]
    assert found["random-4w"][0] in SOURCE
    again = {one.name: one.texts for one in baselines(sources, references)}
    assert again == found


def test_judged_with_references_of_varying_number() -> None:
    summaries = judge(
        [SOURCE, "a b c"], ["Ann", ""], [["Ann sold", "Shares"], ["a"]], metrics=["rouge1"]
    )
    assert [facts.n for facts in summaries.facts] == [2, 3]
    assert all(len(one.scores) == 1 for one in summaries.baselines)
