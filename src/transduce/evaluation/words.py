"""Words and sentences of running text in any script, for the metrics and facts of summaries.

words("Zoë's 3 cats")             # ["zoë", "s", "3", "cats"]
sentences("It rains. Stay in!")   # ["It rains.", "Stay in!"]
"""

from __future__ import annotations

import re
import unicodedata
from functools import lru_cache

# Scripts written without spaces, where a character stands for a word: Thai, Lao, Burmese, Khmer,
# kana, Han.
UNSPACED = (
    "\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u31f0-\u31ff"
    "\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0003ffff"
)
FIRST_MARK, LAST_MARK = 0x300, 0x1FFFF  # above are only selectors of variants

ABBREVIATIONS = frozenset(
    "mr mrs ms dr prof st jr sr vs etc inc ltd co corp no fig approx dept e.g i.e a.m p.m".split()
)
_END = re.compile(r"[.!?…]+[\"'”’»)\]]*\s+|[。！？｡]+[」』”’）]*\s*")


@lru_cache(maxsize=1)
def _word() -> re.Pattern[str]:
    every = map(chr, range(FIRST_MARK, LAST_MARK))
    marks = "".join(c for c in every if unicodedata.category(c) in ("Mn", "Mc"))
    spaced = rf"[^\W_{UNSPACED}]"
    unspaced = rf"[{UNSPACED}](?<=\w)"
    return re.compile(rf"{unspaced}[{marks}]*|{spaced}(?:{spaced}|[{marks}])*")


def word_spans(text: str) -> list[tuple[int, int]]:
    """Where each word of `text` begins and ends.

    A word is a run of letters and digits with their combining marks; in scripts that put no spaces
    between words it is a single character. Punctuation, symbols and emoji are no words.
    """
    return [found.span() for found in _word().finditer(text)]


def words(text: str) -> list[str]:
    """The words of `text`, composed (NFC) and case-folded."""
    folded = unicodedata.normalize("NFC", text).casefold()
    return [folded[start:end] for start, end in word_spans(folded)]


def sentences(text: str) -> list[str]:
    """The sentences of `text`, stripped; none of them is empty.

    Where the text has line breaks, each line that is not blank is a sentence. Otherwise a sentence
    ends with `.`, `!`, `?` or `…` and any closing quotes or brackets, before white space; not
    before a small letter, and not at a full stop after a single capital or an abbreviation such as
    `Dr.`. The full-width marks of Chinese and Japanese end one anywhere.
    """
    if "\n" in text.strip():
        return [line.strip() for line in text.split("\n") if line.strip()]
    found, start = [], 0
    for end in _END.finditer(text):
        if _ends_sentence(text, end):
            found.append(text[start : end.end()].strip())
            start = end.end()
    found.append(text[start:].strip())
    return [sentence for sentence in found if sentence]


def _ends_sentence(text: str, mark: re.Match[str]) -> bool:
    after = text[mark.end() : mark.end() + 1]
    if after.islower():
        return False
    if not mark.group().startswith(".") or mark.group().startswith(".."):
        return True
    # The last 20 characters, since a text without spaces would be copied at each of its marks.
    before = text[max(0, mark.start() - 20) : mark.start()].split()
    last = before[-1].lstrip("\"'“‘«([") if before else ""
    initial = len(last) == 1 and last.isascii() and last.isupper()
    return not initial and last.lower() not in ABBREVIATIONS
