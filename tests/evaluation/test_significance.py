"""Paired tests agree with sacreBLEU's and find what is there and nothing else."""

from __future__ import annotations

import random

import numpy as np
import pytest
import sacrebleu
from sacrebleu.significance import PairedTest

from transduce.errors import DataError
from transduce.evaluation.metrics import Measurement, measure
from transduce.evaluation.significance import (
    approximate_randomization,
    compare,
    paired_bootstrap,
)

DRAW = random.Random(5)
WORDS = ["ein", "mann", "der", "mit", "hut", "und", "hund", "geht"]
REFERENCES = [" ".join(DRAW.choices(WORDS, k=9)) for _ in range(150)]


def worse(lines: list[str], share: float, seed: int) -> list[str]:
    draw = random.Random(seed)
    return [" ".join(w if draw.random() > share else "x" for w in line.split()) for line in lines]


GOOD, CLOSE, BAD = worse(REFERENCES, 0.20, 1), worse(REFERENCES, 0.22, 2), worse(REFERENCES, 0.4, 3)


def measured(outputs: list[str], name: str = "bleu") -> Measurement:
    return measure(name, outputs, [[line] for line in REFERENCES])


@pytest.mark.parametrize("second", [CLOSE, BAD])
@pytest.mark.parametrize("kind", ["bs", "ar"])
def test_p_values_agree_with_sacrebleu(kind: str, second: list[str]) -> None:
    test = PairedTest(
        [("a", GOOD), ("b", second)], {"BLEU": sacrebleu.BLEU()}, [REFERENCES], kind, n_samples=1000
    )
    theirs = test()[1]["BLEU"][1]
    run = paired_bootstrap if kind == "bs" else approximate_randomization
    ours = run(measured(GOOD), measured(second), samples=1000)
    assert ours.second == pytest.approx(theirs.score)
    assert ours.p_value == pytest.approx(theirs.p_value, abs=0.05)
    assert ours.low <= ours.delta <= ours.high


@pytest.mark.parametrize("name", ["bleu", "chrf", "ter", "accuracy", "cer"])
def test_a_system_does_not_differ_from_itself(name: str) -> None:
    for run in (paired_bootstrap, approximate_randomization):
        same = run(measured(GOOD, name), measured(GOOD, name), samples=200)
        assert same.delta == same.low == same.high == 0.0
        assert same.p_value == 1.0
        assert same.winner is None


def test_the_winner_follows_the_metrics_direction() -> None:
    references = [[line] for line in REFERENCES]
    bleu, ter = compare(["bleu", "ter"], BAD, GOOD, references, samples=500)
    assert bleu.delta > 0 and bleu.winner == "second"
    assert ter.delta < 0 and ter.winner == "second"
    assert compare(["bleu"], GOOD, BAD, references, samples=500)[0].winner == "first"
    assert "p = " in str(bleu) and bleu.n == 150


def test_exchange_of_two_sentences_gives_the_exact_p_value() -> None:
    # Both sentences of the first are right, none of the second: 2 of 4 exchanges are as extreme.
    test = approximate_randomization(
        measure("accuracy", ["a", "b"], [["a"], ["b"]]),
        measure("accuracy", ["x", "x"], [["a"], ["b"]]),
        samples=4000,
    )
    assert test.p_value == pytest.approx(0.5, abs=0.03)
    assert test.winner is None


def test_false_alarms_are_as_rare_as_promised() -> None:
    draw = np.random.default_rng(0)
    references = [["1"]] * 60
    alarms = 0
    for _ in range(200):
        first, second = ([str(k) for k in draw.integers(2, size=60)] for _ in range(2))
        (result,) = compare(["accuracy"], first, second, references, samples=199)
        alarms += result.winner is not None
    assert alarms <= 20  # 10 expected at 0.05


def test_other_examples_cannot_be_paired() -> None:
    with pytest.raises(DataError, match="150 outputs of the first system, 10 of the second"):
        paired_bootstrap(measured(GOOD), measure("bleu", GOOD[:10], [["a"]] * 10))
