"""The reference model of bench/, its data, what it costs, and how its decoding is forced.

`reference.yaml` says what it is. Everything here takes its recipe, so that `key=value` on a
program's command line measures another model in the same way.
"""

from __future__ import annotations

import inspect
import json
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import cycle, islice
from pathlib import Path
from typing import Any

import torch
from torch import nn
from turns import Worker

import transduce
from transduce.data.batches import BatchStream
from transduce.data.catalog import cache_root
from transduce.data.corpus import open_corpora
from transduce.data.prepare import prepare
from transduce.data.text import TextSide
from transduce.data.tokenizers.symbols import SymbolTokenizer
from transduce.folder import RECIPE, WEIGHTS, publish
from transduce.model import build_model
from transduce.model.weights import model_tensors, tensor_bytes
from transduce.recipe import CorpusOptions, ModelOptions, Recipe
from transduce.recipe_files import dump_recipe, load_recipe
from transduce.training.setup import learn_sides, save_sides

HERE = Path(__file__).resolve().parent
FILE = HERE / "reference.yaml"
WORKER = (sys.executable, str(HERE / "worker_transduce.py"))
LINES = "multi30k-en-de:test_2016_flickr"  # what is decoded

# How a model folder is loaded to decode: a name for the table, and keywords of `transduce.load`.
# A lexical shortlist, or any other way to decode the same model, is one line more.
VARIANTS: dict[str, dict[str, Any]] = {
    "fp32": {"precision": "fp32"},
    "bf16": {"precision": "bf16"},
    "int8": {"precision": "int8"},
    "auto": {"precision": "auto"},
}


def recipe_of(overrides: Sequence[str] = ()) -> Recipe:
    """The reference recipe with some options replaced."""
    return load_recipe(FILE, list(overrides))


# -------------------------------------------------------------------------------------- folders


def random_folder(path: Path, recipe: Recipe, vocabulary: int | None = None) -> Path:
    """Write a model folder with the weights that training would begin from.

    With `vocabulary`, both sides have so many ids of made-up symbols instead of learnt pieces: no
    corpus is read, and decoding starts from ids.
    """
    path.mkdir(parents=True)
    if vocabulary is None:
        source, target = learn_sides(recipe, open_corpora(recipe.data.train))
    else:
        made = SymbolTokenizer("symbols", [f"w{i}" for i in range(vocabulary - 4)])
        tree = recipe.model_dump(mode="json")
        for side in ("source", "target"):
            tree[side]["tokenizer"] |= {"kind": "symbols", "shared": False}
        recipe = Recipe.model_validate(tree)
        source, target = TextSide(recipe.source, made), TextSide(recipe.target, made)
    save_sides(path, source, target)
    torch.manual_seed(1)
    weights = model_tensors(build_model(recipe.model, source.size, target.size))
    files = {RECIPE: dump_recipe(recipe).encode(), WEIGHTS: tensor_bytes(weights)}
    publish(path, files, task=recipe.task, source_language="en", target_language="de")
    return path


def usable(wanted: Sequence[str]) -> tuple[dict[str, dict[str, Any]], str]:
    """Those of VARIANTS that this transduce can load, and a line about those it cannot.

    Where it can load none, the one way there is, under the name `fp32`.
    """
    known = inspect.signature(transduce.load).parameters
    chosen = {name: VARIANTS[name] for name in wanted}
    able = {name: keywords for name, keywords in chosen.items() if keywords.keys() <= known.keys()}
    if len(able) == len(chosen):
        return able, ""
    missing = sorted({key for one in chosen.values() for key in one} - known.keys())
    unable = ", ".join(name for name in chosen if name not in able and (able or name != "fp32"))
    note = f"not measured: {unable}, since transduce.load has no {', '.join(missing)} yet"
    return able or {"fp32": {}}, note if unable else ""


# ---------------------------------------------------------------------------------------- lines


def text_lines(file: Path | None, count: int) -> list[str]:
    """So many source lines of a file, or of Multi30k's test set, over again where they run out."""
    if file is None:
        (corpus,) = open_corpora([CorpusOptions(name=LINES)])
        found = [example.source for example in corpus]
    else:
        found = [line for line in file.read_text(encoding="utf-8").split("\n") if line.strip()]
    if not found:
        raise SystemExit(f"{file}: no lines to decode")
    return list(islice(cycle(found), count))


def forced(tokens: int) -> dict[str, Any]:
    """Search options for exactly so many target tokens, the end symbol counted: as many steps."""
    return {"min_ratio": 1000.0, "max_ratio": 1e-9, "max_extra": tokens - 1}


