"""A recogniser without a model: it says how long each sound is, and keeps what it was given."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import islice
from typing import Any

import numpy as np
import pytest

from transduce.output import Output


class Clock:
    """Answers a sound of 2.4 s with `heard 2.4`; attention runs along the sound."""

    def __init__(self) -> None:
        self.lengths: list[float] = []
        self.most = 0  # inputs held at once
        self.search: dict[str, Any] = {}

    def stream(self, inputs: Iterable[Any], *, window: int = 8, **search: Any) -> Iterator[Output]:
        self.search = search
        rest = iter(inputs)
        while taken := list(islice(rest, window)):
            self.most = max(self.most, len(taken))
            for samples, rate in taken:
                assert samples.dtype == np.float32 and samples.ndim == 1
                seconds = len(samples) / rate
                self.lengths.append(seconds)
                attention = np.zeros((3, 10))
                attention[0, 2] = attention[1, 7] = attention[2, 9] = 1.0
                said = ["▁heard", f"▁{seconds:.1f}"]
                text = " ".join(token[1:] for token in said)
                yield Output(text, score=-0.5, tokens=said, attention=attention)


@pytest.fixture
def clock() -> Clock:
    return Clock()
