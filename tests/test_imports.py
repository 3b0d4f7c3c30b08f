"""What is imported when: commands answer at once because torch and matplotlib come in late."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

SOURCES = Path(__file__).resolve().parents[1] / "src" / "transduce"
WITHOUT_TORCH = [
    "transduce",
    "transduce.answering",
    "transduce.cli",
    "transduce.recipe_files",
    "transduce.disk",
    "transduce.folder",
    "transduce.evaluation",
    "transduce.data.catalog",
    "transduce.data.check",
    "transduce.data.corpus",
    "transduce.data.text",
    "transduce.hypotheses",
    "transduce.inputs",
    "transduce.runtime",
    "transduce.commands.predict",
    "transduce.commands.transcribe",
    "transduce.recognition.live",
    "transduce.recognition.transcribing",
]
LATE = (
    *("matplotlib", "sacrebleu", "sacremoses", "rapidfuzz", "tensorboard", "onnx", "onnxruntime"),
    *("soundfile", "soxr", "kaldi_native_fbank"),
)


@pytest.mark.parametrize("module", WITHOUT_TORCH)
def test_torch_comes_in_late(module: str) -> None:
    code = f"import sys, {module}\nprint(*[m for m in ('torch', *{LATE!r}) if m in sys.modules])\n"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stderr
    assert run.stdout.split() == []


def test_nothing_is_unpickled() -> None:
    # A pickle can run code; model folders come from other people.
    for path in SOURCES.rglob("*.py"):
        text = path.read_text(encoding="utf-8")
        for word in ("torch.load(", "import pickle", "torch.save(", "allow_pickle=True"):
            assert word not in text, f"{path.name} uses {word}"
