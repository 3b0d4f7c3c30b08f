"""Averages of weights: the moving one during training, and that of several checkpoints."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor, nn

from transduce.errors import FolderError
from transduce.model.weights import read_tensors


class MovingAverage:
    """Exponential moving average of a model's parameters (Polyak and Juditsky 1992).

    average <- d * average + (1 - d) * parameter, where d = min(decay, (1 + n) / (10 + n)) for the
    n-th update, so that the random start is soon forgotten.
    """

    def __init__(self, model: nn.Module, decay: float) -> None:
        self.decay = decay
        self.updates = 0
        self._parameters = dict(model.named_parameters())
        self.tensors: dict[str, Tensor] = {
            name: parameter.detach().clone() for name, parameter in self._parameters.items()
        }

    @torch.no_grad()
    def update(self) -> None:
        """Take in the parameters as they are now."""
        self.updates += 1
        decay = min(self.decay, (1 + self.updates) / (10 + self.updates))
        torch._foreach_lerp_(
            list(self.tensors.values()), list(self._parameters.values()), 1.0 - decay
        )

    def restore(self, tensors: dict[str, Tensor], updates: int) -> None:
        self.updates = updates
        for name, tensor in self.tensors.items():
            tensor.copy_(tensors[name])


def average_weights(paths: Sequence[Path]) -> dict[str, Tensor]:
    """The mean of the tensors of several safetensors files, summed in float64.

    Errors: FolderError when the files are not of the same model.
    """
    if not paths:
        raise ValueError("nothing to average")
    first = read_tensors(paths[0])
    sums = {name: tensor.double() for name, tensor in first.items()}
    for path in paths[1:]:
        tensors = read_tensors(path)
        if {k: v.shape for k, v in tensors.items()} != {k: v.shape for k, v in first.items()}:
            raise FolderError(f"{path}: holds another model than {paths[0]}; cannot average them")
        for name, tensor in tensors.items():
            sums[name] += tensor.double()
    return {name: (total / len(paths)).to(first[name].dtype) for name, total in sums.items()}
