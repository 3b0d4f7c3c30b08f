"""What search asks of a model: three calls, and three on what they return.

`model.Seq2Seq` and `search.Ensemble` both have this shape; search never asks which one it drives.
"""

from __future__ import annotations

from typing import Any, Protocol

from torch import Tensor

from transduce.model.state import Given


def has_decoder(model: object) -> bool:
    """Whether a decoder has a say: neither CTC alone nor a transducer. Models that do not tell have
    one."""
    return getattr(model, "decoder", model) is not None


def columns_of(model: object, source: Tensor, target: Tensor) -> Tensor:
    """Which column of a model's log-probabilities each target (B, T) is in: itself, unless the
    model says otherwise."""
    columns = getattr(model, "columns", None)
    return target if columns is None else columns(source, target)


def given_by(model: SearchModel, source: Tensor, lengths: Tensor, target_input: Tensor) -> Given:
    """What a model says of given targets; what is copied, if it can tell."""
    given = getattr(model, "given", None)
    result: Given
    if given is None:
        result = Given(*model(source, lengths, target_input))
    else:
        result = given(source, lengths, target_input)
    return result


class SearchMemory(Protocol):
    """What `encode` leaves, for B sentences."""

    def keep(self, rows: Tensor) -> SearchMemory:
        """Only the sentences `rows` (B',) int64."""
        ...

    def join(self, other: Any, width: int) -> SearchMemory:
        """The sentences of another after one's own, for sources of at most `width` positions."""
        ...


class SearchState(Protocol):
    """What the decoder carries for (B, K) hypotheses."""

    def select(self, hypotheses: Tensor) -> SearchState:
        """New hypothesis k of sentence b continues old `hypotheses[b, k]`; (B, K') int64."""
        ...

    def keep(self, rows: Tensor) -> SearchState:
        """Only the sentences `rows` (B',) int64."""
        ...

    def join(self, other: Any, width: int) -> SearchState:
        """The sentences of another, of equal K, after one's own; `width` as for the memory."""
        ...


class SearchStep(Protocol):
    """One target position: logits (B, K, V), state, attention (B, K, S) or None.

    logits are log-probabilities but for a constant in each row; log_probs (B, K, V) are normalised
    and float32, which searching for the best does without. words (V,): the tokens that the columns
    stand for, or None where these are all tokens in order.
    """

    @property
    def logits(self) -> Tensor: ...
    @property
    def log_probs(self) -> Tensor: ...
    @property
    def words(self) -> Tensor | None: ...
    @property
    def state(self) -> Any: ...
    @property
    def attention(self) -> Tensor | None: ...


class SearchModel(Protocol):
    """A model, or several as one, that can be searched and can score given targets."""

    def encode(self, source: Tensor, lengths: Tensor) -> Any:
        """source (B, S) int64 padded, lengths (B,) -> a SearchMemory."""
        ...

    def start(self, memory: Any) -> Any:
        """The SearchState before the first target position, K = 1."""
        ...

    def step(self, tokens: Tensor, state: Any, memory: Any) -> SearchStep:
        """tokens (B, K) int64, the last of each hypothesis; K is that of the state."""
        ...

    def __call__(
        self, source: Tensor, lengths: Tensor, target_input: Tensor
    ) -> tuple[Tensor, Tensor | None]:
        """Teacher-forced: target_input (B, T) -> log_probs (B, T, V), attention (B, T, S)."""
        ...
