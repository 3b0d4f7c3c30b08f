"""What cuDNN asks of a recurrent layer, on a GPU; elsewhere nothing is different."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import PackedSequence

First = Tensor | tuple[Tensor, Tensor] | None


def run_whole(rnn: nn.RNNBase, x: Tensor | PackedSequence, first: First = None) -> Any:
    """`rnn(x, first)`, as whole sequences go through a layer of torch.

    On a GPU the first state is made contiguous, which cuDNN insists on, and under autocast the
    layer stays in the type of its weights: fp32 (that is, TF32) in training. Left to itself
    autocast would give cuDNN fp16 whatever the type it was told, and the gradients of a mean over
    thousands of tokens vanish in fp16. So the weights also stay where they are, in the one block of
    memory that cuDNN reads.
    """
    weight = rnn.get_parameter("weight_ih_l0")
    device, dtype = weight.device.type, weight.dtype  # the inference form's may be bf16
    if device != "cuda":
        return rnn(x, first)
    if isinstance(first, Tensor):
        first = first.to(dtype).contiguous()
    elif first is not None:
        first = first[0].to(dtype).contiguous(), first[1].to(dtype).contiguous()
    with torch.autocast(device, enabled=False):
        return rnn(x.to(dtype), first)
