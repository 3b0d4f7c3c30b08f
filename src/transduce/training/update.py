"""One update of the weights: batches in, gradients, clipping, optimizer.

Nothing here waits for the device: whether a gradient was finite is decided, acted on and counted
there, and read at the next report.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from transduce.data.batches import Batch
from transduce.errors import TrainingError
from transduce.kernels import available
from transduce.kernels.training import norm
from transduce.model import Seq2Seq
from transduce.recipe import TrainingOptions
from transduce.search.batching import out_of_memory
from transduce.training.averaging import MovingAverage
from transduce.training.distributed import Processes
from transduce.training.graphs import CannotCaptureError, CudaCaptures, Graphs, why_not
from transduce.training.losses import LossSum, halves, real_positions, sequence_loss
from transduce.training.optimizer import build_optimizer
from transduce.training.precision import products_in
from transduce.training.shapes import Inputs

PATIENCE_WITH_NAN = 20  # updates in a row without a finite gradient before giving up
NAMED = 5  # examples of a batch that an error lists


@dataclass(frozen=True)
class Window:
    """What was summed since the last report, over the updates that were not skipped."""

    loss: float
    nll: float
    tokens: int
    norm: float
    updates: int
    skipped: int
    ctc: float  # of `nll` by CTC, where there is one
    too_short: int  # examples with too short a memory for CTC


def total_norm(gradients: Sequence[Tensor]) -> Tensor:
    """The Euclidean norm of all gradients, 0-dimensional, where they are."""
    if available() and all(x.is_cpu and x.dtype == torch.float32 for x in gradients):
        return norm(gradients)
    return torch.nn.utils.get_total_norm(gradients)


class Updater:
    """Owns what changes at an update: weights, optimizer, moving average, running sums."""

    def __init__(
        self,
        model: Seq2Seq,
        options: TrainingOptions,
        precision: str,
        name_examples: Callable[[Sequence[int]], list[str]],
        warn: Callable[[str], None],
        processes: Processes | None = None,
    ) -> None:
        self.model = model
        self.options = options
        self.device = model.device
        self.precision = precision
        self.parameters = [p for p in model.parameters() if p.requires_grad]
        self.optimizer = build_optimizer(model, options)
        self.average = MovingAverage(model, options.ema) if options.ema else None
        # loss, nll, tokens, gradient norm, updates, skipped updates, CTC's nll and the examples too
        # short for it; and updates skipped in a row
        self.sums = torch.zeros(8, dtype=torch.float64, device=self.device)
        self.streak = torch.zeros((), dtype=torch.float64, device=self.device)
        self._name_examples = name_examples
        self._warn = warn
        self._processes = processes or Processes(self.device)
        self._warned = False
        self._recent: list[Batch] = []
        self.graphs: Graphs | None = None
        if options.cuda_graphs:
            reason = why_not(model, self.device)
            if reason is None:
                captures = CudaCaptures(self.device)
                self.graphs = Graphs(self.padded_loss, self.parameters, self.device, captures)
            else:
                warn(f"training.cuda_graphs does nothing here: {reason}")

    def apply(
        self, batches: Sequence[Batch], learning_rate: float, tokens: int | None = None
    ) -> None:
        """Change the weights by the mean gradient per real target token of `batches`.

        With several processes: of the batches of all, which have `tokens` real target tokens.

        Errors: TrainingError when one example alone does not fit into memory.
        """
        if not self.model.training:  # it asks every module
            self.model.train()
        self._recent = list(batches)
        if tokens is None:
            tokens = sum(batch.tokens for batch in batches)
        sums = self._processes.add_up(self.parameters, *self._gradients(batches, tokens).unbind())
        gradients = [p.grad for p in self.parameters if p.grad is not None]
        norm = total_norm(gradients)
        bad = ~(torch.isfinite(norm) & torch.isfinite(sums[0]))
        for group in self.optimizer.param_groups:
            group["lr"] = learning_rate
        # The fused kernels leave weights and moments alone where this is not zero.
        self.optimizer.found_inf = bad.float()  # type: ignore[attr-defined]
        # They divide gradients by this on their way, which clips them without a pass of its own.
        self.optimizer.grad_scale = self._excess(norm)  # type: ignore[attr-defined]
        self.optimizer.step()
        if self.average is not None:
            self.average.update()
        self._count(sums, norm, tokens, bad)

    def _excess(self, norm: Tensor) -> Tensor | None:
        """How many times too long the gradient is, at least 1; None if it may be of any length."""
        if not self.options.clip_norm:
            return None
        return (norm / self.options.clip_norm).clamp(min=1).float()

    def _count(self, sums: Sequence[Tensor], norm: Tensor, tokens: int, bad: Tensor) -> None:
        good = (~bad).double()
        loss, nll, ctc, too_short = (torch.where(bad, 0.0, one.double()) for one in sums)
        norm = torch.where(bad, 0.0, norm.double())
        row = torch.stack([loss, nll, good * tokens, norm, good, bad.double(), ctc, too_short])
        self.sums += row
        self.streak = (self.streak + 1) * bad

    # ------------------------------------------------------------------------------ gradients

    def _gradients(self, batches: Sequence[Batch], tokens: int) -> Tensor:
        """Fill the gradients; a batch that does not fit into memory goes in two halves.

        Returns the sums of `LossSum.numbers`.
        """
        pieces = list(batches)
        while True:
            self.optimizer.zero_grad(set_to_none=self.graphs is None)
            sums = torch.zeros(4, device=self.device)
            failed = None
            for number, piece in enumerate(pieces):
                try:
                    of_piece = self._backward(piece, tokens)
                except (RuntimeError, MemoryError) as error:
                    if not out_of_memory(error):
                        raise
                    failed = number
                    break
                sums = sums + of_piece
            if failed is None:
                return sums
            # Here, outside of the handler, the traceback no longer holds the failed tensors. The
            # backward pass may have stopped half-way, so all the update's gradients start anew.
            if self.graphs is not None and self.graphs.begun:
                self._without_graphs("they and a batch did not fit into memory together")
            else:
                pieces[failed : failed + 1] = self._halved(pieces[failed])

    def _backward(self, batch: Batch, tokens: int) -> Tensor:
        refused = ""
        if self.graphs is not None:
            try:
                return self.graphs(batch, tokens)
            except CannotCaptureError as error:
                refused = str(error)
            self._without_graphs(f"a pass could not be recorded ({refused})")
        positions = real_positions(batch.target_output)
        if self.device.type == "cuda":  # from other memory the copy would wait for the device
            positions = positions.pin_memory()
        positions = positions.to(self.device, non_blocking=True)
        sums = self._loss(batch.to(self.device), positions)
        (sums.loss / tokens).backward()
        return sums.numbers()

    def padded_loss(self, inputs: Inputs) -> LossSum:
        """The loss of a batch that is padded to a shape, where the padding counts nothing."""
        return self._loss(inputs.batch, inputs.positions, padded=True)

    def _loss(self, batch: Batch, positions: Tensor, padded: bool = False) -> LossSum:
        # A graph must not use weights that were cast to bf16 before it was recorded.
        with products_in(self.precision, self.device, cache=not padded):
            return sequence_loss(
                self.model,
                batch,
                self.options.label_smoothing,
                positions,
                self.options.consistency,
                self.options.coverage,
                self.options.ctc_consistency,
                padded,
                self.options.output_gradient == "sampled",
            )

    def _without_graphs(self, reason: str) -> None:
        """Go on without graphs, whose memory becomes free."""
        self.graphs = None
        if self.device.type == "cuda":
            torch.cuda.empty_cache()
        self._warn(f"training.cuda_graphs is off from here on: {reason}")

    def _halved(self, batch: Batch) -> list[Batch]:
        self.optimizer.zero_grad(set_to_none=True)
        if self.device.type == "cuda":
            torch.cuda.empty_cache()
        if batch.size == 1:
            raise TrainingError(
                f"out of memory on a single example: {self._examples(batch)}; "
                "lower data.max_source_length and data.max_target_length, or the model's sizes"
            )
        if not self._warned:
            self._warned = True
            self._warn(
                f"out of memory on a batch of {batch.size} sentences: it is done in halves, and so "
                "will others (said once). A smaller training.batch_tokens avoids it"
            )
        return halves(batch)

    # ---------------------------------------------------------------------------- at a report

    def check(self) -> None:
        """Errors: TrainingError when the last updates were all skipped."""
        if self.streak.item() >= PATIENCE_WITH_NAN:
            examples = "; ".join(self._examples(batch) for batch in self._recent)
            raise TrainingError(
                f"loss or gradient was not finite in {int(self.streak.item())} updates in a row, "
                f"last for the batch of {examples}. The last checkpoint is from before: lower "
                "training.learning_rate or training.clip_norm, or look at these examples"
            )

    def take_window(self) -> Window:
        """The sums since the last call."""
        loss, nll, tokens, norm, updates, skipped, ctc, too_short = self.sums.tolist()
        self.sums.zero_()
        counts = int(updates), int(skipped)
        return Window(loss, nll, int(tokens), norm, *counts, ctc, int(too_short))

    def _examples(self, batch: Batch) -> str:
        named = self._name_examples([int(index) for index in batch.indices[:NAMED]])
        more = batch.size - len(named)
        return ", ".join(named) + (f" and {more} more" if more > 0 else "")
