"""Averages of weights are the arithmetic they claim to be."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import nn

from transduce.errors import FolderError
from transduce.model.weights import tensor_bytes
from transduce.training.averaging import MovingAverage, average_weights


def test_moving_average_is_the_closed_form() -> None:
    layer = nn.Linear(1, 1, bias=False)
    nn.init.constant_(layer.weight, 4.0)
    average = MovingAverage(layer, decay=0.5)
    expected = 4.0
    for update, value in enumerate([1.0, 2.0, 3.0, 5.0, 8.0, 13.0, 21.0, 34.0, 55.0, 89.0], 1):
        nn.init.constant_(layer.weight, value)
        average.update()
        decay = min(0.5, (1 + update) / (10 + update))
        expected = decay * expected + (1 - decay) * value
        assert average.tensors["weight"].item() == pytest.approx(expected, rel=1e-6)


def test_moving_average_of_constant_weights_is_constant() -> None:
    layer = nn.Linear(3, 5)
    average = MovingAverage(layer, decay=0.999)
    for _ in range(10):
        average.update()
    assert torch.equal(average.tensors["weight"], layer.weight)


def test_average_of_checkpoints(tmp_path: Path) -> None:
    paths = []
    for number, value in enumerate([1.0, 2.0, 6.0]):
        path = tmp_path / f"{number}.safetensors"
        path.write_bytes(tensor_bytes({"w": torch.full((2, 3), value), "b": torch.ones(1)}))
        paths.append(path)
    mean = average_weights(paths)
    assert torch.equal(mean["w"], torch.full((2, 3), 3.0))
    assert mean["w"].dtype == torch.float32
    assert torch.equal(average_weights(paths[:1])["w"], torch.ones(2, 3))


def test_checkpoints_of_different_models_are_refused(tmp_path: Path) -> None:
    first, other = tmp_path / "first", tmp_path / "other"
    first.write_bytes(tensor_bytes({"w": torch.ones(2)}))
    other.write_bytes(tensor_bytes({"w": torch.ones(3)}))
    with pytest.raises(FolderError, match="another model"):
        average_weights([first, other])
