"""Decoding a stream of sources, and scoring given targets: bulk work around the search."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

import torch

from transduce.data.batches import Row, collate_source
from transduce.hypotheses.hypothesis import Hypothesis
from transduce.recipe import SearchOptions
from transduce.search.batching import evaluating, fitting, in_batches, in_windows, positions
from transduce.search.beam import BEAM
from transduce.search.ctc.choosing import as_asked, by_step, explained, search
from transduce.search.forced import Forced, force_score, force_stream
from transduce.search.greedy import GREEDY
from transduce.search.interface import SearchModel
from transduce.search.refill import Refill
from transduce.search.running import Method

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
    time, so memory does not grow with their number. Inside a window they are sorted by length, and
    about `options.batch_tokens` padded positions x beam are decoded together: one batch after the
    other or, with `options.refill`, in a pool that the next ones join when enough are done. An
    empty source gives an empty hypothesis without asking the model. Which others are decoded
    together changes no result.

    Errors: DataError if one source alone does not fit into memory.
    """
    budget = options.batch_tokens // options.beam
    refilling = options.refill and by_step(model, options)

    def answer(batch: list[Row]) -> list[list[Hypothesis]]:
        return decode_batch(model, batch, options, device=device)

    def answer_window(chunk: list[Row]) -> list[list[Hypothesis]]:
        if not refilling or len(chunk) <= fitting(positions(chunk[0]), budget):
            return in_batches(chunk, answer, positions, budget)
        full = sum(len(ids) > 0 for ids in chunk)  # the empty ones are the last
        with evaluating(model):
            view = as_asked(model, options)
            queue = Refill(view, method_of(options), options, chunk[:full], budget, device)
            found = queue.run(answer)
        if options.ctc_weight:
            found = explained(found)
        return found + [[Hypothesis.empty()] for _ in chunk[full:]]

    return in_windows(sources, answer_window, positions, window)


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
            found = search(model, source.to(device), lengths, options)
        for i, hypotheses in zip(full, found, strict=True):
            results[i] = hypotheses
    return results


def method_of(options: SearchOptions) -> Method:
    """Greedy search is the beam search of one hypothesis, with less bookkeeping."""
    return GREEDY if options.beam == 1 else BEAM
