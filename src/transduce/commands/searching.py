"""The search options of a command line: those with an option of their own, and `--search`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from transduce.errors import UsageError

if TYPE_CHECKING:
    from transduce.runtime import ExportedModel
    from transduce.transducer import Transducer


@dataclass(frozen=True)
class SearchChoice:
    """What replaces the recipe's search options.

    `named` are the values of --beam and its like (None: not given), `pairs` those of --search, each
    as key=value with a value in YAML. A --length that is a number is the most tokens there may be.
    """

    named: Mapping[str, Any]
    pairs: Sequence[str] = ()

    def options(self, model: Transducer | ExportedModel) -> dict[str, Any]:
        """Keywords for decoding with `model`. Errors: UsageError for a wrong key or value."""
        chosen = {key: value for key, value in self.named.items() if value is not None}
        flags = {key: key for key in chosen}  # by the option of the search that each has set
        if chosen.get("length", "").isdecimal():  # in tokens, which any model can do
            chosen["max_length"] = int(chosen.pop("length"))
            flags["max_length"] = "length"
        for pair in self.pairs:
            key, equals, text = pair.partition("=")
            key = key.strip()
            where = f"--search {pair}"
            if not equals or not key:
                raise UsageError(f"{where}: write `key=value`, such as `max_ratio=1.5`")
            if key in flags:
                flag = flags[key].replace("_", "-")
                raise UsageError(f"{where}: `{key}` is given by --{flag} as well; leave one out")
            from transduce.recipe_files import parse_value

            chosen[key] = parse_value(text, where=where)
        model.search_options(**chosen)
        return chosen
