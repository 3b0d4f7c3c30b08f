"""How a model is trained and scored: the options of the sections `training` and `evaluation`."""

from __future__ import annotations

import difflib
from typing import Annotated, Literal

from pydantic import Field, field_validator, model_validator

from transduce.recipe_base import Options, Positive, Probability


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

    # padded target positions (or source, if more) of one batch; by default 20000 for speech, whose
    # frames are nearly always more
    batch_tokens: Positive = 3000
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
    # weight by which CTC's answers to two views of a recording, with masks of their own, are to
    # agree (2410.05101, section 3.2; 0.2 there); 0: one view
    ctc_consistency: Annotated[float, Field(ge=0.0)] = 0.0
    # weight of the coverage loss, against attention to a place again (1704.04368, section 2.3); 0:
    # none
    coverage: Annotated[float, Field(ge=0.0)] = 0.0
    clip_norm: Annotated[float, Field(ge=0.0)] = 1.0  # 0: no clipping
    # auto: the fastest here, measured once. int8: as bf16, but what the kernels of linear, LSTM and
    # output layers multiply is rounded to 8 bits; on a CPU that has them
    precision: Literal["auto", "fp32", "bf16", "int8"] = "auto"
    # sampled: on average the exact one, in a quarter less time, where training is in bf16 or int8
    # on a CPU with kernels and there are at least 2048 words; exact elsewhere
    output_gradient: Literal["sampled", "exact"] = "sampled"
    ema: Probability = 0.0  # decay of the exponential moving average of the weights; 0: none
    average: Annotated[int, Field(ge=0)] = 0  # checkpoints (the best) averaged at the end
    validate_every: Annotated[float, Field(gt=0.0)] = 1.0  # epochs
    report_every: Positive = 50  # updates
    checkpoint_minutes: Annotated[float, Field(gt=0.0)] = 5.0  # how much a killed process may lose
    metric: str | None = None  # decides what is best: a metric or `loss`; default: the task's first
    patience: Positive | None = None  # stop after so many validations without improvement
    # a model folder whose weights and vocabularies this training begins with
    start: str | None = None
    seed: Annotated[int, Field(ge=0, lt=2**31)] = 1  # of weights, order, dropout, sampling
    threads: Positive | None = None  # of torch on the CPU; default: torch's own choice
    # on a GPU: pad batches to few shapes and replay what each needs as a CUDA graph; written and
    # tested against a stand-in on a CPU, not yet measured on a GPU
    cuda_graphs: bool = False
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


# ----------------------------------------------------------------------------------- evaluation


class EvaluationOptions(Options):
    metrics: list[str] | None = None  # default: the task's
    bootstrap: Annotated[int, Field(ge=0)] = 1000  # resamples for the confidence interval; 0: none

    @field_validator("metrics")
    @classmethod
    def _metrics_exist(cls, names: list[str] | None) -> list[str] | None:
        return names if names is None else [check_metric(name) for name in names]


METRICS: dict[str, tuple[str, ...]] = {
    "translation": ("bleu", "chrf", "ter"),
    "pronunciation": ("g2p_wer", "per"),
    "transduction": ("accuracy", "cer"),
    "recognition": ("wer", "cer"),
    "summarization": ("rouge1", "rouge2", "rougeL", "rougeLsum"),
    "language": (),  # the loss decides
}

_METRIC_NAMES = (
    *("bleu", "chrf", "ter", "moses_bleu"),
    *("accuracy", "wer", "cer", "per", "g2p_wer"),
    *("rouge1", "rouge2", "rougeL", "rougeLsum"),
)


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
