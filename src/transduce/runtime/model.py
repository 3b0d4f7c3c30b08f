"""The user's object for an exported folder: it answers texts with texts, as a Transducer does."""

from __future__ import annotations

import re
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from transduce.answering import Answering, failed
from transduce.data.lengths import check_length
from transduce.errors import FolderError
from transduce.folder import MANIFEST, RECIPE
from transduce.hypotheses import Hypothesis
from transduce.inputs import Source
from transduce.runtime.decode import decode
from transduce.runtime.folder import DECODER, ENCODER, ExportedFolder, open_exported
from transduce.runtime.network import Network
from transduce.runtime.options import Search

if TYPE_CHECKING:
    from transduce.recipe import Recipe


def load(folder: str | Path, *, threads: int | None = None) -> ExportedModel:
    """Load an exported folder; it runs on the CPU, with so many threads (None: all cores).

    Errors: FolderError when the folder is missing, incomplete or altered, UsageError when
    onnxruntime is not installed.
    """
    opened = open_exported(Path(folder))
    network = Network(opened.path / ENCODER, opened.path / DECODER, threads)
    try:
        return ExportedModel(opened, network)
    except (KeyError, TypeError, ValueError, re.error) as error:
        # The one file without a checksum.
        name = opened.path / MANIFEST
        raise FolderError(f"{name}: damaged ({error!r}). Export it again") from error


class ExportedModel(Answering[Search]):
    """An exported folder that answers as `Answering` says."""

    def __init__(self, folder: ExportedFolder, network: Network) -> None:
        self.folder = folder
        self.network = network
        self.source = folder.side("source")
        self.target = folder.side("target")
        self.search_options()  # a damaged folder says so when it is loaded, not when it is asked

    @property
    def task(self) -> str:
        return str(self.folder.manifest["task"])

    @property
    def precision(self) -> str:
        """`fp32` or `int8`."""
        return str(self.folder.about["precision"])

    @property
    def parameters(self) -> int:
        """How many weights the model has, those shared by several layers counted once."""
        return int(self.folder.about["parameters"])

    @cached_property
    def recipe(self) -> Recipe:
        """The recipe of the model, read when asked for (it needs pydantic and PyYAML)."""
        from transduce.recipe_files import load_recipe

        return load_recipe(self.folder.path / RECIPE)

    def __repr__(self) -> str:
        return f"<ExportedModel {self.folder.path}: {self.task}, {self.precision}>"

    def search_options(self, /, **overrides: Any) -> Search:
        """The recipe's search options with some replaced; UsageError names a wrong one."""
        options = self.folder.search(overrides)
        check_length(self.source, options.length)
        return options

    def _decode(self, sources: list[Source], options: Search) -> list[list[Hypothesis]]:
        def fail(index: int, message: str) -> None:
            failed(sources[index], message)

        return decode(self.network, [source.ids for source in sources], options, fail)
