"""The optimizer of a recipe, and its state as plain tensors."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from transduce.recipe import TrainingOptions

PREFIX = "optimizer/"


def build_optimizer(model: nn.Module, options: TrainingOptions) -> torch.optim.Optimizer:
    """Adam, AdamW (1711.05101) or SGD over the model's parameters.

    Weight decay spares biases, norms and embeddings. All are the fused kernels, because those
    leave everything as it is when `found_inf` is set: skipping a step then needs no look at it.
    """
    groups = _groups(model, options.optimizer.weight_decay)
    chosen = options.optimizer
    if chosen.kind == "sgd":
        optimizer: torch.optim.Optimizer = torch.optim.SGD(
            groups, lr=options.learning_rate, momentum=chosen.momentum, fused=True
        )
        if chosen.momentum:
            # The kernel fills the buffers at its first step, even if told to skip that one.
            for parameter in model.parameters():
                optimizer.state[parameter]["momentum_buffer"] = torch.zeros_like(parameter)
        return optimizer
    kind = torch.optim.AdamW if chosen.kind == "adamw" else torch.optim.Adam
    return kind(
        groups, lr=options.learning_rate, betas=chosen.betas, eps=chosen.epsilon, fused=True
    )


def _groups(model: nn.Module, decay: float) -> list[dict[str, Any]]:
    spared = {
        id(parameter)
        for module in model.modules()
        if isinstance(module, nn.Embedding)
        for parameter in module.parameters(recurse=False)
    }
    decayed: list[nn.Parameter] = []
    kept: list[nn.Parameter] = []
    for parameter in model.parameters():
        matrix = parameter.dim() >= 2 and id(parameter) not in spared
        (decayed if matrix else kept).append(parameter)
    groups: list[dict[str, Any]] = [
        {"params": decayed, "weight_decay": decay},
        {"params": kept, "weight_decay": 0.0},
    ]
    return [group for group in groups if group["params"]]


def optimizer_tensors(optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    """Everything the optimizer remembers, as name -> tensor."""
    return {
        f"{PREFIX}{index}/{name}": value
        for index, state in optimizer.state_dict()["state"].items()
        for name, value in state.items()
        if isinstance(value, Tensor)
    }


def restore_optimizer(optimizer: torch.optim.Optimizer, tensors: dict[str, Tensor]) -> None:
    """Give the optimizer back what `optimizer_tensors` took from it."""
    state: dict[int, dict[str, Tensor]] = {}
    for key, tensor in tensors.items():
        if key.startswith(PREFIX):
            index, name = key[len(PREFIX) :].split("/")
            # A clone is aligned as fresh tensors are; kernels may round differently otherwise.
            state.setdefault(int(index), {})[name] = tensor.clone()
    own = optimizer.state_dict()
    optimizer.load_state_dict({"state": state, "param_groups": own["param_groups"]})
