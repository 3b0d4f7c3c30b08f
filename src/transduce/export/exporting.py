"""From a model folder to an exported folder."""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from transduce.data.sides import load_texts
from transduce.data.text import Reading, moses_punctuation
from transduce.disk import LOCK, lock
from transduce.errors import TransduceError, UsageError
from transduce.export.decoder import step_graph
from transduce.export.encoder import encoder_graph
from transduce.export.graph import Graph, Precision
from transduce.export.parity import TOLERANCES, Parity, compare
from transduce.export.sample import checked_on
from transduce.folder import (
    EXPORTED,
    MANIFEST,
    RECIPE,
    ModelFolder,
    identity,
    is_exported,
    is_unused,
    open_folder,
    publish,
    remove_temporary,
)
from transduce.inputs import Text
from transduce.model.build import build_model
from transduce.model.seq2seq import Seq2Seq
from transduce.model.weights import load_weights
from transduce.recipe import ModelOptions, Recipe, SearchOptions
from transduce.runtime.folder import DECODER, ENCODER, EXPORT_FORMAT, FILES
from transduce.runtime.network import Network
from transduce.runtime.options import SEARCH_NAMES, search_options

_WRITTEN = (*sorted(FILES), MANIFEST)
_SCHEMA = ("type", "anyOf", "enum", "minimum", "maximum", "exclusiveMinimum")


@dataclass(frozen=True)
class Exported:
    """What was written: the folder, the size of its graphs in bytes, how far they are from the
    model and on what, and what of that is beyond the tolerance (in float32 it is an error)."""

    path: Path
    size: int
    parity: Parity
    checked_on: str
    warnings: list[str]


def export_model(
    model: str | os.PathLike[str],
    out: str | os.PathLike[str],
    *,
    precision: Precision = "fp32",
    sample: Iterable[Text] | None = None,
) -> Exported:
    """Write the graphs of a model folder into the folder `out`, after checking them.

    `sample` are texts to check them on; without, sources of the recipe's validation data are, if
    it is on this machine, or else random words. Nothing is written unless the check passes.
    Errors: FolderError for a model folder that is missing or damaged, UsageError when `out` holds
    something else or the model has a part without a graph, TransduceError when the graphs do not
    answer as the model does.
    """
    out = Path(out)
    _check_free(out)
    folder = open_folder(model)
    recipe = folder.recipe
    source, target = load_texts(folder.path, recipe, "export")
    check_has_graphs(recipe.model)
    torch_model = build_model(recipe.model, source.size, target.size)
    load_weights(torch_model, folder.weights)
    torch_model.eval()
    search = _search_entry(recipe)
    options = search_options(search["values"], search["allowed"], where=str(folder.path))
    sources, label = checked_on(recipe, source, options, sample)
    graphs = graphs_of(torch_model, recipe.model, target.size, precision)
    network = Network(graphs[ENCODER], graphs[DECODER], torch.get_num_threads())
    tolerance = TOLERANCES[precision]
    parity = compare(torch_model, network, sources, options)
    problems = parity.beyond(tolerance)
    if problems and precision == "fp32":
        raise TransduceError(
            f"{model}: the exported graphs do not answer as the model does: "
            f"{'; '.join(problems)}. Nothing was written"
        )
    entry = {
        "format": EXPORT_FORMAT,
        "precision": precision,
        "parameters": sum(p.numel() for p in torch_model.parameters()),
        "source": _side_entry(source.options),
        "target": _side_entry(target.options),
        "search": search,
        "parity": {"checked_on": label, **asdict(parity)},
    }
    _write(out, folder, graphs, entry)
    return Exported(out, sum(map(len, graphs.values())), parity, label, problems)


