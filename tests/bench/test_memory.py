"""What bench/memory.py sees of a process: its memory, and that of the processes it starts."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from memory import Watched, family, resident

linux = pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="looks into /proc")


@linux
def test_memory_that_is_held_is_seen() -> None:
    before, _ = resident(os.getpid())
    held = bytearray(64 * 2**20)
    held[::4096] = b"x" * len(held[::4096])
    now, highest = resident(os.getpid())
    assert now - before > 48
    assert highest >= now


@linux
def test_processes_of_a_process_belong_to_it() -> None:
    child = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    try:
        assert child.pid in family(os.getpid())
    finally:
        child.communicate(b"\n")
    assert child.pid not in family(os.getpid())
    assert resident(child.pid) == (0.0, 0.0)


def test_memory_along_a_run_is_taken_where_it_says() -> None:
    looks = [(float(second), 100.0 + second) for second in range(101)]
    run = Watched("grows", 100.0, looks, 201.0, 50.0)
    found = [run.at(0.25), run.at(0.5), run.at(0.95)]
    assert found == pytest.approx([125.0, 150.0, 195.0], abs=1.0)
