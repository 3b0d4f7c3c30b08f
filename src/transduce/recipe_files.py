"""Recipes as YAML: reading with errors that name file, line and key, and writing every default.

The YAML is composed into nodes rather than loaded at once, because only nodes know their lines. The
plain tree made from them is checked by `recipe.Recipe`, and whatever that finds is told with the
place in the file (or the override on the command line) it came from.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Mapping, Sequence
from difflib import get_close_matches
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError

from transduce.errors import DataError, UsageError
from transduce.recipe import Recipe, SearchOptions, TokenizerOptions
from transduce.recipe_errors import Location, Places, dotted, explain
from transduce.recipe_paths import locate_start, normalize_corpora

_TOKENIZER = TokenizerOptions().model_dump()
_MAX_DEPTH, _MAX_NODES = 30, 100_000  # far above any recipe; aliases could nest without end
_FLOAT = re.compile(
    r"""^(?:[-+]?(?:[0-9][0-9_]*)\.[0-9_]*(?:[eE][-+]?[0-9]+)?
        |[-+]?[0-9][0-9_]*[eE][-+]?[0-9]+
        |[-+]?\.[0-9][0-9_]*(?:[eE][-+]?[0-9]+)?
        |[-+]?\.(?:inf|Inf|INF)
        |\.(?:nan|NaN|NAN))$""",
    re.X,
)
_BOOL = re.compile(r"^(?:true|True|TRUE|false|False|FALSE)$")
_INT = re.compile(r"^[-+]?(?:0|[1-9][0-9_]*)$")


class _Loader(yaml.SafeLoader):
    """YAML's safe loader with the scalars of YAML 1.2.

    YAML 1.1 reads `1e-3` as a string, `no` (Norwegian) as false, `12:30` and `010` as other
    numbers, and `2024-01-01` as a date; people who write recipes mean none of these.
    """


_NULL = "tag:yaml.org,2002:null"
_Loader.yaml_implicit_resolvers = {
    first: [(tag, pattern) for tag, pattern in resolvers if tag == _NULL]
    for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
}
_Loader.add_implicit_resolver("tag:yaml.org,2002:float", _FLOAT, list("-+0123456789."))
_Loader.add_implicit_resolver("tag:yaml.org,2002:int", _INT, list("-+0123456789"))
_Loader.add_implicit_resolver("tag:yaml.org,2002:bool", _BOOL, list("tTfF"))


class _Dumper(yaml.SafeDumper):
    """Quotes every text that either YAML 1.1 or `_Loader` would read as something else."""

    def ignore_aliases(self, data: Any) -> bool:
        return True


def _represent_text(dumper: _Dumper, text: str) -> yaml.ScalarNode:
    # PyYAML folds Unicode's line separators outside double quotes, and so loses them.
    style = '"' if any(c in text for c in "\x85\u2028\u2029") else None
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style=style)


_Dumper.add_representer(str, _represent_text)
_Dumper.add_implicit_resolver("tag:yaml.org,2002:float", _FLOAT, list("-+0123456789."))


# ------------------------------------------------------------------------------------- reading


def load_recipe(path: str | os.PathLike[str], overrides: Sequence[str] = ()) -> Recipe:
    """Read a recipe file and apply `a.b=value` overrides (values are YAML) on top of it.

    Relative files under `data` become absolute: those in the recipe are seen from the recipe's
    folder, those in an override from the current one.
    Raises UsageError naming file, line and key; DataError when the file cannot be read.
    """
    path = Path(path)
    tree, places = parse_yaml(_read(path), where=str(path))
    normalize_corpora(tree, places, path.absolute().parent)
    locate_start(tree, path.absolute().parent)
    _apply_overrides(tree, places, overrides)
    return _build(tree, places, where=str(path), folder=Path.cwd())


def recipe_from_dict(tree: Mapping[str, Any], *, where: str, folder: Path | None = None) -> Recipe:
    """Make a recipe from a plain tree; `where` names its origin in errors (UsageError).

    Relative files under `data` are left as they are unless `folder` is given.
    """
    return _build(_copy(tree), {}, where=where, folder=folder)


def search_from_dict(tree: Mapping[str, Any], *, where: str) -> SearchOptions:
    """Make the search section alone, checked as in a recipe; `where` as in `recipe_from_dict`."""
    try:
        return SearchOptions.model_validate_json(json.dumps(_copy(tree), default=str), strict=True)
    except ValidationError as error:
        raise UsageError(explain(error, {}, where=where, section=("search",))) from None


def dump_recipe(recipe: Recipe) -> str:
    """The recipe as YAML with every default written out; loading it gives an equal recipe."""
    tree = recipe.model_dump(mode="json")
    return yaml.dump(
        tree,
        Dumper=_Dumper,
        sort_keys=False,
        allow_unicode=True,
        width=100,
        default_flow_style=False,
    )


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8-sig")
    except FileNotFoundError:
        folder = path.parent
        names = [p.name for p in folder.glob("*.yaml")] if folder.is_dir() else []
        near = get_close_matches(path.name, names, n=1)
        hint = f"; did you mean `{folder / near[0]}`?" if near else ""
        raise UsageError(f"{path}: there is no such recipe{hint}") from None
    except IsADirectoryError:
        raise UsageError(f"{path}: is a folder; a recipe is a YAML file") from None
    except UnicodeDecodeError as error:
        line = error.object[: error.start].count(b"\n") + 1
        raise DataError(
            f"{path}:{line}: not UTF-8 (byte 0x{error.object[error.start]:02x})"
        ) from None
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {error.strerror}") from None


def parse_yaml(text: str, *, where: str) -> tuple[dict[str, Any], Places]:
    """YAML text to a plain tree and the place of each key (`where:line`).

    Raises UsageError for bad syntax, a key written twice, and a document that is not a mapping.
    """
    try:
        loader = _Loader(text)
        node = loader.get_single_node()
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        line = f":{mark.line + 1}" if mark else ""
        raise UsageError(
            f"{where}{line}: not valid YAML: {error.problem or error.context}"
        ) from None
    except (yaml.YAMLError, RecursionError) as error:
        raise UsageError(f"{where}: not valid YAML: {error}") from None
    places: Places = {}
    if node is None:
        raise UsageError(f"{where}: is empty; a recipe has at least `data` and `training`")
    if not isinstance(node, yaml.MappingNode):
        raise UsageError(f"{where}: a recipe is a mapping of sections (task, data, model, …)")
    tree: dict[str, Any] = _plain(loader, node, (), places, where)
    return tree, places


def _plain(loader: _Loader, node: yaml.Node, at: Location, places: Places, where: str) -> Any:
    place = f"{where}:{node.start_mark.line + 1}"
    places.setdefault(at, place)
    if len(at) > _MAX_DEPTH or len(places) > _MAX_NODES:
        raise UsageError(f"{place}: nested too deeply, or too large, to be a recipe")
    if not isinstance(node, yaml.ScalarNode) and not node.tag.endswith((":map", ":seq")):
        raise UsageError(f"{place}: `{dotted(at)}`: the tag {node.tag} has no place in a recipe")
    if isinstance(node, yaml.SequenceNode):
        return [_plain(loader, n, (*at, i), places, where) for i, n in enumerate(node.value)]
    if not isinstance(node, yaml.MappingNode):
        try:
            return loader.construct_object(node)
        except (yaml.YAMLError, ValueError) as error:
            problem = getattr(error, "problem", None) or error
            raise UsageError(f"{place}: `{dotted(at)}`: {problem}") from None
    written = [_key(key, where) for key, _ in node.value]
    for index, (key, (key_node, _)) in enumerate(zip(written, node.value, strict=True)):
        line = f"{where}:{key_node.start_mark.line + 1}"
        if key in written[:index]:
            first = node.value[written.index(key)][0].start_mark.line + 1
            raise UsageError(
                f"{line}: `{dotted((*at, key))}` is written twice (first in line {first})"
            )
        place_of = (*at, key)
        places[place_of] = line
    return {
        key: _plain(loader, value, (*at, key), places, where)
        for key, (_, value) in zip(written, node.value, strict=True)
    }


def _key(node: yaml.Node, where: str) -> str:
    if not isinstance(node, yaml.ScalarNode):
        raise UsageError(f"{where}:{node.start_mark.line + 1}: a key must be a single word")
    return str(node.value)


def parse_value(text: str, *, where: str) -> Any:
    """The value of an override, which is YAML. Raises UsageError."""
    return _override_value(text, where)[0]


def _apply_overrides(tree: dict[str, Any], places: Places, overrides: Sequence[str]) -> None:
    for override in overrides:
        where = f"override `{override}`"
        key, equals, text = override.partition("=")
        keys = key.strip().split(".")
        if not equals or not all(keys):
            raise UsageError(f"{where}: write `key=value`, such as `training.epochs=3`")
        value, inside = _override_value(text, where)
        branch: Any = tree
        at: Location = ()
        for depth, name in enumerate(keys):
            if isinstance(branch, list) and len(branch) == 1 and not name.isdecimal():
                branch, at = branch[0], (*at, 0)  # `data.train.weight` of the only corpus
            if not isinstance(branch, (dict, list)):
                raise UsageError(f"{where}: `{dotted(at)}` has no options inside")
            index = _index(branch, name, where)
            at = (*at, index)
            if depth == len(keys) - 1:
                branch[index] = value
            elif isinstance(branch, dict) and branch.get(name) is None:
                branch[index] = {}
                places[at] = where
            branch = branch[index]
        for old in [known for known in places if known[: len(at)] == at]:
            del places[old]
        places.update({at + below: where for below in inside})


def _override_value(text: str, where: str) -> tuple[Any, Places]:
    try:
        loader = _Loader(text)
        node = loader.get_single_node()
    except (yaml.YAMLError, RecursionError):
        raise UsageError(f"{where}: the value is not valid YAML") from None
    places: Places = {}
    value = None if node is None else _plain(loader, node, (), places, where)
    return value, places


def _index(branch: dict[str, Any] | list[Any], name: str, where: str) -> Any:
    if isinstance(branch, dict):
        return name
    if name.isdecimal() and int(name) < len(branch):
        return int(name)
    raise UsageError(f"{where}: `{name}` is not a position of that list (0 to {len(branch) - 1})")


# ---------------------------------------------------------------------------------- normalising


def _build(tree: dict[str, Any], places: Places, *, where: str, folder: Path | None) -> Recipe:
    normalize_corpora(tree, places, folder)
    locate_start(tree, folder)
    _share_tokenizer(tree, places, where)
    try:
        # Strict, so that `layers: true` or `size: "300"` is an error; by way of JSON, where
        # strictness still takes a list for a pair.
        return Recipe.model_validate_json(json.dumps(tree, default=str), strict=True)
    except ValidationError as error:
        raise UsageError(explain(error, places, where=where)) from None


def _share_tokenizer(tree: dict[str, Any], places: Places, where: str) -> None:
    """`source.tokenizer.shared` gives the target the source's tokenizer options."""
    tokenizer = _mapping(_mapping(tree, "source"), "tokenizer")
    own = _mapping(_mapping(tree, "target"), "tokenizer")
    shared = tokenizer.get("shared") is True
    if own.get("shared") is True and not shared:
        place = places.get(("target", "tokenizer", "shared"), where)
        raise UsageError(f"{place}: say `shared` on the source side: source.tokenizer.shared")
    if not shared:
        return
    if own.get("shared") is not True:  # else it is a copy made by an earlier loading
        for key, value in own.items():
            if key != "shared" and value != tokenizer.get(key, _TOKENIZER.get(key, value)):
                place = places.get(("target", "tokenizer", key), where)
                raise UsageError(
                    f"{place}: `target.tokenizer.{key}` is {value!r}, but the source's, which it "
                    f"shares, is {tokenizer.get(key, _TOKENIZER.get(key))!r}; leave one out"
                )
    target = tree["target"] if tree.get("target") is not None else {}
    if isinstance(target, dict):
        unknown = {key: value for key, value in own.items() if key not in _TOKENIZER}
        tree["target"] = {**target, "tokenizer": {**tokenizer, **unknown}}


def _mapping(tree: dict[str, Any], key: str) -> dict[str, Any]:
    value = tree.get(key)
    return value if isinstance(value, dict) else {}


def _copy(tree: Any) -> Any:
    if isinstance(tree, Mapping):
        return {str(key): _copy(value) for key, value in tree.items()}
    if isinstance(tree, (list, tuple)):
        return [_copy(value) for value in tree]
    return tree
