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
        place = next((places[at[:n]] for n in range(len(at), 0, -1) if at[:n] in places), where)
        lines.append(f"{place}: {_sentence(problem, at)}")
    return "\n".join(dict.fromkeys(lines))


def _sentence(problem: Any, at: Location) -> str:
    kind, key, value = problem["type"], dotted(at), problem.get("input")
    context: Mapping[str, Any] = problem.get("ctx") or {}
    if kind == "extra_forbidden":
        return f"unknown key `{key}`{_suggestion(at)}"
    if kind == "missing":
        return f"`{key}` is missing"
    if kind == "value_error":
        return f"`{key}`: {context['error']}" if key else str(context["error"])
    shown = _shown(value)
    if kind.startswith("model_"):
        return f"`{key}` is {shown}, but holds options (`name: value` pairs)"
    annotation = _annotation(at)
    near = get_close_matches(str(value), _choices(annotation), n=1)
    hint = f"; did you mean `{near[0]}`?" if near else ""
    allowed = describe(annotation) if annotation is not None else _without_subject(problem["msg"])
    return f"`{key}` is {shown}, but must be {allowed}{hint}"


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
        return " or ".join([*names, "null"] if type(None) in get_args(annotation) else names)
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
    section = _section(at[:-1])
    if section is None:
        return ""
    wanted = str(at[-1])
    near = get_close_matches(wanted.lower(), list(section.model_fields), n=1, cutoff=0.6)
    if near:
        return f"; did you mean `{near[0]}`?"
    for path, name in _all_options(Recipe, ()):
        if name == wanted:  # the right name in the wrong section
            return f"; did you mean `{dotted((*path, name))}`?"
    return f"; known here: {', '.join(section.model_fields)}"


def _all_options(section: type[BaseModel], at: Location) -> Iterator[tuple[Location, str]]:
    for name, field in section.model_fields.items():
        yield at, name
        if (inner := section_of(field.annotation)) is not None:
            yield from _all_options(inner, (*at, name))


def _section(at: Location) -> type[BaseModel] | None:
    section: type[BaseModel] | None = Recipe
    for part in at:
        if section is None:
            return None
        if isinstance(part, str):
            field: FieldInfo | None = section.model_fields.get(part)
            section = section_of(field.annotation) if field else None
    return section


def _annotation(at: Location) -> Any:
    """The field at a location; for a position inside a list or tuple, what an item may be."""
    names = [part for part in at if isinstance(part, str)]
    section = _section(tuple(names[:-1]))
    field = section.model_fields.get(names[-1]) if section and names else None
    if field is not None and isinstance(at[-1], int):
        lists = [field.annotation, *get_args(field.annotation)]
        items = next((get_args(a) for a in lists if get_origin(a) in (list, tuple)), ())
        return items[min(at[-1], len(items) - 1)] if items else None
    return field


def section_of(annotation: Any) -> type[BaseModel] | None:
    """The section inside an annotation: `X`, `X | None`, `list[X]`."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    return next((m for a in get_args(annotation) if (m := section_of(a)) is not None), None)


def dotted(at: Location) -> str:
    return ".".join(str(part) for part in at)
