"""Decoding exported models with onnxruntime and NumPy alone, without torch.

    import transduce.runtime
    model = transduce.runtime.load("exported")
    out = model("A man rides a horse.")
    out.text, out.score, out.attention

An exported folder is what `transduce export` writes. The search is that of `transduce.search`, and
so are its results, up to rounding.
"""

from transduce.runtime.model import ExportedModel, load

__all__ = ["ExportedModel", "load"]
