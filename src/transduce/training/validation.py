"""Validation: the loss of the valid set under teacher forcing, and its scores after decoding."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import islice
from typing import Any

import torch

from transduce.data.batches import Batch, collate
from transduce.data.copying import target_text
from transduce.data.grouping import groups
from transduce.data.text import TextSide
from transduce.evaluation.metrics import compute
from transduce.model import Seq2Seq
from transduce.recipe import METRICS, Recipe
from transduce.search.batching import evaluating
from transduce.search.decode import decode
from transduce.training.distributed import Processes
from transduce.training.held_out import ValidationSet, load_validation_set
from transduce.training.interruption import StopFlag
from transduce.training.losses import perplexity, sequence_loss

__all__ = ["Validated", "ValidationSet", "load_validation_set", "validate"]

SLOW = ("ter",)  # computed in validation only when it decides


@dataclass(frozen=True)
class Validated:
    """One validation: mean loss in nats per target token, and the scores by metric."""

    loss: float  # of the decoder, or of CTC where there is no decoder
    scores: dict[str, float]
    samples: list[str]  # the first outputs
    ctc: float | None = None  # mean loss of CTC where that is trained too

    @property
    def perplexity(self) -> float:
        return perplexity(self.loss)

    def value(self, metric: str) -> float:
        return self.loss if metric == "loss" else self.scores[metric]


def deciding_metric(recipe: Recipe) -> str:
    """The metric that says which weights are best."""
    metrics = recipe.evaluation.metrics or METRICS[recipe.task] or ("loss",)
    return recipe.training.metric or metrics[0]


def metrics_to_compute(recipe: Recipe) -> list[str]:
    """The deciding metric first, then the recipe's others that are quick."""
    first = deciding_metric(recipe)
    others = [m for m in recipe.evaluation.metrics or METRICS[recipe.task] if m not in SLOW]
    return [m for m in dict.fromkeys([first, *others]) if m != "loss"]


@contextmanager
def apart_from_training(model: Seq2Seq) -> Iterator[None]:
    """Inside the block: no dropout, no gradients, and the training's random numbers untouched."""
    devices = [model.device] if model.device.type == "cuda" else []
    with torch.random.fork_rng(devices), torch.inference_mode(), evaluating(model):
        yield


def validate(
    model: Seq2Seq,
    valid: ValidationSet,
    recipe: Recipe,
    target: TextSide,
    progress: Callable[[int, int], None] | None = None,
    processes: Processes | None = None,
    flag: StopFlag | None = None,
) -> Validated:
    """Loss and scores of the model as it is, the same in all of several processes.

    Each of them does a share of the work; `progress` is told its outputs done and in all.

    Errors: Interrupted when a signal came meanwhile, if there is a flag for it.
    """
    processes = processes or Processes(model.device)

    def share() -> dict[str, Any]:
        with apart_from_training(model):
            sums = nll_sum(model, valid, recipe.training.batch_tokens, processes)
            inputs = valid.inputs[processes.rank :: processes.count]
            outputs: list[str] = []
            found_all = decode(
                model, inputs, recipe.search, device=model.device, window=valid.window
            )
            of_share = range(processes.rank, len(valid.inputs), processes.count)
            for place, found in zip(of_share, found_all, strict=True):
                read = None if valid.tokens is None else valid.tokens[place]
                outputs.append(target_text(target, found[0].ids, read or ()))
                if progress is not None:
                    progress(len(outputs), len(inputs))
        return {"sums": sums, "outputs": outputs}

    shares = processes.gather(share, flag or StopFlag())
    nll, ctc, tokens = (
        sum(column) for column in zip(*(part["sums"] for part in shares), strict=True)
    )
    outputs = [""] * len(valid.inputs)
    for rank, part in enumerate(shares):
        outputs[rank :: processes.count] = part["outputs"]
    scores = {}
    if processes.first:
        found = compute(
            metrics_to_compute(recipe),
            outputs,
            valid.references,
            source_language=recipe.source.language,
            target_language=recipe.target.language,
            bootstrap=0,
        )
        scores = {score.name: score.value for score in found}
    of_ctc = ctc / tokens if model.ctc_weight else None
    return Validated(nll / tokens, processes.tell(scores), outputs[:3], of_ctc)


def mean_loss(model: Seq2Seq, valid: ValidationSet, batch_tokens: int) -> float:
    """Negative log-likelihood in nats per target token, without smoothing."""
    nll, _, tokens = nll_sum(model, valid, batch_tokens, Processes(model.device))
    return nll / tokens


def nll_sum(
    model: Seq2Seq, valid: ValidationSet, batch_tokens: int, processes: Processes
) -> tuple[float, float, int]:
    """Of this process's share of the pairs: negative log-likelihood in nats, that of CTC (0 where
    there is none), and target tokens."""
    total = torch.zeros(2, dtype=torch.float64, device=model.device)
    tokens = 0
    for batch in islice(_batches(valid, batch_tokens), processes.rank, None, processes.count):
        sums = sequence_loss(model, batch.to(model.device), 0.0)
        total += torch.stack([sums.nll, sums.ctc])
        tokens += sums.tokens
    nll, ctc = total.tolist()
    return nll, ctc, tokens


def _batches(valid: ValidationSet, batch_tokens: int) -> Iterator[Batch]:
    """Batches of similar length, filled by the padded size."""
    for group in groups(*valid.lengths(), batch_tokens, frames=valid.speech):
        rows = group.tolist()
        yield collate(
            [valid.source_ids[row] for row in rows], [valid.target_ids[row] for row in rows], rows
        )
