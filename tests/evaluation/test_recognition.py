"""Errors are counted as jiwer counts them, add up by speaker, and can be read in every form."""

from __future__ import annotations

from pathlib import Path

import jiwer
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from transduce.assessment import Assessment, read_trial
from transduce.errors import DataError, UsageError
from transduce.evaluation.alignment import Edit, align, count, nearest
from transduce.evaluation.errors_view import (
    aligned_text,
    confusion_lines,
    heading,
    html,
    markdown,
)
from transduce.evaluation.metrics import compute
from transduce.evaluation.recognition import recognition_errors
from transduce.evaluation.report import ReportRow, write_report
from transduce.output import Output
from transduce.recipe import CorpusOptions

REFERENCES = ["ENTER FOUR FIVE ONE", "YES", "RUBOUT T G J", "P I T T S", "HELP", "MAY SECOND"]
OUTPUTS = ["ENTER FIVE NINE ONE", "YES", "RUBOUT T J", "P I T T S NINE", "", "MAY SECOND"]
SPEAKERS = ["fash", "fash", "mblb", "mblb", "mblb", "fash"]
LISTS = [[line] for line in REFERENCES]

sentences = st.lists(st.sampled_from("ab cd e f gh".split()), min_size=1, max_size=9).map(" ".join)


@settings(max_examples=150, deadline=None)
@given(st.lists(st.tuples(sentences, st.one_of(st.just(""), sentences)), min_size=1, max_size=6))
def test_counts_are_jiwers(pairs: list[tuple[str, str]]) -> None:
    references, outputs = [p[0] for p in pairs], [p[1] for p in pairs]
    lists = [[line] for line in references]
    for metric, process in (("wer", jiwer.process_words), ("cer", jiwer.process_characters)):
        ours = recognition_errors(metric, outputs, lists, bootstrap=0).total
        theirs = process(references, outputs)
        assert (
            ours.counts.hits,
            ours.counts.substitutions,
            ours.counts.deletions,
            ours.counts.insertions,
        ) == (theirs.hits, theirs.substitutions, theirs.deletions, theirs.insertions)


@settings(max_examples=100, deadline=None)
@given(st.text(alphabet="abc", max_size=8), st.text(alphabet="abc", max_size=8))
def test_an_alignment_holds_both_texts_and_is_shortest(output: str, reference: str) -> None:
    from rapidfuzz.distance import Levenshtein

    columns = align(output, reference)
    assert "".join(c.reference or "" for c in columns) == reference
    assert "".join(c.output or "" for c in columns) == output
    assert count(columns).edits == Levenshtein.distance(output, reference)
    for column in columns:
        assert (column.kind == "equal") == (column.reference == column.output)


@pytest.mark.parametrize("column", ["speaker", "length"])
def test_speakers_of_a_corpus_of_recordings_are_those_of_its_errors(
    tmp_path: Path, column: str
) -> None:
    table = tmp_path / "test.tsv"
    rows = zip(SPEAKERS, REFERENCES, strict=True)
    lines = [f"{k}.wav\t{who}\t{text}" for k, (who, text) in enumerate(rows)]
    table.write_text("\n".join([f"audio\t{column}\ttext", *lines]) + "\n")
    with pytest.raises(DataError, match=r"test\.tsv:2: .*0\.wav: does not exist"):
        read_trial([CorpusOptions(table=str(table))], "speech")
    for k in range(6):
        (tmp_path / f"{k}.wav").touch()
    trial = read_trial([CorpusOptions(table=str(table))], "speech")
    assert [Path(source).name for source in trial.sources] == [f"{k}.wav" for k in range(6)]
    found = Assessment(
        trial.label, trial.sources, trial.references, [Output(text) for text in OUTPUTS],
        compute(["wer"], OUTPUTS, trial.references, bootstrap=0), 1.0, trial.speakers,
        trial.names,
    ).errors(0)  # fmt: skip
    rates = {row.name: row.n for row in found[0].speakers}
    assert rates == ({"fash": 3, "mblb": 3} if column == "speaker" else {})
    assert heading(found[0].utterances[2]).startswith("no. 3, 2.wav, ")


def test_the_total_and_its_interval_are_those_of_the_score() -> None:
    for metric in ("wer", "cer", "per"):
        (score,) = compute([metric], OUTPUTS, LISTS, bootstrap=200)
        total = recognition_errors(metric, OUTPUTS, LISTS, bootstrap=200).total
        assert (total.rate, total.low, total.high) == (score.value, score.low, score.high)


