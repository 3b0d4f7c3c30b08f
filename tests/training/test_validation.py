"""Validation uses every example once, changes nothing, and says what a user would get."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from transduce.data.corpus import open_corpora
from transduce.data.text import TextSide
from transduce.errors import DataError
from transduce.model import Seq2Seq, build_model
from transduce.recipe import Recipe
from transduce.training.losses import perplexity
from transduce.training.setup import learn_sides
from transduce.training.validation import (
    deciding_metric,
    load_validation_set,
    mean_loss,
    metrics_to_compute,
    validate,
)

from .conftest import MakeRecipe

Made = tuple[Recipe, TextSide, TextSide, Seq2Seq]


@pytest.fixture
def made(make_recipe: MakeRecipe) -> Made:
    recipe = make_recipe(updates=1)
    source, target = learn_sides(recipe, open_corpora(recipe.data.train))
    torch.manual_seed(1)
    return recipe, source, target, build_model(recipe.model, source.size, target.size)


def with_valid(recipe: Recipe, folder: Path, pairs: list[tuple[str, str]], **data: int) -> Recipe:
    (folder / "s").write_text("".join(f"{source}\n" for source, _ in pairs))
    (folder / "t").write_text("".join(f"{target}\n" for _, target in pairs))
    corpus = recipe.data.valid[0].model_copy(
        update={"source": str(folder / "s"), "target": str(folder / "t")}
    )
    changed = recipe.data.model_copy(update={"valid": [corpus], **data})
    return recipe.model_copy(update={"data": changed})


def test_validating_leaves_weights_mode_and_random_numbers(made: Made) -> None:
    recipe, source, target, model = made
    valid = load_validation_set(recipe, open_corpora(recipe.data.valid), source, target)
    weights = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    state = torch.get_rng_state()
    model.train()
    first, second = (validate(model, valid, recipe, target) for _ in range(2))
    assert first == second
    assert model.training
    assert torch.equal(torch.get_rng_state(), state)
    assert all(torch.equal(weights[name], tensor) for name, tensor in model.state_dict().items())


def test_the_loss_does_not_depend_on_the_batches(made: Made) -> None:
    recipe, source, target, model = made
    model.eval()
    valid = load_validation_set(recipe, open_corpora(recipe.data.valid), source, target)
    assert mean_loss(model, valid, 1) == pytest.approx(mean_loss(model, valid, 10_000), rel=1e-5)


def test_blank_and_long_sources_count_in_the_scores(made: Made, tmp_path: Path) -> None:
    recipe, source, target, model = made
    pairs = [("a b", "b a"), ("", "a"), (" ".join("a" * 3000), "a")]
    recipe = with_valid(recipe, tmp_path, pairs)
    valid = load_validation_set(recipe, open_corpora(recipe.data.valid), source, target)
    assert [len(ids) for ids in valid.inputs] == [2, 0, 1000]
    assert len(valid.references) == 3
    assert len(valid.source_ids) == 1
    assert valid.without_loss == 2
    assert validate(model, valid, recipe, target).scores.keys() == {"accuracy", "cer"}


def test_a_word_with_several_pronunciations_counts_once(made: Made, tmp_path: Path) -> None:
    recipe, source, target, _ = made
    recipe = with_valid(recipe, tmp_path, [("a", "a"), ("b", "b"), ("a", "c")])
    recipe = recipe.model_copy(update={"task": "pronunciation"})
    valid = load_validation_set(recipe, open_corpora(recipe.data.valid), source, target)
    assert valid.references == [["a", "c"], ["b"]]
    assert len(valid.inputs) == 2
    assert len(valid.source_ids) == 3


def test_max_valid_and_an_empty_set(made: Made, tmp_path: Path) -> None:
    recipe, source, target, _ = made
    few = with_valid(recipe, tmp_path, [("a", "a")] * 9, max_valid=4)
    assert len(load_validation_set(few, open_corpora(few.data.valid), source, target).inputs) == 4
    with pytest.raises(DataError, match=r"data\.valid"):
        load_validation_set(recipe, [], source, target)
    blank = with_valid(recipe, tmp_path, [("", "a"), ("b", " ")])
    with pytest.raises(DataError, match=r"every valid example is blank"):
        load_validation_set(blank, open_corpora(blank.data.valid), source, target)


def test_the_deciding_metric_comes_first(make_recipe: MakeRecipe) -> None:
    assert deciding_metric(make_recipe(updates=1)) == "accuracy"
    assert metrics_to_compute(make_recipe(updates=1, metric="wer")) == ["wer", "accuracy", "cer"]
    assert metrics_to_compute(make_recipe(updates=1, metric="loss")) == ["accuracy", "cer"]


def test_perplexity_stays_printable() -> None:
    assert perplexity(0.0) == 1.0
    assert perplexity(1e9) < float("inf")
