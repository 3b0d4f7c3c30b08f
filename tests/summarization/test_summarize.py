"""`summarize`: one document in, one line out, whatever the documents hold."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from transduce.inputs import cut_of

from ..conftest import Run
from .conftest import PAIRS

MAIL = PAIRS[0][0].replace(". ", ".\n\n")


def lines_of(text: str) -> list[str]:
    assert text == "" or text.endswith("\n")
    return text.split("\n")[:-1]


def test_files_are_documents_and_answers_come_in_order(
    run: Run, summarizer: Path, tmp_path: Path
) -> None:
    names = []
    for number, (text, _) in enumerate(PAIRS):
        file = tmp_path / f"{number}.txt"
        file.write_text(text.replace(". ", ".\n"), encoding="utf-8")
        names.append(file)
    code, out, _ = run("summarize", summarizer, *names)
    assert code == 0 and len(lines_of(out)) == len(PAIRS)
    alone = [run("summarize", summarizer, name)[1] for name in names]
    assert out == "".join(alone)
    code, out, _ = run("summarize", summarizer, *names, "--json")
    rows = [json.loads(line) for line in lines_of(out)]
    assert [row["document"] for row in rows] == [str(name) for name in names]
    assert [row["text"] + "\n" for row in rows] == alone
    assert "attention" not in rows[0] and rows[0]["source_tokens_read"] > 5


def test_standard_input_is_one_document_to_its_end(run: Run, summarizer: Path) -> None:
    code, out, _ = run("summarize", summarizer, "-", stdin=MAIL.encode())
    assert code == 0 and len(lines_of(out)) == 1
    whole = run("summarize", summarizer, stdin=" ".join(MAIL.split()).encode())
    assert whole[1] == out  # line breaks are white space to the model


def test_lines_and_fields_hold_a_document_each(run: Run, summarizer: Path, tmp_path: Path) -> None:
    texts = [text for text, _ in PAIRS]
    _, by_line, _ = run("summarize", summarizer, "--lines", stdin="\n".join(texts).encode())
    assert len(lines_of(by_line)) == len(texts)
    file = tmp_path / "mails.jsonl"
    rows = [json.dumps({"subject": "x", "mail": {"body": text}}) for text in texts]
    file.write_text("\n".join(rows) + "\n", encoding="utf-8")
    _, by_field, _ = run("summarize", summarizer, file, "--field", "mail.body")
    assert by_field == by_line
    _, out, _ = run("summarize", summarizer, file, "--field", "mail.body", "--json")
    assert [json.loads(line)["line"] for line in lines_of(out)] == [1, 2, 3, 4]


def test_several_processes_give_the_same(run: Run, summarizer: Path, tmp_path: Path) -> None:
    file = tmp_path / "mails"
    file.write_text("".join(f"{text}\n" for text, _ in PAIRS), encoding="utf-8")
    once = run("summarize", summarizer, file, "--lines", "--threads", 1, "--precision", "fp32")
    assert once == run(
        "summarize", summarizer, file, "--lines", "--workers", 2, "--precision", "fp32"
    )


HTML = "<html><body onload='x()'><p>Hello &amp; welcome</p><script>alert(1)</script></body></html>"
QUOTED = "> > On Monday Bob wrote:\n>> see you\n-----Original Message-----\nFrom: Ann\n\nok"
ODD = {
    "one word": "Meeting",
    "only punctuation": "... !!! ??? ---",
    "only addresses": "https://example.org/a?b=c http://x.y/z",
    "markup": HTML,
    "quoted mail": QUOTED,
    "mixed languages": "The report 報告書は明日 отчёт завтра التقرير غدا",
    "emoji and combining": "👩‍👩‍👧‍👦 cafe\u0301 n\u0303 🇩🇪 👍🏽 Z\u0351\u036balgo",
    "control characters": "a\x00b\x07c\x0cd\u2028e\u0085f",
    "not UTF-8": b"caf\xe9 \xff\xfe".decode("latin-1"),
}


@pytest.mark.parametrize("text", ODD.values(), ids=ODD)
def test_odd_documents_still_give_one_line(run: Run, summarizer: Path, text: str) -> None:
    code, out, _ = run("summarize", summarizer, stdin=text.encode())
    assert code == 0 and len(lines_of(out)) == 1
    code, out, _ = run("summarize", summarizer, "--json", stdin=text.encode())
    (line,) = lines_of(out)
    assert code == 0 and isinstance(json.loads(line)["text"], str)


@pytest.mark.parametrize("text", ["", " \n\t\n ", "\ufeff"])
def test_an_empty_document_gives_an_empty_line_and_a_reason(
    run: Run, summarizer: Path, text: str
) -> None:
    code, out, err = run("summarize", summarizer, stdin=text.encode())
    assert (code, out) == (0, "\n") and "standard input: blank input" in err
    _, out, _ = run("summarize", summarizer, "--json", stdin=text.encode())
    assert json.loads(out)["reason"] == "blank input"


def test_an_empty_field_keeps_its_line(run: Run, summarizer: Path) -> None:
    rows = b'{"body": "Meeting on Friday"}\n{"body": ""}\n\n{"body": "Report"}\n'
    code, out, err = run("summarize", summarizer, "--field", "body", stdin=rows)
    found = lines_of(out)
    assert code == 0 and len(found) == 4 and found[1] == found[2] == ""
    assert "document 2: blank input" in err and "document 3: blank input" in err


def test_a_document_of_50000_words_is_cut_and_says_so(run: Run, summarizer: Path) -> None:
    words = PAIRS[0][0].split()
    long = " ".join(words[k % len(words)] for k in range(50_000))
    code, out, err = run("summarize", summarizer, stdin=long.encode())
    assert code == 0 and len(lines_of(out)) == 1
    assert "standard input: input of" in err and "cut to 60" in err
    code, out, _ = run("summarize", summarizer, "--json", stdin=long.encode())
    row = json.loads(out)
    assert row["truncated"]["tokens"] > 50_000 and row["truncated"]["read"] == 60
    assert row["source_tokens_read"] == 60


def test_the_reason_of_a_cut_is_read_back() -> None:
    assert cut_of("lone surrogates replaced; input of 1234 tokens cut to 60") == (1234, 60)
    assert cut_of("cut after 6 tokens, the longest allowed for this input") is None
    assert cut_of(None) is None


@pytest.mark.parametrize(
    ("row", "message"),
    [
        (b'{"subject": "x"}', "standard input:2: no field `body`; there is: `subject`"),
        (b'{"body": null}', "standard input:2: field `body` is null, not text"),
        (b'{"body": ["a"]}', "standard input:2: field `body` is list, not text"),
        (b"[1, 2]", "standard input:2: no field `body`"),
        (b"Dear Ann", "standard input:2: not JSON"),
        (b'{"body": "\xff"}', "standard input:2: not UTF-8"),
    ],
)
def test_a_row_without_the_field_is_named(
    run: Run, summarizer: Path, row: bytes, message: str
) -> None:
    first = b'{"body": "Meeting"}\n'
    code, out, err = run("summarize", summarizer, "--field", "body", stdin=first + row + b"\n")
    assert code == 1 and len(lines_of(out)) == 1 and message in err and "Traceback" not in err


@pytest.mark.parametrize("workers", [1, 2])
def test_what_stands_before_a_row_without_the_field_is_summarized(
    run: Run, summarizer: Path, tmp_path: Path, workers: int
) -> None:
    rows = [json.dumps({"body": text}) for text, _ in PAIRS[:3]]
    good, bad = tmp_path / "good.jsonl", tmp_path / "bad.jsonl"
    good.write_text("\n".join(rows[:2]) + "\n", encoding="utf-8")
    bad.write_text("\n".join([*rows[:2], '{"boddy": ""}', rows[2]]) + "\n", encoding="utf-8")
    options = ["--field", "body", "--precision", "fp32", "--workers", workers]
    _, expected, _ = run("summarize", summarizer, good, *options)
    code, out, err = run("summarize", summarizer, bad, *options)
    assert (code, out) == (1, expected) and len(lines_of(out)) == 2
    assert f"{bad}:3: no field `body`; there is: `boddy`" in err
    # A file is whole or is what it was.
    kept = tmp_path / "kept"
    kept.write_text("before\n", encoding="utf-8")
    code, out, _ = run("summarize", summarizer, bad, *options, "-o", kept)
    assert (code, out, kept.read_text(encoding="utf-8")) == (1, "", "before\n")


def test_mistakes_are_told_before_the_work(run: Run, summarizer: Path, tmp_path: Path) -> None:
    code, _, err = run("summarize", summarizer, tmp_path / "no.txt")
    assert code == 1 and "no.txt does not exist" in err
    code, _, err = run("summarize", summarizer, tmp_path)
    assert code == 1 and "is a folder" in err
    code, _, err = run("summarize", summarizer, "--lines", "--field", "body")
    assert code == 2 and "leave one out" in err
    code, _, err = run("summarize", summarizer, "--search", "baem=3", stdin=b"a")
    assert code == 2 and "baem" in err
    code, _, err = run("summarize", summarizer, "--length", "short", stdin=b"a")
    assert code == 2 and "length" in err  # this model did not learn it
    code, out, _ = run("summarize", summarizer, "--length", "1", "--json", stdin=b"a b a b")
    assert code == 0 and len(json.loads(out)["tokens"]) <= 1  # in tokens any model can
    both = ("--length", "30", "--search", "max_length=5")
    code, _, err = run("summarize", summarizer, *both, stdin=b"a")
    assert code == 2 and "by --length as well" in err
    code, _, err = run("summarize", summarizer, "--length", "0", stdin=b"a")
    assert code == 2 and "max_length" in err


def test_n_best_and_output_file(run: Run, summarizer: Path, tmp_path: Path) -> None:
    file = tmp_path / "out.txt"
    options = ["--beam", 3, "--n-best", 2, "-o", file]
    assert run("summarize", summarizer, *options, stdin=MAIL.encode())[:2] == (0, "")
    assert len(file.read_text(encoding="utf-8").split("\t")) == 2
    _, out, _ = run("summarize", summarizer, "--n-best", 2, "--json", stdin=MAIL.encode())
    best = json.loads(out)["n_best"]
    assert len(best) == 2 and "attention" not in best[0] and best[0]["score"] >= best[1]["score"]
