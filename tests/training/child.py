"""Run in a process of its own: train, and be killed at a given moment.

Globals given: RECIPE (YAML), FOLDER, KILL_AT (the n-th call that changes names on the disk, or -1).
"""

from __future__ import annotations

import contextlib
import os
import signal
from pathlib import Path
from typing import Any

from transduce.recipe_files import load_recipe
from transduce.training.interruption import Interrupted
from transduce.training.loop import train

given: dict[str, Any] = globals()
calls = 0


def counting(change: Any) -> Any:
    """The same function, but the process dies instead of making the KILL_AT-th call."""

    def call(*arguments: Any, **options: Any) -> Any:
        global calls
        calls += 1
        if calls == given["KILL_AT"]:
            os.kill(os.getpid(), signal.SIGKILL)
        return change(*arguments, **options)

    return call


for name in ("replace", "fsync", "unlink"):
    setattr(os, name, counting(getattr(os, name)))
code = 0
try:
    train(load_recipe(Path(given["RECIPE"])), given["FOLDER"], progress=False)
except Interrupted as interrupted:
    code = interrupted.exit_code
with contextlib.suppress(OSError):
    Path(given["FOLDER"], "calls").write_text(str(calls))
os._exit(code)
