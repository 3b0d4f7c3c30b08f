"""Small real models for the tests of search."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import pytest
import torch

from transduce.model import Seq2Seq, build_model
from transduce.recipe import (
    AttentionOptions,
    DecoderOptions,
    EncoderOptions,
    InitOptions,
    ModelOptions,
)

VOCABULARY = 11


def tiny_model(
    seed: int = 1, *, feeding: str = "parallel", attention: str = "general", vocabulary: int = 11
) -> Seq2Seq:
    """A model with random weights, large enough for its answers to depend on what it reads."""
    torch.manual_seed(seed)
    kind = {"kind": attention, "heads": 2}
    decoder = DecoderOptions(
        layers=2, size=8, feeding=feeding, attention=AttentionOptions.model_validate(kind)
    )
    options = ModelOptions(
        embedding=8,
        tie="none",
        encoder=EncoderOptions(size=8),
        decoder=decoder,
        init=InitOptions(kind="uniform", scale=0.9),
    )
    model = build_model(options, VOCABULARY, vocabulary).eval()
    with torch.no_grad():
        model.output.bias[2] += 0.5  # let targets end before their limit now and then
    # Rounding differs with the shape of a batch. In double precision it is too small to matter,
    # so that tests may ask for the same hypotheses and not for almost the same scores.
    return model.double()


@pytest.fixture(scope="session")
def tiny() -> Callable[..., Seq2Seq]:
    return tiny_model


@pytest.fixture(scope="session")
def padded() -> Callable[[Sequence[Sequence[int]]], tuple[torch.Tensor, torch.Tensor]]:
    """Sources with EOS (2), padded with 0, and their lengths."""

    def pad(sources: Sequence[Sequence[int]]) -> tuple[torch.Tensor, torch.Tensor]:
        rows = [torch.tensor([*ids, 2]) for ids in sources]
        lengths = torch.tensor([len(row) for row in rows])
        return torch.nn.utils.rnn.pad_sequence(rows, batch_first=True), lengths

    return pad
