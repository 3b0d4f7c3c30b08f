"""The device a model runs on: which one, and how many compiled kernels it keeps."""

from __future__ import annotations

import os

import torch

from transduce.errors import UsageError


def find_device(name: str) -> torch.device:
    """The device called `name`; `auto` is the GPU if there is one. Errors: UsageError."""
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:
        raise UsageError(f"device `{name}` cannot be used: {str(error).splitlines()[0]}") from None
    return device


def bound_kernel_caches() -> None:
    """Bound the compiled kernels that are kept, unless the user said else.

    Each shape of batch has its own kernels. oneDNN's cache must hold an epoch's shapes, or a third
    of the speed is lost to making them again; torch's wrapper of it gains nothing by as many. Both
    read their bounds once, at the first kernel, so this comes before any.
    """
    os.environ.setdefault("ONEDNN_PRIMITIVE_CACHE_CAPACITY", "1024")
    os.environ.setdefault("LRU_CACHE_CAPACITY", "128")
