"""What the peers of bench/peers.py get: environments, the same data cut the same, and settings.

Each has an environment of its own under one folder, made once and used again. torch goes in first
and by name, in the version that transduce is tested with, so that nothing chooses another one.
"""

from __future__ import annotations

import json
import subprocess
import venv
from collections.abc import Sequence
from itertools import chain
from pathlib import Path
from typing import Any

from common import LeftOut, say
from decoding import text_lines
from reference import HERE

from transduce.data.corpus import open_corpora
from transduce.data.text import TextSide
from transduce.data.tokenizers.base import SPECIALS
from transduce.recipe import Recipe
from transduce.training.setup import learn_sides

# What `pip` is asked for. Where torch is not named, the peer does without.
PACKAGES: dict[str, tuple[str, ...]] = {
    "eole": ("torch", "eole>=0.6,<0.7", "aiohttp"),
    "ctranslate2": ("ctranslate2>=4.8,<5", "numpy"),
    # It imports importlib_metadata without asking for it.
    "joeynmt": ("torch", "joeynmt==2.3.0", "importlib_metadata"),
}


def environment(peer: str, folder: Path, given: Path | None) -> Path:
    """The Python of a peer's environment: the one given, or one made under `folder`.

    Errors: LeftOut when it cannot be made, or the peer cannot be imported in it.
    """
    python = given or folder / peer / "bin" / "python"
    if not python.exists():
        if given is not None:
            raise LeftOut(f"{given}: no such file")
        say(f"making an environment with {peer} in {folder / peer}")
        venv.create(folder / peer, with_pip=True)
        install(python, PACKAGES[peer])
    done = _run([python, "-c", f"import {peer}"])
    if done.returncode:
        said = (done.stdout + done.stderr).strip().splitlines() or ["no word"]
        raise LeftOut(f"{python} cannot import {peer}: {said[-1]}")
    return python


def install(python: Path, packages: Sequence[str]) -> None:
    """Install with pip; torch by itself before all else, held to that version after."""
    pinned = HERE.parent / "constraints.txt"
    torch = next(
        line.split()[0] for line in pinned.read_text().splitlines() if line.startswith("torch==")
    )
    held = python.parent.parent / "held.txt"
    held.write_text(f"{torch}\n")
    steps = [[torch]] if "torch" in packages else []
    steps.append(["-c", str(held), *(name for name in packages if name != "torch")])
    for step in steps:
        done = _run([python, "-m", "pip", "install", "--quiet", *step])
        if done.returncode:
            said = (done.stdout + done.stderr).strip().splitlines() or ["no word"]
            raise LeftOut(f"pip install {' '.join(step)}: {said[-1]}")


def _run(command: Sequence[str | Path]) -> subprocess.CompletedProcess[str]:
    return subprocess.run([str(c) for c in command], capture_output=True, text=True, check=False)


# ---------------------------------------------------------------------------------------- data


def write_data(recipe: Recipe, work: Path, lines: int) -> int:
    """Write pieces with spaces between, one sentence a line; returns how many pieces there are.

    train.src, train.tgt: the training set; valid.*: a few of its pairs, since some toolkits insist;
    decode.src: what is decoded, and lines: the same as text; pieces: the vocabulary.
    """
    source, target = learn_sides(recipe, open_corpora(recipe.data.train))
    pairs = [
        (source.encode(example.source), target.encode(example.target or ""))
        for example in chain.from_iterable(open_corpora(recipe.data.train))
    ]
    longest = recipe.data.max_source_length, recipe.data.max_target_length
    pairs = [p for p in pairs if all(0 < len(ids) <= n for ids, n in zip(p, longest, strict=True))]
    for name, some in (("train", pairs), ("valid", pairs[:8])):
        write(work / f"{name}.src", [spaced(source, ids) for ids, _ in some])
        write(work / f"{name}.tgt", [spaced(target, ids) for _, ids in some])
    texts = text_lines(None, lines)
    write(work / "lines", texts)
    write(work / "decode.src", [spaced(source, source.encode(text)) for text in texts])
    pieces = [piece for piece in source.tokens(range(source.size)) if piece not in SPECIALS]
    write(work / "pieces", pieces)
    return len(pieces)


def spaced(side: TextSide, ids: list[int]) -> str:
    return " ".join(side.tokens(ids))


def write(path: Path, lines: Sequence[str]) -> None:
    path.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")


# ------------------------------------------------------------------------------------ settings


