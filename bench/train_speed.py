"""How fast training is: real target tokens a second, and how much of an epoch is padding.

    python bench/train_speed.py
    python bench/train_speed.py --precisions fp32 --threads 1 training.batch_tokens=2000

The reference model (reference.yaml, with options replaced by key=value) learns Multi30k en-de by
the loop of `transduce train`, each precision and number of threads in a process of its own. They
take turns of some seconds; the clock holds batches, updates and reports, not validations. `limit`
is what a product of matrices in that precision would allow (see docs/performance.md). bf16 and int8
are with the gradient of the output layer sampled, as is the default, bf16+exact with the exact one.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import common
from common import Contestant, LeftOut
from decoding import probe_of
from reference import (
    WAYS,
    Cost,
    Epoch,
    cost_of,
    epoch_of,
    options_of,
    recipe_of,
    samples,
    train_turn,
    trainer,
)

from transduce.recipe import Recipe


def main() -> None:
    parser = common.parser(__doc__)
    parser.add_argument("overrides", nargs="*", metavar="key=value", help="recipe options")
    parser.add_argument("--precisions", type=common.names, default=list(WAYS))
    parser.add_argument("--threads", type=common.numbers, default=[1, 2])
    parser.add_argument("--seconds", type=float, default=20.0, help="of a turn")
    parser.add_argument("--warm", type=int, default=4, help="turns that do not count, before")
    options = parser.parse_args()
    facts = common.machine()
    recipe = recipe_of(options.overrides)
    epoch = epoch_of(recipe)
    cost = cost_of(recipe.model, recipe.source.tokenizer.size)
    with ExitStack() as stack:
        work = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="train-speed-")))
        contestants, about, note = start(options, work, stack)
        common.take_turns(contestants, options.runs, options.warm)
    facts = common.machine() | facts
    print(common.heading(facts))
    print(
        f"{about['system']}, {about['parameters']:,} parameters, batches of at most "
        f"{recipe.training.batch_tokens:,} positions, median of {options.runs} turns of "
        f"{options.seconds:g} s\n{described(epoch)}\n{note}"
    )
    limits = [limit(contestant, recipe, cost, epoch) for contestant in contestants]
    print(common.table(rows(contestants, limits), left=2) + common.reasons(contestants))
    found = [c.facts() | {"limit": bound} for c, bound in zip(contestants, limits, strict=True)]
    common.write_json(options.json, options, facts | {"epoch": vars(epoch)}, found)


def start(
    options: argparse.Namespace, work: Path, stack: ExitStack
) -> tuple[list[Contestant], dict[str, Any], str]:
    """Start a training for each precision and number of threads; the stack ends them.

    Returns the contestants, what a worker told about itself, and lines about those there are not.
    """
    contestants: list[Contestant] = []
    about: dict[str, Any] = {}
    note = ""
    for threads in options.threads:
        for way in options.precisions:
            name = f"{way}-{threads}"
            told = [*options.overrides, *options_of(way)]
            try:
                worker = trainer(work / name, told, threads, work / f"{name}.log")
            except LeftOut as reason:
                note += f"left out: {name}: {reason}\n"
                continue
            stack.callback(worker.close)
            turn, about = train_turn(worker, options.seconds), worker.about
            contestants.append(Contestant((way, str(threads)), turn, threads, probe_of(way)))
    if not contestants:
        raise SystemExit(note.strip())
    return contestants, about, note


def described(epoch: Epoch) -> str:
    """A line about padding."""
    source, target = 1 - epoch.source / epoch.padded_source, 1 - epoch.target / epoch.padded_target
    return (
        f"an epoch: {epoch.sentences:,} sentences in {epoch.batches:,} batches, "
        f"{epoch.target:,} real target tokens; padding {epoch.padding:.2%} of all positions "
        f"(source {source:.2%}, target {target:.2%})"
    )


def limit(contestant: Contestant, recipe: Recipe, cost: Cost, epoch: Epoch) -> float | None:
    """Real target tokens a second were every product that is made as fast as the probe and all else
    free; None for products of whole numbers, which the probe does not measure."""
    if not contestant.probes or contestant.label[0].startswith("int8"):
        return None
    mean = epoch.source / epoch.sentences, epoch.target / epoch.sentences
    return (
        1e9
        * statistics.median(contestant.probes)
        / cost.training(*mean, samples(contestant.label[0], recipe))
    )


def rows(contestants: list[Contestant], limits: list[float | None]) -> list[list[str]]:
    """The table."""
    head = ["precision", "threads", "tokens/s", "range", "probe GF/s", "limit tokens/s", "reached"]
    made = [head]
    for contestant, bound in zip(contestants, limits, strict=True):
        shares = ["", ""]
        if bound is not None:
            share = statistics.median(contestant.values) / bound
            shares = [common.number(bound), f"{share:.0%}"]
        made.append([*contestant.label, *common.summary(contestant), *shares])
    return made


if __name__ == "__main__":
    main()
