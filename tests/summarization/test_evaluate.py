"""`evaluate` of a model that summarizes: baselines, facts, reports; and the figure of a source."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pytest

from transduce.errors import UsageError
from transduce.evaluation.figures import shaded, source_html
from transduce.evaluation.figures.source import pieces

from ..conftest import Run
from .conftest import PAIRS


@pytest.fixture
def data(tmp_path: Path) -> list[object]:
    for name, column in (("mails", 0), ("subjects", 1)):
        text = "".join(f"{pair[column]}\n" for pair in PAIRS)
        (tmp_path / name).write_text(text, encoding="utf-8")
    return ["--source", tmp_path / "mails", "--target", tmp_path / "subjects"]


def test_baselines_and_facts_stand_beside_the_model(
    run: Run, summarizer: Path, data: list[object]
) -> None:
    code, out, _ = run("evaluate", summarizer, *data)
    assert code == 0
    for name in ("ROUGE-1", "ROUGE-Lsum", "lead-1", "lead-1w", "random-1w", "numbers not in the"):
        assert name in out, name
    assert "lead-3" not in out  # the references are single words
    code, out, _ = run("evaluate", summarizer, *data, "--json")
    found = json.loads(out)
    assert [score["name"] for score in found["scores"]] == "rouge1 rouge2 rougeL rougeLsum".split()
    baselines = {one["name"]: one["scores"] for one in found["summaries"]["baselines"]}
    assert baselines["lead-1"][0]["low"] <= baselines["lead-1"][0]["value"]
    assert [facts["name"] for facts in found["summaries"]["facts"]] == ["output", "reference"]
    assert found["summaries"]["facts"][0]["copied"] is None  # this model does not copy


@pytest.mark.parametrize("suffix", ["html", "md"])
def test_reports_have_them(
    run: Run, summarizer: Path, data: list[object], tmp_path: Path, suffix: str
) -> None:
    file = tmp_path / f"report.{suffix}"
    assert run("evaluate", summarizer, *data, "--report", file)[0] == 0
    text = file.read_text(encoding="utf-8")
    assert "Baselines" in text and "lead-1w" in text and "3-grams not in the source" in text


def test_other_tasks_have_no_baselines(run: Run, untrained: Path, tmp_path: Path) -> None:
    (tmp_path / "a").write_text("cat\n")
    (tmp_path / "b").write_text("K AE T\n")
    options = ["--source", tmp_path / "a", "--target", tmp_path / "b", "--json"]
    assert json.loads(run("evaluate", untrained, *options)[1])["summaries"] is None


# ----------------------------------------------------------------------------------- figure


def test_the_figure_is_drawn_of_texts_and_files(run: Run, summarizer: Path, tmp_path: Path) -> None:
    mail = tmp_path / "mail.txt"
    mail.write_text(PAIRS[0][0].replace(". ", ".\n"), encoding="utf-8")
    code, out, _ = run("figure", "source", summarizer, mail)
    assert code == 0 and out.count("figure: ") == 2
    paths = [Path(path) for path in re.findall("figure: (.*)", out)]
    assert paths[0].suffix == ".html" and paths[1].read_bytes().startswith(b"\x89PNG")
    page = tmp_path / "page.html"
    assert run("figure", "source", summarizer, PAIRS[0][0], "-o", page)[0] == 0
    # The name of the file is not in the page: both sources are the same text.
    assert page.read_text() == paths[0].read_text()
    assert "http" not in page.read_text()


@pytest.mark.parametrize(("text", "name", "code"), [("Hello", "a.gif", 2), (" ", "a.png", 2)])
def test_the_figure_says_what_is_wrong(
    run: Run, summarizer: Path, tmp_path: Path, text: str, name: str, code: int
) -> None:
    found = run("figure", "source", summarizer, text, "-o", tmp_path / name)
    assert found[0] == code and "Traceback" not in found[2] and found[2].startswith("transduce: ")


def test_what_a_model_copies_is_marked_where_it_was_copied_from() -> None:
    source, target = ["▁ann", "▁met", "▁bob", "▁and", "▁ann"], ["▁ann", "▁saw", "▁bob"]
    attention = np.full((4, 6), 0.02)
    attention[0, 4], attention[1, 1], attention[2, 2] = 0.9, 0.9, 0.9
    drawn = shaded(attention, [*source, "</s>"], [*target, "</s>"], [0.9, 0.7, 0.1])
    # `saw` may have come from copying, but no such word is there; `bob` was generated.
    assert drawn.origins == [4, None, None] and drawn.known
    assert drawn.attention.shape == (3, 5) and drawn.total.max() == 1.0
    looked = shaded(attention, source, target)
    assert looked.origins == [4, None, 2] and not looked.known
    with pytest.raises(UsageError, match="3 target tokens, but 1"):
        shaded(attention, source, target, [0.5])


def test_the_page_escapes_text_and_needs_no_other_file() -> None:
    tokens = ["<script>alert(1)</script>", '"&', "</s>"]
    drawn = shaded(np.full((3, 3), 1 / 3), tokens, tokens, [0.9, 0.9])
    page = source_html(drawn, tokens[0])
    assert "<script>alert" not in page and "&lt;script&gt;alert(1)" in page
    assert not re.search(r"(?:src|href)=|url\(|@import", page)
    assert page.count('class="copied"') == 4


def test_pieces_join_to_the_text() -> None:
    assert "".join(pieces(["▁a", "b", "▁c"])) == "ab c"
    assert "".join(pieces(list("ab c"))) == "ab c"
    assert "".join(pieces(["ab", "c"])) == "ab c"
