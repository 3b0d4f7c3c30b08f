"""The two graphs of an exported model, run by onnxruntime.

What the graphs hand on is known by the names of their inputs and outputs alone, so the runtime asks
no architecture: a step's outputs `next_x` are the next step's inputs `x` (the state); every other
input that the encoder makes is memory.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from transduce.errors import FolderError, UsageError

_NEXT = "next_"
_SILENT = 3  # errors only
Array = np.ndarray


@dataclass(frozen=True)
class Memory:
    """What the encoder leaves to attend to: tensors whose first axis is B, the sentences."""

    tensors: dict[str, Array]

    def keep(self, rows: Array) -> Memory:
        """Only the sentences `rows` (B',)."""
        return Memory({name: tensor[rows] for name, tensor in self.tensors.items()})


@dataclass(frozen=True)
class State:
    """What the decoder carries from step to step: tensors (B, K, …)."""

    tensors: dict[str, Array]

    def select(self, hypotheses: Array) -> State:
        """New hypothesis k of sentence b continues old `hypotheses[b, k]`; (B, K') int64."""
        rows = np.arange(len(hypotheses))[:, None]
        return State({name: tensor[rows, hypotheses] for name, tensor in self.tensors.items()})

    def keep(self, rows: Array) -> State:
        """Only the sentences `rows` (B',)."""
        return State({name: tensor[rows] for name, tensor in self.tensors.items()})


@dataclass(frozen=True)
class Step:
    """One target position.

    best, words: (B, K, C) the C highest log-probabilities of each hypothesis and their ids, best
    first; end: (B, K) the end symbol's; attention: (B, K, S), or None without attention.
    """

    best: Array
    words: Array
    end: Array
    state: State
    attention: Array | None


class Network:
    """An exported model's graphs. `threads` is of one operation; None: as many as cores."""

    def __init__(
        self, encoder: Path | bytes, decoder: Path | bytes, threads: int | None = None
    ) -> None:
        self._encoder = _session(encoder, threads)
        self._decoder = _session(decoder, threads)
        inputs = {entry.name for entry in self._decoder.get_inputs()}
        outputs = {entry.name: entry.shape for entry in self._decoder.get_outputs()}
        made = [entry.name for entry in self._encoder.get_outputs()]
        states = [name.removeprefix(_NEXT) for name in outputs if name.startswith(_NEXT)]
        needed = {"tokens", "candidates", *made}
        if inputs != needed or not {"log_probs", "best", "words", "end"} <= outputs.keys():
            raise FolderError(
                "encoder.onnx and decoder.onnx do not belong together: the step takes "
                f"{', '.join(sorted(inputs))} and would get {', '.join(sorted(needed))}"
            )
        self.vocabulary = int(outputs["log_probs"][2])
        self._made, self._states = made, states
        self._answers = ["best", "words", "end", *(_NEXT + name for name in states)]
        self._attends = "attention" in outputs
        if self._attends:
            self._answers.append("attention")

    def encode(self, source: Array, lengths: Array) -> tuple[Memory, State]:
        """source (B, S) int64 padded with 0, lengths (B,) int64 with the end symbol.

        -> the memory, and the state before the first target position (K = 1).
        """
        found = _run(self._encoder, self._made, {"source": source, "lengths": lengths})
        memory = {name: tensor for name, tensor in found.items() if name not in self._states}
        return Memory(memory), State({name: found[name] for name in self._states})

    def step(self, tokens: Array, state: State, memory: Memory, count: int) -> Step:
        """Extend K hypotheses by one position, and name `count` words for each.

        tokens (B, K) int64, the last of each hypothesis. There are fewer words than `count` where
        the vocabulary has fewer.
        """
        found = self._ask(self._answers, tokens, state, memory, count)
        return Step(
            best=found["best"],
            words=found["words"],
            end=found["end"],
            state=self._next(found),
            attention=found.get("attention"),
        )

    def log_probs(
        self, tokens: Array, state: State, memory: Memory
    ) -> tuple[Array, State, Array | None]:
        """The same, with the log-probabilities of all words (B, K, V), state and attention."""
        found = self._ask(["log_probs", *self._answers[3:]], tokens, state, memory, 1)
        return found["log_probs"], self._next(found), found.get("attention")

    def _ask(
        self, names: list[str], tokens: Array, state: State, memory: Memory, count: int
    ) -> dict[str, Array]:
        candidates = np.array([min(count, self.vocabulary)])
        inputs = {"tokens": tokens, "candidates": candidates, **memory.tensors, **state.tensors}
        return _run(self._decoder, names, inputs)

    def _next(self, found: dict[str, Array]) -> State:
        return State({name: found[_NEXT + name] for name in self._states})


def _session(model: Path | bytes, threads: int | None) -> Any:
    """An onnxruntime session on the CPU. Errors: UsageError without onnxruntime, FolderError."""
    try:
        import onnxruntime
    except ImportError:
        raise UsageError(
            "exported models need onnxruntime: pip install 'transduce[runtime]'"
        ) from None
    onnxruntime.set_default_logger_severity(_SILENT)
    options = onnxruntime.SessionOptions()
    options.log_severity_level = _SILENT
    # Threads that wait for work by spinning take the processor from the search between two steps,
    # and from everything else on the machine.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    if threads is not None:
        options.intra_op_num_threads = threads
    given = model if isinstance(model, bytes) else os.fspath(model)
    try:
        return onnxruntime.InferenceSession(given, options, providers=["CPUExecutionProvider"])
    except Exception as error:  # onnxruntime's exceptions have no base of their own
        name = "a graph" if isinstance(model, bytes) else str(model)
        raise FolderError(f"{name}: onnxruntime cannot load it: {_first_line(error)}") from error


def _run(session: Any, names: Sequence[str], inputs: dict[str, Array]) -> dict[str, Array]:
    """The outputs so named. Errors: RuntimeError, as torch would raise (memory, wrong shapes)."""
    run: Callable[..., list[Array]] = session.run
    try:
        return dict(zip(names, run(list(names), inputs), strict=True))
    except Exception as error:
        raise RuntimeError(_first_line(error)) from error


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]
