"""A worker with transduce: trains or decodes, one turn a question (see turns.py).

python bench/worker_transduce.py train FOLDER key=value ...
python bench/worker_transduce.py decode FOLDER LINES LOAD_KEYWORDS THREADS
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch
from reference import recipe_of
from turns import Questions, Turns, one_by_one

import transduce
from transduce.search import decode_batch
from transduce.training import loop


def train(folder: str, *overrides: str) -> None:
    """The training that `transduce train` runs, cut into turns after each update."""
    recipe, questions = recipe_of(overrides), Questions()
    turns = Turns(questions, system=f"transduce {transduce.__version__}")

    class Trainer(loop.Trainer):
        def update(self) -> None:
            before = self.counters.tokens
            super().update()
            turns.about["parameters"] = sum(p.numel() for p in self.updater.parameters)
            turns.after(self.counters.tokens - before)

    loop.Trainer = Trainer  # type: ignore[misc]
    loop.train(recipe, folder, progress=False, device="cpu")


def decode(folder: str, lines: str, keywords: str, threads: str) -> None:
    """Answer how long decoding takes, for as long as it is asked.

    {"how": "batches", "batch": n}: the search alone; {"how": "bulk"}: text to text, all lines;
    {"how": "single", "count": n}: text to text, one by one. All have "search", its options.
    """
    questions = Questions()
    torch.set_num_threads(int(threads))
    start = time.perf_counter()
    loaded = json.loads(keywords)
    base = {"shortlist": loaded.pop("shortlist")} if "shortlist" in loaded else {}
    transducer = transduce.load(folder, device="cpu", **loaded)
    loading = time.perf_counter() - start
    if base and transducer.shortlist is None:
        raise SystemExit(f"no shortlist; make one with `transduce shortlist {folder}`")
    texts = Path(lines).read_text(encoding="utf-8").split("\n")[:-1]
    ids = [row for row in transducer.source.encode_batch(texts) if row]
    ids.sort(key=len, reverse=True)
    questions.tell(
        system=f"transduce {transduce.__version__}",
        parameters=transducer.parameters,
        vocabulary=transducer.target.size,
        loading=loading,
        source=sum(len(row) + 1 for row in ids) / len(ids),
    )
    while True:
        asked = questions.next()
        how, search = asked.pop("how"), base | asked.pop("search")
        if how == "batches":
            questions.tell(**batches(transducer, ids, search, **asked))
        elif how == "single":
            took = one_by_one(texts, asked["count"], partial(transducer, **search))
            questions.tell(ms=took)
        else:
            questions.tell(**bulk(transducer, texts, search))


def batches(
    model: transduce.Transducer, ids: Sequence[list[int]], search: dict[str, Any], batch: int
) -> dict[str, Any]:
    """The search alone, from ids to hypotheses, in batches of so many sentences of like length."""
    options = model.search_options(**search)
    searched = model._searched(options)
    start = time.perf_counter()
    found = [
        hypotheses[0]
        for first in range(0, len(ids), batch)
        for hypotheses in decode_batch(searched, ids[first : first + batch], options)
    ]
    seconds = time.perf_counter() - start
    steps = sum(len(hypothesis.token_scores) for hypothesis in found) / len(found)
    return {"seconds": seconds, "sentences": len(ids), "steps": steps}


def bulk(model: transduce.Transducer, texts: list[str], search: dict[str, Any]) -> dict[str, Any]:
    """Text to text, as `transduce predict` does it: its own windows, batches and order."""
    start = time.perf_counter()
    found = model(texts, **search)
    seconds = time.perf_counter() - start
    steps = sum(len(out.token_scores) for out in found) / len(found)
    return {"seconds": seconds, "sentences": len(texts), "steps": steps}


if __name__ == "__main__":
    commands: dict[str, Callable[..., None]] = {"train": train, "decode": decode}
    commands[sys.argv[1]](*sys.argv[2:])
