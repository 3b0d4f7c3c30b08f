"""What a search remembers of its steps, and how hypotheses are put together from it at the end."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from transduce.hypotheses.assembling import Chosen, Paths, Trace, follow
from transduce.hypotheses.assembling import assemble as assemble_paths
from transduce.hypotheses.hypothesis import Hypothesis
from transduce.runtime.options import Search

Array = np.ndarray


class Record(NamedTuple):
    """One step of the sentences still searched, B of them, K hypotheses each.

    rows (B,): which sentences. ends (B, K): log-probability of the end symbol after each live
    hypothesis. tokens, parents, gains (B, K'): the hypotheses that live on: their new token, which
    old one each continues, and the token's log-probability. attention (B, K, S) belongs to the old
    ones, as `ends` does.
    """

    rows: Array
    ends: Array
    tokens: Array
    parents: Array
    gains: Array
    attention: Array | None


def assemble(
    records: list[Record], chosen: Chosen, lengths: list[int], options: Search
) -> list[list[Hypothesis]]:
    """The hypotheses of every sentence; lengths: real source positions of each."""
    traces = [
        Trace(t, r.rows, np.arange(len(r.rows)), r.ends, r.tokens, r.parents, r.gains)
        for t, r in enumerate(records)
    ]
    paths = follow(traces, chosen, len(records))
    attention = _attention(records, paths, max(lengths))
    return assemble_paths(paths, chosen, attention, [0] * len(lengths), lengths, options)


def _attention(records: list[Record], paths: Paths, width: int) -> Array | None:
    """Attention along the paths, (all sentences, N, T, width); None without attention."""
    whole = np.zeros((*paths.tokens.shape, width), dtype=np.float32)
    for t, (record, slots) in enumerate(zip(records, paths.slots, strict=True)):
        if record.attention is None:
            return None
        part = record.attention[np.arange(len(record.rows))[:, None], slots]
        whole[record.rows, :, t, : part.shape[2]] = part[:, :, :width]
    return whole
