"""Every architecture learns to copy and to reverse, and does so for rows it has never seen."""

from __future__ import annotations

import itertools
import random

import pytest
import torch

from transduce.data.batches import collate
from transduce.kernels import available, weights
from transduce.model import build_model, linear
from transduce.recipe import ModelOptions, SearchOptions, TrainingOptions
from transduce.search.decode import decode
from transduce.training.update import Updater

SYMBOLS = range(4, 8)  # ids after the special ones
ROWS = [list(row) for n in (1, 2, 3) for row in itertools.product(SYMBOLS, repeat=n)]
random.Random(1).shuffle(ROWS)
UNSEEN = 12
ATTENTION = ("dot", "scaled_dot", "general", "additive", "multi_head")
DECODERS = [("none", "parallel"), *itertools.product(ATTENTION, ("parallel", "input", "context"))]


def train_until_known(
    model: ModelOptions, reverse: bool, precision: str = "fp32"
) -> tuple[float, float]:
    """Train on all rows but the unseen; the share of all rows, and of the unseen, that is right."""
    torch.manual_seed(1)
    built = build_model(model, len(SYMBOLS) + 4, len(SYMBOLS) + 4)
    options = TrainingOptions(updates=150, learning_rate=0.02, label_smoothing=0.0)
    updater = Updater(built, options, precision, lambda _: [], print)
    targets = [row[::-1] if reverse else row for row in ROWS]
    batch = collate(ROWS[UNSEEN:], targets[UNSEEN:], range(len(ROWS) - UNSEEN))
    for update in range(1, 151):
        updater.apply([batch], options.learning_rate * min(1.0, update / 5))
        if update % 5 == 0:
            window = updater.take_window()
            if window.nll / window.tokens < 0.03:
                break
    found = [hypotheses[0].ids for hypotheses in decode(built, ROWS, SearchOptions(beam=1))]
    right = [ids == target for ids, target in zip(found, targets, strict=True)]
    return sum(right) / len(right), sum(right[:UNSEEN]) / UNSEEN


@pytest.mark.parametrize("reverse", [False, True], ids=["copy", "reverse"])
@pytest.mark.parametrize("kind", ["transformer", "conformer"])
def test_a_self_attentive_encoder_learns(kind: str, reverse: bool) -> None:
    model = ModelOptions.model_validate(
        {
            "embedding": 16,
            "embedding_dropout": 0.0,
            "output_dropout": 0.0,
            "encoder": {"kind": kind, "size": 32, "dropout": 0.0, "heads": 2, "kernel": 3},
            "decoder": {"size": 32, "dropout": 0.0, "layers": 2, "attention": {"heads": 2}},
        }
    )
    right, right_unseen = train_until_known(model, reverse)
    assert right >= 0.9
    assert right_unseen >= 0.5  # by chance: 1 in 84


@pytest.mark.parametrize("reverse", [False, True], ids=["copy", "reverse"])
@pytest.mark.parametrize(("attention", "feeding"), DECODERS)
@pytest.mark.parametrize("kind", ["lstm", "gru", "rnn"])
def test_learns(kind: str, attention: str, feeding: str, reverse: bool) -> None:
    part = {"kind": kind, "size": 32, "dropout": 0.0}
    model = ModelOptions.model_validate(
        {
            "embedding": 16,
            "scale_embedding": False,  # tiny models and high rates want faint embeddings
            "embedding_dropout": 0.0,
            "output_dropout": 0.0,
            "encoder": part,
            "decoder": {
                **part,
                # With one layer, `parallel` would have no layer above the attention.
                "layers": 2 if feeding == "parallel" else 1,
                "attention": {"kind": attention, "heads": 2},
                "feeding": feeding,
            },
        }
    )
    right, right_unseen = train_until_known(model, reverse)
    assert right >= 0.9
    assert right_unseen >= 0.5  # by chance: 1 in 84


@pytest.mark.skipif(not available(), reason="no kernels on this machine")
@pytest.mark.parametrize("kind", ["lstm", "transformer"])
@pytest.mark.parametrize("precision", ["bf16", "int8"])
def test_learns_in_few_bits(precision: str, kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(linear, "MANY", 1)
    rounded: list[int] = []
    plain = weights.round_rows
    monkeypatch.setattr(weights, "round_rows", lambda x: rounded.append(len(x)) or plain(x))
    model = ModelOptions.model_validate(
        {
            "embedding": 16,
            "scale_embedding": kind == "transformer",
            "embedding_dropout": 0.0,
            "output_dropout": 0.0,
            "encoder": {"kind": kind, "size": 32, "dropout": 0.0, "heads": 2},
            "decoder": {"size": 32, "dropout": 0.0, "layers": 2, "attention": {"heads": 2}},
        }
    )
    right, right_unseen = train_until_known(model, True, precision)
    assert right >= 0.9
    assert right_unseen >= 0.5
    # the output layer's rows among them
    assert bool(rounded) == (len(SYMBOLS) + 4 in rounded) == (precision == "int8")
