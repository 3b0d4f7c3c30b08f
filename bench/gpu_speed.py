"""What a GPU does with transduce: bench/gpu.sh runs these one after the other.

    python bench/gpu_speed.py info
    python bench/gpu_speed.py lstm                       # one layer alone, by precision
    python bench/gpu_speed.py train --batch-tokens 4000,16000 --precisions fp32,bf16
    python bench/gpu_speed.py decode runs/multi30k --batches 64,256
    python bench/gpu_speed.py reached runs/multi30k --score 39

`train` trains the reference model (bench/reference.yaml, with options replaced by key=value) on
Multi30k en-de, on a GPU with and without CUDA graphs, and says how many shapes those were recorded
for. `--device cpu` measures a processor with the same code. Each prints one table.
"""

from __future__ import annotations

import argparse
import itertools
import platform
import statistics
import time
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from pathlib import Path

import torch

import transduce
from transduce.data.batches import BatchStream
from transduce.data.catalog import cache_root
from transduce.data.corpus import open_corpora
from transduce.data.prepare import prepare
from transduce.data.store import Store
from transduce.data.text import TextSide
from transduce.model import Seq2Seq, build_model
from transduce.model.device import find_device
from transduce.recipe import CorpusOptions, Recipe
from transduce.recipe_files import load_recipe
from transduce.search import decode_batch
from transduce.training.precision import tensor_cores
from transduce.training.report import read_metrics
from transduce.training.setup import learn_sides
from transduce.training.update import Updater

REFERENCE = Path(__file__).with_name("reference.yaml")
LINES = "multi30k-en-de:test_2016_flickr"  # what is decoded
WARM = 30  # updates before the clock starts: shapes, allocator and libraries settle
WARM_GRAPHS = 400  # with CUDA graphs, so that most shapes have been recorded


def main() -> None:
    options = parse()
    device = find_device(options.device)
    if options.threads:
        torch.set_num_threads(options.threads)
    with tensor_cores(device):
        options.run(options, device)


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--device", default="auto")
    parser.add_argument("--threads", type=int, default=0, help="on the processor; 0: torch's own")
    commands = parser.add_subparsers(required=True)
    commands.add_parser("info", help="the machine").set_defaults(run=info)
    lstm_parser = commands.add_parser("lstm", help="one layer, forwards and backwards")
    lstm_parser.add_argument("--size", type=int, default=512)
    lstm_parser.set_defaults(run=lstm)
    training = commands.add_parser("train", help="target tokens a second")
    training.add_argument("overrides", nargs="*", metavar="key=value", help="recipe options")
    training.add_argument("--batch-tokens", type=numbers, default=[3000, 12000, 48000])
    training.add_argument("--precisions", type=names, default=["fp32", "bf16"])
    training.add_argument("--graphs", type=names, default=["off", "on"], help="CUDA graphs")
    training.add_argument("--seconds", type=float, default=6.0, help="of each measurement")
    training.set_defaults(run=train)
    decoding = commands.add_parser("decode", help="sentences a second")
    decoding.add_argument("model", type=Path, help="model folder")
    decoding.add_argument("--batches", type=numbers, default=[1, 64, 256, 1000])
    decoding.add_argument("--beams", type=numbers, default=[1, 5])
    decoding.add_argument("--lines", type=int, default=1000)
    decoding.set_defaults(run=decode)
    reaching = commands.add_parser("reached", help="minutes until a validation had a score")
    reaching.add_argument("model", type=Path, help="model folder")
    reaching.add_argument("--metric", default="moses_bleu")
    reaching.add_argument("--score", type=float, default=39.0)
    reaching.set_defaults(run=reached)
    return parser.parse_args()


# --------------------------------------------------------------------------------- the machine


def info(_: argparse.Namespace, device: torch.device) -> None:
    print(f"transduce {transduce.__version__}, python {platform.python_version()}, {device}")
    print(f"torch {torch.__version__}, CUDA {torch.version.cuda}")
    if device.type != "cuda":
        return
    print(f"cuDNN {torch.backends.cudnn.version()}, NCCL {torch.cuda.nccl.version()}")
    for index in range(torch.cuda.device_count()):
        about = torch.cuda.get_device_properties(index)
        print(
            f"{about.name}, {about.total_memory / 2**30:.0f} GiB, capability "
            f"{about.major}.{about.minor}, {about.multi_processor_count} multiprocessors, "
            f"bf16 {torch.cuda.is_bf16_supported(including_emulation=False)}"
        )


