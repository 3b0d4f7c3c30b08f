"""The guide: its links lead somewhere, its recipes load, its generated parts are current."""

from __future__ import annotations

import importlib.util
import re
from pathlib import Path
from typing import Any

import pytest

from transduce.recipe_files import parse_yaml, recipe_from_dict

ROOT = Path(__file__).resolve().parents[1]
PAGES = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md")])
LINK = re.compile(r"\]\(([^)\s]+)\)")
FENCE = re.compile(r"^```(\w*)\n(.*?)^```", re.M | re.S)


def anchors(page: Path) -> set[str]:
    """The names that a page's headings have in links."""
    headings = re.findall(r"^#+ (.*)$", page.read_text(encoding="utf-8"), re.M)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def load_options_script() -> Any:
    spec = importlib.util.spec_from_file_location("docs_options", ROOT / "docs" / "options.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("page", PAGES, ids=lambda p: str(p.relative_to(ROOT)))
def test_links_lead_somewhere(page: Path) -> None:
    text = FENCE.sub("", page.read_text(encoding="utf-8"))
    for link in LINK.findall(text):
        if re.match(r"https?:", link):
            continue
        path, _, anchor = link.partition("#")
        target = (page.parent / path).resolve() if path else page
        assert target.exists(), f"{page.name}: {link}"
        if anchor:
            assert anchor in anchors(target), f"{page.name}: {link}"


def test_reference_of_options_is_current() -> None:
    script = load_options_script()
    text = script.PAGE.read_text(encoding="utf-8")
    assert script.page(text) == text, "run `make docs`"


@pytest.mark.parametrize("page", PAGES, ids=lambda p: str(p.relative_to(ROOT)))
def test_recipes_of_the_guide_are_valid(page: Path) -> None:
    needed = {"data": {"train": "a:b", "valid": "a:b"}, "training": {"epochs": 1}}
    for language, text in FENCE.findall(page.read_text(encoding="utf-8")):
        if language == "yaml":
            tree, _ = parse_yaml(text, where=page.name)
            recipe_from_dict({**needed, **tree}, where=page.name)


@pytest.mark.parametrize("page", PAGES, ids=lambda p: str(p.relative_to(ROOT)))
def test_commands_of_the_guide_exist(page: Path) -> None:
    from typer.main import get_command

    from transduce.cli import app

    known = set(get_command(app).commands)  # type: ignore[attr-defined]
    for language, text in FENCE.findall(page.read_text(encoding="utf-8")):
        for name in re.findall(r"(?:^|[|/] ?)transduce ([a-z]\S*)", text, re.M):
            assert language or name in known, f"{page.name}: transduce {name}"
