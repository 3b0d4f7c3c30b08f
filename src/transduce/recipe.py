"""Every option there is, as one frozen, validated tree.

A recipe says everything about one model: its data, its tokenizers, its architecture, how it is
trained and how it is searched. The YAML file, the command line's `key=value` overrides and Python
all build the same tree, so an option is typed, bounded and documented here and nowhere else.
Reading and writing files is in `recipe_files`.
"""

from __future__ import annotations

import difflib
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

Probability = Annotated[float, Field(ge=0.0, lt=1.0)]
Positive = Annotated[int, Field(ge=1)]


class Options(BaseModel):
    """Base of every section: immutable, no unknown keys, numbers must be finite."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


# --------------------------------------------------------------------------------------- data


class CorpusOptions(Options):
    """One corpus: two line-aligned files, or a table with columns, or a catalogue name.

    Any file may end in .gz, .xz or .zst. Paths are relative to the recipe's own folder.
    """

    name: str | None = None  # catalogue name with split, such as "multi30k-en-de:train"
    source: str | None = None  # a file; with `table`, the name or number (from 1) of a column/field
    target: str | None = None  # the same for the target
    table: str | None = None  # .tsv, .csv, .jsonl
    weight: Annotated[float, Field(gt=0.0)] = 1.0  # how often its examples are drawn

    @model_validator(mode="after")
    def _one_kind(self) -> CorpusOptions:
        if self.name is not None and (self.source or self.target or self.table):
            raise ValueError(
                "a corpus has either `name` or files (`source`, `target`, `table`), not both"
            )
        if self.name is None and not (self.source and self.target):
            raise ValueError("a corpus needs `name` (catalogue), or `source` and `target`")
        return self


class DataOptions(Options):
    """Where examples come from, and which are too long to be used."""

    train: list[CorpusOptions]  # what is learnt from
    valid: list[CorpusOptions]  # what the best weights are chosen on
    test: list[CorpusOptions] = []  # what `evaluate` scores if not told otherwise
    max_source_length: Positive = 200  # in tokens; longer training examples are counted and dropped
    max_target_length: Positive = 200  # the same for targets
    max_valid: Positive | None = None  # validate on the first so many examples only


class TokenizerOptions(Options):
    """How text becomes ids. `size` and `dropout` concern the subword kinds only."""

    kind: Literal["bpe", "unigram", "characters", "words", "symbols", "bytes"] = "bpe"
    # vocabulary size, an upper bound for words
    size: Annotated[int, Field(ge=8, le=1_000_000)] = 8000
    shared: bool = False  # one vocabulary for source and target (say it on the source side)
    dropout: Probability = 0.0  # BPE-dropout (1910.13267); for unigram, any value > 0 samples
    coverage: Annotated[float, Field(gt=0.9, le=1.0)] = 1.0  # share of characters with their own id
    byte_fallback: bool = False  # spell characters outside the vocabulary as bytes


class TextOptions(Options):
    """A text side: normalisation before the tokenizer, and the tokenizer."""

    kind: Literal["text"] = "text"  # what this side is
    language: str | None = None  # ISO 639-1, for tokenization in metrics and for the manifest
    lowercase: bool = False  # lower-case everything
    normalize: Literal["none", "nfc", "nfkc", "punctuation"] = "nfc"  # punctuation: Moses rules
    tokenizer: TokenizerOptions = TokenizerOptions()  # how text is cut


# -------------------------------------------------------------------------------------- model


class RecurrentOptions(Options):
    """What encoder and decoder share."""

    kind: Literal["lstm", "gru", "rnn"] = "lstm"  # the recurrent unit; rnn is tanh
    layers: Positive = 1  # how deep
    size: Positive = 256  # width of the output; a bidirectional encoder has half of it each way
    dropout: Probability = 0.2  # on the output of each layer
    variational: bool = False  # one dropout mask for all positions (1512.05287)
    residual: bool = False  # around every layer whose input and output widths agree
    layer_norm: bool = False  # after every layer


class EncoderOptions(RecurrentOptions):
    bidirectional: bool = True  # read the source in both directions

    @model_validator(mode="after")
    def _even(self) -> EncoderOptions:
        if self.bidirectional and self.size % 2:
            raise ValueError("a bidirectional encoder needs an even `size` (half of it each way)")
        return self


class AttentionOptions(Options):
    # how a query scores the memory; unscaled scores (dot, general) saturate easily
    kind: Literal["none", "dot", "scaled_dot", "general", "additive", "multi_head"] = "multi_head"
    size: Positive | None = None  # inner width of additive and multi_head; default: the decoder's
    heads: Positive = 4  # multi_head only
    dropout: Probability = 0.0  # on the attention weights


class DecoderOptions(RecurrentOptions):
    """`feeding` is how attention enters the recurrence.

    parallel: the first layer runs over the whole target, attends once, and the context joins the
    layers above (no loop over time; the arrangement of GNMT v2). input: Luong's input feeding
    (1508.04025, section 3.3). context: Bahdanau's decoder (1409.0473), whose query is the state
    before the step.
    """

    feeding: Literal["parallel", "input", "context"] = "parallel"
    attention: AttentionOptions = AttentionOptions()  # how memory is looked at
    # how the encoder's end becomes the first state
    start: Literal["dense", "copy", "mean", "zeros"] = "dense"
    readout: Literal["tanh", "maxout", "linear"] = "tanh"  # between decoder and vocabulary

    @model_validator(mode="after")
    def _feeding_needs_attention(self) -> DecoderOptions:
        if self.attention.kind == "none" and self.feeding != "parallel":
            raise ValueError(
                f"feeding `{self.feeding}` needs attention; without attention use `parallel`"
            )
        if self.attention.kind == "multi_head":
            inner = self.attention.size or self.size
            if inner % self.attention.heads:
                raise ValueError(
                    f"attention size {inner} is not a multiple of heads {self.attention.heads}"
                )
        return self


class InitOptions(Options):
    """Initial weights: `uniform` is Luong's (0.1) and Sutskever's (0.08), `xavier` Glorot's."""

    kind: Literal["uniform", "normal", "xavier"] = "xavier"
    scale: Annotated[float, Field(gt=0.0)] = 0.1  # uniform: its range; normal: its deviation
    orthogonal: bool = True  # recurrent matrices orthogonal, gate by gate
    forget_bias: float = 1.0  # of LSTM (Jozefowicz et al. 2015)


