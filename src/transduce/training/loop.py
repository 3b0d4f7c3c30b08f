"""The training loop: from a recipe to a model folder, and on from wherever it was stopped.

with the folder locked: material (tokenizers, corpora), model, last checkpoint if there is one
until the end:          take batches, update; report, validate, save a checkpoint when due
at the end:             validate, average the best weights if asked, draw the curves

Several processes go through the same loop in step; what they must agree on, they ask `distributed`.
"""

from __future__ import annotations

import math
import time
from contextlib import ExitStack
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from rich.console import Console

from transduce.data.batches import BatchStream
from transduce.disk import lock
from transduce.errors import UsageError
from transduce.folder import FIGURES, remove_temporary
from transduce.model.device import bound_kernel_caches, keep_freed_memory
from transduce.recipe import Recipe
from transduce.training.checkpoint import load_state, restore, save_last
from transduce.training.distributed import Processes, joined
from transduce.training.interruption import Interrupted, StopFlag, signals_noted
from transduce.training.losses import perplexity
from transduce.training.precision import settle_precision, tensor_cores
from transduce.training.progress import Counters, Place, Result, reason_to_stop, share_done
from transduce.training.report import Reporter, gpu_facts, memory_mib, read_metrics
from transduce.training.schedules import Schedule
from transduce.training.selection import Selection
from transduce.training.setup import (
    Material,
    build,
    check_free,
    check_same_recipe,
    load_material,
    start_from,
    write_recipe,
)
from transduce.training.update import Updater, Window


