"""Decoding over a shortlist: only the words that the source may need have logits.

The output layer's product and what follows it grow with the vocabulary, and most of a vocabulary
has nothing to do with a given sentence. A lexicon learnt from the training data names a few
candidates for each source token; with the most frequent words they are a sentence's shortlist
(Jean et al. 2015, 1412.2007, section 3.2, where it is the dictionary's K' best). A batch computes
the union of its sentences' shortlists, but a sentence chooses, and is normalised, among its own
only: a batch-mate changes no answer.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from transduce.errors import FolderError
from transduce.kernels import Blocked
from transduce.kernels.plan import Lists, Plan
from transduce.model.output import OutputLayer
from transduce.model.plan import blocked_of
from transduce.model.seq2seq import Seq2Seq
from transduce.model.state import Draft, Memory, State, Step
from transduce.model.weights import read_tensors


@dataclass(frozen=True)
class Shortlist:
    """candidates: (source vocabulary, N) int64, best first, ends filled with 0; always: (A,) int64,
    the words of every shortlist, PAD, BOS, EOS and UNK among them."""

    candidates: Tensor
    always: Tensor

    @classmethod
    def load(cls, path: str | os.PathLike[str], source_size: int, target_size: int) -> Shortlist:
        """Read a shortlist file. Errors: FolderError when it does not fit the vocabularies."""
        tensors = read_tensors(path)
        if set(tensors) != {"candidates", "always"}:
            raise FolderError(f"{path}: not a shortlist; make it again with `transduce shortlist`")
        candidates, always = tensors["candidates"].long(), tensors["always"].long()
        fits = candidates.dim() == 2 and len(candidates) == source_size and always.dim() == 1
        for ids in (candidates, always):
            fits = fits and ids.numel() > 0 and int(ids.min()) >= 0 and int(ids.max()) < target_size
        if not fits:
            raise FolderError(
                f"{path}: made for other vocabularies; make it again with `transduce shortlist`"
            )
        return cls(candidates, always)

    def first(self, count: int) -> Shortlist:
        """With the `count` best candidates of each source token."""
        return replace(self, candidates=self.candidates[:, :count].contiguous())

    def to(self, device: torch.device) -> Shortlist:
        return Shortlist(self.candidates.to(device), self.always.to(device))

    def members(self, source: Tensor, lengths: Tensor, vocabulary: int) -> Tensor:
        """Which words each sentence may use: source (B, S), lengths (B,) -> (B, V) boolean."""
        real = torch.arange(source.shape[1], device=source.device) < lengths.unsqueeze(1)
        source = torch.where(real, source, source[:, :1])  # padding has no candidates
        chosen = torch.zeros(len(source), vocabulary, dtype=torch.bool, device=source.device)
        chosen.scatter_(1, self.candidates[source].flatten(1), True)
        return chosen.index_fill_(1, self.always, True)


@dataclass(frozen=True)
class ShortMemory:
    """A memory, and the batch's words (U,) with the output layer for them.

    allowed: (B, U) boolean, which words of the batch are the sentence's; None if all are its own.
    """

    memory: Memory
    words: Tensor
    allowed: Tensor | None
    product: Callable[[Tensor], Tensor]
    output: OutputLayer

    @classmethod
    def of(cls, memory: Memory, members: Tensor, output: OutputLayer) -> ShortMemory:
        """members (B, V) boolean: which words each sentence may use."""
        # In the order of their ids, so that PAD, BOS, EOS and UNK stay the first. As numbers, since
        # the maximum of those is faster to be had than `any`.
        alone = len(members) == 1
        any_ = members[0] if alone else members.view(torch.uint8).amax(dim=0)
        words = any_.nonzero().squeeze(1)
        allowed = None if alone else members.index_select(1, words)
        return cls(memory, words, allowed, output.part(words), output)

    def join(self, other: ShortMemory, width: int) -> ShortMemory:
        """The sentences of another after one's own, with the words that any of them needs."""
        memory = self.memory.join(other.memory, width)
        members = torch.cat([self._members(), other._members()])
        return ShortMemory.of(memory, members, self.output)

    def _members(self) -> Tensor:
        sentences = len(self.memory.mask)
        members = torch.zeros(
            sentences, self.output.vocabulary, dtype=torch.bool, device=self.words.device
        )
        members[:, self.words] = True if self.allowed is None else self.allowed
        return members

    def keep(self, rows: Tensor) -> ShortMemory:
        allowed = None if self.allowed is None else self.allowed[rows]
        return replace(self, memory=self.memory.keep(rows), allowed=allowed)


class Shortlisted:
    """A model that chooses among each sentence's shortlist."""

    def __init__(self, model: Seq2Seq, shortlist: Shortlist) -> None:
        self.model = model
        self.shortlist = shortlist.to(model.device)

    def encode(self, source: Tensor, lengths: Tensor) -> ShortMemory:
        members = self.shortlist.members(source, lengths, self.model.output.vocabulary)
        return ShortMemory.of(self.model.encode(source, lengths), members, self.model.output)

    def start(self, memory: ShortMemory) -> State:
        return self.model.start(memory.memory)

    def plan(self, memory: ShortMemory, state: State) -> Plan | None:
        """As `Seq2Seq.plan`."""
        if memory.allowed is not None:
            return None
        return self.model.plan(memory.memory, state, memory.product, memory.words)

    def plan_from_source(self, source: Tensor, lengths: Tensor) -> Plan | None:
        """As `Seq2Seq.plan_from_source`."""
        plan, output = self.model.plan_from_source(source, lengths), self.model.output
        if plan is None:
            return None
        members = self.shortlist.members(source, lengths, output.vocabulary).numpy()
        return plan.among(Lists.of(members, self._laid_out))

    def _laid_out(self, words: Tensor) -> Blocked:
        """The output layer's product for some words, as kernels read it."""
        blocked = blocked_of(self.model.output.part(words))
        assert blocked is not None  # as that for all words is, or there were no plan
        return blocked

    def step(self, tokens: Tensor, state: State, memory: ShortMemory) -> Step:
        features = self.model.step_features(tokens, state)
        made = Draft(memory.product(features.values), allowed=memory.allowed)
        return Step(made, features.state, features.attention, memory.words)

    def __call__(
        self, source: Tensor, lengths: Tensor, target_input: Tensor
    ) -> tuple[Tensor, Tensor | None]:
        """Given targets are scored among all words, whether a shortlist has theirs or not."""
        result: tuple[Tensor, Tensor | None] = self.model(source, lengths, target_input)
        return result