def eole_config(
    recipe: Recipe, work: Path, name: str, *, feed: int, precision: str, updates: int
) -> Path:
    """eole's settings for the reference recipe; what has no counterpart is its default.

    `feed` 1 is its default decoder, which feeds its output back and loops over time; 0 is the one
    without, the arrangement of the reference model and its faster one in training.
    """
    train, model = recipe.training, recipe.model
    tree: dict[str, Any] = {
        "seed": 1,
        "report_every": 50,
        "data": {"corpus": {"path_src": f"{work}/train.src", "path_tgt": f"{work}/train.tgt"}},
        "src_vocab": f"{work}/pieces",
        "share_vocab": True,
        "transforms": [],
        "model": {
            "architecture": "custom",  # `rnn` makes every encoder one-directional
            "hidden_size": model.decoder.size,
            "layers": model.decoder.layers,
            "encoder": {"encoder_type": "brnn", "rnn_type": "LSTM"},
            "decoder": {
                "decoder_type": "rnn",
                "rnn_type": "LSTM",
                "global_attention": "general",
            },
            "input_feed": feed,
            "embeddings": {"word_vec_size": model.embedding, "position_encoding_type": None},
            "share_embeddings": False,
            "share_decoder_embeddings": False,
        },
        "training": {
            "model_path": f"{work}/{name}",
            "compute_dtype": precision,
            "optim": "adam",
            "adam_beta2": train.optimizer.betas[1],
            "learning_rate": train.learning_rate,
            "batch_type": "tokens",  # padded positions of the longer side, as transduce counts
            "batch_size": train.batch_tokens,
            "normalization": "tokens",
            "dropout": [model.decoder.dropout],
            "label_smoothing": train.label_smoothing,
            "bucket_size": 32768,  # the whole corpus, sorted by length
            "num_workers": 0,  # it has no more processes than transduce
            "log_attention_entropy": False,  # work that is not learning
            "train_steps": updates,
            "save_checkpoint_steps": updates,
        },
    }
    path = work / f"{name}.yaml"
    path.write_text(json.dumps(tree, indent=1))  # JSON is YAML
    return path


def joeynmt_config(recipe: Recipe, work: Path) -> Path:
    """JoeyNMT's settings for the reference recipe. Its decoder always loops over time."""
    train, model = recipe.training, recipe.model
    dropout, half = model.decoder.dropout, model.encoder.size // 2
    embeddings = {"embedding_dim": model.embedding, "dropout": model.embedding_dropout}
    side = {"level": "word", "voc_file": f"{work}/pieces", "max_length": 100}
    recurrent = {"type": "recurrent", "rnn_type": "lstm", "dropout": dropout}
    tree: dict[str, Any] = {
        "name": "reference",
        "model_dir": f"{work}/joeynmt",
        "use_cuda": False,
        "data": {
            "train": f"{work}/train",
            "dev": f"{work}/valid",
            "dataset_type": "plain",
            "src": {"lang": "src", **side},
            "trg": {"lang": "tgt", **side},
        },
        "testing": {"batch_size": 64},
        "training": {
            "optimizer": "adam",
            "adam_betas": list(train.optimizer.betas),
            "learning_rate": train.learning_rate,
            "learning_rate_min": 1e-9,
            # It insists on a schedule; its plateau is not for this torch.
            "scheduling": "decaying",
            "decaying_step_size": 10**9,
            "clip_grad_norm": train.clip_norm,
            "label_smoothing": train.label_smoothing,
            "batch_size": train.batch_tokens,
            "batch_type": "token",  # padded positions of the longer side, in random order
            "normalization": "tokens",
            "epochs": 100000,
            "logging_freq": 50,
            "validation_freq": 10**9 - 10**9 % 50,
            "overwrite": True,
        },
        "model": {
            "initializer": "xavier_uniform",
            "encoder": {
                **recurrent,
                "hidden_size": half,
                "bidirectional": True,
                "num_layers": model.encoder.layers,
                "embeddings": embeddings,
            },
            "decoder": {
                **recurrent,
                "hidden_size": model.decoder.size,
                "num_layers": model.decoder.layers,
                "embeddings": embeddings,
                "hidden_dropout": dropout,
                "attention": "luong",
                "input_feeding": False,
                "init_hidden": "bridge",
            },
        },
    }
    path = work / "joeynmt.yaml"
    path.write_text(json.dumps(tree, indent=1))
    return path
