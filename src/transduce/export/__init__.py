"""From a model folder to an exported one: ONNX graphs, checked against the model they are of."""

from transduce.export.exporting import Exported, export_model
from transduce.export.parity import Parity

__all__ = ["Exported", "Parity", "export_model"]
