"""What tests of several packages share."""

from __future__ import annotations

import io
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from transduce.model import Seq2Seq
    from transduce.recipe import ModelOptions

Run = Callable[..., tuple[int, str, str]]

WORDS = {"cat": "K AE T", "act": "AE K T", "tack": "T AE K", "back": "B AE K", "cab": "K AE B"}


def pytest_configure() -> None:
    """Ctrl-C works, also where the tests are started in the background, which ignores it."""
    if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


@contextmanager
def on_threads(count: int) -> Iterator[None]:
    """So many threads of torch's for a while."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


@pytest.fixture
def run(capfdbinary: pytest.CaptureFixture[bytes], monkeypatch: pytest.MonkeyPatch) -> Run:
    """Run a command in this process; gives exit code, stdout, stderr."""

    def call(*arguments: object, stdin: bytes = b"") -> tuple[int, str, str]:
        stream = io.TextIOWrapper(io.BytesIO(stdin))
        monkeypatch.setattr(sys, "stdin", stream)
        from transduce.cli import app

        with pytest.raises(SystemExit) as stop:
            app([str(argument) for argument in arguments])
        sys.stdout.flush()
        out, err = capfdbinary.readouterr()
        code = stop.value.code
        return int(code or 0), out.decode(), err.decode()

    return call


@pytest.fixture(scope="session")
def untrained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A whole model folder (letters to phones) whose weights are as initialised."""
    return make_folder(tmp_path_factory.mktemp("models") / "untrained", seed=1)


@pytest.fixture(scope="session")
def untrained_too(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Another with the same vocabularies and other weights."""
    return make_folder(tmp_path_factory.mktemp("models") / "untrained-too", seed=2)


@pytest.fixture(scope="session")
def exported(untrained: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder `untrained`, exported."""
    return export(untrained, tmp_path_factory.mktemp("models") / "exported", "fp32")


@pytest.fixture(scope="session")
def exported8(untrained: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same in 8 bits."""
    return export(untrained, tmp_path_factory.mktemp("models") / "exported8", "int8")


def export(model: Path, out: Path, precision: Any) -> Path:
    from transduce.export import export_model

    return export_model(model, out, precision=precision, sample=list(WORDS)).path


def make_folder(path: Path, *, seed: int, **model: Any) -> Path:
    """Write the model folder that training would, without training."""
    import torch

    from transduce.data.text import train_sides
    from transduce.folder import RECIPE, WEIGHTS, publish
    from transduce.model.build import build_model
    from transduce.model.weights import model_tensors, tensor_bytes
    from transduce.recipe_files import dump_recipe, recipe_from_dict

    tree = {
        "task": "pronunciation",
        "data": {"train": "cmudict:train", "valid": "cmudict:valid"},
        "source": {"tokenizer": {"kind": "characters"}},
        "target": {"tokenizer": {"kind": "symbols"}},
        "model": {"embedding": 8, "encoder": {"size": 8}, "decoder": {"size": 8}} | model,
        "training": {"epochs": 1},
        "search": {"beam": 2, "max_extra": 3},
    }
    recipe = recipe_from_dict(tree, where="test")
    path.mkdir(parents=True)
    source, target = train_sides(recipe.source, recipe.target, WORDS.items, seed=1)
    source.save(path, "source")
    target.save(path, "target")
    torch.manual_seed(seed)
    weights = model_tensors(build_model(recipe.model, source.size, target.size))
    files = {RECIPE: dump_recipe(recipe).encode(), WEIGHTS: tensor_bytes(weights)}
    publish(path, files, task=recipe.task, source_language="en", target_language=None)
    return path


def tiny_model(
    seed: int = 1, *, feeding: str = "parallel", attention: str = "general", vocabulary: int = 11
) -> tuple[Seq2Seq, ModelOptions]:
    """A model with random weights, large enough for its answers to depend on what it reads.

    It has 11 source tokens, and ends its targets before their limit now and then.
    """
    import torch

    from transduce.model import build_model
    from transduce.recipe import ModelOptions

    tree = {
        "embedding": 8,
        "tie": "none",
        "encoder": {"size": 8},
        "decoder": {
            "layers": 2,
            "size": 8,
            "feeding": feeding,
            "attention": {"kind": attention, "heads": 2},
        },
        "init": {"kind": "uniform", "scale": 0.9},
    }
    options = ModelOptions.model_validate(tree)
    torch.manual_seed(seed)
    model = build_model(options, 11, vocabulary).eval()
    with torch.no_grad():
        model.output.bias[2] += 0.5
    return model, options
