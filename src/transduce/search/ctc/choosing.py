"""Which search a model is decoded with: its decoder's, its CTC head's, or both as one."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from typing import cast

from torch import Tensor

from transduce.errors import UsageError
from transduce.hypotheses.hypothesis import Hypothesis
from transduce.recipe import SearchOptions
from transduce.search.beam import beam_search
from transduce.search.blocking import Blocked
from transduce.search.ctc.alone import ctc_search
from transduce.search.ctc.joint import CtcModel, Joint
from transduce.search.greedy import greedy_search
from transduce.search.interface import SearchModel, has_decoder
from transduce.search.language import Fused
from transduce.search.rnn_transducer import TransducerModel, transducer_search

NOTHING_HEARD = "nothing to write was found in it"


def search(
    model: SearchModel, source: Tensor, lengths: Tensor, options: SearchOptions
) -> list[list[Hypothesis]]:
    """The n best hypotheses of each sentence, as `options` ask for them; see `beam_search`.

    Errors: UsageError when `search.ctc_weight` asks for a CTC head that the model does not have,
    and for options that its search does not know.
    """
    if is_transducer(model) and options.ctc_weight < 1:
        _refuse(options, (*_BY_STEP, "language_model", "length_bonus"), "a transducer")
        transducer = cast(TransducerModel, model)
        return explained(transducer_search(transducer, source, lengths.to(source.device), options))
    if not by_step(model, options):
        _refuse(options, (*_BY_STEP, "max_length"), "CTC alone")
        head = with_head(model, options)
        return explained(ctc_search(head, source, lengths.to(source.device), options))
    search_steps = greedy_search if options.beam == 1 else beam_search
    found = search_steps(as_asked(model, options), source, lengths, options)
    return explained(found) if options.ctc_weight else found


def by_step(model: SearchModel, options: SearchOptions) -> bool:
    """Whether a decoder has a say; else there is none, or CTC alone is asked for."""
    return options.ctc_weight < 1 and has_decoder(model)


def is_transducer(model: SearchModel) -> bool:
    """Whether the model reads frame after frame (`rnn_transducer`)."""
    return getattr(model, "transducer", None) is not None


def as_asked(model: SearchModel, options: SearchOptions) -> SearchModel:
    """The model to search step by step: itself, or views of it in which its CTC head and the
    language model beside it (`Advised`) have their say, and repetitions are ruled out."""
    language = getattr(model, "language", None)
    if options.ctc_weight:
        model = Joint(with_head(model, options), options.ctc_weight)
    if language is not None and options.language_weight:
        if getattr(model, "copying", None) is not None:
            raise UsageError(
                "search.language_model: this model copies words that a language model does not "
                "know; leave it out"
            )
        model = Fused(model, language, options.language_weight)
    if options.block_ngrams or options.block_repeats:
        model = Blocked(model, options.block_ngrams, options.block_repeats)
    return model


# Options that only a search step by step, token after token, can follow.
_BY_STEP = ("block_ngrams", "block_repeats", "coverage_penalty", "min_length")


def _refuse(options: SearchOptions, names: Iterable[str], by: str) -> None:
    """Errors: UsageError if one of these options is set, which a search by `by` does not have."""
    for name in names:
        if value := getattr(options, name):
            raise UsageError(
                f"search.{name} is {value}, but {by} has no search that could follow it; "
                "leave it out"
            )


def with_head(model: SearchModel, options: SearchOptions) -> CtcModel:
    """The model, if it has a CTC head. Errors: UsageError."""
    if not getattr(model, "has_ctc", hasattr(model, "ctc_log_probs")):
        raise UsageError(
            f"search.ctc_weight is {options.ctc_weight:g}, but this model has no CTC head; "
            "set it to 0"
        )
    return cast(CtcModel, model)


def explained(found: list[list[Hypothesis]]) -> list[list[Hypothesis]]:
    """The same hypotheses; those without a token have a reason, since something was asked for."""
    return [
        [h if h.ids else replace(h, reason=NOTHING_HEARD) for h in hypotheses]
        for hypotheses in found
    ]
