"""A model's weights as safetensors, which hold tensors and nothing that could run."""

from __future__ import annotations

import os
from collections.abc import Collection, Mapping

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save
from torch import Tensor, nn

from transduce.errors import FolderError


def tensor_bytes(tensors: Mapping[str, Tensor], metadata: dict[str, str] | None = None) -> bytes:
    """Tensors as the bytes of a safetensors file."""
    plain = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    return save(plain, metadata)


def read_tensors(path: str | os.PathLike[str]) -> dict[str, Tensor]:
    """Tensors of a safetensors file, on the CPU. Errors: FolderError."""
    try:
        return load_file(path)
    except FileNotFoundError:
        raise FolderError(f"{path}: missing") from None
    except (SafetensorError, OSError, ValueError) as error:
        raise FolderError(f"{path}: not a whole safetensors file: {error}") from error


def model_tensors(model: nn.Module) -> dict[str, Tensor]:
    """Parameters (shared ones once) and persistent buffers by name."""
    kept = model.state_dict().keys()
    tensors: dict[str, Tensor] = {name: p.detach() for name, p in model.named_parameters()}
    tensors |= {name: b for name, b in model.named_buffers() if name in kept}
    return tensors


def load_weights(
    model: nn.Module, path: str | os.PathLike[str], *, added: Collection[str] = ()
) -> None:
    """Fill a model from a safetensors file; the weights `added` may be missing, and are 0 then.

    Errors: FolderError naming the first tensor that is missing, unknown, or of another shape.
    """
    stored = read_tensors(path)
    wanted = model_tensors(model)
    for name in (set(added) & wanted.keys()) - stored.keys():
        stored[name] = torch.zeros_like(wanted[name])
    for name, tensor in wanted.items():
        if name not in stored:
            raise FolderError(f"{path}: has no `{name}`; recipe.yaml describes another model")
        if stored[name].shape != tensor.shape:
            raise FolderError(
                f"{path}: `{name}` is {tuple(stored[name].shape)} where the recipe and the "
                f"tokenizers ask for {tuple(tensor.shape)}: weights, recipe and vocabulary do not "
                "belong together"
            )
    if unknown := sorted(stored.keys() - wanted.keys()):
        raise FolderError(f"{path}: `{unknown[0]}` is unknown to the model that recipe.yaml names")
    with torch.no_grad():
        for name, tensor in wanted.items():
            tensor.copy_(stored[name])
