"""How far a sampled gradient is from the exact one, beside what is random in any case.

    python bench/gradient_noise.py runs/multi30k-en-de

The model of a folder, with the weights that training would begin with and with its own, goes over
some batches of its training data, without dropout, so that all that differs is what is drawn.
`off` is the length of the error of a batch's gradient, of all weights, in lengths of the exact one;
`batches` how far gradients of batches are from their mean, in lengths of that (their standard
deviation), which training has to live with in any case.
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
from transduce.folder import open_folder
from transduce.kernels import available
from transduce.model import Seq2Seq, build_model, sampled
from transduce.model.rnn import Dropout
from transduce.model.weights import load_weights
from transduce.recipe import Recipe
from transduce.training.losses import real_positions, sequence_loss


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("folder", type=Path, help="a trained model")
    parser.add_argument("--batches", type=int, default=8)
    options = parser.parse_args()
    folder = open_folder(options.folder)
    recipe, corpora = folder.recipe, open_corpora(folder.recipe.data.train)
    source, target = learn_sides(recipe, corpora)
    if not available() or target.size < sampled.LEAST:
        raise SystemExit(
            f"the gradient is exact here: kernels {'there' if available() else 'not there'}, "
            f"{target.size:,} words of at least {sampled.LEAST:,}"
        )
    batches = some_batches(recipe, corpora, (source, target), options.batches)
    torch.manual_seed(recipe.training.seed)
    model = build_model(recipe.model, source.size, target.size)
    rows = [["weights", "tokens of a batch", "entries of a token", "off", "batches"]]
    for name in ("begun with", "trained"):
        if name == "trained":
            load_weights(model, folder.weights)
        entries, off, apart = noise(model, batches, recipe.training.label_smoothing)
        tokens = statistics.mean(batch.tokens for batch in batches)
        rows.append([name, f"{tokens:.0f}", f"{entries:.0f}", f"{off:.1%}", f"{apart:.0%}"])
    print(common.heading(common.machine()))
    print(f"{len(batches)} batches, {target.size:,} words\n")
    print(common.table(rows, left=1))


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


def noise(model: Seq2Seq, batches: list[Batch], smoothing: float) -> tuple[float, float, float]:
    """Entries of a token, and the means of what `off` and `batches` are."""
    model.word_dropout = 0.0
    for module in model.modules():
        if isinstance(module, Dropout):
            module.probability = 0.0
        elif isinstance(module, nn.Dropout):
            module.p = 0.0
    exact = [gradient(model, batch, smoothing, False) for batch in batches]
    chance = [gradient(model, batch, smoothing, True) for batch in batches]
    mean = torch.stack(exact).mean(dim=0)
    off = [float((a - b).norm() / b.norm()) for a, b in zip(chance, exact, strict=True)]
    squares = sum(float((one - mean).norm()) ** 2 for one in exact) / (len(exact) - 1)
    return drawn(model, batches), statistics.mean(off), squares**0.5 / float(mean.norm())


def gradient(model: Seq2Seq, batch: Batch, smoothing: float, by_chance: bool) -> Tensor:
    """The mean gradient of a batch by all weights, as one vector."""
    model.train().zero_grad(set_to_none=True)
    with torch.autocast("cpu", torch.bfloat16):
        positions = real_positions(batch.target_output)
        sums = sequence_loss(model, batch, smoothing, positions, sampled=by_chance)
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
