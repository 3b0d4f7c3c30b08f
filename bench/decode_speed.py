"""How fast lines are decoded: sentences a second, in batches and as `transduce predict` does it.

    python bench/decode_speed.py runs/multi30k-en-de test.en      # a model of yours on your text
    python bench/decode_speed.py --random                         # the reference model's size

`--random` takes random weights and forces every sentence to exactly 15 steps (`--steps`), so that
the work does not depend on what is decoded; the lines are then Multi30k's. `batches` are the search
alone, from ids to hypotheses, `--batch` sentences of like length together; `bulk` is text to text
with the batches of `transduce predict`. Each precision and number of threads has a process of its
own. `limit` is what a product of matrices would allow (see docs/performance.md).
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
from reference import (
    VARIANTS,
    Cost,
    Decoding,
    cost_of,
    decoder,
    forced,
    probe_of,
    random_folder,
    recipe_of,
    text_lines,
    usable,
)
from turns import Worker

from transduce.folder import open_folder


def main() -> None:
    options = arguments()
    facts = common.machine()
    with ExitStack() as stack:
        work = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="decode-speed-")))
        folder = options.model or random_folder(work / "model", recipe_of(options.overrides))
        lines = work / "lines"
        texts = text_lines(options.file, options.lines)
        lines.write_text("".join(f"{text}\n" for text in texts), encoding="utf-8")
        variants, note = usable(options.precisions)
        contestants: list[Contestant] = []
        for threads in options.threads:
            for name, keywords in variants.items():
                log = work / f"{name}-{threads}.log"
                try:
                    worker = decoder(folder, keywords, threads, log, lines)
                except LeftOut as reason:
                    note += f"\nleft out: {name}: {reason}"
                    continue
                stack.callback(worker.close)
                contestants += entries(worker, name, threads, options)
                about = worker.about
        if not contestants:
            raise SystemExit(note.strip() or "nothing to measure")
        common.take_turns(contestants, options.runs)
        cost = cost_of(open_folder(folder).recipe.model, about["vocabulary"])
    facts = common.machine() | facts
    work_done = f"{options.steps} steps each" if options.random else "as long as they come out"
    print(common.heading(facts))
    print(
        f"{about['system']}, {folder if options.model else 'random weights'}: "
        f"{about['parameters']:,} parameters, {options.lines:,} sentences of {about['source']:.1f} "
        f"source positions, {work_done}, median of {options.runs} turns\n{note}"
    )
    head = ["precision", "threads", "beam", "how", "sentences/s", "range", "probe GF/s"]
    rows = [[*head, "limit", "reached"]]
    found = []
    for contestant in contestants:
        bound = limit(contestant, cost, about["source"])
        rows.append([*contestant.label, *common.summary(contestant), *shares(contestant, bound)])
        found.append(contestant.facts() | {"limit": bound})
    print(common.table(rows, left=4) + common.reasons(contestants))
    common.write_json(options.json, options, facts, found)


def arguments() -> argparse.Namespace:
    parser = common.parser(__doc__)
    parser.add_argument("model", type=Path, nargs="?", help="model folder")
    parser.add_argument("file", type=Path, nargs="?", help="source lines; default: Multi30k's test")
    parser.add_argument("--random", action="store_true", help="random weights, forced length")
    parser.add_argument("--set", dest="overrides", nargs="+", default=[], metavar="key=value")
    parser.add_argument("--steps", type=int, default=15, help="of --random, the end counted")
    parser.add_argument("--lines", type=int, default=512)
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--beams", type=common.numbers, default=[1, 5])
    parser.add_argument("--threads", type=common.numbers, default=[1])
    parser.add_argument("--precisions", type=common.names, default=list(VARIANTS))
    options = parser.parse_args()
    if bool(options.model) == options.random:
        parser.error("give a model folder, or --random")
    if unknown := set(options.precisions) - VARIANTS.keys():
        parser.error(f"unknown precision {', '.join(unknown)}; there are {', '.join(VARIANTS)}")
    return options


def entries(
    worker: Worker, name: str, threads: int, options: argparse.Namespace
) -> list[Contestant]:
    """The lines of the table that one worker fills."""
    made = []
    for beam in options.beams:
        search = {"beam": beam} | (forced(options.steps) if options.random else {})
        asked: dict[str, dict[str, Any]] = {
            f"batches of {options.batch}": {"how": "batches", "batch": options.batch},
            "bulk": {"how": "bulk"},
        }
        for how, question in asked.items():
            label = (name, str(threads), str(beam), how)
            turn = Decoding(worker, question | {"search": search})
            made.append(Contestant(label, turn, threads, probe_of(name)))
    return made


def limit(contestant: Contestant, cost: Cost, source: float) -> float | None:
    """Sentences a second were every product as fast as the probe and all else free.

    None for integer products, which the probe does not measure.
    """
    assert isinstance(contestant.turn, Decoding)
    if not contestant.probes or contestant.label[0] not in ("fp32", "bf16"):
        return None
    operations = cost.decoding(source, contestant.turn.steps, int(contestant.label[2]))
    return 1e9 * statistics.median(contestant.probes) / operations


def shares(contestant: Contestant, bound: float | None) -> list[str]:
    """Two cells: the limit, and how much of it is reached."""
    if bound is None:
        return ["", ""]
    return [common.number(bound), f"{statistics.median(contestant.values) / bound:.0%}"]


if __name__ == "__main__":
    main()
