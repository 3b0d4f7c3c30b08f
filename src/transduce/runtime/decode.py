"""From any number of sources to batches that fit, and back into order."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeVar

import numpy as np

from transduce.data.tokenizers.base import EOS
from transduce.hypotheses.hypothesis import Hypothesis
from transduce.runtime.beam import beam_search
from transduce.runtime.network import Network
from transduce.runtime.options import Search

Result = TypeVar("Result")


def decode(
    network: Network,
    sources: Sequence[Sequence[int]],
    options: Search,
    failed: Callable[[int, str], None],
) -> list[list[Hypothesis]]:
    """The n best hypotheses of each source, one list for each, in order.

    sources: token ids without BOS and EOS. They are sorted by length and decoded in batches of
    about `options.batch_tokens` padded positions x beam. An empty source gives an empty hypothesis
    without asking the model. A batch that fails (by not fitting into memory, say) is halved down to
    the source it fails for, which gets no hypothesis: `failed` is told its number and the reason.
    """
    results: list[list[Hypothesis]] = [[Hypothesis.empty()] for _ in sources]
    # The longest first: what does not fit into memory shows at once.
    order = sorted((i for i, ids in enumerate(sources) if len(ids)), key=lambda i: -len(sources[i]))
    budget = options.batch_tokens // options.beam
    start = 0
    while start < len(order):
        size = max(1, budget // (len(sources[order[start]]) + 1))
        for i, found in _answered(network, sources, order[start : start + size], options, failed):
            results[i] = found
        start += size
    return results


def _answered(
    network: Network,
    sources: Sequence[Sequence[int]],
    batch: list[int],
    options: Search,
    failed: Callable[[int, str], None],
) -> list[tuple[int, list[Hypothesis]]]:
    try:
        found = beam_search(network, *padded([sources[i] for i in batch]), options)
        return list(zip(batch, found, strict=True))
    except (RuntimeError, MemoryError) as error:
        if len(batch) == 1:
            failed(batch[0], str(error) or type(error).__name__)
            return [(batch[0], [])]
    half = len(batch) // 2
    return [
        pair
        for part in (batch[:half], batch[half:])
        for pair in _answered(network, sources, part, options, failed)
    ]


def padded(sources: Sequence[Sequence[int]]) -> tuple[np.ndarray, np.ndarray]:
    """Sources with the end symbol, padded with 0: (B, S) and their lengths (B,), both int64."""
    lengths = np.array([len(ids) + 1 for ids in sources], dtype=np.int64)
    source = np.zeros((len(sources), int(lengths.max())), dtype=np.int64)
    for row, ids in enumerate(sources):
        source[row, : len(ids)] = ids
        source[row, len(ids)] = EOS
    return source, lengths
