"""The device a model runs on: which one, and what it keeps of kernels and of memory."""

from __future__ import annotations

import ctypes
import os

import torch

from transduce.errors import UsageError

RESERVED = 1 << 30  # bytes of addresses for the heap in training


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
        libc = ctypes.CDLL(None)
        libc.mallopt(mmap_threshold, 32 << 20)
        libc.mallopt(trim_threshold, 2**31 - 1)
        _ask_for_large_pages(libc)
    except (AttributeError, OSError, TypeError):
        return


def _ask_for_large_pages(libc: ctypes.CDLL) -> None:
    """Have the heap grow, by addresses and not yet by memory, and ask for pages of 2 MiB there.

    Weights, moments and gradients are read from end to end in every update, and a large page is
    one entry in the processor's tables instead of 512. Linux decides (`madvise` in
    /sys/kernel/mm/transparent_hugepage/enabled lets it); where it cannot, nothing changes.
    """
    top_pad, usual, huge_page, page = -2, 128 << 10, 14, 2 << 20  # of mallopt(3), madvise(2)
    for name, kinds in (("sbrk", [ctypes.c_ssize_t]), ("malloc", [ctypes.c_size_t])):
        function = getattr(libc, name)
        function.argtypes, function.restype = kinds, ctypes.c_void_p
    libc.free.argtypes = [ctypes.c_void_p]
    libc.madvise.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int]
    before = libc.sbrk(0)
    libc.mallopt(top_pad, RESERVED)
    libc.free(libc.malloc(16 << 20))  # more than is left, so that the heap grows
    libc.mallopt(top_pad, usual)
    first, end = -(-before // page) * page, libc.sbrk(0) // page * page
    if end > first:
        libc.madvise(first, end - first, huge_page)
