"""The reference model of bench/: its recipe, folders with random weights, its data, what it costs.

`reference.yaml` says what it is. Everything here takes its recipe, so that `key=value` on a
program's command line measures another model in the same way.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn
from turns import Worker

from transduce.data.batches import BatchStream
from transduce.data.catalog import cache_root
from transduce.data.corpus import open_corpora
from transduce.data.prepare import prepare
from transduce.data.text import TextSide
from transduce.data.tokenizers.symbols import SymbolTokenizer
from transduce.folder import RECIPE, WEIGHTS, open_folder, publish
from transduce.kernels import available
from transduce.model import build_model
from transduce.model.sampled import LEAST
from transduce.model.weights import model_tensors, tensor_bytes
from transduce.recipe import ModelOptions, Recipe
from transduce.recipe_files import dump_recipe, load_recipe
from transduce.training.setup import learn_sides, save_sides
from transduce.training.shortlisting import make_shortlist

HERE = Path(__file__).resolve().parent
FILE = HERE / "reference.yaml"
SHORTLIST, FREQUENT = 50, 200  # candidates of a source token, and words that are on every list
WORKER = (sys.executable, str(HERE / "worker_transduce.py"))


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
    if vocabulary is None:  # a lexicon of the corpus: what it holds does not depend on weights
        make_shortlist(open_folder(path), SHORTLIST, FREQUENT, lambda read: None)
    return path


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

    `attended` are those of one target position with one source position (scores and context);
    `output` those of a target position with the output layer, which are among its own.
    """

    source: int
    target: int
    sentence: int
    attended: int
    output: int

    def training(self, source: float, target: float, sampled: bool = False) -> float:
        """Floating-point operations for each real target token of sentences of these lengths.

        Two for a multiplication forwards, four for its two products backwards, which the output
        layer does not make if its gradient is sampled.
        """
        spared = 4 * self.output if sampled else 0
        return 6 * self._pass(source, target, 1) / target - spared

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
    return Cost(attended=width, output=options.embedding * vocabulary, **sums)


def _place(name: str) -> str:
    """What a product is done once for: a source position, a sentence, or a target position."""
    if name.startswith("encoder") or name.endswith(("attention.key", "attention.value")):
        return "source"
    return "sentence" if "bridge" in name else "target"


# -------------------------------------------------------------------------------------- workers

# to train: a precision, and the gradient of the output layer
WAYS = ("fp32", "bf16+exact", "bf16", "int8+exact", "int8")


def options_of(way: str) -> list[str]:
    """What tells a training to go one of WAYS, or another precision's."""
    precision, _, gradient = way.partition("+")
    told = [f"training.precision={precision}"]
    return [*told, f"training.output_gradient={gradient}"] if gradient else told


def samples(way: str, recipe: Recipe) -> bool:
    """Whether such a training's output layer has a sampled gradient here."""
    precision, _, gradient = way.partition("+")
    wanted = (gradient or recipe.training.output_gradient) == "sampled"
    able = available() and recipe.source.tokenizer.size >= LEAST  # its pieces are the target's, too
    return precision in ("bf16", "int8") and wanted and able


def trainer(folder: Path, overrides: Sequence[str], threads: int, log: Path) -> Worker:
    """A worker that trains the reference recipe in a new folder."""
    command = [*WORKER, "train", str(folder)]
    told = [*overrides, f"training.threads={threads}"]
    return Worker([*command, *told], log, threads=threads)


def train_turn(worker: Worker, seconds: float) -> Callable[[], list[float]]:
    """A turn of a training worker: real target tokens a second."""

    def turn() -> list[float]:
        told = worker.ask(seconds=seconds)
        return [told["tokens"] / told["seconds"]]

    return turn
