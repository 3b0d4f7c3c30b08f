"""What precision and shortlist cost in accuracy, and what they give in speed.

    python bench/accuracy.py runs/multi30k-en-de --data multi30k-en-de:val --shortlists 0,20,50

Decodes a whole set with a trained model in every precision and with every shortlist (made before by
`transduce shortlist`), text to text. The settings take turns, so that a machine that slows down
slows all of them; the score of a setting is that of its first turn, since it is always the same.
"""

from __future__ import annotations

import argparse
import statistics
import time
from functools import partial
from pathlib import Path

import common
import torch
from common import Contestant

import transduce
from transduce.assessment import Trial, assess, chosen_corpora, read_trial, test_corpora
from transduce.transducer import Transducer


def main() -> None:
    options = parse()
    facts = common.machine()
    torch.set_num_threads(options.threads)
    models = {p: transduce.load(options.model, "cpu", p) for p in options.precisions}
    recipe = next(iter(models.values())).recipe
    corpora = chosen_corpora(options.data, None, None, None) or test_corpora(recipe)
    trial = read_trial(corpora, group=recipe.task == "pronunciation")
    scores: dict[tuple[str, ...], str] = {}
    contestants = []
    for precision, model in models.items():
        for size in options.shortlists:
            label = (precision, str(size or "all words"))
            turn = partial(decode, model, trial, size, options, scores, label)
            dtype = "fp32" if precision == "fp32" else "bf16"
            contestants.append(Contestant(label, turn, options.threads, dtype))
    common.take_turns(contestants, options.runs, warm=1)
    print(f"{common.heading(facts)}\n{options.model} on {trial.label}, beam {options.beam}\n")
    head = ["precision", "shortlist", "score [95 %]", "sentences/s", "range"]
    rows = [
        [
            *one.label,
            scores[one.label],
            f"{statistics.median(one.values):.0f}",
            f"{min(one.values):.0f}-{max(one.values):.0f}",
        ]
        for one in contestants
    ]
    print(common.table([head, *rows], left=2))
    common.write_json(options.json, options, facts, [one.facts() for one in contestants])


def decode(
    model: Transducer,
    trial: Trial,
    shortlist: int,
    options: argparse.Namespace,
    scores: dict[tuple[str, ...], str],
    label: tuple[str, ...],
) -> list[float]:
    """Sentences a second of the whole set; scored the first time."""
    search = {"beam": options.beam, "shortlist": shortlist}
    if label not in scores:
        (score, *_) = assess(model, trial, **search).scores
        scores[label] = f"{score.value:.2f} [{score.low:.2f}, {score.high:.2f}]"
    start = time.perf_counter()
    for _ in model.stream(trial.sources, **search):
        pass
    return [len(trial.sources) / (time.perf_counter() - start)]


def parse() -> argparse.Namespace:
    parser = common.parser(__doc__, runs=3)
    parser.add_argument("model", type=Path, help="model folder")
    parser.add_argument("--data", help="catalogue name (default: the recipe's test set)")
    parser.add_argument("--precisions", type=common.names, default=["fp32", "bf16", "int8"])
    parser.add_argument("--shortlists", type=common.numbers, default=[0])
    parser.add_argument("--beam", type=int, default=5)
    parser.add_argument("--threads", type=int, default=1)
    return parser.parse_args()


if __name__ == "__main__":
    main()
