"""Bulk decoding in several processes, some of which are killed."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

PROCESSES = Path("/proc")

pytestmark = pytest.mark.skipif(
    not (PROCESSES / "self" / "stat").exists(), reason="tells processes by /proc"
)


def workers_of(parent: int) -> list[int]:
    """The running workers of a process."""
    found = []
    for folder in PROCESSES.glob("[0-9]*"):
        try:
            _, _, rest = (folder / "stat").read_text().rpartition(")")
            command = (folder / "cmdline").read_bytes()
        except OSError:  # it ended meanwhile
            continue
        state, ppid = rest.split()[:2]
        if int(ppid) == parent and state != "Z" and b"--multiprocessing-fork" in command:
            found.append(int(folder.name))
    return found


def runs(process: int) -> bool:
    try:
        stat = (PROCESSES / str(process) / "stat").read_text()
    except OSError:
        return False
    return stat.rpartition(")")[2].split()[0] not in "ZX"


@pytest.fixture
def predicting(exported: Path) -> Iterator[subprocess.Popen[bytes]]:
    """A running `predict --workers 2` that has answered its first line and is sent no end."""
    command = [sys.executable, "-m", "transduce", "predict", str(exported)]
    with subprocess.Popen(
        [*command, "--workers", "2", "--window", "2"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    ) as process:
        assert process.stdin is not None and process.stdout is not None
        process.stdin.write(b"cat\nback\n" * 5000)  # less would not leave the buffer of stdout
        process.stdin.flush()
        assert process.stdout.readline()
        yield process
        process.kill()


def test_a_killed_worker_ends_it_with_a_message(predicting: subprocess.Popen[bytes]) -> None:
    os.kill(workers_of(predicting.pid)[0], signal.SIGKILL)
    _, told = predicting.communicate(input=b"cat\n" * 100, timeout=60)
    assert predicting.returncode == 1
    assert told.startswith(b"transduce: a worker was killed") and b"use fewer --workers" in told
    assert b"Traceback" not in told


def test_workers_end_with_their_parent(predicting: subprocess.Popen[bytes]) -> None:
    workers = workers_of(predicting.pid)
    assert len(workers) == 2
    predicting.kill()
    deadline = time.monotonic() + 60
    while any(runs(worker) for worker in workers):
        assert time.monotonic() < deadline, "a worker waits for ever"
        time.sleep(0.05)