def check_has_graphs(options: ModelOptions) -> None:
    """Make sure that a model of text has a graph. Errors: UsageError naming the part without."""
    encoder, attention = options.encoder, options.decoder.attention
    missing = None
    if not options.has_decoder:
        missing = "`model.transducer`" if options.transducer else "`model.ctc.weight` 1"
    elif not encoder.recurrent:
        missing = f"`model.encoder.kind` {encoder.kind}"
    elif attention.kind == "location":
        missing = f"`model.decoder.attention.kind` {attention.kind}"
    elif attention.coverage:
        missing = "`model.decoder.attention.coverage`"
    elif options.decoder.intra_attention:
        missing = "`model.decoder.intra_attention`"
    elif options.copies:
        missing = f"`model.decoder.copy` {options.decoder.copy}"
    if missing:
        raise UsageError(
            f"there is no ONNX graph for {missing}: recurrent encoders and decoders can be "
            "exported, with every attention but `location`, but not what copies or attends to "
            "what it has said"
        )


def graphs_of(
    model: Seq2Seq, options: ModelOptions, vocabulary: int, precision: Precision
) -> dict[str, bytes]:
    """Both .onnx files of a model. Errors: TransduceError for a part that has no graph."""
    # With the names of shared weights, too, so that either may be asked for.
    weights = {name: tensor.detach().numpy() for name, tensor in model.state_dict().items()}
    encoder, decoder = Graph(weights, precision), Graph(weights, precision)
    encoder_graph(encoder, options)
    step_graph(decoder, options, vocabulary)
    if unused := sorted(weights.keys() - encoder.used - decoder.used):
        raise TransduceError(f"this model cannot be exported: `{unused[0]}` is part of no graph")
    return {ENCODER: encoder.model("encoder"), DECODER: decoder.model("step")}


def _check_free(out: Path) -> None:
    """Errors: UsageError unless `out` is new, empty, or an exported folder to be replaced."""
    if not out.exists() or is_exported(out):
        return
    if not out.is_dir():
        raise UsageError(f"{out}: is a file; name a folder to export to")
    if (out / MANIFEST).exists():
        raise UsageError(f"{out}: is a model folder; export to another one")
    if not is_unused(out, _WRITTEN):
        raise UsageError(f"{out}: is not empty; export to a new folder")


def _search_entry(recipe: Recipe) -> dict[str, Any]:
    """The recipe's search options and what each may hold. Errors: UsageError."""
    values = recipe.search.model_dump(mode="json")
    defaults = SearchOptions().model_dump(mode="json")
    for name in values.keys() - set(SEARCH_NAMES):
        if values[name] != defaults[name]:
            raise UsageError(
                f"the recipe's `search.{name}` is {values[name]!r}, which exported models do not "
                f"know; export a model whose recipe leaves it at {defaults[name]!r}"
            )
    properties = SearchOptions.model_json_schema()["properties"]
    return {
        "values": {name: values[name] for name in SEARCH_NAMES},
        "allowed": {
            name: {key: properties[name][key] for key in _SCHEMA if key in properties[name]}
            for name in SEARCH_NAMES
        },
    }


def _side_entry(options: Reading) -> dict[str, Any]:
    """What reading text needs of a side; the rules of punctuation spare the runtime sacremoses."""
    entry: dict[str, Any] = {
        "tokenizer": options.tokenizer.kind,
        "lowercase": options.lowercase,
        "normalize": options.normalize,
        "language": options.language,
        "length_control": options.length_control,
    }
    clean, limit = options.clean, options.truncate
    entry["clean"] = {"html": clean.html, "quoted": clean.quoted, "spaces": clean.spaces}
    if limit is not None:
        entry["truncate"] = {
            "tokens": limit.tokens,
            "keep": limit.keep,
            "sentences": limit.sentences,
        }
    if options.normalize == "punctuation":
        entry["punctuation"] = [list(rule) for rule in moses_punctuation(options.language)]
    return entry


def _write(out: Path, folder: ModelFolder, graphs: dict[str, bytes], entry: dict[str, Any]) -> None:
    files = dict(graphs)
    for name in (RECIPE, folder.side("source").name, folder.side("target").name):
        files[name] = (folder.path / name).read_bytes()
    with lock(out, "export"):
        remove_temporary(out, _WRITTEN)
        publish(
            out,
            files,
            **identity(folder.manifest),
            extra={EXPORTED: entry},
            names=frozenset(files),
        )
        for name in FILES - files.keys():  # of another model that was exported here before
            (out / name).unlink(missing_ok=True)
        (out / LOCK).unlink()  # what is exported is finished, and is copied elsewhere
