"""What a process keeps of memory."""

from __future__ import annotations

import platform
import subprocess
import sys

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
