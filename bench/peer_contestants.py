"""Who takes part in which task of bench/peers.py, and how each is started."""

from __future__ import annotations

import argparse
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from decoding import decoder, probe_of, usable
from peer_setup import eole_config, joeynmt_config
from reference import HERE, options_of, trainer
from turns import Worker

from transduce.recipe import Recipe


@dataclass(frozen=True)
class Field:
    """Everything that contestants are made from."""

    options: argparse.Namespace
    recipe: Recipe
    work: Path
    pythons: dict[str, Path]  # of the peers that take part

    def log(self, *parts: object) -> Path:
        return self.work / ("-".join(str(part) for part in parts) + ".log")


@dataclass(frozen=True)
class Entry:
    """A contestant to be: who, in which way, the probe beside it, and how it is started."""

    system: str
    how: str
    dtype: str
    begin: Callable[[], Worker]


def entries_of(task: str, field: Field) -> tuple[list[Entry], list[str]]:
    """The entries of a task, and notes about what cannot be measured yet."""
    made: list[Entry] = []
    notes: list[str] = []
    if "transduce" in field.options.systems:
        if task == "train":
            made += transduce_training(field)
        else:
            ours, note = transduce_decoding(task, field)
            made += ours
            notes += [note] if note else []
    for peer, maker in PEERS.items():
        if peer in field.pythons:
            made += maker(task, field)
    return made, notes


def transduce_training(field: Field) -> list[Entry]:
    options = field.options
    made = []
    for precision in options.training_precisions:
        told = [*options.overrides, *options_of(precision)]
        folder, log = field.work / f"training-{precision}", field.log("transduce", precision)
        begin = partial(trainer, folder, told, options.threads, log)
        made.append(Entry("transduce", precision, probe_of(precision), begin))
    return made


def transduce_decoding(task: str, field: Field) -> tuple[list[Entry], str]:
    options, work = field.options, field.work
    variants, note = usable(options.precisions)
    made = []
    for name, keywords in variants.items():
        log = field.log("transduce", task, name)
        model, lines = work / "transduce", work / "lines"
        begin = partial(decoder, model, keywords, options.threads, log, lines)
        made.append(Entry("transduce", name, probe_of(name), begin))
    return made, note


def eole(task: str, field: Field) -> list[Entry]:
    """eole's LSTM, with and without input feeding, in the precisions that it has on a CPU."""
    options, work, training = field.options, field.work, task == "train"
    made = []
    for feed in options.eole_feeds:
        for precision in options.eole_precisions:
            if training and precision == "int8":  # it decodes in it, and cannot train
                continue
            name = f"eole-{task}-{feed}-{precision}"
            if training:
                config = eole_config(
                    field.recipe, work, name, feed=feed, precision=precision, updates=10**9
                )
                told: list[str | Path] = ["train", config]
            else:
                told = ["decode", work / f"eole-{feed}", work / "decode.src", precision]
            how = f"{precision}, {'input feeding' if feed else 'no input feeding'}"
            begin = partial(peer, field, "eole", [*told, str(options.threads)], name)
            made.append(Entry("eole", how, probe_of(precision), begin))
    return made


def ctranslate2(task: str, field: Field) -> list[Entry]:
    """Transformers only, and no training. Several threads as one translator or as several."""
    options, work = field.options, field.work
    if task == "train":
        return []
    shapes = {"": (1, options.threads)}
    if options.threads > 1 and task != "latency":
        shapes[f", {options.threads} at once"] = (options.threads, 1)
    made = []
    for compute_type in options.compute_types:
        for what, (inter, intra) in shapes.items():
            told: list[str | Path] = ["decode", work / "ct2", work / "decode.src", compute_type]
            told += [str(inter), str(intra), str(options.batch)]
            name = f"ctranslate2-{task}-{compute_type}-{inter}"
            begin = partial(peer, field, "ctranslate2", told, name)
            dtype = "bf16" if compute_type == "bfloat16" else "fp32"
            made.append(Entry("ctranslate2", compute_type + what, dtype, begin))
    return made


def joeynmt(task: str, field: Field) -> list[Entry]:
    """fp32 only: it has no other precision on a CPU."""
    config = joeynmt_config(field.recipe, field.work)
    threads = str(field.options.threads)
    told: list[str | Path] = ["train", config, threads]
    if task != "train":
        told = ["decode", config, field.work / "decode.src", threads]
    begin = partial(peer, field, "joeynmt", told, f"joeynmt-{task}")
    return [Entry("joeynmt", "fp32", "fp32", begin)]


PEERS: dict[str, Callable[[str, Field], list[Entry]]] = {
    "eole": eole,
    "ctranslate2": ctranslate2,
    "joeynmt": joeynmt,
}


def peer(field: Field, name: str, arguments: Sequence[str | Path], log: str) -> Worker:
    """Start a peer's worker in its environment."""
    command = [field.pythons[name], HERE / f"worker_{name}.py", *arguments]
    return Worker(command, field.log(log), threads=field.options.threads, environment=outside())


def outside() -> dict[str, str]:
    """The environment variables, without those that would show a peer this one's packages."""
    return {key: value for key, value in os.environ.items() if not key.startswith("PYTHON")}
