"""Models that hear while somebody speaks: the same text as for the whole, and reasons if not."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import transduce
from transduce.commands.listening import listener_for
from transduce.data.audio.features import Statistics
from transduce.data.speech import SpeechSide
from transduce.data.text import train_side
from transduce.errors import UsageError
from transduce.folder import RECIPE, WEIGHTS, publish
from transduce.model.build import build_model
from transduce.model.weights import model_tensors, tensor_bytes
from transduce.recipe_files import dump_recipe, recipe_from_dict
from transduce.recognition.live import Again, ByFrames, listen
from transduce.streaming import Growing, listener

pytest.importorskip("kaldi_native_fbank")
RATE, BINS = 8000, 20


def folder(path: Path, *, normalize: str = "global", **model: Any) -> Path:
    """A speech model as initialised, with weights wide enough to say something."""
    tree = {
        "task": "recognition",
        "data": {"train": "an4:train", "valid": "an4:dev"},
        "source": {
            "kind": "speech",
            "rate": RATE,
            "bins": BINS,
            "normalize": normalize,
            "augment": {"frequency_width": 2},
        },
        "target": {"tokenizer": {"kind": "characters"}},
        "model": {
            "embedding": 8,
            "subsampling": {"channels": 4, "factor": 4},
            "encoder": {"size": 16, "bidirectional": False},
            "decoder": {"size": 16, "layers": 2},
            "ctc": {"weight": 0.5},
            "init": {"kind": "uniform", "scale": 1.0},
        }
        | model,
        "training": {"epochs": 1},
        "search": {"beam": 2, "ctc_weight": 0.5},
    }
    recipe = recipe_from_dict(tree, where="test")
    path.mkdir(parents=True)
    ones = np.ones(BINS, dtype=np.float32)
    found = Statistics(9 * ones, 3 * ones) if normalize == "global" else None
    SpeechSide(recipe.source, found).save(path, "source")
    target = train_side(recipe.target, ["one two", "three"], seed=1)
    target.save(path, "target")
    torch.manual_seed(4)
    weights = model_tensors(build_model(recipe.model, 0, target.size, BINS))
    files = {RECIPE: dump_recipe(recipe).encode(), WEIGHTS: tensor_bytes(weights)}
    publish(path, files, task=recipe.task, source_language=None, target_language="en")
    return path


def loaded(path: Path, **options: Any) -> transduce.Transducer:
    return transduce.load(folder(path, **options), device="cpu", precision="fp32")


def sound(seconds: float, seed: int = 1) -> Any:
    """Noise that changes its loudness and colour."""
    draw = np.random.default_rng(seed)
    parts = []
    for _ in range(round(seconds / 0.1)):
        noise = draw.standard_normal(RATE // 10)
        width = int(draw.integers(1, 12))
        smooth = np.convolve(noise, np.ones(width) / width, mode="same")
        parts.append(smooth * draw.uniform(0.02, 0.3))
    return np.concatenate(parts).astype(np.float32)


@pytest.mark.parametrize(
    "model",
    [
        {},
        {"ctc": {"weight": 1.0}},
        {"transducer": {"size": 8}},
        {"encoder": {"size": 16, "chunk": 3}},
    ],
    ids=["joint", "ctc", "transducer", "chunks"],
)
def test_the_final_text_is_that_of_the_whole_recording(tmp_path: Path, model: Any) -> None:
    model = loaded(tmp_path / "m", **model)
    waves = [sound(1.3, seed) for seed in (1, 2)]
    expected = [model((wave, RATE)).text.strip() for wave in waves]
    assert all(expected) and expected[0] != expected[1]
    hearing = listener(model)
    for size in (200, 801, 10_400):
        for wave, text in zip(waves, expected, strict=True):  # one after another: nothing is left
            partial = ""
            for first in range(0, len(wave), size):
                grown = hearing.hear(wave[first : first + size])
                assert grown.startswith(partial)
                partial = grown
            assert partial
            assert hearing.end() == text
    assert hearing.end() == ""  # of nothing


def test_in_a_stream_every_frame_is_encoded_once(tmp_path: Path, waveform: Any) -> None:
    model = loaded(tmp_path / "m")
    growing = Growing(model, model.search_options())
    heard: list[int] = []
    partial = growing.partial

    def counted(frames: Any) -> str:
        heard.append(len(frames))
        return partial(frames)

    growing.partial = counted  # type: ignore[method-assign]
    from transduce.data.audio.online import OnlineLogMel

    side = model.source
    assert isinstance(side, SpeechSide)
    hearing = ByFrames(growing, lambda: OnlineLogMel(side.options), side.normalized)
    wave = waveform((2.5, 5.5), seconds=7.0)[::2]
    lines = list(listen((wave[k : k + 800] for k in range(0, len(wave), 800)), hearing, rate=RATE))
    finals = [line for line in lines if line.final]
    assert len(finals) == 1 and len(heard) > 5
    # An utterance's frames, and those of the pause that ends it.
    spoken = finals[0].end - finals[0].start
    assert 0 <= sum(heard) * 0.01 - spoken < 0.8


def test_models_that_must_wait_say_which_option(tmp_path: Path, capsys: Any) -> None:
    for name, told, options in (
        ("both", "model.encoder.bidirectional", {"encoder": {"size": 16}}),
        ("utterance", "source.normalize: global", {"normalize": "utterance"}),
        ("decoder", "model.ctc.weight", {"ctc": {"weight": 0.0}}),
    ):
        model = loaded(tmp_path / name, **options)
        with pytest.raises(UsageError, match=f"cannot stream: .*{told}"):
            listener(model)
        search = {"ctc_weight": 0.0}
        hearing = listener_for(model, RATE, search)
        assert isinstance(hearing, Again)
        assert told in capsys.readouterr().err
        assert isinstance(hearing.hear(sound(0.5)), str)
    assert isinstance(listener_for(loaded(tmp_path / "able"), RATE, {}), ByFrames)
    assert capsys.readouterr().err == ""
