"""The models: an encoder, a memory, and a decoder that answers queries over it."""

from transduce.model.build import build_model
from transduce.model.seq2seq import Seq2Seq
from transduce.model.state import Features, Memory, State, Step

__all__ = ["Features", "Memory", "Seq2Seq", "State", "Step", "build_model"]
