"""The options of a source that is speech."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, field_validator, model_validator

from transduce.recipe_base import Count, Options, Positive

Speed = Annotated[float, Field(ge=0.5, le=2.0)]
Range = tuple[float, float]
Share = Annotated[float, Field(ge=0.0, le=1.0)]


class SpeechAugmentOptions(Options):
    """How training speech is varied, anew for each example in each epoch.

    `speed` is prepared once for each factor (Ko et al. 2015), and so are `copies`; one of all
    versions is drawn. The masks are those of SpecAugment (1904.08779), whose widths are drawn from
    0 up to the width given.
    """

    # the speeds that an example may be played at, of which one is drawn; [0.9, 1.0, 1.1] is usual
    speed: list[Speed] = Field(default=[1.0], min_length=1)
    # formants are put between so many and so many times as high, as of larger and smaller speakers
    # (Jaitly & Hinton 2013); [0.9, 1.1] is usual, [1, 1] is none
    vocal_tract: Range = (1.0, 1.0)
    # up to so many seconds of a recording's own background before and after it, for half of the
    # examples, so that it does not matter how closely recordings are cut
    edges: Annotated[float, Field(ge=0.0, le=10.0)] = 0.0
    frequency_masks: Count = 2  # stripes of bins hidden
    frequency_width: Positive = 27  # bins that one of them covers at most
    time_masks: Count = 2  # stretches of time hidden
    time_width: Positive = 40  # frames that one of them covers at most
    time_share: Share = 0.2  # and at most this share of the recording
    time_warp: Count = 0  # frames by which a point of time is moved at most; 0: no warping
    # more versions of each recording and speed, prepared like these but with what follows
    copies: Count = 0
    noise: Share = 0.5  # share of copies with noise, from white to brown
    noise_db: Range = (5.0, 25.0)  # by how much it is fainter than the recording
    gain_db: Range = (-12.0, 6.0)  # louder or softer by so much; what is too loud is clipped
    reverb: Share = 0.3  # share of copies heard in a room
    reverb_seconds: Range = (0.1, 0.6)  # in which its echo falls by 60 dB

    @field_validator("vocal_tract", "noise_db", "gain_db", "reverb_seconds")
    @classmethod
    def _in_order(cls, range: tuple[float, float]) -> tuple[float, float]:
        if range[0] > range[1]:
            raise ValueError(f"the least ({range[0]:g}) is above the most ({range[1]:g})")
        return range

    @field_validator("vocal_tract")
    @classmethod
    def _a_voice(cls, range: tuple[float, float]) -> tuple[float, float]:
        if not 0.5 <= range[0] <= range[1] <= 2.0:
            raise ValueError("vocal_tract lies between 0.5 and 2")
        return range

    @model_validator(mode="after")
    def _echo(self) -> SpeechAugmentOptions:
        if self.reverb_seconds[0] <= 0 or self.reverb_seconds[1] > 5:
            raise ValueError("reverb_seconds lie between 0 and 5")
        return self


class SpeechOptions(Options):
    """A source that is speech: log-mel frames of recordings, as Kaldi computes them.

    `normalize` takes each bin's mean and divides by its deviation: those of the recording
    (utterance), or those of the training data (global).
    """

    kind: Literal["speech"] = "speech"  # what this side is
    language: str | None = None  # ISO 639-1, for the manifest
    rate: Annotated[int, Field(ge=1000, le=192_000)] = 16_000  # Hz; all are resampled to it
    bins: Annotated[int, Field(ge=2, le=512)] = 80  # mel filters: the width of a frame
    frame_ms: Annotated[float, Field(gt=0.0, le=1000.0)] = 25.0  # what one frame hears
    shift_ms: Annotated[float, Field(gt=0.0, le=1000.0)] = 10.0  # from one frame to the next
    dither: Literal[0] = 0  # no noise is added to samples: features are the same each time
    normalize: Literal["utterance", "global", "none"] = "utterance"  # mean and variance of bins
    augment: SpeechAugmentOptions = SpeechAugmentOptions()  # training only

    @model_validator(mode="after")
    def _widths_fit(self) -> SpeechOptions:
        if self.augment.frequency_masks and self.augment.frequency_width > self.bins:
            raise ValueError(
                f"augment.frequency_width {self.augment.frequency_width} is more than "
                f"bins {self.bins}"
            )
        if self.shift_ms > self.frame_ms:
            raise ValueError(
                f"shift_ms {self.shift_ms:g} is more than frame_ms {self.frame_ms:g}: sound "
                "between two frames would not be heard"
            )
        return self
