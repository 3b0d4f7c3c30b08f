"""What a model folder holds, as objects: sides, the trained model, its shortlist."""

from __future__ import annotations

import torch

from transduce.data.copying import codes_of
from transduce.data.sides import SourceSide, bins_of, load_sides
from transduce.data.text import TextSide
from transduce.errors import UsageError
from transduce.folder import SHORTLIST, ModelFolder
from transduce.model.build import build_model
from transduce.model.seq2seq import Seq2Seq
from transduce.model.shortlist import Shortlist
from transduce.model.weights import load_weights


def shortlist_of(folder: ModelFolder, source_size: int, target_size: int) -> Shortlist | None:
    """The folder's shortlist, if it has one, for vocabularies of these sizes."""
    if SHORTLIST not in folder.manifest["files"]:
        return None
    return Shortlist.load(folder.path / SHORTLIST, source_size, target_size)


def sides_of(folder: ModelFolder) -> tuple[SourceSide, TextSide]:
    """Source and target side as the folder has them."""
    return load_sides(folder.path, folder.recipe)


def check_same_vocabulary(first: ModelFolder, other: ModelFolder) -> None:
    """Errors: UsageError for models that cannot be one ensemble."""
    for side in ("source", "target"):
        if vocabulary_of(first, side) != vocabulary_of(other, side):
            if side == "source" and "speech" in (
                first.recipe.source_kind,
                other.recipe.source_kind,
            ):
                raise UsageError(
                    f"{first.path} and {other.path} hear sound as different frames (rate, bins, "
                    "lengths or normalisation of source.json); an ensemble needs the same"
                )
            raise UsageError(
                f"{first.path} and {other.path} have different {side} vocabularies; "
                "an ensemble needs the same"
            )


def vocabulary_of(folder: ModelFolder, side: str) -> bytes:
    """What two models must share of a side, to compare."""
    return folder.side(side).read_bytes()


def model_of(
    folder: ModelFolder, source: SourceSide, target: TextSide, device: torch.device
) -> Seq2Seq:
    """The trained model on its device, ready to decode."""
    sizes = source.size, target.size
    model = build_model(folder.recipe.model, *sizes, bins_of(source), codes_of(source))
    load_weights(model, folder.weights)
    return model.to(device).eval()
