"""The user's object: one output for each input, whatever the inputs are."""

from __future__ import annotations

import io
import json
import math
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from rich.console import Console

import transduce
from transduce.data.text import TextSide
from transduce.errors import DataError, FolderError, UsageError
from transduce.inputs import read_texts
from transduce.model.shortlist import Shortlist
from transduce.output import json_line, one_line
from transduce.transducer import Transducer


@pytest.fixture(scope="module")
def model(untrained: Path) -> Transducer:
    return transduce.load(untrained, device="cpu", precision="fp32")


def test_a_text_gives_an_output_with_all_there_is_to_see(model: Transducer) -> None:
    out = model("cat")
    assert out.text.split() == out.tokens
    assert len(out.token_scores) == len(out.tokens) + 1 == out.attention.shape[0]
    assert out.source_tokens == ["c", "a", "t"]
    assert out.attention.shape[1] == 4
    np.testing.assert_allclose(out.attention.sum(axis=1), 1, rtol=1e-5)
    assert out.log_prob == pytest.approx(sum(out.token_scores), rel=1e-4)
    assert out.score == pytest.approx(out.log_prob / len(out.token_scores), rel=1e-4)


def test_a_list_gives_a_list_and_an_iterable_streams(model: Transducer) -> None:
    words = ["cat", "back", "cat"]
    outputs = model(words)
    assert isinstance(outputs, list)
    assert outputs[0].text == outputs[2].text == model("cat").text

    def endless() -> Iterator[str]:
        while True:
            yield from words

    stream = model.stream(endless(), window=3)
    assert [next(stream).text for _ in range(5)] == [o.text for o in [*outputs, *outputs[:2]]]
    assert [out.text for out in model(iter(words))] == [out.text for out in outputs]
    assert model([]) == [] and list(model(iter([]))) == []


def test_every_input_gives_its_output_in_order(model: Transducer) -> None:
    inputs = ["cat", "", "  \t ", "\x00", "back", "ca\nb", "\ud800", "ß", "a" * 5000]
    outputs = model(inputs)
    assert len(outputs) == len(inputs)
    assert outputs[0].text == model("cat").text and outputs[4].text == model("back").text
    for blank in outputs[1:4]:
        assert blank.text == "" and blank.reason == "blank input" and blank.attention is None
    assert outputs[6].reason is not None and "surrogate" in outputs[6].reason
    assert outputs[8].reason == "input of 5000 tokens cut to 1000"
    assert len(outputs[8].source_tokens) == 1000
    assert all("\n" not in output.text for output in outputs)


def test_bytes_that_are_not_utf8_are_answered_with_a_reason(model: Transducer) -> None:
    good, bad = model.stream([b"cat", b"c\xe4t"])
    assert good.text == model("cat").text
    assert bad.reason == "invalid UTF-8 (byte 0xe4 at 2) replaced"
    assert bad.text


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(texts=st.lists(st.one_of(st.text(max_size=12), st.binary(max_size=12)), max_size=6))
def test_any_texts_at_all(model: Transducer, texts: list[str | bytes]) -> None:
    outputs = list(model.stream(texts, beam=1))
    assert len(outputs) == len(texts)
    for out in outputs:
        assert "\n" not in out.text
        assert len(json_line(out.as_dict()).splitlines()) == 1


def test_company_changes_nothing(model: Transducer) -> None:
    words = ["cat", "a", "backtackback", "tack", "c" * 40]
    together = model(words, beam=3, n_best=2)
    for word, out in zip(words, together, strict=True):
        alone = model(word, beam=3, n_best=2)
        assert alone.text == out.text
        assert alone.score == pytest.approx(out.score, abs=1e-5)
        np.testing.assert_allclose(alone.attention, out.attention, atol=1e-5)


def test_an_input_that_fails_alone_does_not_take_others_along(
    model: Transducer, monkeypatch: pytest.MonkeyPatch
) -> None:
    from transduce import transducer

    real = transducer.decode

    def decode(model, sources, *args, **kwargs):  # type: ignore[no-untyped-def]
        if any(len(ids) == 7 for ids in sources):
            raise RuntimeError("DefaultCPUAllocator: can't allocate memory\nmore")
        return real(model, sources, *args, **kwargs)

    monkeypatch.setattr(transducer, "decode", decode)
    outputs = model(["cat", "tacktac", "back"])
    assert outputs[0].text and outputs[2].text
    assert outputs[1].text == ""
    assert outputs[1].reason == "failed: DefaultCPUAllocator: can't allocate memory more"


def test_search_options_are_checked_like_a_recipe(model: Transducer) -> None:
    assert len(model("cat", beam=4, n_best=3).n_best) == 3
    with pytest.raises(UsageError, match=r"beem.*did you mean `beam`"):
        model("cat", beem=3)
    with pytest.raises(UsageError, match="n_best 5 is more than beam 2"):
        model("cat", n_best=5)
    with pytest.raises(TypeError, match="not int"):
        model([3])  # type: ignore[list-item]


