"""What the precisions of a model folder do on this machine: the chosen one, and what it changes."""

from __future__ import annotations

import math
import random
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from transduce.data.text import TextSide
from transduce.data.tokenizers.base import UNK

if TYPE_CHECKING:
    from transduce.data.sides import SourceSide
    from transduce.transducer import Transducer

SOURCES = 24
LENGTHS = (3, 20)  # of these sources, in tokens


def _sources(side: SourceSide) -> list[Any]:
    """Random tokens; for speech random frames, ten times as many."""
    draw = random.Random(1)
    if isinstance(side, TextSide):
        return [
            [draw.randrange(UNK + 1, side.size) for _ in range(draw.randint(*LENGTHS))]
            for _ in range(SOURCES)
        ]
    lengths = [10 * draw.randint(*LENGTHS) for _ in range(SOURCES)]
    rng = np.random.default_rng(1)
    return [rng.normal(size=(length, side.size)).astype(np.float32) for length in lengths]


def precision_facts(path: Path) -> dict[str, Any]:
    """The precision `auto` takes here and why, and for bf16 and int8 how far they are from fp32.

    `kernels` is whether the kernels in C do what they can of a step.

    The distance is the mean difference between log-probabilities of tokens, in nats. The tokens are
    those that the model gives in fp32 to sources made of random tokens, so no data is needed; on
    such sources a model is less sure of itself than on real ones, and differences are larger. None
    stands for no number, which is what a model gives whose training diverged. A transducer scores
    no given targets, and nothing is told of it.
    """
    from transduce import kernels
    from transduce.search.ctc.choosing import is_transducer
    from transduce.transducer import load

    exact = load(path, "cpu", "fp32")
    distance = {} if is_transducer(exact.model) else _distances(path, exact)
    chosen = load(path).precision
    return {
        "auto": chosen.precision,
        "reason": chosen.reason,
        "kernels": kernels.available(),
        "distance": distance,
    }


def _distances(path: Path, exact: Transducer) -> dict[str, float | None]:
    """The distance of each precision that is to be had here from `exact`, the same in fp32."""
    from transduce.errors import UsageError
    from transduce.search.decode import decode, force_score
    from transduce.transducer import load

    sources = _sources(exact.source)
    options = exact.search_options(beam=1, n_best=1, shortlist=0)
    targets = [found[0].ids for found in decode(exact.model, sources, options)]
    expected = [
        score
        for forced in force_score(exact.model, sources, targets)
        for score in forced.token_scores
    ]
    distance: dict[str, float | None] = {}
    for precision in ("bf16", "int8"):
        try:
            rounded = load(path, "cpu", precision)
        except UsageError:  # not to be had here
            continue
        found = [s for f in force_score(rounded.model, sources, targets) for s in f.token_scores]
        differences = [abs(a - b) for a, b in zip(expected, found, strict=True)]
        mean = sum(differences) / len(differences)
        distance[precision] = mean if math.isfinite(mean) else None
    return distance
