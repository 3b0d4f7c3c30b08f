"""Batches padded to few shapes, so that what was recorded for one can be done again for others.

Padding says nothing: sentences that are only padding have one source position, so that attention
has something to look at, and the loss counts no target position of theirs.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from transduce.data.batches import Batch
from transduce.data.tokenizers.base import PAD

LENGTHS = 8  # lengths are padded to multiples of this
SHARE = 8  # long ones, and numbers of sentences, grow by less than this part of themselves
PARTS = 4  # the real target positions are padded to some of so many parts of all positions


class Shape(NamedTuple):
    """What batches have in common that are padded to be alike."""

    sentences: int
    source: int  # positions
    target: int
    looked_at: int  # target positions, of all sentences, that go to the output layer

    @staticmethod
    def of(batch: Batch) -> Shape:
        """The least shape that holds a batch of ids. It need not be looked at on a device."""
        sentences = rounded(batch.size, 1)
        source = rounded(batch.source.shape[1], LENGTHS)
        target = rounded(batch.target_output.shape[1], LENGTHS)
        part = sentences * target // PARTS
        return Shape(sentences, source, target, -(-batch.tokens // part) * part)

    @property
    def sizes(self) -> list[int]:
        """How many numbers each part of `Inputs` has, in their order."""
        sentences, source, target, looked_at = self
        wide = sentences * target
        return [sentences * source, wide, wide, sentences, sentences, looked_at, 1]


def rounded(number: int, least: int) -> int:
    """The next multiple of a step that is a power of two, `least` or more, and at most 1 / SHARE of
    the number: steps that grow with it make as few shapes of long inputs as of short ones.

    >>> [rounded(number, 1) for number in (3, 15, 17, 100, 150)]
    [3, 15, 18, 104, 160]
    """
    step = max(least, 1 << max(0, number.bit_length() - SHARE.bit_length()))
    return -(-number // step) * step


class Inputs:
    """A padded batch whose numbers lie side by side in one tensor, so that one copy brings them all
    to a device, into the place of those before."""

    def __init__(self, shape: Shape, numbers: Tensor) -> None:
        """numbers: (sum of shape.sizes,) int64, of which this is a view."""
        self.shape, self.numbers = shape, numbers
        source, entered, output, source_lengths, target_lengths, positions, tokens = numbers.split(
            shape.sizes
        )
        self.batch = Batch(
            source.view(shape.sentences, -1),
            source_lengths,
            entered.view(shape.sentences, -1),
            output.view(shape.sentences, -1),
            target_lengths,
            np.empty(0, dtype=np.int64),
            0,  # unknown where shapes are all that is known
        )
        self.positions = positions  # (looked_at,): the real target positions, then some of padding
        self.tokens = tokens.squeeze(0)  # by how many the loss is divided

    @staticmethod
    def of(batch: Batch, tokens: int, pin: bool = False) -> Inputs:
        """A batch, padded. batch: on the CPU; tokens: real target tokens of the whole update; pin:
        in memory from which a GPU copies without being waited for."""
        shape = Shape.of(batch)
        numbers = torch.zeros(sum(shape.sizes), dtype=torch.int64, pin_memory=pin)  # PAD
        inputs = Inputs(shape, numbers)
        padded, size = inputs.batch, batch.size
        padded.source[:size, : batch.source.shape[1]] = batch.source
        padded.target_input[:size, : batch.target_input.shape[1]] = batch.target_input
        padded.target_output[:size, : batch.target_output.shape[1]] = batch.target_output
        for lengths, known in (
            (padded.source_lengths, batch.source_lengths),
            (padded.target_lengths, batch.target_lengths),
        ):
            lengths.fill_(1)
            lengths[:size] = known
        # There are places of padding enough: no more positions are looked at than there are.
        real = padded.target_output.flatten() != PAD
        found, absent = (places.nonzero().squeeze(1) for places in (real, ~real))
        inputs.positions[: len(found)] = found
        inputs.positions[len(found) :] = absent[: shape.looked_at - len(found)]
        inputs.tokens.fill_(tokens)
        return inputs

    def on(self, device: torch.device) -> Inputs:
        """A copy on a device."""
        # Cloned where it is there already, so that to write into it never changes the original.
        return Inputs(self.shape, self.numbers.to(device, non_blocking=True, copy=True))
