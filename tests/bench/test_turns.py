"""Workers: they answer, they sleep when it is not their turn, and their failures have a reason."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import turns
from common import LeftOut
from turns import Turns, Worker

PRELUDE = f"import sys; sys.path.insert(0, {str(Path(turns.__file__).parent)!r})\n"
ECHO = """
from turns import Questions
questions = Questions()
print("this is not an answer")
questions.tell(system="echo")
while True:
    asked = questions.next()
    if asked.get("fail"):
        raise ValueError("the model is broken")
    questions.tell(**asked)
"""
Start = Callable[[str], Worker]


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    workers = []

    def begin(code: str) -> Worker:
        worker = Worker([sys.executable, "-c", PRELUDE + code], tmp_path / "log")
        workers.append(worker)
        return worker

    yield begin
    for worker in workers:
        worker.close()


def test_a_worker_answers_and_what_it_prints_is_no_answer(start: Start) -> None:
    worker = start(ECHO)
    assert worker.about == {"system": "echo"}
    assert worker.ask(seconds=2) == {"seconds": 2}
    assert worker.ask(name="zwölf") == {"name": "zwölf"}
    assert "this is not an answer" in worker.log.read_text()


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="looks into /proc")
def test_a_worker_sleeps_when_it_is_not_its_turn(start: Start) -> None:
    worker = start(ECHO)
    worker.ask(any=1)
    # What a process does ahead of its turn would be work that no clock sees.
    for _ in range(100):
        state = Path(f"/proc/{worker.process.pid}/stat").read_text().rpartition(")")[2].split()[0]
        if state == "T":
            break
        time.sleep(0.02)
    assert state == "T"
    assert worker.ask(any=2) == {"any": 2}


def test_a_worker_that_dies_is_left_out_with_its_reason(start: Start) -> None:
    worker = start(ECHO)
    with pytest.raises(LeftOut, match="the model is broken"):
        worker.ask(fail=True)
    with pytest.raises(LeftOut):
        worker.ask(any=1)


def test_a_worker_that_cannot_start_is_left_out_with_its_reason(tmp_path: Path) -> None:
    with pytest.raises(LeftOut, match="No module named 'no_such_toolkit'"):
        Worker([sys.executable, "-c", "import no_such_toolkit"], tmp_path / "log")
    with pytest.raises(LeftOut, match="No such file"):
        Worker([tmp_path / "no-such-python"], tmp_path / "log")


class Asked:
    """Questions without a process: each is answered once."""

    def __init__(self, *seconds: float) -> None:
        self.rest = list(seconds)
        self.told: list[dict[str, Any]] = []

    def tell(self, **facts: Any) -> None:
        self.told.append(facts)

    def next(self) -> dict[str, float]:
        return {"seconds": self.rest.pop(0)}


def test_a_training_is_cut_into_turns_between_updates(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = iter([0.0, 1.0, 2.0, 3.0, 100.0, 101.0, 200.0])
    stopped = SimpleNamespace(perf_counter=lambda: next(clock))
    monkeypatch.setattr(turns, "time", stopped)
    asked = Asked(2.5, 0.5, 1.0)
    made = Turns(asked, system="toy")  # type: ignore[arg-type]
    made.after(1000)  # the first update, before the clock starts: it only tells that all is ready
    for tokens in (10, 20, 30, 40):
        made.after(tokens)
    ready, first, second = asked.told
    assert ready == {"system": "toy"}
    # The turn ends with the update that passes its time, and counts that whole.
    assert first == {"tokens": 60, "seconds": 3.0, "updates": 3}
    assert second == {"tokens": 40, "seconds": 1.0, "updates": 1}
