"""Scores are those of sacreBLEU and jiwer, and intervals those of sacreBLEU's bootstrap."""

from __future__ import annotations

import math
import random
import subprocess
import sys

import numpy as np
import pytest
import sacrebleu
from hypothesis import given, settings
from hypothesis import strategies as st

from transduce.errors import DataError, UsageError
from transduce.evaluation import sacre
from transduce.evaluation.metrics import (
    METRICS,
    better,
    compute,
    group_by_source,
    measure,
)
from transduce.recipe import METRICS as BY_TASK
from transduce.recipe import EvaluationOptions, TrainingOptions, known_metrics

GERMAN = [
    "Ein Mann mit einem orangefarbenen Hut, der etwas anstarrt.",
    "Ein Boston Terrier läuft über saftig-grünes Gras vor einem weißen Zaun.",
    "Ein Mädchen in einem Karateanzug bricht ein Brett mit einem Tritt.",
    "Fünf Leute in Winterjacken und mit Helmen stehen im Schnee mit Schneemobilen im Hintergrund.",
    "Leute Reparieren das Dach eines Hauses.",
    "Ein hell gekleideter Mann fotografiert eine Gruppe von Männern, die „Schach“ spielen.",
    "Eine Gruppe von Menschen steht vor einem Iglu.",
    "Ein Junge in einem roten Trikot versucht, die Home Base zu erreichen.",
]


def noisy(lines: list[str], share: float, seed: int = 0) -> list[str]:
    """Lines that have lost some words and had others doubled: not perfect, not hopeless."""
    draw = random.Random(seed)
    changed = []
    for line in lines:
        words = [w for w in line.split() if draw.random() > share]
        words = [w for w in words for _ in range(2 if draw.random() < share / 2 else 1)]
        changed.append(" ".join(words))
    return changed


LINES = [f"{line} {number}" for number in range(25) for line in GERMAN]
OUTPUTS = noisy(LINES, 0.2)
THEIRS = {"bleu": sacrebleu.BLEU, "chrf": sacrebleu.CHRF, "ter": sacrebleu.TER}


@pytest.mark.parametrize("name", THEIRS)
def test_value_signature_and_interval_are_sacrebleus(name: str) -> None:
    metric = THEIRS[name]()
    theirs = metric.corpus_score(OUTPUTS, [LINES], n_bootstrap=1000)
    (score,) = compute([name], OUTPUTS, [[line] for line in LINES])
    assert score.value == pytest.approx(theirs.score, abs=1e-9)
    plain = THEIRS[name]()
    plain.corpus_score(OUTPUTS, [LINES])
    assert score.signature == plain.get_signature().format()
    # The resamples are the same; the ends of the interval are interpolated differently.
    assert score.low == pytest.approx(theirs._mean - theirs._ci, abs=0.35)
    assert score.high == pytest.approx(theirs._mean + theirs._ci, abs=0.35)
    assert score.n == len(LINES)


@pytest.mark.parametrize("name", THEIRS)
def test_several_references_of_varying_number(name: str) -> None:
    references = [[line, line.lower()] if k % 3 else [line] for k, line in enumerate(LINES)]
    streams = [LINES, [refs[1] if len(refs) > 1 else None for refs in references]]
    theirs = THEIRS[name]()
    expected = theirs.corpus_score(OUTPUTS, streams).score
    (score,) = compute([name], OUTPUTS, references, bootstrap=0)
    assert score.value == pytest.approx(expected, abs=1e-9)
    assert "nrefs:var" in score.signature
    assert score.low is None and score.high is None


counts = st.lists(st.integers(0, 9), min_size=4, max_size=4)


@settings(deadline=None)
@given(correct=counts, extra=counts, length=st.integers(0, 30), reference=st.integers(0, 30))
def test_bleu_of_counts_is_sacrebleus(
    correct: list[int], extra: list[int], length: int, reference: int
) -> None:
    total = [c + e for c, e in zip(correct, extra, strict=True)]
    row = np.array([[length, reference, *correct, *total]], dtype=np.float64)
    for effective in (False, True):
        theirs = sacrebleu.BLEU.compute_bleu(
            list(correct), list(total), length, reference, "exp", effective_order=effective
        )
        ours = sacre.bleu_values(row, effective_order=effective)[0]
        assert ours == pytest.approx(theirs.score, abs=1e-9)


