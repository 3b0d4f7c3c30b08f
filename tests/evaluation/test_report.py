"""Reports show what they should, escape what they must, and stand alone."""

from __future__ import annotations

import re
from html.parser import HTMLParser
from pathlib import Path

import pytest

from transduce.errors import FolderError, UsageError
from transduce.evaluation.buckets import score_by_length
from transduce.evaluation.metrics import compute, measure
from transduce.evaluation.report import ReportRow, choose, write_report
from transduce.evaluation.report_html import marked
from transduce.evaluation.significance import compare

SOURCES = [f"source number {k} with some words" for k in range(40)]
REFERENCES = [[f"the {k} quick brown foxes jump over it"] for k in range(40)]
OUTPUTS = [refs[0] if k % 2 else f"the {k} slow foxes jump" for k, refs in enumerate(REFERENCES)]


def rows() -> list[ReportRow]:
    values = measure("chrf", OUTPUTS, REFERENCES).sentence_values()
    return [
        ReportRow(*parts)
        for parts in zip(SOURCES, REFERENCES, OUTPUTS, values.tolist(), strict=True)
    ]


def test_best_worst_and_random_are_what_they_say() -> None:
    by_heading = {section.heading: section.rows for section in choose(rows(), True, 5, seed=3)}
    assert list(by_heading) == ["Random", "Worst", "Best"]
    assert [len(found) for found in by_heading.values()] == [5, 5, 5]
    assert all(row.score == 100.0 for _, row in by_heading["Best"])
    worst = [row.score for _, row in by_heading["Worst"]]
    assert worst == sorted(row.score for row in rows())[:5]
    assert all(SOURCES[number - 1] == row.source for number, row in by_heading["Random"])
    lower = {section.heading: section.rows for section in choose(rows(), False, 5, seed=3)}
    assert all(row.score == 100.0 for _, row in lower["Worst"])


def test_random_rows_follow_the_seed() -> None:
    first, again, other = (choose(rows(), True, 5, seed=seed)[0].rows for seed in (1, 1, 2))
    assert first == again != other


def test_few_rows() -> None:
    (random, best) = choose(rows()[:1], True, 10, seed=1)
    assert (random.heading, best.heading) == ("Random", "Best")
    assert choose([], True, 10, seed=1) == []


class Page(HTMLParser):
    """Collects the tags and addresses of a page and checks that what opens is closed."""

    VOID = ("meta", "img", "br")

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.links: list[str] = []
        self.texts: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.links += [value or "" for name, value in attrs if name in ("src", "href")]
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.texts.append(data)


def test_html_is_whole_self_contained_and_escaped(tmp_path: Path) -> None:
    evil = '<script>alert("x")</script> & <b>'
    examples = [ReportRow(evil, [evil, "second"], evil, 50.0, "test.en:7"), *rows()]
    path = write_report(
        tmp_path / "r.html",
        f"report {evil}",
        compute(["bleu", "ter"], OUTPUTS, REFERENCES, bootstrap=50),
        examples,
        examples=50,
        by_length=score_by_length("bleu", OUTPUTS, REFERENCES, range(40), bootstrap=20),
        comparisons=compare(["bleu"], OUTPUTS[::-1], OUTPUTS, REFERENCES, samples=50),
        details={"data": evil},
    )
    html = path.read_text(encoding="utf-8")
    page = Page()
    page.feed(html)
    assert page.open == []
    assert "<script" not in html and evil in page.texts
    assert all(link.startswith("data:image/png;base64,") for link in page.links)
    text = " ".join(page.texts)
    for part in ("95 % interval", "Comparison", "By source length", "Best outputs", "test.en:7"):
        assert part in text
    assert "version:" in text  # the signature


def test_rows_without_scores_are_scored_by_the_first_metric(tmp_path: Path) -> None:
    bare = [ReportRow(s, r, h) for s, r, h in zip(SOURCES, REFERENCES, OUTPUTS, strict=True)]
    scores = compute(["chrf"], OUTPUTS, REFERENCES, bootstrap=0)
    first = write_report(tmp_path / "a.md", "t", scores, bare).read_text()
    second = write_report(tmp_path / "b.md", "t", scores, rows()).read_text()
    assert first == second
    assert "chrF2 100.0" in first


def test_markdown_tables_and_escapes(tmp_path: Path) -> None:
    examples = [ReportRow("a | b\n# c", ["*x*", "_y_"], "<u>", 1.0), ReportRow("", [""], "", 0.0)]
    path = write_report(
        tmp_path / "r.md",
        "Model *1*",
        compute(["bleu"], OUTPUTS, REFERENCES, bootstrap=20),
        examples,
        by_length=score_by_length("bleu", OUTPUTS, REFERENCES, range(40), bootstrap=20),
        comparisons=compare(["bleu"], OUTPUTS[::-1], OUTPUTS, REFERENCES, samples=50),
    )
    text = path.read_text(encoding="utf-8")
    assert text.startswith("# Model \\*1\\*\n")
    assert "- source: a \\| b \\# c\n" in text
    assert "- reference: \\*x\\*\n- reference: \\_y\\_\n- output: \\<u\\>\n" in text
    assert "- output: (empty)" in text
    tables = re.findall(r"(?:^\|.*\|\n)+", text, flags=re.M)
    for table in tables:
        cells = {len(re.findall(r"(?<!\\)\|", line)) for line in table.splitlines()}
        assert len(cells) == 1, table
    assert len(tables) == 3


def test_words_that_no_reference_has_there_are_marked() -> None:
    assert marked("a b c", ["x y z", "a q c"]) == "a <mark>b</mark> c"
    assert marked("a <b>", ["a <b>"]) == "a &lt;b&gt;"
    assert marked("", ["a"]) == ""


def test_what_cannot_be_written(tmp_path: Path) -> None:
    scores = compute(["bleu"], OUTPUTS, REFERENCES, bootstrap=0)
    with pytest.raises(UsageError, match=r"r\.txt: a report is written as \.html or \.md"):
        write_report(tmp_path / "r.txt", "t", scores, [])
    with pytest.raises(UsageError, match="at least one score"):
        write_report(tmp_path / "r.md", "t", [], [])
    (tmp_path / "file").write_text("")
    with pytest.raises(FolderError, match="cannot be written"):
        write_report(tmp_path / "file" / "r.md", "t", scores, [])
    assert write_report(tmp_path / "new" / "r.md", "t", scores, []).exists()
