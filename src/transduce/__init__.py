"""Sequence-to-sequence learning: train, evaluate, run and inspect encoder-decoder models.

    import transduce
    model = transduce.load("runs/x")
    out = model("A man rides a horse.")
    out.text, out.score, out.attention

What is named here is imported when it is first used, so `import transduce` itself costs nothing.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from transduce.errors import DataError, FolderError, TrainingError, TransduceError, UsageError
    from transduce.output import Output, Scored
    from transduce.recipe import Recipe
    from transduce.recipe_files import load_recipe
    from transduce.training.loop import train
    from transduce.transducer import Transducer, load

__version__ = "0.1.0"

_HOMES = {
    "load": "transduce.transducer",
    "Transducer": "transduce.transducer",
    "Output": "transduce.output",
    "Scored": "transduce.output",
    "train": "transduce.training.loop",
    "load_recipe": "transduce.recipe_files",
    "Recipe": "transduce.recipe",
    "TransduceError": "transduce.errors",
    "UsageError": "transduce.errors",
    "DataError": "transduce.errors",
    "FolderError": "transduce.errors",
    "TrainingError": "transduce.errors",
}

__all__ = [
    "DataError",
    "FolderError",
    "Output",
    "Recipe",
    "Scored",
    "TrainingError",
    "TransduceError",
    "Transducer",
    "UsageError",
    "__version__",
    "load",
    "load_recipe",
    "train",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'transduce' has no attribute {name!r}")
    value = getattr(import_module(_HOMES[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
