"""`data check` finds what it says it finds, and nothing in clean text."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path

import pytest

from transduce.data.check import KINDS, Report, check_corpora
from transduce.data.corpus import open_corpora
from transduce.recipe import CorpusOptions

from .conftest import SENTENCES, write_pairs

# Enough usual pairs that what is usual here is known.
USUAL = [(f"{s} No {i}.", f"{t} Nr. {i}.") for i in range(30) for s, t in SENTENCES]


def checked(folder: Path, *strange: tuple[str, str]) -> Report:
    return check_corpora(open_corpora([write_pairs(folder, [*USUAL, *strange])]))


def found(report: Report) -> dict[str, int]:
    return {kind: finding.count for kind, finding in report.findings.items() if finding.count}


def test_clean_text_is_clean(tmp_path: Path) -> None:
    report = checked(tmp_path)
    assert report.clean
    assert report.pairs == len(USUAL)
    assert "nothing looks wrong" in str(report)


@pytest.mark.parametrize(
    ("kind", "pair"),
    [
        ("empty", ("", "Ein Haus.")),
        ("empty", ("A house.", " \t")),
        ("misaligned", ("The old bridge over the river was closed for repairs.", "@@")),
        ("misaligned", ("Why?", "Die alte Brücke über den Fluss war wegen Reparatur gesperrt.")),
        ("duplicate", USUAL[17]),
        ("several targets", (USUAL[17][0], "Etwas anderes von ähnlicher Länge.")),
        ("over-long", ("go on " * 150, "so weiter " * 150)),
        ("wrongly encoded", ("The price was high.", "Der Preis fÃ¼r alles war hoch.")),
        ("wrongly encoded", ("It’s late, isn’t it?", "Itâ€™s spÃ¤t, nicht?")),
        ("wrongly encoded", ("A broken\x07 bell rings.", "Eine kaputte Glocke tönt.")),
        ("wrongly encoded", ("Where is M\ufffdller?", "Wo ist Herr Meier?")),
        ("probably untranslated", ("This was left as is.", "This was left as is.")),
        ("probably untranslated", ("a b c d e f g house", "a b c d e f g Haus")),
        ("wrong script", ("Where is the museum?", "Где находится музей?")),
    ],
)
def test_each_kind_is_found_with_its_place(
    tmp_path: Path, kind: str, pair: tuple[str, str]
) -> None:
    report = checked(tmp_path, pair)
    assert found(report)[kind] == 1
    (seen,) = report.findings[kind].examples
    assert (seen.file, seen.line) == (str(tmp_path / "text.src"), len(USUAL) + 1)
    assert kind in str(report)
    assert f"text.src:{len(USUAL) + 1}" in str(report)


@pytest.mark.parametrize(
    "pair",
    [
        ("He forgot it.", "Er „vergaß“, was er…"),
        ("A naïve façade.", "Une façade naïve, « voilà… »"),
        ("OK.", "OK."),
        ("The CO₂ level is 3 %.", "Der CO₂-Wert ist 3 %."),
        ("Ångström was Swedish.", "Ångström war Schwede."),
        ("The letter Ω is Greek.", "Der Buchstabe Ω ist griechisch."),
    ],
)
def test_unusual_but_right(tmp_path: Path, pair: tuple[str, str]) -> None:
    assert checked(tmp_path, pair).clean


def test_files_of_different_length_and_bad_bytes_are_findings(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"one line\nM\xfcller\nthree\n")
    (tmp_path / "b").write_bytes(b"eine Zeile\nMeier\n")
    options = CorpusOptions(source=str(tmp_path / "a"), target=str(tmp_path / "b"))
    report = check_corpora(open_corpora([options]))
    assert found(report) == {"unreadable": 1, "wrongly encoded": 1}
    assert "3 lines" in report.findings["unreadable"].examples[0].note
    assert "3 lines" in str(report)


def test_duplicates_are_found_across_corpora(tmp_path: Path) -> None:
    first = write_pairs(tmp_path, USUAL, "first")
    second = write_pairs(tmp_path, [("New here.", "Neu hier."), *USUAL[:8]], "second")
    report = check_corpora(open_corpora([first, second]))
    assert found(report) == {"duplicate": 8}
    examples = report.findings["duplicate"].examples
    assert len(examples) == 5
    assert (examples[0].file, examples[0].line) == (str(tmp_path / "second.src"), 2)


def test_long_texts_are_shortened_and_the_report_is_json(tmp_path: Path) -> None:
    report = checked(tmp_path, ("x" * 100_000, "y" * 100_000))
    assert found(report)["over-long"] == 1
    assert len(report.findings["over-long"].examples[0].source) < 200
    assert set(json.loads(json.dumps(asdict(report)))["findings"]) == set(KINDS)


def test_real_pronunciations_are_clean_but_for_variants() -> None:
    report = check_corpora(open_corpora([CorpusOptions(name="cmudict:valid")]))
    assert set(found(report)) == {"several targets"}
