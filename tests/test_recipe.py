"""Recipes: what is written is what one gets, and every mistake is named with its place."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from transduce.errors import DataError, UsageError
from transduce.recipe import AttentionOptions, Recipe
from transduce.recipe_errors import describe
from transduce.recipe_files import (
    dump_recipe,
    load_recipe,
    parse_yaml,
    recipe_from_dict,
    search_from_dict,
)

MINIMAL = """\
data:
  train: multi30k-en-de:train
  valid: multi30k-en-de:val
training: {epochs: 1}
"""

DESIGN_EXAMPLE = """\
task: translation                        # sets metrics and sensible defaults
data:
  train: multi30k-en-de:train            # a catalogue name
  valid: multi30k-en-de:val
source: {kind: text, tokenizer: {kind: bpe, size: 6000, shared: true}}
target: {kind: text}
model:
  encoder: {kind: lstm, layers: 2, size: 512, bidirectional: true}
  decoder: {kind: lstm, layers: 2, size: 512, attention: {kind: general}, feeding: parallel}
training: {batch_tokens: 3000, learning_rate: 0.002, label_smoothing: 0.1, minutes: 45}
search: {beam: 5, length_penalty: 1.0}
"""


def write(folder: Path, text: str | bytes, name: str = "x.yaml") -> Path:
    path = folder / name
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    return path


def message(folder: Path, text: str | bytes, *overrides: str) -> str:
    with pytest.raises((UsageError, DataError)) as caught:
        load_recipe(write(folder, text), overrides)
    return str(caught.value)


# ------------------------------------------------------------------------------------- reading


def test_design_example_loads_and_shares_its_tokenizer(tmp_path: Path) -> None:
    recipe = load_recipe(write(tmp_path, DESIGN_EXAMPLE))
    assert recipe.data.train[0].name == "multi30k-en-de:train"
    assert recipe.model.decoder.attention.kind == "general"
    assert recipe.target.tokenizer == recipe.source.tokenizer
    assert recipe.target.tokenizer.size == 6000


def test_documents_are_decoded_in_larger_batches_unless_the_recipe_says(tmp_path: Path) -> None:
    document = DESIGN_EXAMPLE.replace("task: translation", "task: summarization")
    given = document.replace("{beam: 5,", "{beam: 5, batch_tokens: 900,")
    found = [load_recipe(write(tmp_path, text)) for text in (DESIGN_EXAMPLE, document, given)]
    assert [recipe.search.batch_tokens for recipe in found] == [4000, 40_000, 900]


@pytest.mark.parametrize(
    ("copy", "said", "repeats"),
    [("none", {}, False), ("pointer", {}, True), ("pointer", {"block_repeats": False}, False)],
)
def test_summarizers_that_copy_repeat_nothing_unless_the_recipe_says(
    copy: str, said: dict[str, bool], repeats: bool
) -> None:
    tree = {
        "task": "summarization",
        "data": {"train": {"table": "t.tsv"}, "valid": {"table": "t.tsv"}},
        "model": {"decoder": {"copy": copy}},
        "training": {"epochs": 1},
        "search": said,
    }
    assert recipe_from_dict(tree, where="test").search.block_repeats == repeats


def test_shared_tokenizer_may_be_repeated_but_not_contradicted(tmp_path: Path) -> None:
    repeated = DESIGN_EXAMPLE.replace("target: {kind: text}", "target: {tokenizer: {size: 6000}}")
    assert load_recipe(write(tmp_path, repeated)).target.tokenizer.shared
    other = DESIGN_EXAMPLE.replace("target: {kind: text}", "target: {tokenizer: {size: 4000}}")
    text = message(tmp_path, other)
    assert "x.yaml:6: `target.tokenizer.size` is 4000" in text and "6000" in text


def test_shared_belongs_on_the_source_side(tmp_path: Path) -> None:
    text = message(tmp_path, MINIMAL, "target.tokenizer.shared=true")
    assert "source.tokenizer.shared" in text


def test_override_of_a_shared_tokenizer_reaches_the_target_of_a_resolved_recipe(
    tmp_path: Path,
) -> None:
    resolved = dump_recipe(load_recipe(write(tmp_path, DESIGN_EXAMPLE)))
    recipe = load_recipe(write(tmp_path, resolved), ["source.tokenizer.size=500"])
    assert recipe.target.tokenizer.size == 500


@pytest.mark.parametrize(
    ("written", "split"),
    [
        ("{source: a.en, target: a.de}", [("a.en", "a.de")]),
        ("[{source: a.en, target: a.de}, {source: b.en.gz, target: b.de.gz, weight: 2}]", None),
    ],
)
def test_files_are_seen_from_the_recipes_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, written: str, split: Any
) -> None:
    (tmp_path / "sub").mkdir()
    path = write(tmp_path / "sub", MINIMAL.replace("multi30k-en-de:train", written))
    monkeypatch.chdir(tmp_path)
    corpora = load_recipe("sub/x.yaml").data.train
    assert corpora == load_recipe(path).data.train
    assert [c.source for c in corpora] == [
        (tmp_path / f"sub/{n}").as_posix() for n in ("a.en", "b.en.gz")
    ][: len(corpora)]
    assert [c.weight for c in corpora] == [1.0, 2.0][: len(corpora)]


def test_files_of_an_override_are_seen_from_the_current_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "sub").mkdir()
    write(tmp_path / "sub", MINIMAL)
    monkeypatch.chdir(tmp_path)
    recipe = load_recipe("sub/x.yaml", ["data.train={source: a.en, target: ../a.de}"])
    assert recipe.data.train[0].source == (tmp_path / "a.en").as_posix()
    assert recipe.data.train[0].target == (tmp_path.parent / "a.de").as_posix()


def test_columns_of_a_table_are_not_files(tmp_path: Path) -> None:
    text = MINIMAL.replace("multi30k-en-de:train", "{table: t.tsv, source: 1, target: phones}")
    corpus = load_recipe(write(tmp_path, text)).data.train[0]
    assert (corpus.source, corpus.target) == ("1", "phones")
    assert corpus.table == (tmp_path / "t.tsv").as_posix()


def test_scalars_mean_what_people_mean(tmp_path: Path) -> None:
    text = MINIMAL + "source: {language: no}\ntarget: {language: nb}\n"
    recipe = load_recipe(
        write(tmp_path, text),
        ["training.learning_rate=1e-3", "training.optimizer.epsilon=1E-9", "training.minutes=5"],
    )
    assert recipe.source.language == "no"  # Norwegian, not false
    assert recipe.training.learning_rate == 0.001
    assert recipe.training.optimizer.epsilon == 1e-9
    assert recipe.training.minutes == 5.0


def test_anchors_and_aliases_work(tmp_path: Path) -> None:
    text = MINIMAL + "source: &side {lowercase: true}\ntarget: *side\n"
    assert load_recipe(write(tmp_path, text)).target.lowercase


# ----------------------------------------------------------------------------------- overrides


def test_overrides_set_create_and_replace(tmp_path: Path) -> None:
    recipe = load_recipe(
        write(tmp_path, MINIMAL),
        [
            "model.decoder.attention.kind=additive",
            "training.epochs=null",
            "training.updates=7",
            "training.optimizer.betas=[0.9, 0.99]",
            "evaluation.metrics=[bleu, chrf]",
            "data.train.weight=2",
            "data.test=multi30k-en-de:test_2016_flickr",
        ],
    )
    assert recipe.model.decoder.attention.kind == "additive"
    assert (recipe.training.epochs, recipe.training.updates) == (None, 7)
    assert recipe.training.optimizer.betas == (0.9, 0.99)
    assert recipe.evaluation.metrics == ["bleu", "chrf"]
    assert (recipe.data.train[0].name, recipe.data.train[0].weight) == ("multi30k-en-de:train", 2.0)
    assert recipe.data.test[0].name == "multi30k-en-de:test_2016_flickr"


@pytest.mark.parametrize(
    ("override", "expected"),
    [
        ("model.encoder.layer=3", "unknown key `model.encoder.layer`; did you mean `layers`?"),
        ("beam=3", "unknown key `beam`; did you mean `search.beam`?"),
        ("search.xyzzy=3", "known here: beam, n_best"),
        ("search.beam.x=3", "`search.beam` is {'x': 3}, but must be an integer"),
        ("data.train.name.x=3", "`data.train.0.name` has no options inside"),
        ("training.epochs", "write `key=value`"),
        ("=3", "write `key=value`"),
        ("training..epochs=3", "write `key=value`"),
        ("search.beam=[1", "not valid YAML"),
        ("data.train.4.weight=1", "not a position of that list"),
        ("search.beam=no", "`search.beam` is 'no', but must be an integer ≥ 1 and ≤ 1,000"),
    ],
)
def test_wrong_overrides_are_quoted(tmp_path: Path, override: str, expected: str) -> None:
    text = message(tmp_path, MINIMAL, override)
    assert text.startswith(f"override `{override}`: ") and expected in text


# -------------------------------------------------------------------------------------- errors


@pytest.mark.parametrize(
    ("section", "line", "expected"),
    [
        (
            "model:\n  encoder:\n    layer: 3",
            7,
            "unknown key `model.encoder.layer`; did you mean `layers`?",
        ),
        ("modell: {}", 5, "unknown key `modell`; did you mean `model`?"),
        (
            "model: {encoder: {size: 25}}",
            5,
            "`model.encoder`: a bidirectional encoder needs an even `size`",
        ),
        (
            "model:\n  encoder:\n    size: wide",
            7,
            "`model.encoder.size` is 'wide', but must be an integer ≥ 1",
        ),
        ("model: {encoder: {layers: true}}", 5, "`model.encoder.layers` is true"),
        ('model: {encoder: {layers: "2"}}', 5, "`model.encoder.layers` is '2'"),
        ("model: {encoder: {kind: ltsm}}", 5, "transformer, conformer; did you mean `lstm`?"),
        ("\nsearch:\n  beam: 0", 7, "`search.beam` is 0, but must be an integer ≥ 1 and ≤ 1,000"),
        ("model: {output_dropout: 1.0}", 5, "but must be a number ≥ 0 and < 1"),
        ("model: 3", 5, "`model` is 3, but holds options"),
        ("model: {decoder: {feeding: input, attention: {kind: none}}}", 5, "needs attention"),
        ("search: {beam: 2, n_best: 3}", 5, "n_best 3 is more than beam 2"),
        ("search: {beam: .nan}", 5, "`search.beam` is nan"),
        ("search: {max_ratio: .inf}", 5, "`search.max_ratio` is inf, but must be a number > 0"),
        ("search: {beam: 2}\nsearch: {beam: 3}", 6, "`search` is written twice (first in line 5)"),
        ("search:\n  beam: 2\n  beam: 3", 7, "`search.beam` is written twice (first in line 6)"),
        ("search: {beam: 2", 6, "not valid YAML"),
        ("search: !!python/object:os.system {}", 5, "has no place in a recipe"),
        ("search: {? [a] : b}", 5, "a key must be a single word"),
    ],
)
def test_mistakes_are_told_with_file_and_line(
    tmp_path: Path, section: str, line: int, expected: str
) -> None:
    text = message(tmp_path, MINIMAL + section + "\n")
    assert f"{tmp_path / 'x.yaml'}:{line}: " in text
    assert expected in text


def test_a_corpus_written_as_a_mapping_keeps_its_lines(tmp_path: Path) -> None:
    text = "data:\n  train:\n    source: a\n    target: b\n    wieght: 2\n  valid: x:y\n"
    assert "x.yaml:5: unknown key `data.train.0.wieght`; did you mean `weight`?" in message(
        tmp_path, text
    )


def test_every_mistake_is_told_at_once(tmp_path: Path) -> None:
    lines = message(tmp_path, MINIMAL + "search: {beam: 0, n_bets: 2}\nmodell: {}\n").splitlines()
    assert len(lines) == 3


def test_what_is_missing_is_named(tmp_path: Path) -> None:
    assert "`training` is missing" in message(tmp_path, "data: {train: a:b, valid: a:b}\n")
    assert "x.yaml:1: `data.valid` is missing" in message(
        tmp_path, "data: {train: a:b}\ntraining: {epochs: 1}"
    )
    assert "x.yaml:4: `training`: say when to stop" in message(
        tmp_path, MINIMAL.replace("epochs: 1", "")
    )


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (b"", "is empty"),
        (b"# nothing\n", "is empty"),
        (b"- a\n", "a recipe is a mapping"),
        (b"data: \xff\n", "x.yaml:1: not UTF-8"),
        (b"task: a\x00b\n", "not valid YAML"),
        (b"a: &a [*a]\n", "nested too deeply"),
        (b"a: " + b"[" * 3000, "not valid YAML"),
        (
            b"a: &a ["
            + b"1," * 99
            + b"]\nb: &b ["
            + b"*a," * 99
            + b"]\nc: ["
            + b"*b," * 99
            + b"]\n",
            "too large",
        ),
    ],
)
def test_files_that_are_no_recipes(tmp_path: Path, content: bytes, expected: str) -> None:
    assert expected in message(tmp_path, content)


def test_missing_file_folder_and_permission(tmp_path: Path) -> None:
    write(tmp_path, MINIMAL, "multi30k.yaml")
    with pytest.raises(UsageError, match=r"no such recipe; did you mean `.*multi30k\.yaml`"):
        load_recipe(tmp_path / "multi3k.yaml")
    with pytest.raises(UsageError, match="is a folder"):
        load_recipe(tmp_path)
    locked = write(tmp_path, MINIMAL, "locked.yaml")
    locked.chmod(0)
    if not os.access(locked, os.R_OK):  # root may read everything
        with pytest.raises(DataError, match="cannot be read"):
            load_recipe(locked)


def test_a_byte_order_mark_and_windows_line_ends_are_no_trouble(tmp_path: Path) -> None:
    path = write(tmp_path, b"\xef\xbb\xbf" + MINIMAL.replace("\n", "\r\n").encode())
    assert load_recipe(path) == load_recipe(write(tmp_path, MINIMAL, "y.yaml"))


def test_plain_trees_name_their_origin() -> None:
    tree = {"data": {"train": "a:b", "valid": "a:b"}, "training": {"epochs": 1, "sede": 2}}
    with pytest.raises(
        UsageError, match=r"^demo: unknown key `training\.sede`; did you mean `seed`"
    ):
        recipe_from_dict(tree, where="demo")
    assert tree["data"] == {"train": "a:b", "valid": "a:b"}, "the caller's tree is not changed"


SEARCHES = st.dictionaries(
    st.sampled_from(["beam", "n_best", "max_ratio", "normalization", "beem", "size", "a.b"]),
    st.none() | st.booleans() | st.integers(-2, 7) | st.floats() | st.sampled_from(["gnmt", "5"]),
)


@given(SEARCHES)
def test_the_search_section_alone_is_checked_as_in_its_recipe(tree: dict[str, Any]) -> None:
    corpora = {"train": "a:b", "valid": "a:b"}
    # What `search.length` needs is said by the whole recipe only, so that it is given here.
    source = {"length_control": True}
    whole = {"data": corpora, "source": source, "training": {"epochs": 1}, "search": tree}
    try:
        expected: Any = recipe_from_dict(whole, where="here").search
    except UsageError as error:
        with pytest.raises(UsageError) as found:
            search_from_dict(tree, where="here")
        assert str(found.value) == str(error)
    else:
        assert search_from_dict(tree, where="here") == expected


# ------------------------------------------------------------------------------------- writing

WORDS = st.text(
    st.characters(exclude_categories=["Cs"]), min_size=1, max_size=12
) | st.sampled_from(
    [
        "1e-3",
        "no",
        "null",
        "~",
        "010",
        "12:30",
        "2024-01-01",
        "- a",
        "a: b",
        "#x",
        "1_000",
        "=",
        "<<",
        " a ",
    ]
)
METRIC_NAMES = st.sampled_from(["bleu", "chrf", "moses_bleu"])
CORPORA = st.lists(
    st.one_of(
        st.fixed_dictionaries({"name": WORDS, "weight": st.floats(1e-6, 1e6)}),
        st.fixed_dictionaries({"source": WORDS, "target": WORDS, "table": WORDS}),
    ),
    min_size=1,
    max_size=3,
)
TREES = st.fixed_dictionaries(
    {
        "data": st.fixed_dictionaries(
            {"train": CORPORA, "valid": CORPORA}, optional={"test": CORPORA}
        ),
        "training": st.fixed_dictionaries(
            {"epochs": st.floats(1e-9, 1e9)},
            optional={
                "learning_rate": st.floats(1e-300, 1e300),
                "metric": st.none() | METRIC_NAMES,
                "optimizer": st.fixed_dictionaries(
                    {"betas": st.tuples(st.floats(0, 0.9), st.floats(0, 0.9))}
                ),
            },
        ),
    },
    optional={
        "source": st.fixed_dictionaries(
            {"language": st.none() | WORDS, "lowercase": st.booleans()}
        ),
        "evaluation": st.fixed_dictionaries(
            {"metrics": st.none() | st.lists(METRIC_NAMES, max_size=3)}
        ),
    },
)


@settings(max_examples=150, deadline=None)
@given(TREES)
def test_dump_and_load_give_an_equal_tree(tree: dict[str, Any]) -> None:
    recipe = recipe_from_dict(tree, where="test")
    text = dump_recipe(recipe)
    again, _ = parse_yaml(text, where="dump")
    assert recipe_from_dict(again, where="dump") == recipe


def test_dump_writes_every_default(tmp_path: Path) -> None:
    recipe = load_recipe(write(tmp_path, DESIGN_EXAMPLE))
    text = dump_recipe(recipe)
    tree, _ = parse_yaml(text, where="dump")
    assert tree == recipe.model_dump(mode="json")
    assert tree["training"]["optimizer"]["betas"] == [0.9, 0.98]
    assert load_recipe(write(tmp_path, text, "y.yaml")) == recipe


# ------------------------------------------------------------------------------- around the code


def test_descriptions_cover_every_option() -> None:
    assert describe(AttentionOptions.model_fields["size"]) == "an integer ≥ 1 or null"
    for field in Recipe.model_fields.values():
        assert describe(field)


@pytest.mark.parametrize(
    "path", sorted(Path(__file__).parents[1].glob("recipes/*.yaml")), ids=lambda p: p.stem
)
def test_recipes_of_the_project_are_valid(path: Path) -> None:
    recipe = load_recipe(path)
    assert recipe.data.train and recipe.data.valid
