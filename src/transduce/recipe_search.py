"""The recipe's section `search`."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from transduce.recipe_base import Count, Options, Positive


class SearchOptions(Options):
    """Decoding. Score: log-probability / length normalisation + coverage penalty + length bonus.

    average: divided by length ** length_penalty; gnmt: divided by
    ((5 + length) / 6) ** length_penalty (1609.08144, section 7); length counts the end symbol.
    """

    beam: Annotated[int, Field(ge=1, le=1000)] = 5  # hypotheses kept at each step; 1 is greedy
    n_best: Positive = 1  # hypotheses returned
    # how long the target is to be, of a model with source.length_control; null: medium
    length: Literal["short", "medium", "long"] | None = None
    normalization: Literal["average", "gnmt"] = "average"  # by length, as above
    length_penalty: Annotated[float, Field(ge=0.0)] = 1.0  # higher favours longer targets
    # added to the score for each token, the end symbol not counted; below 0 it favours shorter ones
    length_bonus: float = 0.0
    # a target may have max_ratio x source + max_extra tokens
    max_ratio: Annotated[float, Field(gt=0.0)] = 2.0
    max_extra: Annotated[int, Field(ge=0)] = 10  # see max_ratio
    min_ratio: Annotated[float, Field(ge=0.0)] = 0.0  # and has at least min_ratio x source tokens
    min_length: Count | None = None  # target tokens at least, however short the source
    max_length: Positive | None = None  # target tokens at most, whatever max_ratio allows
    # no n-gram of so many tokens stands twice in a target (1705.04304, section 2.5); 0: none
    block_ngrams: Count = 0
    # no word or phrase stands three times in a row in a target; true for summarizers that copy
    block_repeats: bool = False
    # weight of what is added to the score for how much of the source was attended to; 0: nothing
    coverage_penalty: Annotated[float, Field(ge=0.0)] = 0.0
    # against sources left out (gnmt: 1609.08144, section 7), or read more than once (summary:
    # 1808.10792, section 4.2)
    coverage_kind: Literal["gnmt", "summary"] = "gnmt"
    # say of the model's CTC head beside its decoder (1609.06773); 1: CTC alone, which length
    # normalisation and the limits of length do not concern
    ctc_weight: Annotated[float, Field(ge=0.0, le=1.0)] = 0.0
    # folder of a language model (task `language`) with this model's target vocabulary, which has a
    # say in what is written: log p + language_weight x log p of the language model
    language_model: str | None = None
    language_weight: Annotated[float, Field(ge=0.0)] = 0.3  # see language_model; 0: none
    # candidates of each source token to choose among, once `transduce shortlist` made them; 0: all
    shortlist: Annotated[int, Field(ge=0)] = 0
    times: bool = False  # of speech: also tell when each token is heard, by the model's CTC head
    replace_unknown: bool = False  # unknown target words become the source word attended most
    # padded source positions x beam decoded together, roughly; by default 60000 for speech and
    # 40000 for summarization, whose sources are long
    batch_tokens: Positive = 4000
    # longer inputs are cut to so many tokens, and the output says so; for speech frames, and by
    # default 6000 of them
    max_source: Positive = 1000
    refill: bool = False  # sentences of a file take over the slots of finished ones at once

    @model_validator(mode="after")
    def _numbers_agree(self) -> SearchOptions:
        if self.n_best > self.beam:
            raise ValueError(f"n_best {self.n_best} is more than beam {self.beam}")
        if self.max_length is not None and (self.min_length or 0) > self.max_length:
            raise ValueError(
                f"min_length {self.min_length} is more than max_length {self.max_length}"
            )
        if self.ctc_weight and self.shortlist:
            raise ValueError("`ctc_weight` and `shortlist` do not go together; set one to 0")
        return self
