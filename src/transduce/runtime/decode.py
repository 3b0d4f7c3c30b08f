"""From any number of sources to batches that fit, and back into order."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from transduce.answering import each
from transduce.data.tokenizers.base import EOS
from transduce.hypotheses.hypothesis import Hypothesis
from transduce.runtime.beam import beam_search
from transduce.runtime.network import Network
from transduce.runtime.options import Search


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
    the source it fails for, which gets no hypothesis: `failed` is told its number and the message.
    """

    def answer(batch: list[int]) -> list[list[Hypothesis]]:
        return beam_search(network, *padded([sources[i] for i in batch]), options)

    def fail(index: int, message: str) -> list[Hypothesis]:
        failed(index, message)
        return []

    results: list[list[Hypothesis]] = [[Hypothesis.empty()] for _ in sources]
    # The longest first: what does not fit into memory shows at once.
    order = sorted((i for i, ids in enumerate(sources) if len(ids)), key=lambda i: -len(sources[i]))
    budget = options.batch_tokens // options.beam
    start = 0
    while start < len(order):
        size = max(1, budget // (len(sources[order[start]]) + 1))
        batch = order[start : start + size]
        for i, found in zip(batch, each(batch, answer, fail), strict=True):
            results[i] = found
        start += size
    return results


def padded(sources: Sequence[Sequence[int]]) -> tuple[np.ndarray, np.ndarray]:
    """Sources with the end symbol, padded with 0: (B, S) and their lengths (B,), both int64."""
    lengths = np.array([len(ids) + 1 for ids in sources], dtype=np.int64)
    source = np.zeros((len(sources), int(lengths.max())), dtype=np.int64)
    for row, ids in enumerate(sources):
        source[row, : len(ids)] = ids
        source[row, len(ids)] = EOS
    return source, lengths
