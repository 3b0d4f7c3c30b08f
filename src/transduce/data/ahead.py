"""Work done ahead, in a thread, so that who needs it does not wait."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Iterator
from typing import Generic, TypeVar

Item = TypeVar("Item")


class Ahead(Generic[Item]):
    """Runs a generator in a daemon thread, at most `most` items ahead.

    What goes wrong there is raised by `get`, then and ever after.
    """

    def __init__(self, make: Callable[[], Iterator[Item]], most: int) -> None:
        self._items: queue.Queue[Item | BaseException] = queue.Queue(most)
        self._stop = threading.Event()
        self._failed: BaseException | None = None
        self._thread = threading.Thread(target=self._run, args=(make,), name="batches", daemon=True)
        self._thread.start()

    def _run(self, make: Callable[[], Iterator[Item]]) -> None:
        try:
            for item in make():
                self._put(item)
                if self._stop.is_set():
                    return
        except BaseException as error:  # raised again where the batch was wanted
            self._put(error)

    def _put(self, item: Item | BaseException) -> None:
        while not self._stop.is_set():
            try:
                return self._items.put(item, timeout=0.1)
            except queue.Full:
                continue

    def get(self) -> Item:
        """The next item."""
        if self._failed is not None:
            raise self._failed
        item = self._items.get()
        if isinstance(item, BaseException):
            self._failed = item
            raise item
        return item

    def close(self) -> None:
        """End the thread; items not yet taken are lost."""
        self._stop.set()
        while True:  # a thread that waits for room gets it at once
            try:
                self._items.get_nowait()
            except queue.Empty:
                break
        self._thread.join(timeout=60.0)