class Trainer:
    """One training in one folder."""

    def __init__(
        self,
        recipe: Recipe,
        folder: Path,
        material: Material,
        updater: Updater,
        stream: BatchStream,
        reporter: Reporter,
        flag: StopFlag,
        processes: Processes,
    ) -> None:
        self.options, self.folder, self.material = recipe.training, folder, material
        self.updater, self.stream, self.reporter = updater, stream, reporter
        self.flag, self.processes = flag, processes
        self.schedule = Schedule(self.options)
        status = reporter.status
        self.selection = Selection(recipe, folder, material, updater, flag, status, processes)
        self.counters = Counters(next_validation=self.options.validate_every)
        self.started = time.monotonic()
        self.now = self.saved = 0.0  # seconds of training, as agreed on
        self.done_before = 0.0  # the share that earlier parts have done
        self.reported = (0, 0.0)  # tokens, and seconds of updating, at the last report
        self.rate = 0.0

    # ------------------------------------------------------------------------------- the loop

    def run(self) -> Result:
        """Train until the recipe says stop.

        Errors: Interrupted after SIGINT or SIGTERM, once everything is saved; TrainingError when
        the training diverged; FolderError when the disk is full.
        """
        try:
            while True:
                self.agree()
                # First, because a signal may have broken off the validation that was due.
                if self.stream.epoch >= self.counters.next_validation:
                    self.validation(scheduled=True)
                    continue
                reason = self.reason_to_stop()
                if reason is not None:
                    return self.finish(reason)
                self.update()
                if self.counters.update % self.options.report_every == 0:
                    self.report()
                if self.now - self.saved >= 60 * self.options.checkpoint_minutes:
                    self.save()
        except Interrupted as interrupted:
            if not self.flag.at_once:
                self.save()
            raise Interrupted(
                f"stopped at update {self.counters.update:,}; the same command goes on from the "
                f"checkpoint in {self.folder}",
                interrupted.signal_number,
            ) from None

    def agree(self) -> None:
        """One clock for all processes, and a signal to one is a signal to all.

        Errors: Interrupted when there was one.
        """
        number = self.flag.signal_number or 0
        number, self.now = self.processes.agree(number, self.seconds())
        if number:
            raise Interrupted("stopped between two updates", number)

    def update(self) -> None:
        """One update of the weights."""
        start, counters = time.monotonic(), self.counters
        batches = [self.stream.next() for _ in range(self.options.accumulate)]
        tokens = self.processes.total(sum(batch.tokens for batch in batches))
        counters.update += 1
        self.rate = self.schedule.rate(counters.update, self.stream.epoch, self.done() or 0.0)
        self.updater.apply(batches, self.rate, tokens)
        if self.updater.device.type == "cpu":  # elsewhere looking would wait for the device
            self.updater.check()
        counters.tokens += tokens
        counters.updating += time.monotonic() - start

    def reason_to_stop(self) -> str | None:
        """Why the training is over, or None."""
        stale, metric = self.selection.standing.stale, self.selection.metric
        return reason_to_stop(self.options, self.place(), stale, metric)

    def done(self) -> float | None:
        """The share of the training that is done, 0 to 1; None if only patience ends it."""
        return share_done(self.options, self.place())

    def place(self) -> Place:
        """Where all processes agree to be."""
        return Place(self.counters.update, self.stream.epoch, self.now)

    def seconds(self) -> float:
        """Seconds of training over all its parts."""
        return self.counters.seconds + time.monotonic() - self.started

    def validation(self, scheduled: bool) -> None:
        """Validate, keep the weights if they are good, and save a checkpoint."""
        row = self.selection.validation(self.counters.update, self.stream.epoch, scheduled)
        if scheduled:
            self.schedule.validated(row["best"])
            while self.counters.next_validation <= self.stream.epoch:
                self.counters.next_validation += self.options.validate_every
        self.reporter.validation(row | {"minutes": self.minutes()}, "validation")
        self.save()

    def report(self) -> None:
        """Tell the mean loss since the last report."""
        counters, start = self.counters, time.monotonic()
        self.updater.check()
        counters.updating += time.monotonic() - start  # a GPU is waited for here, and only here
        window = self.updater.take_window()
        counters.skipped += window.skipped
        tokens, seconds = counters.tokens - self.reported[0], counters.updating - self.reported[1]
        self.reported = (counters.tokens, counters.updating)
        mean = 1 / window.tokens if window.tokens else math.nan
        row = {
            "kind": "report",
            "update": counters.update,
            "epoch": round(self.stream.epoch, 4),
            "minutes": self.minutes(),
            "loss": window.loss * mean,
            "nll": window.nll * mean,
            "perplexity": perplexity(window.nll * mean),
            **self.ctc_facts(window, mean),
            "learning_rate": self.rate,
            "gradient_norm": window.norm / max(window.updates, 1),
            "tokens": counters.tokens,
            "tokens_per_second": round(tokens / seconds, 1) if seconds else 0.0,
            "memory_mib": round(memory_mib(), 1),
            **gpu_facts(self.updater.device),
            "skipped": counters.skipped,
        }
        if window.skipped:
            self.reporter.say(
                f"update {counters.update:,}: {window.skipped} updates were skipped since the last "
                "report, because loss or gradient was not finite"
            )
        self.reporter.report(row, *self.outlook())

    def ctc_facts(self, window: Window, mean: float) -> dict[str, float]:
        """With joint training CTC's mean loss; with CTC the examples that were too short for it."""
        if not self.updater.model.ctc_weight:
            return {}
        return {"ctc": window.ctc * mean, "too_short": window.too_short}

    def outlook(self) -> tuple[float | None, float | None]:
        """The share done, and the seconds left at the pace of this part; None where unknown."""
        done = self.done()
        if done is None or done <= self.done_before:
            return done, None
        spent = time.monotonic() - self.started
        return done, spent * (1 - done) / (done - self.done_before)

    def minutes(self) -> float:
        return round(self.seconds() / 60, 4)

    def finish(self, reason: str) -> Result:
        """The last validation, the average of the best weights, the curves."""
        from transduce.evaluation.figures import curves_png

        counters, standing = self.counters, self.selection.standing
        if standing.validated_at != counters.update:
            self.validation(scheduled=False)
        if self.options.average and standing.averaged_at != counters.update:
            row = self.selection.average(counters.update, self.stream.epoch)
            label = f"average of {len(row['averaged'])}"
            self.reporter.validation(row | {"minutes": self.minutes()}, label)
        self.save()
        if self.processes.first:
            (self.folder / FIGURES).mkdir(exist_ok=True)
            curves_png(read_metrics(self.folder), self.folder / FIGURES / "curves.png")
        assert standing.published is not None
        return Result(
            folder=self.folder,
            reason=reason,
            updates=counters.update,
            epochs=self.stream.epoch,
            minutes=self.minutes(),
            parameters=sum(p.numel() for p in self.updater.parameters),
            metric=self.selection.metric,
            value=standing.published,
            scores=standing.scores,
            tokens_per_second=round(counters.tokens / max(counters.updating, 1e-9), 1),
        )

    # ------------------------------------------------------------------------------ checkpoint

    def save(self) -> None:
        """Write the checkpoint from which the same command goes on."""
        state = {
            "loop": asdict(self.counters) | {"seconds": self.seconds()},
            "selection": self.selection.state(),
            "schedule": self.schedule.state(),
            "position": self.stream.position(),
            "metrics_bytes": self.reporter.metrics.size(),
            "data": self.material.fingerprint,
            "processes": self.processes.count,
            "batches": self.processes.count * self.options.accumulate,  # of an update
        }
        keep = [one["file"] for one in self.selection.standing.kept]
        save_last(self.folder, state, self.updater, keep, self.processes)
        self.saved = self.now

    def restore(self, state: dict[str, Any]) -> None:
        """Go back to where `save` was called."""
        restore(self.folder, state, self.updater, self.processes)
        self.counters = Counters(**state["loop"])
        self.selection.restore(state["selection"])
        self.schedule.restore(state["schedule"])
        self.stream.seek(state["position"])
        self.reporter.metrics.truncate(state["metrics_bytes"])
        self.reported = (self.counters.tokens, self.counters.updating)
        self.started = time.monotonic()
        self.now = self.saved = self.counters.seconds
        self.done_before = self.done() or 0.0


