"""What tests of models share."""

from __future__ import annotations

import torch
from torch import Tensor

from transduce.model import Seq2Seq


def assert_steps_say(
    log_probs: Tensor, model: Seq2Seq, source: Tensor, lengths: Tensor, entered: Tensor
) -> None:
    """Decoding `entered` (B, T) one position at a time says log_probs (B, T, V)."""
    memory = model.encode(source, lengths)
    state = model.start(memory)
    for position in range(entered.shape[1]):
        step = model.step(entered[:, position : position + 1], state, memory)
        state = step.state
        torch.testing.assert_close(step.log_probs[:, 0], log_probs[:, position])
