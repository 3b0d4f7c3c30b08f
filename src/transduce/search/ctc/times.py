"""When each token of a target was heard: what CTC says of targets that some search found."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import torch

from transduce.data.batches import Row, collate_source
from transduce.hypotheses.hypothesis import Hypothesis
from transduce.search.batching import evaluating, in_batches, in_windows
from transduce.search.ctc.align import align
from transduce.search.ctc.joint import CtcModel
from transduce.search.ctc.prefix import Frames
from transduce.search.limits import memory_lengths

Found = tuple[Row, list[Hypothesis]]  # a source, and the hypotheses of it


def timed(
    model: CtcModel,
    sources: Sequence[Row],
    found: Sequence[list[Hypothesis]],
    *,
    device: torch.device | str = "cpu",
    batch_tokens: int = 60_000,
) -> list[list[Hypothesis]]:
    """The same hypotheses of each source, with `spans`: the best path of CTC for them (Viterbi).

    They stay as they are where a target is longer than CTC can write it. The sources are encoded
    again, at most `batch_tokens` padded positions at a time.
    """

    def answer(batch: list[Found]) -> list[list[Hypothesis]]:
        with evaluating(model):
            return _time_batch(model, batch, torch.device(device))

    def width(item: Found) -> int:
        return len(item[0])

    def answer_window(items: list[Found]) -> list[list[Hypothesis]]:
        return in_batches(items, answer, width, batch_tokens)

    pairs = list(zip(sources, found, strict=True))
    return list(in_windows(pairs, answer_window, width, max(1, len(pairs))))


@torch.inference_mode()
def _time_batch(
    model: CtcModel, batch: list[Found], device: torch.device
) -> list[list[Hypothesis]]:
    rows = [row for row, (_, found) in enumerate(batch) for h in found if h.ids]
    if not rows:
        return [found for _, found in batch]
    source, lengths = collate_source([source for source, _ in batch])
    source = source.to(device)
    frames = Frames.of(
        model.ctc_log_probs(model.encode(source, lengths)), memory_lengths(model, lengths)
    )
    targets = [h.ids for _, found in batch for h in found if h.ids]
    paths = iter(align(frames, rows, targets))
    widths: list[int] = frames.lengths.tolist()

    def with_spans(hypothesis: Hypothesis, width: int) -> Hypothesis:
        path = next(paths) if hypothesis.ids else None
        if path is None:
            return hypothesis
        return replace(hypothesis, spans=np.stack([path.starts, path.ends], axis=1) / width)

    return [
        [with_spans(hypothesis, width) for hypothesis in found]
        for (_, found), width in zip(batch, widths, strict=True)
    ]
