"""Training: from a recipe to a model folder, with nothing lost when it is stopped."""

from transduce.training.interruption import Interrupted
from transduce.training.loop import train
from transduce.training.progress import Result

__all__ = ["Interrupted", "Result", "train"]