# ------------------------------------------------------------------------------------ one layer


def lstm(options: argparse.Namespace, device: torch.device) -> None:
    """An LSTM layer by itself, in each type that cuDNN may be given."""
    kinds = {
        "fp32": (torch.float32, False),
        "TF32": (torch.float32, True),
        "bf16": (torch.bfloat16, True),
        "fp16": (torch.float16, True),
    }
    rows = [["batch", "positions", "type", "ms forwards", "ms with backwards"]]
    for batch in (32, 128, 512):
        for name, (dtype, tf32) in kinds.items():
            try:
                forwards, both = time_lstm(options.size, batch, 20, dtype, tf32, device)
            except RuntimeError as error:
                rows.append([str(batch), "20", name, str(error).splitlines()[0][:40], ""])
                continue
            rows.append([str(batch), "20", name, f"{forwards:.3f}", f"{both:.3f}"])
    print(f"LSTM {options.size} -> {options.size}, {device}\n")
    print_table(rows)


def time_lstm(
    size: int, batch: int, length: int, dtype: torch.dtype, tf32: bool, device: torch.device
) -> tuple[float, float]:
    """Milliseconds of a forward pass, and of a forward and a backward pass."""
    layer = torch.nn.LSTM(size, size, batch_first=True, device=device, dtype=dtype)
    x = torch.randn(batch, length, size, device=device, dtype=dtype, requires_grad=True)

    def forwards() -> None:
        layer(x)

    def both() -> None:
        layer(x)[0].sum().backward()

    gpu = device.type == "cuda"
    with torch.backends.cudnn.flags(allow_tf32=tf32) if gpu else nullcontext():
        return milliseconds(forwards, device), milliseconds(both, device)


def milliseconds(work: Callable[[], None], device: torch.device) -> float:
    """The median of several timings of several calls."""
    times = []
    for number in range(6):
        synchronize(device)
        start = time.perf_counter()
        for _ in range(10):
            work()
        synchronize(device)
        if number:
            times.append((time.perf_counter() - start) / 10)
    return 1000 * statistics.median(times)


# ------------------------------------------------------------------------------------- training


def train(options: argparse.Namespace, device: torch.device) -> None:
    recipe = load_recipe(REFERENCE, list(options.overrides))
    corpora = open_corpora(recipe.data.train)
    sides = learn_sides(recipe, corpora)
    store = prepare(corpora, *sides, recipe.data, cache_root() / "prepared")
    head = ["batch_tokens", "precision", "graphs", "target tokens/s", "source+target/s"]
    rows = [[*head, "updates/s", "ms to queue one", "GPU MiB", "loss"]]
    ways = [way for way in options.graphs if way == "off" or device.type == "cuda"]
    for tokens, precision, way in itertools.product(options.batch_tokens, options.precisions, ways):
        graphs = {"cuda_graphs": way == "on"}
        told = recipe.model_copy(update={"training": recipe.training.model_copy(update=graphs)})
        rows.append(measure(told, store, sides, tokens, precision, options.seconds, device))
    parameters = sum(p.numel() for p in build(recipe, sides, device).parameters())
    print(f"{REFERENCE.name}: {parameters:,} parameters, vocabulary {sides[1].size}, {device}\n")
    print_table(rows)


def build(recipe: Recipe, sides: tuple[TextSide, TextSide], device: torch.device) -> Seq2Seq:
    torch.manual_seed(recipe.training.seed)
    return build_model(recipe.model, sides[0].size, sides[1].size).to(device)


