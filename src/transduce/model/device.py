"""The device a model runs on: which one, and what it keeps of kernels and of memory."""

from __future__ import annotations

import ctypes
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


def keep_freed_memory() -> None:
    """Have the process keep memory that is freed, for the next update; glibc only.

    An update frees and takes anew as much as all gradients. If it goes back to the system in
    between, each page comes again by way of a fault and filled with zeros, in all 25 thousand
    pages for 100 MiB. 32 MiB is the most that glibc takes from this store.
    """
    trim_threshold, mmap_threshold = -1, -3  # names of mallopt(3)
    try:
        allocator = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError, TypeError):
        return
    allocator(mmap_threshold, 32 << 20)
    allocator(trim_threshold, 2**31 - 1)
