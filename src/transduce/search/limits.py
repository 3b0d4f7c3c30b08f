"""When a sentence is done, and when done sentences leave the batch."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from transduce.hypotheses.scoring import max_tokens, min_tokens
from transduce.recipe import SearchOptions

CHECK_EVERY = 8  # steps between looks at an accelerator's results, each of which waits for it


@dataclass(frozen=True)
class Limits:
    """Fewest and most target tokens of each sentence, EOS not counted.

    min, max: (B,) int64. sources: real memory positions of each sentence, a text's EOS counted.
    """

    min: Tensor
    max: Tensor
    sources: list[int]
    largest_min: int
    largest_max: int
    closing: frozenset[int]  # the values of max: only at these steps is a sentence cut off

    @classmethod
    def of(cls, lengths: Tensor, options: SearchOptions) -> Limits:
        """lengths: (B,) real memory positions, a text's EOS counted."""
        sources: list[int] = lengths.tolist()
        fewest = [min_tokens(length - 1, options) for length in sources]
        most = [max_tokens(length - 1, options) for length in sources]
        return cls(
            min=torch.tensor(fewest, device=lengths.device),
            max=torch.tensor(most, device=lengths.device),
            sources=sources,
            largest_min=max(fewest),
            largest_max=max(most),
            closing=frozenset(most),
        )


def memory_lengths(model: object, lengths: Tensor) -> Tensor:
    """Real memory positions (B,) of sources of these lengths; they differ where a model subsamples.

    A model that does not say has one for each source position.
    """
    counted = getattr(model, "memory_lengths", None)
    return lengths if counted is None else counted(lengths)


def remaining(done: Tensor, t: int) -> Tensor | None:
    """The rows that go on after step t, or None to go on with all of them.

    done: (B,) boolean -> (B',) int64, empty when all are done. What is returned changes how much
    work is done, never a result: a sentence that is done takes no further part in anything.
    """
    if done.device.type != "cpu" and t % CHECK_EVERY != CHECK_EVERY - 1:
        return None
    count = int(done.sum())
    # Dropping a sentence copies the memory of the others, so a few of them wait for company.
    if count == 0 or (count < len(done) and count * CHECK_EVERY < len(done)):
        return None
    return (~done).nonzero().squeeze(1)
