"""What is removed from a text before it is normalised: markup, quoted mail, repeated spaces."""

from __future__ import annotations

import re
from html.parser import HTMLParser
from typing import Protocol


class Cleaning(Protocol):
    """What to remove: `recipe.CleaningOptions`, or what an exported folder keeps of them."""

    @property
    def html(self) -> bool: ...
    @property
    def quoted(self) -> bool: ...
    @property
    def spaces(self) -> bool: ...


def cleaned(text: str, options: Cleaning) -> str:
    """The text without what `options` name; line ends stay, for they end sentences."""
    if options.html and ("<" in text or "&" in text):
        text = without_html(text)
    if options.quoted:
        text = without_quotes(text)
    if options.spaces:
        text = _SPACES.sub(" ", text)
    return text


# -------------------------------------------------------------------------------------- HTML

_HIDDEN = frozenset({"script", "style", "head", "title"})
_BLOCKS = frozenset(
    "address article blockquote br dd div dl dt footer form h1 h2 h3 h4 h5 h6 header hr li main "
    "nav ol p pre section table td th tr ul".split()
)
_KNOWN = (
    _HIDDEN
    | _BLOCKS
    | frozenset(
        "a abbr area b base big body button caption center cite code col colgroup del dfn em font "
        "html i iframe img input ins kbd label link map mark meta noscript object option q s samp "
        "select small span strike strong sub sup tbody textarea tfoot thead tt u var".split()
    )
)


class _Text(HTMLParser):
    """Collects the text between known tags; `<someone@example.org>` is no tag and stays."""

    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self.parts: list[str] = []
        self._hidden: list[str] = []

    def handle_starttag(self, tag: str, attrs: object) -> None:
        if tag not in _KNOWN:
            self.handle_data(self.get_starttag_text() or "")
        elif tag in _HIDDEN:
            self._hidden.append(tag)
        elif tag in _BLOCKS:
            self.parts.append("\n")

    def handle_startendtag(self, tag: str, attrs: object) -> None:
        if tag not in _HIDDEN:  # which has no text if it ends at once
            self.handle_starttag(tag, attrs)

    def handle_endtag(self, tag: str) -> None:
        if tag in self._hidden:
            del self._hidden[self._hidden.index(tag) :]
        elif tag in _BLOCKS:
            self.parts.append("\n")

    def handle_data(self, data: str) -> None:
        if not self._hidden:
            self.parts.append(data)


def without_html(text: str) -> str:
    """The text of a page or a fragment: no tags, comments, scripts; entities as characters."""
    parser = _Text()
    parser.feed(text)
    parser.close()
    # What was opened and never closed would hide the rest of the text: then nothing is hidden.
    if parser._hidden and not "".join(parser.parts).strip():
        return re.sub(r"<[^>]*>", " ", text)
    return "".join(parser.parts)


# --------------------------------------------------------------------------------- quoted mail

_QUOTED_LINE = re.compile(r"^[ \t]*>.*$\n?", re.M)
# What stands between an answer and the mail that it answers, in the words of common programs.
_ORIGINAL = re.compile(
    r"-{3,} *(?:original (?:message|appointment)|forwarded (?:message|by\b))[^\n]*?-{3,}"
    r"|^[ \t]*-{3,} *forwarded by\b"
    r"|^[ \t]*on [^\n]{5,80} wrote:[ \t]*$"
    r"|^[ \t]*begin forwarded message:"
    r"|^[ \t]*from:[^\n]*\n(?:[^\n]*\n){0,3}?[ \t]*(?:sent|date|to|cc|subject):",
    re.I | re.M,
)


def without_quotes(text: str) -> str:
    """The text without what it answers or forwards.

    A text that begins with a forwarded one is all there is: only lines with `>` leave it.
    """
    found = _ORIGINAL.search(text)
    if found is not None and text[: found.start()].strip(" \t\n>-"):
        text = text[: found.start()]
    kept = _QUOTED_LINE.sub("", text)
    return kept if kept.strip() else text


_SPACES = re.compile(r"[^\S\n]{2,}")
