"""What a process keeps of memory."""

from __future__ import annotations

import platform
import subprocess
import sys
from pathlib import Path

import pytest

UPDATES = """
import resource, sys
from transduce.model.device import keep_freed_memory
if sys.argv[1] == "keep":
    keep_freed_memory()
import torch
def update():
    gradients = [torch.ones(4_000_000) for _ in range(8)]  # 15 MiB each, freed at the end
def faults():
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt
update()
update()
before = faults()
for _ in range(4):
    update()
print(faults() - before)
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="glibc's allocator alone is asked")
def test_memory_that_is_freed_is_not_fetched_anew() -> None:
    faults = [
        int(
            subprocess.run(
                [sys.executable, "-c", UPDATES, how], capture_output=True, check=True
            ).stdout
        )
        for how in ("keep", "as it is")
    ]
    assert faults[0] < faults[1] / 10


LARGE = """
import torch
from transduce.model.device import keep_freed_memory

def kilobytes(file, name):
    return sum(int(line.split()[1]) for line in open(f"/proc/self/{file}") if line.startswith(name))

before = kilobytes("status", "VmRSS")
keep_freed_memory()
keep_freed_memory()
grown = kilobytes("status", "VmRSS") - before
blocks = [torch.ones(4_000_000) for _ in range(8)]
print(grown, kilobytes("smaps", "AnonHugePages"), kilobytes("status", "VmRSS") - before)
"""
THP = Path("/sys/kernel/mm/transparent_hugepage/enabled")


@pytest.mark.skipif(
    platform.libc_ver()[0] != "glibc" or not THP.exists() or "[never]" in THP.read_text(),
    reason="no large pages here",
)
def test_training_asks_for_large_pages_and_takes_no_memory_for_it() -> None:
    told = subprocess.run([sys.executable, "-c", LARGE], capture_output=True, check=True).stdout
    grown, large, used = map(int, told.split())
    assert grown < 8 << 10  # KiB: addresses, not memory
    assert large > 32 << 10  # of 125 MiB
    assert used < 150 << 10