class ModelOptions(Options):
    embedding: Positive = 256  # width of source and target embeddings
    # embeddings x sqrt(width) (1706.03762, section 3.4): rows drawn small enough to be tied to the
    # output layer are too faint for a recurrence to hear, and learning starts late
    scale_embedding: bool = True
    embedding_dropout: Probability = 0.2  # on components of embeddings
    # whole source and target-input tokens hidden (1512.05287, section 4)
    word_dropout: Probability = 0.0
    # target embedding = output layer; all: the source's too
    tie: Literal["none", "target", "all"] = "target"
    encoder: EncoderOptions = EncoderOptions()
    decoder: DecoderOptions = DecoderOptions()
    output_dropout: Probability = 0.2  # on the read-out, before the vocabulary
    init: InitOptions = InitOptions()


# ----------------------------------------------------------------------------------- training


class OptimizerOptions(Options):
    kind: Literal["adam", "adamw", "sgd"] = "adamw"
    betas: tuple[Probability, Probability] = (0.9, 0.98)  # of adam and adamw
    epsilon: Annotated[float, Field(gt=0.0)] = 1e-8  # of adam and adamw
    weight_decay: Annotated[float, Field(ge=0.0)] = 0.0  # not of biases, norms and embeddings
    momentum: Probability = 0.0  # sgd only


class ScheduleOptions(Options):
    """The learning rate over updates; `warmup` is linear and precedes every kind.

    inverse_sqrt decays as 1/sqrt(update) after warm-up; cosine and linear fall to
    `final` x learning rate at the end of training; plateau multiplies by `factor` after
    `patience` validations without improvement; halving is that of 2014 (1409.3215): constant for
    `start` epochs, then times `factor` every `every` epochs.
    """

    kind: Literal["constant", "inverse_sqrt", "cosine", "linear", "plateau", "halving"] = (
        "inverse_sqrt"
    )
    warmup: Annotated[int, Field(ge=0)] = 400  # updates
    final: Annotated[float, Field(ge=0.0, le=1.0)] = 0.0  # cosine, linear: share at the end
    factor: Annotated[float, Field(gt=0.0, lt=1.0)] = 0.5  # plateau, halving
    patience: Annotated[int, Field(ge=0)] = 2  # plateau: validations
    start: Annotated[float, Field(ge=0.0)] = 5.0  # halving: epochs
    every: Annotated[float, Field(gt=0.0)] = 0.5  # halving: epochs


class TrainingOptions(Options):
    """The first of `epochs`, `updates`, `minutes`, `patience` to be reached ends the training."""

    batch_tokens: Positive = 3000  # padded target positions (or source, if more) of one batch
    accumulate: Positive = 1  # batches per update, of each process
    epochs: Annotated[float, Field(gt=0.0)] | None = None  # passes over the training data
    updates: Positive | None = None  # steps of the optimizer
    minutes: Annotated[float, Field(gt=0.0)] | None = None  # of training, over all resumed parts
    optimizer: OptimizerOptions = OptimizerOptions()
    learning_rate: Annotated[float, Field(gt=0.0)] = 0.002  # the schedule's highest
    schedule: ScheduleOptions = ScheduleOptions()
    label_smoothing: Probability = 0.1  # 1512.00567, section 7; 0: none
    # R-Drop (2106.14448): half its alpha, since the losses of the two passes are averaged; 0: none
    consistency: Annotated[float, Field(ge=0.0)] = 0.0
    clip_norm: Annotated[float, Field(ge=0.0)] = 1.0  # 0: no clipping
    precision: Literal["auto", "fp32", "bf16"] = "auto"  # auto: the faster here, measured once
    ema: Probability = 0.0  # decay of the exponential moving average of the weights; 0: none
    average: Annotated[int, Field(ge=0)] = 0  # checkpoints (the best) averaged at the end
    validate_every: Annotated[float, Field(gt=0.0)] = 1.0  # epochs
    report_every: Positive = 50  # updates
    checkpoint_minutes: Annotated[float, Field(gt=0.0)] = 5.0  # how much a killed process may lose
    metric: str | None = None  # decides what is best: a metric or `loss`; default: the task's first
    patience: Positive | None = None  # stop after so many validations without improvement
    seed: Annotated[int, Field(ge=0, lt=2**31)] = 1  # of weights, order, dropout, sampling
    threads: Positive | None = None  # of torch on the CPU; default: torch's own choice
    tensorboard: bool = False  # also write TensorBoard events

    @field_validator("metric")
    @classmethod
    def _metric_exists(cls, name: str | None) -> str | None:
        return name if name is None else check_metric(name, also=("loss",))

    @model_validator(mode="after")
    def _ends(self) -> TrainingOptions:
        if not (self.epochs or self.updates or self.minutes or self.patience):
            raise ValueError("say when to stop: one of `epochs`, `updates`, `minutes`, `patience`")
        return self