def train(
    recipe: Recipe,
    folder: str | Path,
    *,
    console: Console | None = None,
    progress: bool = True,
    device: str = "auto",
) -> Result:
    """Train the recipe's model in `folder`, or go on with the training that is there.

    After any stop, SIGKILL included, the same call goes on from the last checkpoint, and on a CPU
    its losses are bit for bit those of a training that was never stopped. A training that has
    ended goes on when its end is put off. Where `torchrun` started several processes, they train
    one model together.

    Errors: UsageError when the folder holds a training of another recipe or other data;
    DataError from the corpora; FolderError when the folder is in use or damaged, or the disk is
    full; TrainingError when the training diverged; Interrupted after SIGINT or SIGTERM.
    """
    folder = Path(folder)
    options = recipe.training
    bound_kernel_caches()
    keep_freed_memory()
    if options.threads is not None:
        torch.set_num_threads(options.threads)
    Schedule(options)  # its errors should not wait for the data
    with joined(device) as processes, ExitStack() as held:
        with processes.in_turn():
            if processes.first:
                held.enter_context(lock(folder))
                remove_temporary(folder)
            state = load_state(folder)
            if state is None:
                check_free(recipe, folder)
            else:
                check_same_recipe(recipe, folder, state, processes.count)
        held.enter_context(tensor_cores(processes.device))
        reporter = Reporter(folder, console, progress, options.tensorboard, processes.rank)
        return _train(recipe, folder, state, processes, held.enter_context(reporter))


def _train(
    recipe: Recipe,
    folder: Path,
    state: dict[str, Any] | None,
    processes: Processes,
    reporter: Reporter,
) -> Result:
    written = state is not None or not processes.first
    with processes.in_turn():  # the first process writes what the others read
        material = load_material(recipe, folder, written, reporter)
    if state is not None and state["data"] != material.fingerprint:
        raise UsageError(
            f"{folder}: the files of data.train or data.valid have changed since this training "
            "began; train into another folder, or start anew with `--fresh`"
        )
    model = build(recipe, material, processes.device)
    if state is None:
        start_from(recipe, model)
    options = recipe.training
    stream = BatchStream(
        material.store,
        material.source,
        material.target,
        batch_tokens=options.batch_tokens,
        seed=options.seed,
        share=(processes.rank, processes.count),
        pin=processes.device if processes.device.type == "cuda" else None,
        noise=recipe.data.noise,
    )
    try:
        before = None if state is None else state["precision"]
        if before is None:
            reporter.status("measuring precisions")
        precision, why = processes.tell(settle_precision(options, model, stream, before))
        if why:
            reporter.say(f"precision {precision}: {why}")
        processes.seed(options.seed + (0 if state is None else state["loop"]["update"]))
        names, warn = material.name_examples, reporter.warn
        updater = Updater(model, options, precision, names, warn, processes)
        with signals_noted(patient=processes.count > 1) as flag:
            trainer = Trainer(recipe, folder, material, updater, stream, reporter, flag, processes)
            if state is not None:
                trainer.restore(state)
                reporter.say(f"going on from update {trainer.counters.update:,}")
            else:
                reporter.metrics.truncate(0)
            if processes.first:
                write_recipe(recipe, folder)
            if state is None:
                trainer.save()
            return trainer.run()
    finally:
        stream.close()
