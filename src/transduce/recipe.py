"""Every option there is, as one frozen, validated tree.

A recipe says everything about one model: its data, its tokenizers, its architecture, how it is
trained and how it is searched. The YAML file, the command line's `key=value` overrides and Python
all build the same tree, so an option is typed, bounded and documented here and nowhere else (the
model's section: in `recipe_model`). Reading and writing files is in `recipe_files`.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Discriminator, Field, Tag, model_validator

from transduce.recipe_base import Options, Positive
from transduce.recipe_model import (  # noqa: F401  # asked for here by their users
    AttentionOptions,
    CtcOptions,
    DecoderOptions,
    EncoderOptions,
    InitOptions,
    ModelOptions,
    SubsamplingOptions,
    TransducerOptions,
)
from transduce.recipe_search import SearchOptions
from transduce.recipe_speech import SpeechOptions
from transduce.recipe_text import (  # noqa: F401
    CleaningOptions,
    NoiseOptions,
    TextOptions,
    TokenizerOptions,
    TruncationOptions,
)
from transduce.recipe_training import (  # noqa: F401
    METRICS,
    EvaluationOptions,
    OptimizerOptions,
    ScheduleOptions,
    TrainingOptions,
    check_metric,
    known_metrics,
)

# --------------------------------------------------------------------------------------- data


_NEEDS_BOTH = "a corpus needs `name` (catalogue), or `source` and `target`"
_TABLE_NEEDS_BOTH = "a table needs both `source` and `target`, its columns, or neither"


class CorpusOptions(Options):
    """One corpus: two line-aligned files, or a table with columns, or a catalogue name; of
    recordings, also a folder in Kaldi's manner. For task `language`, `target` alone.

    Any file of text may end in .gz, .xz or .zst. Paths are relative to the recipe's own folder;
    those of recordings in a table to the table's folder. A table without `source` and `target` has
    the columns `audio` and `text`.
    """

    name: str | None = None  # catalogue name with split, such as "multi30k-en-de:train"
    source: str | None = None  # a file; with `table`, the name or number (from 1) of a column/field
    # the same for the target; several are references, of which training uses the first
    target: str | list[str] | None = None
    table: str | None = None  # .tsv, .csv, .jsonl
    kaldi: str | None = None  # a folder with wav.scp and text, perhaps segments and utt2spk
    weight: Annotated[float, Field(gt=0.0)] = 1.0  # how often its examples are drawn
    # what is learnt from it: targets of sources; or, from sources alone, to restore them when they
    # are damaged (denoise), or their most important sentences when these are left out (gap)
    objective: Literal["pairs", "denoise", "gap"] = "pairs"

    @property
    def targets(self) -> list[str]:
        """The files, columns or fields of targets; none if that is not said."""
        return [self.target] if isinstance(self.target, str) else list(self.target or ())

    @model_validator(mode="after")
    def _one_kind(self) -> CorpusOptions:
        files = self.source or self.target or self.table
        if self.name is not None and (files or self.kaldi):
            raise ValueError(
                "a corpus has either `name` or files (`source`, `target`, `table`), not both"
            )
        if self.kaldi is not None and files:
            raise ValueError("a corpus has either `kaldi` or `source`, `target`, `table`, not both")
        either = self.target or (self.source and self.objective != "pairs")
        if self.name is None and self.kaldi is None and not either and not self.table:
            raise ValueError(_NEEDS_BOTH)
        if self.table is not None and self.source and not either:
            raise ValueError(_TABLE_NEEDS_BOTH)
        return self

    @property
    def one_sided(self) -> bool:
        """Whether it has targets and no sources, which is enough for language models."""
        return self.target is not None and self.source is None


class DataOptions(Options):
    """Where examples come from, and which are too long to be used."""

    train: list[CorpusOptions]  # what is learnt from
    valid: list[CorpusOptions]  # what the best weights are chosen on
    test: list[CorpusOptions] = Field(default=[])  # what `evaluate` scores if not told otherwise
    # in tokens, or frames of speech (then by default 3000); longer training examples are counted
    # and dropped
    max_source_length: Positive = 200
    max_target_length: Positive = 200  # the same for targets, in tokens
    max_valid: Positive | None = None  # validate on the first so many examples only
    noise: NoiseOptions = NoiseOptions()  # for corpora whose objective is not `pairs`


Task = Literal[
    "translation", "pronunciation", "transduction", "recognition", "summarization", "language"
]

# Defaults that are too small for speech, where a second is a hundred frames.
_SPEECH: dict[str, dict[str, int]] = {
    "data": {"max_source_length": 3000},
    "training": {"batch_tokens": 20_000},
    "search": {"batch_tokens": 60_000, "max_source": 6000},
}
# And for documents, two of which would fill the batch of sentences.
_DOCUMENTS: dict[str, dict[str, int]] = {"search": {"batch_tokens": 40_000}}
# Models that copy like to say things again and again.
_COPIED: dict[str, dict[str, int]] = {"search": {"batch_tokens": 40_000, "block_repeats": True}}


# What reads the one symbol that stands for the source of a language model: its output, always the
# same, makes the decoder's first state a learnt one.
_NO_ENCODER = EncoderOptions(kind="rnn", size=2, bidirectional=False, dropout=0.0)


def _kind(source: Any) -> str | None:
    """Which of the kinds of source these options are for; text if they do not say."""
    if isinstance(source, dict):
        kind = source.get("kind", "text")
        return kind if isinstance(kind, str) else str(kind)
    return getattr(source, "kind", None)


SourceOptions = Annotated[
    Annotated[TextOptions, Tag("text")] | Annotated[SpeechOptions, Tag("speech")],
    Discriminator(_kind),
]


class Recipe(Options):
    """The whole tree. `task` sets metrics and nothing else that `inspect` would not print."""

    task: Task = "translation"  # decides the metrics
    data: DataOptions  # examples
    source: SourceOptions = TextOptions()  # how the source is read; `kind` is text or speech
    target: TextOptions = TextOptions()  # how the target is written
    model: ModelOptions = ModelOptions()  # architecture
    training: TrainingOptions  # how it is trained, and until when
    search: SearchOptions = SearchOptions()  # how it is decoded
    evaluation: EvaluationOptions = EvaluationOptions()  # how it is scored

    @model_validator(mode="after")
    def _defaults_of_long_sources(self) -> Recipe:
        larger: dict[str, dict[str, int]] = {}
        if self.source.kind == "speech":
            larger = _SPEECH
        elif self.task == "summarization":
            larger = _COPIED if self.model.copies else _DOCUMENTS
        for name, defaults in larger.items():
            section: Options = getattr(self, name)
            new = {k: v for k, v in defaults.items() if k not in section.model_fields_set}
            # Frozen for everyone else: this is still part of making it.
            self.__dict__[name] = section.model_copy(update=new)
        return self

    @property
    def source_kind(self) -> Literal["text", "speech", "none"]:
        """What the examples' sources are; none for language models, which have only targets."""
        return "none" if self.task == "language" else self.source.kind

    @model_validator(mode="after")
    def _sides_are_there(self) -> Recipe:
        for corpus in (*self.data.train, *self.data.valid, *self.data.test):
            if corpus.one_sided and self.task != "language":
                raise ValueError(_NEEDS_BOTH if corpus.table is None else _TABLE_NEEDS_BOTH)
        return self

    @model_validator(mode="after")
    def _language_model(self) -> Recipe:
        if self.task != "language":
            return self
        given = {name: getattr(self.model, name) for name in self.model.model_fields_set}
        attention = self.model.decoder.attention
        if "attention" in self.model.decoder.model_fields_set and attention.kind != "none":
            raise ValueError("a language model has nothing to attend to: leave out attention")
        if given.get("encoder", _NO_ENCODER) != _NO_ENCODER:
            raise ValueError("a language model has no encoder: leave out model.encoder")
        if not self.model.has_decoder or self.model.ctc.weight:
            raise ValueError("a language model is a decoder alone: no ctc, no transducer")
        decoder = self.model.decoder.model_copy(update={"attention": AttentionOptions(kind="none")})
        new = {"encoder": _NO_ENCODER, "decoder": decoder}
        # Frozen for everyone else: this is still part of making it.
        self.__dict__["model"] = self.model.model_copy(update=new)
        self.__dict__["source"] = TextOptions(tokenizer=TokenizerOptions(kind="words", size=8))
        return self

    @model_validator(mode="after")
    def _limits_of_truncation(self) -> Recipe:
        """What is cut is not dropped: the limits of length follow, unless they are given."""
        update = {}
        for name in ("source", "target"):
            truncate, key = getattr(getattr(self, name), "truncate", None), f"max_{name}_length"
            if truncate is None or truncate.tokens <= getattr(self.data, key):
                continue
            if key in self.data.model_fields_set:
                raise ValueError(
                    f"data.{key} {getattr(self.data, key)} would drop what {name}.truncate leaves "
                    f"({truncate.tokens} tokens); raise it, or leave it out"
                )
            update[key] = truncate.tokens
        if update:
            self.__dict__["data"] = self.data.model_copy(update=update)
        return self

    @model_validator(mode="after")
    def _only_for_text_sources(self) -> Recipe:
        if self.target.length_control:
            raise ValueError("target.length_control: say it of the source, which is marked")
        if self.search.length and not getattr(self.source, "length_control", False):
            raise ValueError("search.length needs source.length_control: true")
        corpora = [*self.data.train, *self.data.valid, *self.data.test]
        if self.source.kind == "speech" and any(one.objective != "pairs" for one in corpora):
            raise ValueError("data: only texts have an `objective` other than pairs")
        return self

    @model_validator(mode="after")
    def _passes_can_agree(self) -> Recipe:
        if self.training.consistency and not self.model.has_decoder:
            raise ValueError("training.consistency needs a model with a decoder")
        if self.training.consistency and self.model.copies:
            raise ValueError(
                "training.consistency does not go with model.decoder.copy; set one to 0 or none"
            )
        if self.training.ctc_consistency and not (
            self.model.ctc.weight and self.source.kind == "speech"
        ):
            raise ValueError("training.ctc_consistency needs speech and a model with CTC")
        attends = self.model.has_decoder and self.model.decoder.attention.kind != "none"
        if self.training.coverage and not attends:
            raise ValueError("training.coverage needs a model with a decoder and attention")
        return self

    @model_validator(mode="after")
    def _there_is_something_to_copy(self) -> Recipe:
        if self.model.decoder.copy == "none":
            return self
        if self.source.kind == "speech":
            raise ValueError("model.decoder.copy: speech has no words to copy; set it to none")
        if self.search.shortlist:
            raise ValueError("search.shortlist does not go with model.decoder.copy; set it to 0")
        source, target = self.source.tokenizer, self.target.tokenizer
        subwords = {"bpe", "unigram"}
        alike = source.kind == target.kind or {source.kind, target.kind} <= subwords
        if not source.shared and not alike:
            raise ValueError(
                f"model.decoder.copy: {source.kind} of the source cannot be copied as "
                f"{target.kind} of the target; use one kind of tokenizer, or set "
                "source.tokenizer.shared"
            )
        return self

    @model_validator(mode="after")
    def _vocabularies_agree(self) -> Recipe:
        if self.model.tie == "all" and self.source.kind == "speech":
            raise ValueError("model.tie `all` is for text: frames of speech have no embedding")
        if self.target.tokenizer.shared and self.source.kind == "speech":
            raise ValueError("target.tokenizer.shared: speech has no tokenizer to share")
        if (
            self.model.tie == "all"
            and self.source.kind == "text"
            and not self.source.tokenizer.shared
        ):
            raise ValueError(
                "model.tie `all` needs one vocabulary: set source.tokenizer.shared to true"
            )
        return self
