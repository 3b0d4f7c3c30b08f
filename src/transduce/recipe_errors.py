"""What pydantic finds wrong in a recipe, told to people: place, key, value, and what is allowed.

The descriptions of what a key may hold are also those of the reference table in the guide, so that
an error and the guide never disagree.
"""

from __future__ import annotations

import types
from collections.abc import Iterator, Mapping
from difflib import get_close_matches
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from pydantic import BaseModel, ValidationError
from pydantic.fields import FieldInfo

from transduce.recipe import Recipe

Location = tuple[
    str | int, ...
]  # keys and list positions from the root, such as ("data", "train", 0)
Places = dict[Location, str]  # where each key stands: "recipes/x.yaml:12"


def explain(error: ValidationError, places: Places, *, where: str, section: Location = ()) -> str:
    """All problems pydantic found, one a line: place, key, what is wrong, what is allowed.

    section: where in the recipe what was checked belongs, if it was not the whole.
    """
    lines: list[str] = []
    for problem in error.errors(include_url=False):
        at = (*section, *(part for part in problem["loc"] if isinstance(part, (str, int))))
        keys = _keys(at)
        place = next(
            (places[keys[:n]] for n in range(len(keys), 0, -1) if keys[:n] in places), where
        )
        lines.append(f"{place}: {_sentence(problem, at)}")
    return "\n".join(dict.fromkeys(lines))


def _sentence(problem: Any, at: Location) -> str:
    kind, key, value = problem["type"], dotted(_keys(at)), problem.get("input")
    context: Mapping[str, Any] = problem.get("ctx") or {}
    if kind == "extra_forbidden":
        return f"unknown key `{key}`{_suggestion(at)}"
    if kind == "missing":
        return f"`{key}` is missing"
    if kind == "value_error":
        return f"`{key}`: {context['error']}" if key else str(context["error"])
    shown = _shown(value)
    if kind == "union_tag_invalid":
        return _other_kind(key, str(context["tag"]), _sections(at))
    if kind.startswith("model_") or kind == "union_tag_not_found":
        return f"`{key}` is {shown}, but holds options (`name: value` pairs)"
    annotation = _annotation(at)
    near = get_close_matches(str(value), _choices(annotation), n=1)
    hint = f"; did you mean `{near[0]}`?" if near else ""
    allowed = describe(annotation) if annotation is not None else _without_subject(problem["msg"])
    return f"`{key}` is {shown}, but must be {allowed}{hint}"


def _other_kind(key: str, tag: str, choices: list[type[BaseModel]]) -> str:
    known = [_tag(section) for section in choices]
    near = get_close_matches(tag, known, n=1)
    hint = f"; did you mean `{near[0]}`?" if near else ""
    return f"`{key}.kind` is {_shown(tag)}, but must be one of {', '.join(known)}{hint}"


def describe(annotation: Any) -> str:
    """What a key may hold, in words: "an integer ≥ 1", "one of lstm, gru, rnn"."""
    if isinstance(annotation, FieldInfo):
        return _bounded(annotation.annotation, annotation.metadata)
    origin = get_origin(annotation)
    if origin is Annotated:
        inner, *extra = get_args(annotation)
        return _bounded(inner, [m for e in extra for m in getattr(e, "metadata", [e])])
    if origin in (Union, types.UnionType):
        names = [describe(a) for a in get_args(annotation) if a is not type(None)]
        if type(None) in get_args(annotation):
            names.append("null")
        return " or ".join(dict.fromkeys(names))
    if origin is Literal:
        return "one of " + ", ".join(map(str, get_args(annotation)))
    if origin is list:
        return f"a list of {describe(get_args(annotation)[0])}"
    if origin is tuple:
        return f"a list of {len(get_args(annotation))}: {describe(get_args(annotation)[0])}"
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return "options"
    return {bool: "true or false", int: "an integer", float: "a number", str: "text"}[annotation]


def _bounded(annotation: Any, metadata: list[Any]) -> str:
    signs = (("ge", "≥"), ("gt", ">"), ("le", "≤"), ("lt", "<"))
    bounds = [
        f"{sign} {_number(getattr(m, name))}"
        for name, sign in signs
        for m in metadata
        if hasattr(m, name)
    ]
    return " ".join([describe(annotation), " and ".join(bounds)]).strip()


def _number(value: int | float) -> str:
    return f"{value:g}" if isinstance(value, float) else f"{value:,}"


def _choices(annotation: Any) -> list[str]:
    inner = annotation.annotation if isinstance(annotation, FieldInfo) else annotation
    return [str(name) for name in get_args(inner)] if get_origin(inner) is Literal else []


def _shown(value: Any) -> str:
    text = {True: "true", False: "false"}[value] if isinstance(value, bool) else repr(value)
    text = "null" if value is None else text
    return text if len(text) <= 60 else text[:57] + "..."


def _without_subject(message: str) -> str:
    return message.removeprefix("Input should be ")


def _suggestion(at: Location) -> str:
    found = _sections(at[:-1])
    if not found:
        return ""
    wanted = str(at[-1])
    near = get_close_matches(wanted.lower(), list(found[0].model_fields), n=1, cutoff=0.6)
    if near:
        return f"; did you mean `{near[0]}`?"
    for path, name in _all_options(Recipe, ()):
        # the right name in the wrong section, or for another kind
        if name == wanted and (*path, name) != _keys(at):
            return f"; did you mean `{dotted((*path, name))}`?"
    return f"; known here: {', '.join(found[0].model_fields)}"


def _all_options(section: type[BaseModel], at: Location) -> Iterator[tuple[Location, str]]:
    for name, field in section.model_fields.items():
        yield at, name
        for inner in sections_of(field.annotation):
            yield from _all_options(inner, (*at, name))


def _walk(at: Location) -> tuple[Location, list[type[BaseModel]]]:
    """The keys of a location, and the sections there; several where a `kind` decides which.

    Pydantic names the kind that it took as if it were a key.
    """
    keys: list[str | int] = []
    found: list[type[BaseModel]] = [Recipe]
    for part in at:
        tagged = [s for s in found if len(found) > 1 and _tag(s) == part]
        if tagged:
            found = tagged
            continue
        keys.append(part)
        if isinstance(part, str):
            fields = (section.model_fields.get(part) for section in found)
            field = next((field for field in fields if field is not None), None)
            found = sections_of(field.annotation) if field else []
    return tuple(keys), found


def _keys(at: Location) -> Location:
    return _walk(at)[0]


def _sections(at: Location) -> list[type[BaseModel]]:
    return _walk(at)[1]


def _tag(section: type[BaseModel]) -> str:
    return str(section.model_fields["kind"].default) if "kind" in section.model_fields else ""


def _annotation(at: Location) -> Any:
    """The field at a location; for a position inside a list or tuple, what an item may be."""
    names = [part for part in at if isinstance(part, str)]
    fields = (section.model_fields.get(names[-1]) for section in _sections(tuple(names[:-1])))
    field = next((field for field in fields if field is not None), None) if names else None
    if field is not None and isinstance(at[-1], int):
        lists = [field.annotation, *get_args(field.annotation)]
        items = next((get_args(a) for a in lists if get_origin(a) in (list, tuple)), ())
        return items[min(at[-1], len(items) - 1)] if items else None
    return field


def sections_of(annotation: Any) -> list[type[BaseModel]]:
    """The sections inside an annotation: `X`, `X | None`, `list[X]`, or both of `X | Y`."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    return [section for a in get_args(annotation) for section in sections_of(a)]


def dotted(at: Location) -> str:
    return ".".join(str(part) for part in at)
