"""`summarize`, `predict` and `score` with models that copy, whatever the documents hold."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from ..conftest import Run
from .conftest import PAIRS
from .test_summarize import ODD, lines_of

ZEBRA = "\U0001f993"  # in no text of the vocabularies
MANY = f"Please send the {ZEBRA} report to Zoë Łukasz before noon"


def rows_of(run: Run, *arguments: object, stdin: str) -> list[dict]:
    code, out, err = run(*arguments, "--json", "--precision", "fp32", stdin=stdin.encode())
    assert code == 0 and "Traceback" not in err
    return [json.loads(line) for line in lines_of(out)]


@pytest.mark.parametrize("text", ODD.values(), ids=ODD)
def test_odd_documents_still_give_one_line(run: Run, copier: Path, text: str) -> None:
    (row,) = rows_of(run, "summarize", copier, stdin=text)
    assert len(lines_of(row["text"] + "\n")) == 1
    assert len(row["copied"]) == len(row["tokens"])
    assert all(0 <= share <= 1 for share in row["copied"])
    code, out, _ = run("summarize", copier, "--precision", "fp32", stdin=text.encode())
    assert (code, out) == (0, row["text"] + "\n")


@pytest.mark.parametrize("text", ["", " \n\t\n ", "\ufeff"])
def test_an_empty_document_gives_an_empty_line_and_a_reason(
    run: Run, copier: Path, text: str
) -> None:
    code, out, err = run("summarize", copier, stdin=text.encode())
    assert (code, out) == (0, "\n") and "standard input: blank input" in err


@pytest.mark.parametrize("many", [MANY, f"{ZEBRA} {ZEBRA}", "報告書は明日 отчёт завтра"])
def test_what_no_vocabulary_has_comes_out_as_it_stood(run: Run, copier: Path, many: str) -> None:
    # Untrained, it points anywhere: no token twice, so that it has to write them all.
    search = [f"--search={it}" for it in ("max_extra=60", "min_length=40", "block_ngrams=1")]
    (row,) = rows_of(run, "summarize", copier, *search, stdin=many)
    known = {c for pair in PAIRS for text in pair for c in text}
    unknown = {token for token in row["tokens"] if set(token) - known - {"\u2581"}} - {"<unk>"}
    assert unknown and all(token in many for token in unknown)
    for token in unknown:
        assert row["copied"][row["tokens"].index(token)] == pytest.approx(1.0, abs=1e-3)
        assert token in row["text"]


def test_a_document_of_50000_words_is_cut_and_says_so(run: Run, copier: Path) -> None:
    words = [*PAIRS[0][0].split(), ZEBRA]
    long = " ".join(words[k % len(words)] for k in range(50_000))
    (row,) = rows_of(run, "summarize", copier, stdin=long)
    assert row["truncated"]["read"] == row["source_tokens_read"] == 60
    assert row["truncated"]["tokens"] >= 50_000


@pytest.mark.parametrize("beam", [1, 3])
def test_a_source_shorter_than_the_shortest_summary(run: Run, copier: Path, beam: int) -> None:
    search = ["--beam", beam, "--search", "min_length=5", "--search", "block_ngrams=2"]
    (row,) = rows_of(run, "summarize", copier, *search, stdin="Meeting")
    assert len(row["copied"]) == len(row["tokens"]) >= 5
    pairs = list(zip(row["tokens"], row["tokens"][1:], strict=False))
    assert len(set(pairs)) == len(pairs)


@pytest.mark.parametrize("row", [b'{"subject": "x"}', b'{"body": null}', b"Dear Ann"])
def test_a_row_without_the_field_is_named(run: Run, copier: Path, row: bytes) -> None:
    given = b'{"body": "Meeting ' + ZEBRA.encode() + b'"}\n' + row + b"\n"
    code, out, err = run("summarize", copier, "--field", "body", stdin=given)
    assert code == 1 and "standard input:2:" in err and "Traceback" not in err
    assert len(lines_of(out)) == 1 and lines_of(out)[0]


@pytest.mark.parametrize("copier", ["words"], indirect=True)
def test_several_processes_copy_the_same(run: Run, copier: Path, tmp_path: Path) -> None:
    texts = [f"{text} {ZEBRA * n}" for n, (text, _) in enumerate(PAIRS, 1)]
    file = tmp_path / "mails"
    file.write_text("".join(f"{text}\n" for text in texts), encoding="utf-8")
    options = [file, "--json", "--n-best", 2, "--precision", "fp32", "--threads", 1]
    once = run("predict", copier, *options)
    assert once[0] == 0 and ZEBRA in once[1]
    assert run("predict", copier, *options, "--workers", 2) == once


def test_each_of_the_best_says_what_it_copied(run: Run, copier: Path) -> None:
    (row,) = rows_of(run, "predict", copier, "--beam", 4, "--n-best", 3, stdin=MANY)
    assert len(row["n_best"]) == 3 and row["n_best"][0]["copied"] == row["copied"]
    for one in row["n_best"]:
        assert len(one["copied"]) == len(one["tokens"]) > 0
    assert max(max(one["copied"]) for one in row["n_best"]) > 0.5


def test_a_given_summary_says_what_it_copies(run: Run, copier: Path) -> None:
    (row,) = rows_of(run, "score", copier, stdin=f"{MANY}\t{ZEBRA} report\n")
    assert len(row["copied"]) == len(row["tokens"]) == len(row["token_scores"]) - 1
    assert row["copied"][row["tokens"].index(ZEBRA)] == pytest.approx(1.0, abs=1e-3)
    (other,) = rows_of(run, "score", copier, stdin=f"{MANY}\t\u2603\n")
    assert other["copied"][-1] == 0.0  # neither the vocabulary nor the source has it


def test_a_figure_of_a_given_summary_marks_what_is_copied(copier: Path) -> None:
    import transduce

    out = transduce.load(copier, precision="fp32").attend(MANY, f"{ZEBRA} report")
    assert out.copied is not None and len(out.copied) == len(out.tokens)
    assert out.text == f"{ZEBRA} report"