# ------------------------------------------------------------------------------------- padding


@dataclass(frozen=True)
class Epoch:
    """One epoch of batches: how many, real positions, and positions with padding."""

    batches: int
    sentences: int
    source: int
    target: int
    padded_source: int
    padded_target: int

    @property
    def padding(self) -> float:
        """The share of all positions, of both sides, that is padding."""
        return 1 - (self.source + self.target) / (self.padded_source + self.padded_target)


def epoch_of(recipe: Recipe) -> Epoch:
    """Count the batches that training on this recipe would see in its first epoch."""
    corpora = open_corpora(recipe.data.train)
    sides = learn_sides(recipe, corpora)
    store = prepare(corpora, *sides, recipe.data, cache_root() / "prepared")
    options = recipe.training
    stream = BatchStream(store, *sides, batch_tokens=options.batch_tokens, seed=options.seed)
    sums = [0] * 6
    try:
        while stream.epoch < 1:
            batch = stream.next()
            real = int(batch.source_lengths.sum()), batch.tokens
            counted = (1, batch.size, *real, batch.source.numel(), batch.target_output.numel())
            sums = [a + b for a, b in zip(sums, counted, strict=True)]
    finally:
        stream.close()
    return Epoch(*sums)


# ---------------------------------------------------------------------------------------- costs


@dataclass(frozen=True)
class Cost:
    """Multiplications with weights: for each source position, each target position, each sentence.

    `attended` are those of one target position with one source position (scores and context).
    """

    source: int
    target: int
    sentence: int
    attended: int

    def training(self, source: float, target: float) -> float:
        """Floating-point operations for each real target token of sentences of these lengths.

        Two for a multiplication forwards, four for its two products backwards.
        """
        return 6 * self._pass(source, target, 1) / target

    def decoding(self, source: float, target: float, beam: int) -> float:
        """Floating-point operations for one sentence in `target` steps of `beam` hypotheses."""
        return 2 * self._pass(source, target, beam)

    def _pass(self, source: float, target: float, beam: int) -> float:
        positions = beam * target
        encoded = self.source * source + self.sentence
        return encoded + positions * (self.target + self.attended * source)


def cost_of(options: ModelOptions, vocabulary: int) -> Cost:
    """Count the weights of every product of a model; embeddings are looked up, hence free."""
    model = build_model(options, 8, 8)
    sums = {"source": 0, "target": options.embedding * vocabulary, "sentence": 0}
    for name, module in model.named_modules():
        if isinstance(module, nn.Linear):
            sums[_place(name)] += module.weight.numel()
        elif isinstance(module, nn.RNNBase):
            sums[_place(name)] += sum(w.numel() for w in module.parameters() if w.dim() == 2)
    attention = model.decoder.attention
    width = 0 if attention is None else options.decoder.size + attention.context_size
    return Cost(attended=width, **sums)


def _place(name: str) -> str:
    """What a product is done once for: a source position, a sentence, or a target position."""
    if name.startswith("encoder") or name.endswith(("attention.key", "attention.value")):
        return "source"
    return "sentence" if "bridge" in name else "target"


# -------------------------------------------------------------------------------------- workers


def decoder(folder: Path, keywords: dict[str, Any], threads: int, log: Path, lines: Path) -> Worker:
    """A worker that decodes the lines of a file with a model folder, loaded by `keywords`."""
    command = [*WORKER, "decode", str(folder), str(lines), json.dumps(keywords), str(threads)]
    return Worker(command, log, threads=threads)


def trainer(folder: Path, overrides: Sequence[str], threads: int, log: Path) -> Worker:
    """A worker that trains the reference recipe in a new folder."""
    command = [*WORKER, "train", str(folder)]
    told = [*overrides, f"training.threads={threads}"]
    return Worker([*command, *told], log, threads=threads)


@dataclass
class Decoding:
    """A turn of a decoding worker: sentences a second. `steps` is the mean of the last turn."""

    worker: Worker
    question: dict[str, Any]
    steps: float = 0.0

    def __call__(self) -> list[float]:
        told = self.worker.ask(**self.question)
        self.steps = told["steps"]
        return [told["sentences"] / told["seconds"]]


def probe_of(variant: str) -> str:
    """The probe that stands beside one of VARIANTS."""
    return "bf16" if variant == "bf16" else "fp32"


def train_turn(worker: Worker, seconds: float) -> Callable[[], list[float]]:
    """A turn of a training worker: real target tokens a second."""

    def turn() -> list[float]:
        told = worker.ask(seconds=seconds)
        return [told["tokens"] / told["seconds"]]

    return turn
