"""Which weights are best: what the model folder holds, and what is kept to be averaged."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from transduce.data.store import Store
from transduce.disk import atomic_bytes
from transduce.evaluation.metrics import better
from transduce.folder import LAST, WEIGHTS, publish
from transduce.model import Seq2Seq
from transduce.model.weights import model_tensors, tensor_bytes
from transduce.recipe import Recipe
from transduce.training.averaging import average_weights
from transduce.training.distributed import Processes
from transduce.training.interruption import StopFlag
from transduce.training.setup import Material
from transduce.training.update import Updater
from transduce.training.validation import Validated, deciding_metric, validate


@dataclass
class Standing:
    """What validations have found so far; JSON values only."""

    best: float | None = None  # value of the best validation
    stale: int = 0  # scheduled validations since then
    published: float | None = None  # value of the weights in the folder
    scores: dict[str, float] = field(default_factory=dict)  # of the weights in the folder
    kept: list[dict[str, Any]] = field(default_factory=list)  # best checkpoints, best first
    validated_at: int = -1  # update
    averaged_at: int = -1  # update


class Selection:
    """Judges weights on the valid set and publishes the best of them.

    All processes judge together and so know the same; the first one writes.
    """

    def __init__(
        self,
        recipe: Recipe,
        folder: Path,
        material: Material,
        updater: Updater,
        flag: StopFlag,
        status: Callable[[str], None],
        processes: Processes,
    ) -> None:
        self.recipe, self.folder, self.material = recipe, folder, material
        self.updater, self.model = updater, updater.model
        self.flag, self.status, self.processes = flag, status, processes
        self.metric = deciding_metric(recipe)
        self.standing = Standing()

    def state(self) -> dict[str, Any]:
        return asdict(self.standing)

    def restore(self, state: dict[str, Any]) -> None:
        self.standing = Standing(**state)

    def validation(self, update: int, epoch: float, scheduled: bool) -> dict[str, Any]:
        """Judge the weights as they are, keep and publish them if they are good.

        Returns the row for metrics.jsonl; its `best` says whether they are the best so far. A
        validation that is not scheduled (at the end) does not count for patience.
        """
        start = time.monotonic()
        found = self._judge()
        standing, value = self.standing, found.value(self.metric)
        best = standing.best is None or better(self.metric, value, standing.best)
        if best:
            standing.best = value
        if scheduled:
            standing.stale = 0 if best else standing.stale + 1
        weights = self._weights()
        self._keep(weights, value, update)
        if standing.published is None or better(self.metric, value, standing.published):
            self._publish(weights, found, update=update, epoch=round(epoch, 4))
        standing.validated_at = update
        return _row(found, update, epoch, best, time.monotonic() - start)

    def average(self, update: int, epoch: float) -> dict[str, Any]:
        """Average the kept weights; use the average unless it validates worse than the best."""
        start = time.monotonic()
        kept = self.standing.kept
        mean = average_weights([self.folder / LAST / one["file"] for one in kept])
        found = self._judge(mean)
        value, published = found.value(self.metric), self.standing.published
        used = published is None or not better(self.metric, published, than=value)
        updates = [one["update"] for one in kept]
        if used:
            self._publish(mean, found, update=update, epoch=round(epoch, 4), averaged=updates)
        self.standing.averaged_at = update
        return _row(found, update, epoch, used, time.monotonic() - start) | {"averaged": updates}

    def _judge(self, weights: dict[str, Tensor] | None = None) -> Validated:
        """Validate `weights`, or those that would be used; a signal ends it, harmlessly."""
        self.status("validating")
        if weights is None:
            weights = self.updater.average.tensors if self.updater.average else {}
        with lending(self.model, weights):
            return validate(
                self.model,
                self.material.valid,
                self.recipe,
                self.material.target,
                lambda done, of: self.status(f"validating {done}/{of}"),
                self.processes,
                self.flag,
            )

    def _weights(self) -> dict[str, Tensor]:
        """The weights that would be used: the moving average if there is one."""
        tensors = model_tensors(self.model)
        return tensors | self.updater.average.tensors if self.updater.average else tensors

    def _keep(self, weights: dict[str, Tensor], value: float, update: int) -> None:
        """Keep weights for the average if they are among the best so many."""
        count, kept = self.recipe.training.average, self.standing.kept
        rank = sum(not better(self.metric, value, than=one["value"]) for one in kept)
        if rank < count:
            name = f"best-{update:08d}.safetensors"
            if self.processes.first:
                atomic_bytes(self.folder / LAST / name, tensor_bytes(weights))
            kept.insert(rank, {"file": name, "update": update, "value": value})
            del kept[count:]

    def _publish(self, weights: dict[str, Tensor], found: Validated, **facts: Any) -> None:
        """Make these the weights of the model folder."""
        self.standing.published = found.value(self.metric)
        self.standing.scores = found.scores | {"loss": found.loss}
        if not self.processes.first:
            return
        trained = facts | {"metric": self.metric, "valid": self.standing.scores}
        about = describe(self.recipe, self.model, self.material.store, trained)
        publish(self.folder, {WEIGHTS: tensor_bytes(weights)}, **about)


def describe(
    recipe: Recipe, model: Seq2Seq, store: Store, trained: dict[str, Any]
) -> dict[str, Any]:
    """What the manifest says beside the list of files."""
    return {
        "task": recipe.task,
        "source_language": recipe.source.language,
        "target_language": recipe.target.language,
        "extra": {
            "parameters": sum(p.numel() for p in model.parameters()),
            "data": {
                "kept": len(store),
                "dropped": store.dropped(),
                "truncated": store.truncated(),
            },
            "trained": trained,
        },
    }


@contextmanager
def lending(model: Seq2Seq, weights: dict[str, Tensor]) -> Iterator[None]:
    """Inside the block the model has other weights; afterwards its own, bit by bit."""
    own = {name: tensor.clone() for name, tensor in model_tensors(model).items()}
    try:
        _fill(model, weights)
        yield
    finally:
        _fill(model, own)


@torch.no_grad()
def _fill(model: Seq2Seq, tensors: dict[str, Tensor]) -> None:
    for name, tensor in model_tensors(model).items():
        if name in tensors:
            tensor.copy_(tensors[name])


def _row(found: Validated, update: int, epoch: float, best: bool, seconds: float) -> dict[str, Any]:
    return {
        "kind": "validation",
        "update": update,
        "epoch": round(epoch, 4),
        "loss": found.loss,
        "perplexity": found.perplexity,
        **({} if found.ctc is None else {"ctc": found.ctc}),
        "scores": found.scores,
        "best": best,
        "seconds": round(seconds, 2),
        "samples": found.samples,
    }
