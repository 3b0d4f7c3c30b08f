"""Small real models for the tests of search."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import pytest
import torch

from transduce.model import Seq2Seq

from ..conftest import tiny_model


@pytest.fixture(scope="session")
def tiny() -> Callable[..., Seq2Seq]:
    """Makes tiny models in double precision, in which rounding is too small to matter.

    It differs with the shape of a batch; so tests may ask for the same hypotheses, and not for
    almost the same scores.
    """
    return lambda *args, **kwargs: tiny_model(*args, **kwargs)[0].double()


@pytest.fixture(scope="session")
def padded() -> Callable[[Sequence[Sequence[int]]], tuple[torch.Tensor, torch.Tensor]]:
    """Sources with EOS (2), padded with 0, and their lengths."""

    def pad(sources: Sequence[Sequence[int]]) -> tuple[torch.Tensor, torch.Tensor]:
        rows = [torch.tensor([*ids, 2]) for ids in sources]
        lengths = torch.tensor([len(row) for row in rows])
        return torch.nn.utils.rnn.pad_sequence(rows, batch_first=True), lengths

    return pad