@settings(deadline=None)
@given(st.lists(st.tuples(st.integers(0, 9), st.integers(0, 9)), min_size=6, max_size=6))
def test_chrf_of_counts_is_sacrebleus(pairs: list[tuple[int, int]]) -> None:
    flat = [number for h, r in pairs for number in (h, r, min(h, r) // 2)]
    theirs = sacrebleu.CHRF()._compute_f_score(flat)
    ours = sacre.chrf_values(np.array([flat], dtype=np.float64))[0]
    assert ours == pytest.approx(theirs, abs=1e-9)


text = st.lists(st.text("abc ü", min_size=1, max_size=6), min_size=1, max_size=6).map(" ".join)


@settings(deadline=None)
@given(st.lists(st.tuples(text, text.filter(str.strip)), min_size=1, max_size=6))
def test_wer_and_cer_are_jiwers(pairs: list[tuple[str, str]]) -> None:
    jiwer = pytest.importorskip("jiwer")
    hypotheses, references = [h for h, _ in pairs], [r for _, r in pairs]
    wer, cer = compute(["wer", "cer"], hypotheses, [[r] for r in references], bootstrap=0)
    assert wer.value == pytest.approx(100 * jiwer.wer(references, hypotheses))
    assert cer.value == pytest.approx(100 * jiwer.cer(references, hypotheses))


def test_moses_bleu_is_bleu_of_text_prepared_as_multi30k_prepares_it() -> None:
    from sacremoses import MosesPunctNormalizer, MosesTokenizer

    normalizer, tokenizer = MosesPunctNormalizer(lang="de"), MosesTokenizer(lang="de")

    def prepared(line: str) -> str:
        return tokenizer.tokenize(normalizer.normalize(line.lower()), return_str=True)

    theirs = sacrebleu.BLEU(tokenize="none", force=True).corpus_score(
        [prepared(line) for line in OUTPUTS], [[prepared(line) for line in LINES]]
    )
    (score,) = compute(
        ["moses_bleu"], OUTPUTS, [[line] for line in LINES], target_language="de-AT", bootstrap=0
    )
    assert score.value == pytest.approx(theirs.score, abs=1e-9)
    assert "case:lc" in score.signature and "tok:moses-de" in score.signature


def test_moses_bleu_ignores_case_and_kinds_of_quotes() -> None:
    scores = compute(["moses_bleu", "bleu"], ['Er ruft "JA" laut .'], [["er ruft „ja“ laut."]])
    assert scores[0].value == pytest.approx(100.0)
    assert scores[1].value < 50.0


def test_pronunciation_counts_words_and_phones_against_the_nearest_variant() -> None:
    references = [["T AH M EY T OW", "T AH M AA T OW"], ["B AE T"], ["K AE T", "K AE T S AH"]]
    word, phone = compute(["g2p_wer", "per"], ["T AH M AA T OW", "B  AE D", "K AE T S"], references)
    assert word.value == pytest.approx(100 * 2 / 3)
    # 0 of 6, 1 of 3, and 1 to either variant of `cats`, of which the longer counts.
    assert phone.value == pytest.approx(100 * 2 / (6 + 3 + 5))
    assert not word.higher_is_better


def test_accuracy_and_its_interval() -> None:
    (score,) = compute(["accuracy"], ["I_WALK"] * 80 + ["I_RUN"] * 20, [["I_WALK"]] * 100)
    assert score.value == 80.0
    assert score.low is not None and score.high is not None
    # Of a proportion of 100: plus or minus 1.96 standard errors of 4.
    assert score.low == pytest.approx(72, abs=2) and score.high == pytest.approx(88, abs=2)


@pytest.mark.parametrize("name", METRICS)
def test_perfect_and_empty_outputs_of_every_metric(name: str) -> None:
    references = [[line] for line in GERMAN]
    (perfect,) = compute([name], GERMAN, references, bootstrap=20)
    (silent,) = compute([name], [""] * len(GERMAN), references, bootstrap=20)
    best, worst = (100.0, 0.0) if perfect.higher_is_better else (0.0, 100.0)
    assert perfect.value == perfect.low == perfect.high == pytest.approx(best)
    assert silent.value == silent.low == silent.high == pytest.approx(worst)
    assert better(name, perfect.value, silent.value)


@pytest.mark.parametrize("name", METRICS)
def test_empty_references_give_a_number(name: str) -> None:
    (score,) = compute([name], ["", "something"], [[""], [""]], bootstrap=10)
    assert math.isfinite(score.value)


@pytest.mark.parametrize("name", METRICS)
def test_sentence_values_are_those_of_one_sentence_corpora(name: str) -> None:
    measured = measure(name, OUTPUTS[:8], [[line] for line in LINES[:8]], target_language="de")
    values = measured.sentence_values()
    assert values.shape == (8,)
    if "bleu" in name:
        if name == "bleu":
            theirs = sacrebleu.BLEU(effective_order=True).sentence_score(OUTPUTS[2], [LINES[2]])
            assert values[2] == pytest.approx(theirs.score)
        return
    single = measure(name, OUTPUTS[2:3], [[LINES[2]]], target_language="de").value()
    assert values[2] == pytest.approx(single)


def test_intervals_are_reproducible_and_shrink_with_the_corpus() -> None:
    references = [[line] for line in LINES]
    first, again = (compute(["chrf"], OUTPUTS, references)[0] for _ in range(2))
    assert (first.low, first.high) == (again.low, again.high)
    few = compute(["chrf"], OUTPUTS[:20], references[:20])[0]
    assert first.low < first.value < first.high
    assert few.high - few.low > first.high - first.low


def test_chunks_of_resamples_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    from transduce.evaluation import resampling

    measured = measure("ter", OUTPUTS, [[line] for line in LINES])
    whole = measured.resampled(50)
    monkeypatch.setattr(resampling, "CHUNK", 3 * len(LINES))
    assert np.array_equal(measured.resampled(50), whole)


def test_what_does_not_fit_is_an_error_that_says_so() -> None:
    with pytest.raises(UsageError, match="unknown metric `blue`; did you mean `bleu`"):
        compute(["bleu", "blue"], ["a"], [["a"]])
    with pytest.raises(DataError, match="2 outputs but 1 references"):
        compute(["bleu"], ["a", "b"], [["a"]])
    with pytest.raises(DataError, match="nothing to evaluate"):
        compute(["bleu"], [], [])
    with pytest.raises(DataError, match="example 2 needs a list of references"):
        compute(["bleu"], ["a", "b"], [["a"], []])
    with pytest.raises(DataError, match="example 1 needs a list"):
        compute(["bleu"], ["a"], ["a"])


def test_better_knows_the_direction_and_nan() -> None:
    assert better("bleu", 31.0, 30.0) and not better("bleu", 30.0, 30.0)
    assert better("ter", 30.0, 31.0) and better("loss", 1.0, 2.0)
    assert better("bleu", 1.0, math.nan) and not better("bleu", math.nan, 1.0)
    assert not better("loss", math.nan, math.nan)


def test_japanese_without_mecab_is_scored_by_characters_and_the_signature_says_so() -> None:
    try:
        import MeCab  # noqa: F401
    except ImportError:
        expected = "tok:char"
    else:
        expected = "tok:ja-mecab"
    (score,) = compute(
        ["bleu"], ["帽子をかぶった男性"], [["帽子をかぶった男"]], target_language="ja", bootstrap=0
    )
    assert expected in score.signature and score.value > 50


def test_equal_sources_become_one_example_with_all_their_targets() -> None:
    sources, references = group_by_source(["a", "b", "a", "a"], ["1", "2", "3", "1"])
    assert sources == ["a", "b"]
    assert references == [["1", "3"], ["2"]]


def test_recipes_know_these_metrics() -> None:
    assert known_metrics() == tuple(METRICS)
    for names in BY_TASK.values():
        assert set(names) <= set(METRICS)
    EvaluationOptions(metrics=["moses_bleu"])
    TrainingOptions(epochs=1, metric="loss")
    with pytest.raises(ValueError, match="did you mean `chrf`"):
        EvaluationOptions(metrics=["chrff"])
    with pytest.raises(ValueError, match="unknown metric `speed`"):
        TrainingOptions(epochs=1, metric="speed")


def test_importing_evaluation_is_light() -> None:
    program = (
        "import sys, transduce.evaluation.metrics, transduce.evaluation.figures, "
        "transduce.evaluation.report, transduce.evaluation.significance\n"
        "heavy = {'torch', 'matplotlib', 'sacrebleu', 'sacremoses', 'rapidfuzz'}\n"
        "sys.exit(', '.join(heavy & set(sys.modules)) or 0)"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
