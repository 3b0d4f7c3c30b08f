"""Decoding a stream of sources, and scoring given targets: bulk work around the search."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

import torch

from transduce.data.batches import Row, collate_source
from transduce.hypotheses.hypothesis import Hypothesis
from transduce.recipe import SearchOptions
from transduce.search.batching import evaluating, in_windows, positions
from transduce.search.ctc.choosing import search
from transduce.search.forced import Forced, force_score, force_stream
from transduce.search.interface import SearchModel

__all__ = ["Forced", "decode", "decode_batch", "force_score", "force_stream"]


def decode(
    model: SearchModel,
    sources: Iterable[Row],
    options: SearchOptions,
    *,
    device: torch.device | str = "cpu",
    window: int = 2048,
) -> Iterator[list[Hypothesis]]:
    """The n best hypotheses of each source, one list for each, in order.

    sources: token ids without BOS and EOS, or frames of speech (S, F). They are read `window` at a
    time, so memory does not grow with their number; inside a window they are sorted by length and
    decoded in batches of about `options.batch_tokens` padded positions x beam. An empty source
    gives an empty hypothesis without asking the model. Which others are decoded together changes
    no result.

    Errors: DataError if one source alone does not fit into memory.
    """

    def answer(batch: list[Row]) -> list[list[Hypothesis]]:
        return decode_batch(model, batch, options, device=device)

    budget = options.batch_tokens // options.beam
    return in_windows(sources, answer, positions, budget, window)


def decode_batch(
    model: SearchModel,
    sources: Sequence[Row],
    options: SearchOptions,
    *,
    device: torch.device | str = "cpu",
) -> list[list[Hypothesis]]:
    """The n best hypotheses of each source, all decoded together whatever their lengths."""
    full = [i for i, ids in enumerate(sources) if len(ids)]
    results = [[Hypothesis.empty()] for _ in sources]
    if full:
        source, lengths = collate_source([sources[i] for i in full])
        with evaluating(model):
            found = search(model, source.to(device), lengths.to(device), options)
        for i, hypotheses in zip(full, found, strict=True):
            results[i] = hypotheses
    return results
