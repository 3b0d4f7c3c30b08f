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
from common import Contestant
from decoding import Decoding, Ready, options_of, probe_of, search_of, start, told_of
from reference import Cost, cost_of

from transduce.folder import open_folder


def main() -> None:
    parser = common.parser(__doc__)
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--refill", action="store_true", help="`bulk` also with search.refill")
    options = options_of(parser, lines=512)
    facts = common.machine()
    with ExitStack() as stack:
        work = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="decode-speed-")))
        folder, ready, note = start(options, work, stack)
        contestants = [made for one in ready for made in entries(one, options)]
        about = ready[0].worker.about
        cost = cost_of(open_folder(folder).recipe.model, about["vocabulary"])
        common.take_turns(contestants, options.runs)
    facts = common.machine() | facts
    print(common.heading(facts))
    print(told_of(options, about) + f"\n{note}")
    head = ["precision", "threads", "beam", "how", "sentences/s", "range", "probe GF/s"]
    rows = [[*head, "limit", "reached"]]
    found = []
    for contestant in contestants:
        bound = limit(contestant, cost, about["source"])
        rows.append([*contestant.label, *common.summary(contestant), *shares(contestant, bound)])
        found.append(contestant.facts() | {"limit": bound})
    print(common.table(rows, left=4) + common.reasons(contestants))
    common.write_json(options.json, options, facts, found)


def entries(one: Ready, options: argparse.Namespace) -> list[Contestant]:
    """The lines of the table that one worker fills."""
    asked: dict[str, dict[str, Any]] = {
        f"batches of {options.batch}": {"how": "batches", "batch": options.batch},
        "bulk": {"how": "bulk"},
    }
    more: dict[str, dict[str, Any]] = {how: {} for how in asked}
    if options.refill:
        asked["bulk, refilled"], more["bulk, refilled"] = asked["bulk"], {"refill": True}
    made = []
    for beam in options.beams:
        for how, question in asked.items():
            label = (one.variant, str(one.threads), str(beam), how)
            search = search_of(options, beam) | more[how]
            turn = Decoding(one.worker, question | {"search": search})
            made.append(Contestant(label, turn, one.threads, probe_of(one.variant)))
    return made


def limit(contestant: Contestant, cost: Cost, source: float) -> float | None:
    """Sentences a second, were every product as fast as the probe and all else free.

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