def test_speakers_add_up_and_unknown_ones_are_not_lost() -> None:
    errors = recognition_errors("wer", OUTPUTS, LISTS, speakers=SPEAKERS, bootstrap=100)
    assert [row.name for row in errors.speakers] == ["fash", "mblb"]
    fash, mblb = errors.speakers
    assert (fash.n, fash.wrong, fash.counts.edits, fash.counts.length) == (3, 1, 2, 7)
    assert (mblb.counts.deletions, mblb.counts.insertions, mblb.wrong) == (2, 1, 3)
    assert fash.rate == pytest.approx(100 * 2 / 7)
    assert fash.low is not None and fash.low <= fash.rate <= (fash.high or 0)
    partly = recognition_errors(
        "wer", OUTPUTS, LISTS, speakers=["fash", None, "a", None, "a", "fash"], bootstrap=0
    )
    assert [(row.name, row.n) for row in partly.speakers] == [
        ("a", 2), ("fash", 2), ("(unknown)", 2)
    ]  # fmt: skip
    assert recognition_errors("wer", OUTPUTS, LISTS, bootstrap=0).speakers == []


def test_confusions_and_worst() -> None:
    outputs = [line.replace("FIVE", "NINE") for line in REFERENCES * 3]
    errors = recognition_errors("wer", [*outputs[:-1], "MAY"], LISTS * 3, bootstrap=0)
    assert confusion_lines(errors, 5) == ["3 × FIVE → NINE", "1 × SECOND → (nothing)"]
    errors = recognition_errors("wer", OUTPUTS, LISTS, names=list("uvwxyz"), bootstrap=0)
    assert [one.where for one in errors.worst(2)] == ["u", "w"]
    assert len(errors.worst(10)) == 4  # right ones are not among the worst
    assert heading(errors.worst(1)[0]) == "no. 1, u, 2 of 4 wrong: 2 substituted"


def test_the_closest_reference_counts() -> None:
    columns = nearest("a b".split(), ["x y".split(), "a b c".split(), "a c b".split()])
    assert count(columns).edits == 1
    (score,) = compute(["wer"], ["a b"], [["x y", "a b c"]], bootstrap=0)
    total = recognition_errors("wer", ["a b"], [["x y", "a b c"]], bootstrap=0).total
    assert total.rate == score.value


def test_aligned_text_lines_up_and_folds() -> None:
    columns = align("THE BAT ON SAT".split(), "THE CAT SAT DOWN".split())
    lines = aligned_text(columns, "word").split("\n")
    assert lines == [
        "REF: THE *** CAT SAT DOWN",
        "OUT: THE BAT ON  SAT ****",
        "         I   S       D",
    ]
    folded = aligned_text(columns, "word", width=18).split("\n")
    assert folded[0] == "REF: THE *** CAT" and folded[3] == "REF: SAT DOWN"
    assert all(len(line) <= 18 for line in folded)
    wide = aligned_text([Edit("substitute", "日本", "x"), Edit("equal", "y y", "y y")], "word")
    assert wide.split("\n")[1] == "OUT: x    y␣y"
    broken = aligned_text([Edit("equal", "a\nb", "a\nb")], "word")
    assert "\n" not in broken.split("OUT")[0].strip("\n")
    characters = aligned_text(align("cot", "coat"), "character")
    assert characters == "REF: coat\nOUT: co*t\n       D"


def test_words_of_one_letter_stand_apart() -> None:
    columns = align("A M Y".split(), "A N Y".split())
    assert aligned_text(columns, "word").startswith("REF: A N Y\nOUT: A M Y\n")
    assert aligned_text(columns, "phone").startswith("REF: A N Y\n")
    for metric, shown, tight in (("wer", "OUT: A M Y", False), ("cer", "OUT: A␣M␣Y", True)):
        errors = recognition_errors(metric, ["A M Y"], [["A N Y"]], bootstrap=0)
        assert any(shown in line for line in markdown(errors))
        assert ('class="aligned close"' in html(errors)) is tight


def test_reports_show_and_escape(tmp_path: Path) -> None:
    outputs = ["<i>ENTER</i> FIVE", *OUTPUTS[1:]]
    errors = recognition_errors("wer", outputs, LISTS, speakers=["a|b", *SPEAKERS[1:]])
    scores = compute(["wer"], outputs, LISTS)
    rows = [
        ReportRow(f"{k}.wav", refs, out)
        for k, (refs, out) in enumerate(zip(LISTS, outputs, strict=True))
    ]
    html = write_report(tmp_path / "r.html", "t", scores, rows, errors=[errors]).read_text()
    assert "Errors by word" in html and "a|b" in html and "<i>ENTER" not in html
    assert 'class="insert"' in html and "background: var(--gone)" in html
    markdown = write_report(tmp_path / "r.md", "t", scores, rows, errors=[errors]).read_text()
    assert "a\\|b" in markdown and "    REF: " in markdown
    bare = write_report(tmp_path / "s.html", "t", scores, rows).read_text()
    assert "Errors by" not in bare


def test_mistakes_are_told() -> None:
    with pytest.raises(UsageError, match="wer, cer, per, not by `bleu`"):
        recognition_errors("bleu", ["a"], [["a"]])
    with pytest.raises(DataError, match="1 outputs but 2 speakers"):
        recognition_errors("wer", ["a"], [["a"]], speakers=["x", "y"])
    with pytest.raises(DataError, match="nothing to evaluate"):
        recognition_errors("wer", [], [])