def test_what_is_no_text_is_told_at_once(model: Transducer) -> None:
    call: Any = model
    for wrong, told in (
        (("cat", 16_000), "a rate .16000. is of sound, and this model reads text"),
        ((np.zeros(9), 16_000), "this model reads text"),
        ((np.zeros(9),), "an input is a str, not numbers"),
        ((None,), "an input is a str.* not None"),
    ):
        with pytest.raises(UsageError, match=told):
            call(*wrong)
    assert [one.text for one in call(np.array(["cat"]))] == [model("cat").text]


def test_a_shortlist_is_cut_to_its_size_once(model: Transducer) -> None:
    words = torch.arange(model.target.size)
    table = words.repeat(model.source.size, 1)  # the first n candidates are the first n words
    short = Transducer(
        model.model, model.source, model.target, model.recipe,
        device=model.device, precision=model.precision, parameters=model.parameters,
        shortlist=Shortlist(table, words[:4]),
    )  # fmt: skip
    views = {n: short._searched(short.search_options(shortlist=n)) for n in (5, 6, 99)}
    assert short._searched(short.search_options(shortlist=5)) is views[5]
    assert short._searched(short.search_options(shortlist=1000)) is views[99]
    for n in (5, 6):
        found = short(["cat", "back"], shortlist=n, min_ratio=1.0)
        assert {i for out in found for i in short.target.encode(out.text)} <= set(range(n))
    whole, every = model("cat"), short("cat", shortlist=99)
    assert every.text == whole.text and short("cat").text == whole.text
    assert every.score == pytest.approx(whole.score, abs=1e-5)
    with pytest.raises(UsageError, match="shortlist"):
        short("cat", shortlist=-1)


def test_options_are_the_recipes_own_where_nothing_is_asked_for(model: Transducer) -> None:
    assert model.search_options() is model.recipe.search
    changed = model.search_options(beam=4)
    assert (changed.beam, changed.max_extra) == (4, model.recipe.search.max_extra)
    assert model.search_options() is model.recipe.search and model.recipe.search.beam == 2


def test_n_best_starts_with_the_best(model: Transducer) -> None:
    out = model("back", beam=4, n_best=4)
    assert out.n_best[0].text == out.text
    # What was cut off at the length limit (and says so) ranks after all that ended by itself.
    ranks = [(other.reason is None, other.score) for other in out.n_best]
    assert ranks == sorted(ranks, reverse=True)
    assert len({other.text for other in out.n_best}) == 4


def test_scoring_agrees_with_decoding(model: Transducer) -> None:
    found = model("cat", beam=4)
    scored = model.score("cat", found.text)
    assert scored.log_prob == pytest.approx(found.log_prob, abs=1e-4)
    assert scored.score == pytest.approx(found.score, abs=1e-4)
    assert scored.tokens == found.tokens and len(scored.token_scores) == len(found.tokens) + 1
    np.testing.assert_allclose(
        model.attend("cat", found.text).attention, found.attention, atol=1e-5
    )


def test_a_pair_that_fails_alone_does_not_take_others_along(
    model: Transducer, monkeypatch: pytest.MonkeyPatch
) -> None:
    from transduce import transducer

    real = transducer.force_score

    def force_score(model, sources, targets, **options):  # type: ignore[no-untyped-def]
        if any(len(ids) == 7 for ids in sources):
            raise DataError("an input of 8 positions does not fit into memory")
        return real(model, sources, targets, **options)

    monkeypatch.setattr(transducer, "force_score", force_score)
    words = ["cat", "", "tacktac", "back", "act"]
    scored = model.score(words, ["K AE T", "K", "T", "B AE K", "AE K T"])
    assert [math.isfinite(one.log_prob) for one in scored] == [True, False, False, True, True]
    assert scored[1].reason == "blank input"
    assert scored[2].reason == "failed: an input of 8 positions does not fit into memory"
    assert scored[2].as_dict()["log_prob"] is None
    assert model.attend("tacktac", "T").reason == scored[2].reason


def test_pairs_that_cannot_be_scored_keep_their_place(model: Transducer) -> None:
    scored = model.score(["cat", "", "back"], ["K AE T", "K", ""])
    assert math.isfinite(scored[0].log_prob)
    assert [one.reason for one in scored] == [None, "blank input", "blank input"]
    assert math.isnan(scored[1].log_prob) and scored[1].as_dict()["log_prob"] is None
    with pytest.raises(DataError, match="2 sources but more targets"):
        model.score(["cat", "back"], ["K", "K", "K"])


