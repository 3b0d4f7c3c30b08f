"""A worker with CTranslate2: decodes with a Transformer of random weights (see turns.py).

    ENV/bin/python bench/worker_ctranslate2.py make FOLDER VOCABULARY
    ENV/bin/python bench/worker_ctranslate2.py decode FOLDER PIECES TYPE INTER INTRA BATCH

Runs in CTranslate2's own environment. `make` writes a model of 4 + 4 layers of width 256, with 4
heads and feed-forward layers of 1,024, in CTranslate2's format straight from its specification.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import ctranslate2
import numpy as np
from ctranslate2.specs import transformer_spec
from turns import Questions, Rows, answer_decoding

WIDTH, FORWARD, LAYERS, HEADS = 256, 1024, 4, 4
SHAPES = {2: (3, 1), 3: (1, 2, 1)}
SPECIALS = ("<blank>", "<s>", "</s>", "<unk>")
SYSTEM = f"CTranslate2 {ctranslate2.__version__}"


def make(folder: str, vocabulary: str) -> None:
    """Write the model for the pieces of a file, one a line."""
    pieces = [*SPECIALS, *Path(vocabulary).read_text(encoding="utf-8").split("\n")[:-1]]
    spec = transformer_spec.TransformerSpec.from_config((LAYERS, LAYERS), HEADS)
    rng = np.random.default_rng(1)

    def dense(linear: Any, rows: int, columns: int) -> None:
        bound = (6 / (rows + columns)) ** 0.5
        linear.weight = rng.uniform(-bound, bound, (rows, columns)).astype(np.float32)
        linear.bias = np.zeros(rows, np.float32)

    def norm(layer: Any) -> None:
        layer.gamma, layer.beta = np.ones(WIDTH, np.float32), np.zeros(WIDTH, np.float32)

    def attention(layer: Any) -> None:
        norm(layer.layer_norm)
        # Query, key and value in one product and the output; or the query apart, over a memory.
        for linear, widths in zip(layer.linear, SHAPES[len(layer.linear)], strict=True):
            dense(linear, widths * WIDTH, WIDTH)

    def embed(embeddings: Any) -> None:
        drawn = rng.normal(0, WIDTH**-0.5, (len(pieces), WIDTH))
        embeddings.weight = drawn.astype(np.float32)

    for layer in (*spec.encoder.layer, *spec.decoder.layer):
        attention(layer.self_attention)
        if hasattr(layer, "attention"):
            attention(layer.attention)
        norm(layer.ffn.layer_norm)
        dense(layer.ffn.linear_0, FORWARD, WIDTH)
        dense(layer.ffn.linear_1, WIDTH, FORWARD)
    for side in (spec.encoder, spec.decoder):
        norm(side.layer_norm)
    embed(spec.encoder.embeddings[0])
    embed(spec.decoder.embeddings)
    dense(spec.decoder.projection, len(pieces), WIDTH)
    spec.register_source_vocabulary(pieces)
    spec.register_target_vocabulary(pieces)
    spec.validate()
    spec.optimize()
    Path(folder).mkdir(parents=True)
    spec.save(folder)


def decode(folder: str, pieces: str, compute_type: str, inter: str, intra: str, batch: str) -> None:
    """Answer how long decoding takes (see turns.answer_decoding).

    It cuts what it is given into batches by itself, so that several can go on at once where INTER
    is above 1; asked for batches of everything, it is given everything.
    """
    questions = Questions()
    workers = {"inter_threads": int(inter), "intra_threads": int(intra)}
    translator = ctranslate2.Translator(folder, "cpu", compute_type=compute_type, **workers)
    lines = Path(pieces).read_text(encoding="utf-8").split("\n")[:-1]
    rows = [[*line.split(), "</s>"] for line in lines]
    questions.tell(system=SYSTEM, parameters=count(folder))

    def search(some: Rows, beam: int, steps: int) -> list[Any]:
        options = {"beam_size": beam, "max_input_length": 0}
        options |= {"min_decoding_length": steps, "max_decoding_length": steps}
        found = translator.translate_batch(list(some), max_batch_size=int(batch), **options)
        return [one.hypotheses[0] for one in found]

    answer_decoding(questions, rows, search)


def count(folder: str) -> int:
    """Weights in the file, all of which are 4 bytes there (its head is a few kilobytes)."""
    return (Path(folder) / "model.bin").stat().st_size // 4


if __name__ == "__main__":
    commands: dict[str, Callable[..., None]] = {"make": make, "decode": decode}
    commands[sys.argv[1]](*sys.argv[2:])
