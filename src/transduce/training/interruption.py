"""Ctrl-C and SIGTERM: noticed between two updates, so that what is saved is whole."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

from transduce.errors import TransduceError


class Interrupted(TransduceError):
    """A training was stopped by a signal and can go on; exit code 128 + the signal's number."""

    def __init__(self, message: str, signal_number: int) -> None:
        super().__init__(message)
        self.signal_number = signal_number
        self.exit_code = 128 + signal_number


class StopFlag:
    """Which signal asked to stop, if any.

    The first signal is only remembered (or, inside `raising`, raised at the next opportunity); a
    second one always raises at once, for those who do not want to wait, and sets `at_once`; but
    not where the flag is `patient`, for a process whose parent may pass on a signal it got too.
    """

    def __init__(self, patient: bool = False) -> None:
        self.signal_number: int | None = None
        self.at_once = False
        self.patient = patient
        self._raises = False

    def receive(self, number: int, frame: FrameType | None) -> None:
        """The signal handler."""
        self.at_once = self.signal_number is not None and not self.patient
        self.signal_number = number
        if self.at_once or self._raises:
            self.check()

    def check(self) -> None:
        """Errors: Interrupted when a signal has come."""
        if self.signal_number is not None:
            raise Interrupted("stopped at once", self.signal_number)

    @contextmanager
    def raising(self) -> Iterator[None]:
        """Around work that may be broken off anywhere: a signal raises there and then."""
        self.check()
        self._raises = True
        try:
            yield
        finally:
            self._raises = False


@contextmanager
def signals_noted(patient: bool = False) -> Iterator[StopFlag]:
    """Inside the block SIGINT and SIGTERM only set the flag (in the main thread only)."""
    flag = StopFlag(patient)
    if threading.current_thread() is not threading.main_thread():
        yield flag
        return
    before: dict[int, Any] = {}
    try:
        for name in (signal.SIGINT, signal.SIGTERM):
            before[name] = signal.signal(name, flag.receive)
        yield flag
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
