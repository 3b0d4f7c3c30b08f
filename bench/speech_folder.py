"""Speech for bench/: a model folder with random weights, and recordings by name."""

from __future__ import annotations

import string
from collections.abc import Iterator, Sequence
from itertools import chain
from pathlib import Path

import numpy as np
import torch

from transduce.data.audio.features import Statistics
from transduce.data.corpus import open_corpora
from transduce.data.formats import Example
from transduce.data.speech import SpeechSide
from transduce.data.text import train_side
from transduce.folder import RECIPE, WEIGHTS, publish
from transduce.model import build_model
from transduce.model.weights import model_tensors, tensor_bytes
from transduce.recipe import CorpusOptions
from transduce.recipe_files import dump_recipe, load_recipe

FILE = Path(__file__).resolve().parents[1] / "recipes" / "an4-streaming.yaml"
MEAN, DEVIATION = 10.0, 3.5  # of log-mel energies, about


def random_folder(path: Path, overrides: Sequence[str] = ()) -> Path:
    """Write the model folder that training on the streaming recipe would begin from, for letters.

    No corpus is read: characters are letters, and the statistics of frames are made up.
    """
    recipe = load_recipe(FILE, ["target.tokenizer.kind=characters", *overrides])
    path.mkdir(parents=True)
    ones = np.ones(recipe.source.bins, dtype=np.float32)
    known = Statistics(MEAN * ones, DEVIATION * ones)
    side = SpeechSide(recipe.source, known if recipe.source.normalize == "global" else None)
    target = train_side(recipe.target, [f"{string.ascii_uppercase} '"], seed=1)
    side.save(path, "source")
    target.save(path, "target")
    torch.manual_seed(1)
    weights = model_tensors(build_model(recipe.model, 0, target.size, side.size))
    files = {RECIPE: dump_recipe(recipe).encode(), WEIGHTS: tensor_bytes(weights)}
    publish(path, files, task=recipe.task, source_language=None, target_language="en")
    return path


def recordings_of(name: str) -> Iterator[Example]:
    """The recordings of a catalogue name or of a table, those without sound left out."""
    where = {"table": name} if Path(name).exists() else {"name": name}
    corpora = open_corpora([CorpusOptions.model_validate(where)], "speech")
    return (example for example in chain.from_iterable(corpora) if example.source)
