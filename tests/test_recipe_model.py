"""Sections of `model` that do not fit each other are told apart when the recipe is read."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import ValidationError

from transduce.errors import UsageError
from transduce.model import build_model
from transduce.recipe import ModelOptions, Recipe


@pytest.mark.parametrize(
    ("model", "message"),
    [
        ({"encoder": {"kind": "conformer", "pyramid": 1, "layers": 2}}, "`pyramid` is for recurr"),
        ({"encoder": {"kind": "transformer", "bidirectional": False}}, "for recurrent encoders"),
        ({"encoder": {"layers": 2, "pyramid": 2}}, "of layers above the first"),
        ({"encoder": {"kind": "conformer", "chunk": 8}}, "`chunk` 8 is for recurrent"),
        ({"encoder": {"bidirectional": False, "chunk": 8}}, "read in both directions"),
        ({"encoder": {"layers": 3, "pyramid": 2, "chunk": 6}}, "not a multiple of 4"),
        ({"encoder": {"kind": "conformer", "size": 36}}, "not a multiple of twice the heads"),
        ({"encoder": {"kernel": 8}}, "kernel 8 is even"),
        ({"decoder": {"attention": {"kind": "location"}}}, "`parallel` does not know"),
        ({"decoder": {"attention": {"kernel": 8}}}, "8 is even"),
        ({"ctc": {"weight": 1.5}}, "less than or equal to 1"),
        ({"ctc": {"weight": 1}, "transducer": {}}, "a transducer needs a weight below 1"),
        ({"subsampling": {"factor": 3}}, "Input should be 1, 2, 4 or 8"),
    ],
)
def test_what_does_not_fit_is_said(model: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        ModelOptions.model_validate(model)


@pytest.mark.parametrize("model", [{"ctc": {"weight": 1}}, {"transducer": {}}])
def test_two_passes_are_compared_by_a_decoder(model: dict[str, Any]) -> None:
    corpus = [{"source": "a", "target": "b"}]
    tree = {
        "data": {"train": corpus, "valid": corpus},
        "training": {"updates": 1, "consistency": 1.0},
        "model": model,
    }
    with pytest.raises(ValidationError, match="consistency needs a model with a decoder"):
        Recipe.model_validate(tree)


def test_time_is_not_halved_for_text() -> None:
    options = ModelOptions.model_validate({"encoder": {"layers": 2, "pyramid": 1}})
    with pytest.raises(UsageError, match="pyramid"):
        build_model(options, 8, 8)


def test_texts_have_no_chunks() -> None:
    options = ModelOptions.model_validate({"encoder": {"chunk": 4}})
    with pytest.raises(UsageError, match=r"model\.encoder\.chunk is for speech"):
        build_model(options, 8, 8)
