"""Finding fonts for the scripts in a figure, and making do where there is none.

matplotlib draws each character with the first family of a list that has it. The list begins with
DejaVu Sans, which comes with matplotlib and knows Latin, Greek, Cyrillic, Arabic and phonetic
letters; fonts of the system are added only for characters beyond it.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable
from functools import lru_cache

BASE = "DejaVu Sans"
BOX = "□"  # stands for a character that no font has

# Fonts of matplotlib that have a few letters of many scripts, or a picture for every one.
MATHEMATICS = ("STIX", "cm", "Last Resort")

# Read first, so that text looks even where many fonts have a character. The order of the Han fonts
# matters little: the one that has most of the figure's characters is taken.
PREFERRED = (
    "Noto Sans",
    "Noto Sans CJK JP",
    "Noto Sans CJK SC",
    "Noto Sans CJK KR",
    "Source Han Sans",
    "Hiragino Sans",
    "PingFang SC",
    "Yu Gothic",
    "Microsoft YaHei",
    "Malgun Gothic",
    "IPAexGothic",
    "WenQuanYi Zen Hei",
    "Arial Unicode MS",
)


class Typesetting:
    """The font families for the texts of one figure, and each text as those fonts can draw it."""

    def __init__(self, texts: Iterable[str]) -> None:
        wanted = frozenset("".join(texts))
        families, missing = _families(wanted)
        self.families = list(families)
        self.missing = missing

    def text(self, text: str) -> str:
        """`text` with a box for each character without a font; invisible ones are left out."""
        if not self.missing:
            return text
        return "".join(_substitute(c) if c in self.missing else c for c in text)

    @property
    def note(self) -> str | None:
        """What to tell the reader about boxes, if there are any."""
        boxed = sorted(c for c in self.missing if _substitute(c))
        if not boxed:
            return None
        some = ", ".join(f"U+{ord(c):04X}" for c in boxed[:3]) + (", …" if len(boxed) > 3 else "")
        return f"{BOX}: no installed font has {some}; Noto Sans or Noto Sans CJK would"


def _substitute(character: str) -> str:
    return "" if unicodedata.category(character) in ("Mn", "Me", "Cf", "Cc") else BOX


@lru_cache(maxsize=64)
def _families(wanted: frozenset[str]) -> tuple[tuple[str, ...], frozenset[str]]:
    """Families that together have `wanted`, and the characters that none has."""
    families = [BASE]
    missing = wanted - _characters(_base_path())
    if not missing:
        return (BASE,), frozenset()
    fonts = _system_fonts()
    others = sorted(name for name in fonts if name not in PREFERRED and name != BASE)
    for group in ([name for name in PREFERRED if name in fonts], others):
        # The one that has most comes first, so that a text is not pieced together from many.
        group.sort(key=lambda name: -len(missing & _characters(fonts[name])))
        for name in group:
            if missing and missing & _characters(fonts[name]):
                families.append(name)
                missing -= _characters(fonts[name])
        if not missing:
            break
    return tuple(families), missing


def _base_path() -> str:
    from matplotlib import font_manager

    return str(font_manager.findfont(font_manager.FontProperties(family=BASE)))


@lru_cache(maxsize=1)
def _system_fonts() -> dict[str, str]:
    """Upright, regular, scalable fonts by family name, those installed a moment ago included."""
    from matplotlib import font_manager

    manager = font_manager.fontManager
    known = {entry.fname for entry in manager.ttflist}
    for path in font_manager.findSystemFonts():
        if path not in known:
            try:
                manager.addfont(path)
            except Exception:  # a font that cannot be read is a font that is not there
                continue
    found: dict[str, tuple[int, str]] = {}
    for entry in manager.ttflist:
        colour = "color" in entry.name.lower() or "emoji" in entry.name.lower()
        if colour or entry.style != "normal" or entry.name.startswith(MATHEMATICS):
            continue
        weight = entry.weight
        distance = abs(
            (font_manager.weight_dict[weight] if isinstance(weight, str) else weight) - 400
        )
        if entry.name not in found or distance < found[entry.name][0]:
            found[entry.name] = (distance, entry.fname)
    return {name: path for name, (_, path) in found.items()}


@lru_cache(maxsize=4096)
def _characters(path: str) -> frozenset[str]:
    from matplotlib.ft2font import FT2Font

    try:
        return frozenset(map(chr, FT2Font(path).get_charmap()))
    except Exception:  # damaged or of a kind FreeType was built without
        return frozenset()
