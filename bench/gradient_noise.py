"""How far gradients are from those in fp32, by precision, beside what is random in any case.

    python bench/gradient_noise.py runs/multi30k-en-de

The model of a folder, with the weights that training would begin with and with its own, goes over
some batches of its training data, without dropout, so that all that differs is how numbers are
rounded and what is drawn: in bf16+exact and int8+exact the output layer's gradient is exact, in
bf16 and int8 it is sampled. `off` is the length of the error of a batch's gradient, of all weights,
in lengths of that in fp32; `batches` how far gradients of batches are from their mean, in lengths
of that (their standard deviation), which training has to live with in any case.
"""

from __future__ import annotations

import argparse
import statistics
from pathlib import Path

import common
import torch
from torch import Tensor, nn

from transduce.data.batches import Batch, BatchStream
from transduce.data.catalog import cache_root
from transduce.data.corpus import Corpus, open_corpora
from transduce.data.prepare import prepare
from transduce.data.sides import SourceSide, learn_sides
from transduce.data.text import TextSide
from transduce.errors import TransduceError
from transduce.folder import open_folder
from transduce.kernels import available
from transduce.model import Seq2Seq, build_model, sampled
from transduce.model.rnn import Dropout
from transduce.model.weights import load_weights
from transduce.recipe import Recipe
from transduce.training.losses import real_positions, sequence_loss
from transduce.training.precision import products_in

WAYS = ("bf16+exact", "bf16", "int8+exact", "int8")  # of gradients, beside fp32+exact


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("folder", type=Path, help="a trained model")
    parser.add_argument("--batches", type=int, default=8)
    options = parser.parse_args()
    try:
        print(report(options.folder, options.batches))
    except TransduceError as error:
        raise SystemExit(f"error: {error}") from None


def report(path: Path, count: int) -> str:
    """The table, and what it is of."""
    folder = open_folder(path)
    recipe, corpora = folder.recipe, open_corpora(folder.recipe.data.train)
    source, target = learn_sides(recipe, corpora)
    if not available() or target.size < sampled.LEAST:
        raise SystemExit(
            f"the gradient is exact here: kernels {'there' if available() else 'not there'}, "
            f"{target.size:,} words of at least {sampled.LEAST:,}"
        )
    batches = some_batches(recipe, corpora, (source, target), count)
    torch.manual_seed(recipe.training.seed)
    model = build_model(recipe.model, source.size, target.size)
    rows = [["weights", "entries of a token", *(f"{way} off" for way in WAYS), "batches"]]
    for name in ("begun with", "trained"):
        if name == "trained":
            load_weights(model, folder.weights)
        entries, off, apart = noise(model, batches, recipe.training.label_smoothing)
        rows.append([name, f"{entries:.0f}", *(f"{one:.1%}" for one in off), f"{apart:.0%}"])
    tokens = statistics.mean(batch.tokens for batch in batches)
    about = f"{len(batches)} batches of {tokens:.0f} tokens in the mean, {target.size:,} words"
    return f"{common.heading(common.machine())}\n{about}\n\n{common.table(rows, left=1)}"


def some_batches(
    recipe: Recipe, corpora: list[Corpus], sides: tuple[SourceSide, TextSide], count: int
) -> list[Batch]:
    store = prepare(corpora, *sides, recipe.data, cache_root() / "prepared")
    options = recipe.training
    stream = BatchStream(store, *sides, batch_tokens=options.batch_tokens, seed=options.seed)
    try:
        return [stream.next() for _ in range(count)]
    finally:
        stream.close()


def noise(
    model: Seq2Seq, batches: list[Batch], smoothing: float
) -> tuple[float, list[float], float]:
    """Entries of a token, the mean of what is `off` in each of WAYS, and of what `batches` are."""
    model.word_dropout = 0.0
    for module in model.modules():
        if isinstance(module, Dropout):
            module.probability = 0.0
        elif isinstance(module, nn.Dropout):
            module.p = 0.0
    exact = [gradient(model, batch, smoothing, "fp32+exact") for batch in batches]
    mean = torch.stack(exact).mean(dim=0)
    off = []
    for way in WAYS:
        found = (gradient(model, batch, smoothing, way) for batch in batches)
        pairs = zip(found, exact, strict=True)
        off.append(statistics.mean(float((a - b).norm() / b.norm()) for a, b in pairs))
    squares = sum(float((one - mean).norm()) ** 2 for one in exact) / (len(exact) - 1)
    return drawn(model, batches), off, squares**0.5 / float(mean.norm())


def gradient(model: Seq2Seq, batch: Batch, smoothing: float, way: str) -> Tensor:
    """The mean gradient of a batch by all weights, as one vector."""
    model.train().zero_grad(set_to_none=True)
    precision, _, exact = way.partition("+")
    with products_in(precision, torch.device("cpu")):
        positions = real_positions(batch.target_output)
        sums = sequence_loss(model, batch, smoothing, positions, sampled=not exact)
    (sums.loss / sums.tokens).backward()
    return torch.cat([p.grad.flatten() for p in model.parameters() if p.grad is not None])


def drawn(model: Seq2Seq, batches: list[Batch]) -> float:
    """How many entries a token has."""
    counts = []
    for batch in batches:
        with torch.no_grad():
            memory = model.encode(batch.source, batch.source_lengths)
            values = model.features(memory, batch.target_input).values.flatten(0, 1)
            logits = model.output.logits(values[real_positions(batch.target_output)])
        entries = sampled.Entries.room(*logits.shape, sampled.THRESHOLD)
        targets = torch.zeros(len(logits), dtype=torch.int64)
        sampled.sampled_entropy(logits.float(), targets, 0.0, sampled.THRESHOLD, entries)
        counts.append(float(entries.counts.float().mean()))
    return statistics.mean(counts)


if __name__ == "__main__":
    main()