# ----------------------------------------------------------------------- search and evaluation


class SearchOptions(Options):
    """Decoding. Score of a hypothesis: log-probability / length normalisation.

    average: divided by length ** length_penalty; gnmt: divided by
    ((5 + length) / 6) ** length_penalty (1609.08144, section 7); length counts the end symbol.
    """

    beam: Annotated[int, Field(ge=1, le=1000)] = 5  # hypotheses kept at each step; 1 is greedy
    n_best: Positive = 1  # hypotheses returned
    normalization: Literal["average", "gnmt"] = "average"  # by length, as above
    length_penalty: Annotated[float, Field(ge=0.0)] = 1.0  # higher favours longer targets
    # a target may have max_ratio x source + max_extra tokens
    max_ratio: Annotated[float, Field(gt=0.0)] = 2.0
    max_extra: Annotated[int, Field(ge=0)] = 10  # see max_ratio
    min_ratio: Annotated[float, Field(ge=0.0)] = 0.0  # and has at least min_ratio x source tokens
    # candidates of each source token to choose among, once `transduce shortlist` made them; 0: all
    shortlist: Annotated[int, Field(ge=0)] = 0
    replace_unknown: bool = False  # unknown target words become the source word attended most
    batch_tokens: Positive = 4000  # padded source positions x beam decoded together, roughly
    refill: bool = False  # sentences of a file take over the slots of finished ones at once
    max_source: Positive = 1000  # longer inputs are cut to so many tokens, and the output says so

    @model_validator(mode="after")
    def _n_best_fits(self) -> SearchOptions:
        if self.n_best > self.beam:
            raise ValueError(f"n_best {self.n_best} is more than beam {self.beam}")
        return self


class EvaluationOptions(Options):
    metrics: list[str] | None = None  # default: the task's
    bootstrap: Annotated[int, Field(ge=0)] = 1000  # resamples for the confidence interval; 0: none

    @field_validator("metrics")
    @classmethod
    def _metrics_exist(cls, names: list[str] | None) -> list[str] | None:
        return names if names is None else [check_metric(name) for name in names]


Task = Literal["translation", "pronunciation", "transduction"]


class Recipe(Options):
    """The whole tree. `task` sets metrics and nothing else that `inspect` would not print."""

    task: Task = "translation"  # decides the metrics
    data: DataOptions  # examples
    source: TextOptions = TextOptions()  # how the source is read
    target: TextOptions = TextOptions()  # how the target is written
    model: ModelOptions = ModelOptions()  # architecture
    training: TrainingOptions  # how it is trained, and until when
    search: SearchOptions = SearchOptions()  # how it is decoded
    evaluation: EvaluationOptions = EvaluationOptions()  # how it is scored

    @model_validator(mode="after")
    def _vocabularies_agree(self) -> Recipe:
        if self.model.tie == "all" and not self.source.tokenizer.shared:
            raise ValueError(
                "model.tie `all` needs one vocabulary: set source.tokenizer.shared to true"
            )
        return self


METRICS: dict[str, tuple[str, ...]] = {
    "translation": ("bleu", "chrf", "ter"),
    "pronunciation": ("g2p_wer", "per"),
    "transduction": ("accuracy", "cer"),
}

_METRIC_NAMES = ("bleu", "chrf", "ter", "moses_bleu", "accuracy", "wer", "cer", "per", "g2p_wer")


def known_metrics() -> tuple[str, ...]:
    """The name of every metric there is; `evaluation.metrics` computes each of them."""
    return _METRIC_NAMES


def check_metric(name: str, *, also: tuple[str, ...] = ()) -> str:
    """Return `name` if it is a metric or one of `also`; else ValueError naming the nearest."""
    known = known_metrics() + also
    if name in known:
        return name
    near = difflib.get_close_matches(name, known, n=1)
    hint = f"; did you mean `{near[0]}`?" if near else ""
    raise ValueError(f"unknown metric `{name}`{hint} (known: {', '.join(known)})")