def measure(
    recipe: Recipe,
    store: Store,
    sides: tuple[TextSide, TextSide],
    batch_tokens: int,
    precision: str,
    seconds: float,
    device: torch.device,
) -> list[str]:
    """Train for some seconds; what a report would say, and how long the processor was busy."""
    gpu = device.type == "cuda"
    model = build(recipe, sides, device)
    updater = Updater(model, recipe.training, precision, lambda _: [], print)
    pin = device if gpu else None
    stream = BatchStream(store, *sides, batch_tokens=batch_tokens, seed=1, pin=pin)
    try:
        warm = WARM_GRAPHS if updater.graphs is not None else WARM
        for _ in range(warm if gpu else 2):
            updater.apply([stream.next()], 1e-3)
        updater.take_window()
        synchronize(device)
        if gpu:
            torch.cuda.reset_peak_memory_stats()
        source = updates = 0
        queueing = 0.0
        start = time.perf_counter()
        while time.perf_counter() - start < seconds:
            batch = stream.next()
            source += int(batch.source_lengths.sum())
            before = time.perf_counter()
            updater.apply([batch], 1e-3)
            queueing += time.perf_counter() - before
            updates += 1
            if updates % 50 == 0:
                updater.check()  # as a report does
        window = updater.take_window()
        spent = time.perf_counter() - start
    finally:
        stream.close()
    memory = f"{torch.cuda.max_memory_allocated() / 2**20:,.0f}" if gpu else ""
    return [
        f"{batch_tokens:,}",
        precision,
        "off" if updater.graphs is None else f"on, {len(updater.graphs)}",
        f"{window.tokens / spent:,.0f}",
        f"{(window.tokens + source) / spent:,.0f}",
        f"{updates / spent:.1f}",
        f"{1000 * queueing / updates:.2f}",
        memory,
        f"{window.nll / max(window.tokens, 1):.3f}",
    ]


# ------------------------------------------------------------------------------------- decoding


def decode(options: argparse.Namespace, device: torch.device) -> None:
    loaded = transduce.load(options.model, device=device.type)
    (corpus,) = open_corpora([CorpusOptions(name=LINES)])
    texts = [example.source for example in corpus][: options.lines]
    sources = sorted(loaded.source.encode_batch(texts), key=len, reverse=True)
    rows = [["beam", "batch", "sentences/s", "target tokens/s"]]
    for beam in options.beams:
        for batch in options.batches:
            search = loaded.recipe.search.model_copy(update={"beam": beam, "n_best": 1})
            # One at a time is many times slower, so every few sentences of the same set must do.
            chosen = sources[:: max(1, len(sources) // 32)] if batch == 1 else sources
            times = []
            for _ in range(4):
                start = time.perf_counter()
                found = [
                    hypotheses[0]
                    for first in range(0, len(chosen), batch)
                    for hypotheses in decode_batch(
                        loaded.model, chosen[first : first + batch], search, device=device
                    )
                ]
                times.append(time.perf_counter() - start)
            spent = statistics.median(times[1:])
            tokens = sum(len(hypothesis.token_scores) for hypothesis in found)
            rate = len(chosen) / spent
            rows.append([str(beam), str(batch), f"{rate:,.1f}", f"{tokens / spent:,.0f}"])
    print(f"{options.model}: {len(sources)} lines of {LINES}, {device}, sorted by length\n")
    print_table(rows)


# ---------------------------------------------------------------------------------------- score


def reached(options: argparse.Namespace, _: torch.device) -> None:
    """When a validation of a training first had a score, from its metrics.jsonl."""
    rows = [row for row in read_metrics(options.model) if row["kind"] == "validation"]
    table = [["minutes", "update", "epoch", options.metric]]
    for row in rows:
        score = f"{row['scores'][options.metric]:.2f}"
        table.append([f"{row['minutes']:.2f}", str(row["update"]), f"{row['epoch']:.2f}", score])
    print_table(table)
    good = [row for row in rows if row["scores"][options.metric] >= options.score]
    if good:
        print(f"\n{options.metric} {options.score:g} on valid after {good[0]['minutes']:.2f} min")
    else:
        print(f"\n{options.metric} {options.score:g} on valid was not reached")


# ------------------------------------------------------------------------------------ all of them


def synchronize(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def numbers(text: str) -> list[int]:
    return [int(part) for part in text.split(",")]


def names(text: str) -> list[str]:
    return text.split(",")


def print_table(rows: Sequence[Sequence[str]]) -> None:
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    for row in rows:
        print("  ".join(cell.rjust(width) for cell, width in zip(row, widths, strict=True)))


if __name__ == "__main__":
    main()
