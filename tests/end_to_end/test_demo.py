"""The demo, shortened: what a new user sees first."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path


def demo(folder: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "transduce", "demo", "--minutes", "0.02"],
        cwd=folder,
        env={**os.environ, "TRANSDUCE_CACHE": str(folder / "cache"), "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )


def test_the_demo_trains_shows_and_can_be_run_again(tmp_path: Path) -> None:
    first = demo(tmp_path)
    assert first.returncode == 0, first.stderr
    for part in ("Words the model has never seen", "PER %", "95 % interval", "drawn at random"):
        assert part in first.stdout
    assert "</s>" in first.stdout and "transduce predict runs/demo" in first.stdout
    model = tmp_path / "runs" / "demo"
    assert (model / "figures" / "attention.png").read_bytes().startswith(b"\x89PNG")
    weights = (model / "weights.safetensors").read_bytes()
    again = demo(tmp_path)
    assert again.returncode == 0, again.stderr
    assert (model / "weights.safetensors").read_bytes() == weights
    assert again.stdout.splitlines()[-8:] == first.stdout.splitlines()[-8:]
