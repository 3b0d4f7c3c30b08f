"""Search options without the recipe's machinery, which takes longer to import than to decode.

An exported folder says which options there are and what each may hold, in the words of JSON Schema
that `recipe.SearchOptions` itself produces, so that an option is still typed in one place only.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, fields
from difflib import get_close_matches
from typing import Any

from transduce.errors import UsageError
from transduce.hypotheses.scoring import Normalization

_TYPES: dict[str, tuple[type, ...]] = {
    "integer": (int,),
    "number": (int, float),
    "boolean": (bool,),
    "string": (str,),
    "null": (type(None),),
}
_NAMES = {
    "integer": "an integer",
    "number": "a number",
    "boolean": "true or false",
    "string": "a text",
    "null": "null",
}


@dataclass(frozen=True)
class Search:
    """The options of a search; `recipe.SearchOptions` says what each means."""

    beam: int
    n_best: int
    normalization: Normalization
    length_penalty: float
    max_ratio: float
    max_extra: int
    min_ratio: float
    replace_unknown: bool
    batch_tokens: int
    max_source: int
    # Folders that were exported before there were these do not have them.
    length_bonus: float = 0.0
    length: str | None = None
    min_length: int | None = None
    max_length: int | None = None

    def __iter__(self) -> Iterator[tuple[str, Any]]:
        """Names and values, as iterating over the recipe's section gives them."""
        return iter((field.name, getattr(self, field.name)) for field in fields(self))


SEARCH_NAMES = tuple(field.name for field in fields(Search))


def search_options(
    values: Mapping[str, Any], allowed: Mapping[str, Mapping[str, Any]], *, where: str
) -> Search:
    """Checked options. `allowed` has the JSON Schema of each.

    Errors: UsageError naming the key, and what it may hold or the nearest valid one.
    """
    for name, value in values.items():
        if name not in SEARCH_NAMES or name not in allowed:
            near = get_close_matches(name, SEARCH_NAMES, n=1)
            hint = f"; did you mean `{near[0]}`?" if near else ""
            raise UsageError(f"{where}: unknown key `search.{name}`{hint}")
        if not _fits(value, allowed[name]):
            raise UsageError(
                f"{where}: `search.{name}` is {value!r}; it must be {_described(allowed[name])}"
            )
    search = Search(**values)
    if search.n_best > search.beam:
        raise UsageError(
            f"{where}: `search`: n_best {search.n_best} is more than beam {search.beam}"
        )
    if search.max_length is not None and (search.min_length or 0) > search.max_length:
        raise UsageError(
            f"{where}: `search`: min_length {search.min_length} is more than max_length "
            f"{search.max_length}"
        )
    return search


def _fits(value: Any, schema: Mapping[str, Any]) -> bool:
    if "anyOf" in schema:
        return any(_fits(value, choice) for choice in schema["anyOf"])
    if "enum" in schema:
        return value in schema["enum"]
    types = _TYPES[schema["type"]]
    # True is an int to Python, and no number of hypotheses.
    if not isinstance(value, types) or (isinstance(value, bool) and bool not in types):
        return False
    if value is None or isinstance(value, (bool, str)):
        return True
    if isinstance(value, float) and not math.isfinite(value):
        return False
    return (
        value >= schema.get("minimum", -math.inf)
        and value <= schema.get("maximum", math.inf)
        and value > schema.get("exclusiveMinimum", -math.inf)
    )


def _described(schema: Mapping[str, Any]) -> str:
    if "anyOf" in schema:
        return " or ".join(map(_described, schema["anyOf"]))
    if "enum" in schema:
        return " or ".join(f"`{choice}`" for choice in schema["enum"])
    bounds = [
        f"{sign} {schema[key]:g}"
        for key, sign in (("exclusiveMinimum", ">"), ("minimum", "≥"), ("maximum", "≤"))
        if key in schema
    ]
    return " ".join([_NAMES[schema["type"]], " and ".join(bounds)]).strip()
