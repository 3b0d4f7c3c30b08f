"""A corpus: examples from two line-aligned files, from a table, or from the catalogue."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

from transduce.data.files import open_bytes, read_lines, sha256_of
from transduce.data.formats import Example, Layout, table_format
from transduce.data.objectives import posed
from transduce.errors import DataError, UsageError
from transduce.recipe import CorpusOptions

__all__ = ["NO_SOURCE", "Corpus", "Example", "open_bytes", "open_corpora", "read_lines"]

NO_SOURCE = "·"  # the source of every example that has none


class Corpus:
    """The examples of one corpus, read from its files each time it is iterated.

    Blank lines are examples with blank text, so that counts and line numbers hold. Errors while
    iterating: DataError naming file and line for bytes that are not UTF-8 and missing columns, both
    counts for files of different length (at their end), and for empty files.
    """

    def __init__(
        self, options: CorpusOptions, label: str, layout: Layout, gap: float = 0.3
    ) -> None:
        self.options = options
        self.gap = gap  # see `recipe.NoiseOptions`
        self.label = label
        self.layout = layout
        self._fingerprint: str | None = None

    def __iter__(self) -> Iterator[Example]:
        if self.options.objective == "pairs":
            return self.layout.read()
        return (posed(example, self.options.objective, self.gap) for example in self.layout.read())

    def fingerprint(self) -> str:
        """SHA-256 over the files' bytes and how they are read; computed once."""
        if self._fingerprint is None:
            layout = self.layout
            digest = hashlib.sha256()
            parts = (layout.format, layout.source, layout.target, layout.split, *layout.more)
            for part in parts:
                digest.update(f"{part}\n".encode())
            if self.options.objective != "pairs":
                digest.update(f"{self.options.objective} {self.gap}\n".encode())
            for path in layout.paths:
                digest.update(sha256_of(path).encode())
            if layout.audio:
                for content in self._recordings():
                    digest.update(content)
            self._fingerprint = digest.hexdigest()
        return self._fingerprint

    def _recordings(self) -> Iterator[bytes]:
        """A hash of each file that the examples name, once where several in a row name it."""
        from transduce.data.audio.files import parts
        from transduce.data.audio.manifest import content_of

        before = None
        for example in self:
            if example.source.strip():
                try:
                    path = parts(example.source)[0]
                    if path != before:
                        yield content_of(example.source)
                except DataError as error:
                    raise DataError(f"{example.file}:{example.line}: {error}") from None
                before = path


class Targets(Corpus):
    """The targets of a corpus, each after the same source: what a language model learns from."""

    def __iter__(self) -> Iterator[Example]:
        return (replace(example, source=NO_SOURCE) for example in super().__iter__())

    def fingerprint(self) -> str:
        if self._fingerprint is None:
            digest = hashlib.sha256(b"targets\n")
            for example in self:
                digest.update(f"{example.target}\n".encode("utf-8", "replace"))
            self._fingerprint = digest.hexdigest()
        return self._fingerprint


def open_corpora(
    options: Sequence[CorpusOptions], kind: str | None = None, gap: float = 0.3
) -> list[Corpus]:
    """The corpora that some options name; files are looked for, and fetched, but not yet read.

    Relative paths are relative to the working folder (a loaded recipe has absolute ones). `kind` is
    that of the recipe's source, text or speech; none for targets alone; None where that does not
    matter. `gap` is that of `recipe.NoiseOptions`.
    Errors: UsageError for unknown names and kinds of file, and for texts where recordings are
    wanted or the reverse; DataError for files that cannot be read.
    """
    if kind == "none":
        return [_open_targets(one) for one in options]
    corpora = [_open(one, kind == "speech") for one in options]
    for corpus in corpora:
        corpus.gap = gap
        if kind is not None and corpus.layout.audio != (kind == "speech"):
            holds = "recordings" if corpus.layout.audio else "texts"
            other = "speech" if corpus.layout.audio else "text"
            raise UsageError(
                f"{corpus.label}: holds {holds}, but source.kind of the recipe is {kind}; "
                f"for {holds} it is {other}"
            )
    for corpus in corpora:
        for path in corpus.layout.paths:
            open_bytes(path).close()  # before hours of work on the files that come first
    return corpora


def _open_targets(options: CorpusOptions) -> Corpus:
    """The targets of a corpus that may have no sources."""
    if options.target is None:
        corpus = _open(options, speech=True)
    else:  # the target's file or column is read twice, as both sides
        target = options.target if isinstance(options.target, str) else options.target[0]
        both = options.model_copy(update={"source": target, "target": target})
        corpus = _open(both, speech=False)
    for path in corpus.layout.paths:
        open_bytes(path).close()
    label = corpus.label if options.source or not options.target else Path(target).name
    return Targets(options, corpus.label if options.table else label, corpus.layout)


def _open(options: CorpusOptions, speech: bool) -> Corpus:
    if options.name is not None:
        from transduce.data.catalog import layout_of

        return Corpus(options, options.name, layout_of(options.name))
    if options.kaldi is not None:
        from transduce.data.audio.manifest import kaldi_files

        folder = Path(options.kaldi).expanduser()
        return Corpus(options, folder.name, Layout("kaldi", kaldi_files(folder), audio=True))
    # A table alone is one of recordings: what `source` and `target` of texts are, nobody can guess.
    speech = speech or options.source is None
    alone = options.objective != "pairs" and options.source  # a text is its own target
    target, *more = options.targets or [alone or "text"]
    if more and speech:
        raise UsageError("data: several targets are for texts; recordings have one")
    if options.table is not None:
        path = Path(options.table).expanduser()
        format, source = table_format(options.table), options.source or "audio"
        layout = Layout(format, (path,), source, target, audio=speech, more=tuple(more))
        return Corpus(options, path.name, layout)
    if options.source is None or not (options.target or alone):
        raise UsageError("a corpus needs `name`, or `source` and `target`")
    paths = tuple(Path(file).expanduser() for file in (options.source, target, *more))
    label = " + ".join(dict.fromkeys(path.name for path in paths))
    return Corpus(options, label, Layout("lines", paths, audio=speech))