def test_unknown_words_can_be_taken_from_the_source(model: Transducer) -> None:
    from transduce.hypotheses.hypothesis import Hypothesis

    (source,) = read_texts(model.source, ["cqt"], 100)
    attention = np.eye(4, dtype=np.float32)[[1, 0, 3]]
    hypothesis = Hypothesis([3, 4], -1.0, -2.0, [-1.0, -0.5, -0.5], attention)
    replaced = model._output(source, [hypothesis], model.search_options(replace_unknown=True))
    kept = model._output(source, [hypothesis], model.search_options())
    assert replaced.tokens[0] == "q" and replaced.text.startswith("q ")
    assert kept.tokens[0] == "<unk>"


def test_figures_and_shows(model: Transducer, tmp_path: Path) -> None:
    out = model("cat")
    out.figure(tmp_path / "a.png")
    assert (tmp_path / "a.png").read_bytes().startswith(b"\x89PNG")
    assert "<table>" in out._repr_html_() and str(out) == out.text
    console = Console(file=io.StringIO(), width=60, record=True)
    console.print(out)
    assert out.text in console.export_text()
    with pytest.raises(ValueError, match="blank input"):
        model("").figure()
    assert "<script>" not in model("<script>")._repr_html_()


def test_an_ensemble_of_one_model_twice_is_that_model(untrained: Path, model: Transducer) -> None:
    twice = transduce.load([untrained, untrained], precision="fp32")
    assert twice("cat").text == model("cat").text
    assert twice("cat").log_prob == pytest.approx(model("cat").log_prob, abs=1e-4)


def test_an_ensemble_needs_one_vocabulary(
    untrained: Path, untrained_too: Path, tmp_path: Path
) -> None:
    assert transduce.load([untrained, untrained_too])("cat").text
    other = tmp_path / "other"
    shutil.copytree(untrained_too, other)
    side = TextSide.load(other, "source", transduce.load(other).recipe.source)
    symbols = json.loads((other / "source.json").read_text())
    symbols["symbols"].reverse()
    (other / "source.json").write_text(json.dumps(symbols))
    with pytest.raises(FolderError, match=r"source\.json"):  # the manifest notices first
        transduce.load(other)
    from transduce.folder import write_manifest

    write_manifest(other, task="pronunciation", source_language=None, target_language=None)
    assert transduce.load(other).source.size == side.size
    with pytest.raises(UsageError, match="different source vocabularies"):
        transduce.load([untrained, other])


def test_loading_says_what_is_wrong(untrained: Path, tmp_path: Path) -> None:
    with pytest.raises(FolderError, match="no such model folder"):
        transduce.load(tmp_path / "nothing")
    with pytest.raises(UsageError, match="device `warp` cannot be used"):
        transduce.load(untrained, device="warp")
    with pytest.raises(UsageError, match="no model folder"):
        transduce.load([])
    broken = tmp_path / "broken"
    shutil.copytree(untrained, broken)
    weights = broken / "weights.safetensors"
    weights.write_bytes(weights.read_bytes()[:100])
    with pytest.raises(FolderError, match=r"weights\.safetensors.*truncated"):
        transduce.load(broken)
    weights.unlink()
    with pytest.raises(FolderError, match=r"weights\.safetensors.*missing"):
        transduce.load(broken)


def test_loading_bounds_the_kernels_that_are_kept(untrained: Path) -> None:
    code = (
        f"import os, transduce; transduce.load({str(untrained)!r}, device='cpu'); "
        "print(os.environ['ONEDNN_PRIMITIVE_CACHE_CAPACITY'], os.environ['LRU_CACHE_CAPACITY'])"
    )
    environment = {k: v for k, v in os.environ.items() if "CACHE_CAPACITY" not in k}
    environment["LRU_CACHE_CAPACITY"] = "7"  # the user's word stands
    command = [sys.executable, "-c", code]
    run = subprocess.run(command, capture_output=True, text=True, check=True, env=environment)
    assert run.stdout == "1024 7\n"


def test_facts(model: Transducer) -> None:
    assert model.task == "pronunciation"
    assert model.parameters > 500
    assert "pronunciation" in repr(model)


def test_importing_transduce_imports_no_torch() -> None:
    code = (
        "import sys, transduce, transduce.cli; assert 'load' in dir(transduce); "
        "print([m for m in ('torch', 'numpy', 'pydantic', 'rich', 'yaml') if m in sys.modules])"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout == "[]\n"
    with pytest.raises(AttributeError, match="has no attribute 'lode'"):
        transduce.lode  # noqa: B018


def test_one_line() -> None:
    assert one_line("a\tb\nc\u2028d\r\n") == "a b c d"
    assert json_line({"a": "x\u2028y\x85"}).splitlines() == ['{"a": "x\\u2028y\\u0085"}']
