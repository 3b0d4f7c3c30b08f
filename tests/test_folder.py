"""A model folder is the old one or the new one, whole; anything else is noticed and named."""

from __future__ import annotations

import errno
import json
import multiprocessing
import os
import resource
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from transduce.data.tokenizers.build import EXTENSIONS
from transduce.disk import atomic_bytes, atomic_write, lock
from transduce.errors import FolderError
from transduce.folder import (
    TOKENIZER_SUFFIXES,
    is_unused,
    open_folder,
    publish,
    publish_more,
    remove_temporary,
    remove_training,
)
from transduce.model.weights import load_weights, model_tensors, read_tensors, tensor_bytes
from transduce.recipe_files import dump_recipe, recipe_from_dict


def make(folder: Path, weights: bytes = b"first weights") -> Path:
    recipe = recipe_from_dict(
        {
            "data": {"train": {"source": "a", "target": "b"}, "valid": []},
            "training": {"epochs": 1},
        },
        where="test",
    )
    folder.mkdir(exist_ok=True)
    files = {
        "recipe.yaml": dump_recipe(recipe).encode(),
        "source.model": b"s" * 100,
        "target.model": b"t" * 100,
        "weights.safetensors": weights,
    }
    publish(folder, files, task="translation", source_language="en", target_language="de")
    return folder


def replace_weights(folder: Path, weights: bytes) -> None:
    about: dict[str, Any] = {"task": "translation", "source_language": "en"}
    publish(folder, {"weights.safetensors": weights}, **about, target_language="de")


@contextmanager
def files_no_larger_than(size: int) -> Iterator[None]:
    """Every write beyond `size` bytes of a file fails, as on a full disk."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


# ------------------------------------------------------------------------------------ writing


def test_a_full_disk_leaves_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "file"
    atomic_bytes(path, b"old")
    with files_no_larger_than(1000), pytest.raises(FolderError, match="disk is full"):
        atomic_bytes(path, b"new" * 1000)
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


def test_a_disk_that_fills_up_at_the_last_moment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(_: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    path = tmp_path / "file"
    atomic_bytes(path, b"old")
    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(FolderError, match=r"file: the disk is full .*Free some space"):
        atomic_bytes(path, b"new")
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


def test_a_failure_while_writing_leaves_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"old")
    with pytest.raises(ZeroDivisionError), atomic_write(path) as temporary:
        temporary.write_bytes(b"half")
        raise ZeroDivisionError
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


def test_a_folder_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("not a folder")
    with pytest.raises(FolderError, match="cannot be written"):
        atomic_bytes(tmp_path / "file" / "weights", b"new")
    with pytest.raises(FolderError, match="cannot be written"), lock(tmp_path / "file"):
        pass


def test_files_are_readable_by_others_as_usual(tmp_path: Path) -> None:
    atomic_bytes(tmp_path / "file", b"new")
    (tmp_path / "other").write_bytes(b"new")
    assert (tmp_path / "file").stat().st_mode == (tmp_path / "other").stat().st_mode


def test_a_link_stays_a_link(tmp_path: Path) -> None:
    (tmp_path / "other").mkdir()
    link, file = tmp_path / "link", tmp_path / "other" / "file"
    link.symlink_to(Path("other") / "file")
    for content in (b"first", b"second"):  # the first time it leads to nothing
        atomic_bytes(link, content)
        assert link.is_symlink() and file.read_bytes() == content
    with files_no_larger_than(1000), pytest.raises(FolderError, match="other/file: the disk is"):
        atomic_bytes(link, b"new" * 1000)
    assert file.read_bytes() == b"second" and list(file.parent.iterdir()) == [file]
    circle = tmp_path / "circle"
    circle.symlink_to(circle)
    with pytest.raises(FolderError, match="cannot be written: Too many levels"):
        atomic_bytes(circle, b"new")
    assert circle.is_symlink()


# ------------------------------------------------------------------------------------- locking


def hold(folder: str, ready: Any, done: Any) -> None:
    with lock(folder):
        ready.set()
        done.wait(60)


def test_a_second_holder_is_refused_and_told_who_holds(tmp_path: Path) -> None:
    # A lock is held by an open file, so a second one in this process is refused just as well.
    refused = pytest.raises(FolderError, match=rf"process {os.getpid()}\)")
    with lock(tmp_path), refused, lock(tmp_path):
        pass
    with lock(tmp_path):
        pass


def test_the_lock_of_a_killed_process_is_gone(tmp_path: Path) -> None:
    context = multiprocessing.get_context("fork")
    ready, done = context.Event(), context.Event()
    process = context.Process(target=hold, args=(str(tmp_path), ready, done))
    process.start()
    assert ready.wait(60)
    with pytest.raises(FolderError, match=f"process {process.pid}"), lock(tmp_path):
        pass
    assert process.pid is not None
    os.kill(process.pid, signal.SIGKILL)
    process.join()
    with lock(tmp_path):
        pass


# ------------------------------------------------------------------------------------- opening


def test_a_whole_folder_opens(tmp_path: Path) -> None:
    opened = open_folder(make(tmp_path))
    assert opened.recipe.training.epochs == 1
    assert opened.manifest["source_language"] == "en"
    assert opened.weights.read_bytes() == b"first weights"
    assert opened.side("target").name == "target.model"


@pytest.mark.parametrize(
    "name", ["recipe.yaml", "source.model", "target.model", "weights.safetensors"]
)
def test_a_damaged_file_is_named(name: str, tmp_path: Path) -> None:
    file = make(tmp_path) / name
    content = file.read_bytes()
    file.write_bytes(content[:-5])
    with pytest.raises(FolderError, match=rf"{name}: truncated \({len(content) - 5:,} bytes of"):
        open_folder(tmp_path)
    file.write_bytes(b"?" + content[1:])
    with pytest.raises(FolderError, match=f"{name}: altered"):
        open_folder(tmp_path)
    file.write_bytes(content + b"?")
    with pytest.raises(FolderError, match=f"{name}: altered"):
        open_folder(tmp_path)
    file.unlink()
    with pytest.raises(FolderError, match=f"{name}: missing"):
        open_folder(tmp_path)
    file.write_bytes(content)
    open_folder(tmp_path)


@settings(max_examples=40, deadline=None)
@given(data=st.data())
def test_any_changed_byte_is_noticed(
    data: st.DataObject, tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder = make(tmp_path_factory.mktemp("model"))
    names = ("recipe.yaml", "source.model", "weights.safetensors")
    file = folder / data.draw(st.sampled_from(names))
    content = bytearray(file.read_bytes())
    place = data.draw(st.integers(0, len(content) - 1))
    content[place] ^= data.draw(st.integers(1, 255))
    file.write_bytes(content)
    with pytest.raises(FolderError, match=f"{file.name}: altered"):
        open_folder(folder)


@pytest.mark.parametrize(
    ("manifest", "message"),
    [
        ("{", "cannot be read"),
        ("[]", "not the manifest"),
        ('{"format": 1}', "not the manifest"),
        ('{"format": 99, "files": {}}', "format 99 is newer"),
        ('{"format": 1, "files": {}}', r"lists no recipe\.yaml"),
        (
            '{"format": 1, "files": {"recipe.yaml": {}, "weights.safetensors": {}, "../x": {}}}',
            "not a file of this folder",
        ),
    ],
)
def test_a_damaged_manifest_is_told(manifest: str, message: str, tmp_path: Path) -> None:
    folder = make(tmp_path / "run")
    if "../x" in manifest:
        whole = json.loads((folder / "manifest.json").read_text())
        whole["files"]["../x"] = {}
        manifest = json.dumps(whole)
    (folder / "manifest.json").write_text(manifest)
    with pytest.raises(FolderError, match=message):
        open_folder(folder)


def test_what_is_not_a_model_folder_is_told(tmp_path: Path) -> None:
    with pytest.raises(FolderError, match="no such model folder"):
        open_folder(tmp_path / "nowhere")
    with pytest.raises(FolderError, match="not a model folder"):
        open_folder(tmp_path)
    (tmp_path / "file").write_text("")
    with pytest.raises(FolderError, match="not a folder"):
        open_folder(tmp_path / "file")
    (tmp_path / "last").mkdir()
    with pytest.raises(FolderError, match="first validation"):
        open_folder(tmp_path)


class Stopping:
    """A function that is interrupted at its call number `stop`."""

    def __init__(self, original: Callable[..., Any], stop: int) -> None:
        self.original, self.stop, self.calls = original, stop, 0

    def __call__(self, *arguments: Any) -> Any:
        self.calls += 1
        if self.calls == self.stop:
            raise KeyboardInterrupt
        return self.original(*arguments)


@pytest.mark.parametrize("name", ["replace", "fsync"])
def test_replacing_weights_can_stop_anywhere(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make(tmp_path)
    original = getattr(os, name)
    for stop in range(1, 20):
        stopping = Stopping(original, stop)
        weights = f"weights {stop}".encode()
        with monkeypatch.context() as patch:
            patch.setattr(os, name, stopping)
            try:
                replace_weights(tmp_path, weights)
                break
            except KeyboardInterrupt:
                pass
        open_folder(tmp_path)
    assert stopping.calls > 2
    assert open_folder(tmp_path).weights.read_bytes() == weights


@pytest.mark.parametrize("name", ["replace", "fsync"])
def test_adding_a_file_can_stop_anywhere(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    original = getattr(os, name)
    for stop in range(1, 20):
        stopping = Stopping(original, stop)
        path = make(tmp_path / str(stop))
        folder, added = open_folder(path), path / "shortlist.safetensors"
        with monkeypatch.context() as patch:
            patch.setattr(os, name, stopping)
            try:
                publish_more(folder, {added.name: b"words"})
                break
            except KeyboardInterrupt:
                pass
        left = open_folder(path)
        assert added.exists() or added.name not in left.manifest["files"]
        publish_more(left, {added.name: b"other words"})
        assert open_folder(path).manifest["files"].keys() > {added.name}
    assert stopping.calls > 2
    assert added.read_bytes() == b"words"
    assert open_folder(path).manifest["source_language"] == "en"


def test_files_of_other_people_are_neither_listed_nor_removed(tmp_path: Path) -> None:
    others = "source.en source.txt target.json.bak weights.txt recipe.yml notes.tmp .notes.tmp"
    others += " report.html last/notes figures/mine.png figures/attention.txt cache/x source.model~"
    for name in others.split():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("mine")
    make(tmp_path)
    opened = open_folder(tmp_path)
    assert sorted(opened.manifest["files"]) == [
        *("recipe.yaml", "source.model", "target.model", "weights.safetensors")
    ]
    assert opened.side("source").name == "source.model"
    ours = "metrics.jsonl last/state.json last/checkpoint-1f.safetensors figures/curves.png"
    ours += " last/best-00000001.safetensors figures/attention-a-b.png .weights.safetensors.x7.tmp"
    ours += " .recipe.yaml.new ..weights.safetensors.new.x7.tmp last/.state.json.x7.tmp"
    ours += " tensorboard/events.out.tfevents.1.host"
    for name in ours.split():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("written by a training")
    remove_training(tmp_path)
    left = [str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*") if path.is_file()]
    assert sorted(left) == sorted(others.split())
    assert not (tmp_path / "tensorboard").exists()


def test_what_killed_processes_left_does_not_use_a_folder(tmp_path: Path) -> None:
    assert is_unused(tmp_path)
    for name in (".lock", ".weights.safetensors.new", "..weights.safetensors.new.x7.tmp"):
        (tmp_path / name).write_text("half")
    assert is_unused(tmp_path)
    (tmp_path / ".notes.tmp").write_text("mine")
    assert not is_unused(tmp_path)
    remove_temporary(tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == [".lock", ".notes.tmp"]


def test_all_kinds_of_tokenizers_are_known() -> None:
    assert set(TOKENIZER_SUFFIXES) == set(EXTENSIONS.values())


def test_a_full_disk_while_replacing_weights_leaves_the_old(tmp_path: Path) -> None:
    make(tmp_path)
    with files_no_larger_than(3000), pytest.raises(FolderError, match="disk is full"):
        replace_weights(tmp_path, b"new" * 3000)
    assert open_folder(tmp_path).weights.read_bytes() == b"first weights"


# ------------------------------------------------------------------------------------- tensors


class Tied(nn.Module):
    def __init__(self, size: int = 3) -> None:
        super().__init__()
        self.embedding = nn.Embedding(size, 2)
        self.output = nn.Linear(2, size)
        self.output.weight = self.embedding.weight
        self.register_buffer("kept", torch.ones(2))
        self.register_buffer("dropped", torch.ones(2), persistent=False)


def test_tied_weights_are_stored_once_and_come_back(tmp_path: Path) -> None:
    first, second = Tied(), Tied()
    assert set(model_tensors(first)) == {"embedding.weight", "output.bias", "kept"}
    path = tmp_path / "weights"
    path.write_bytes(tensor_bytes(model_tensors(first)))
    load_weights(second, path)
    assert torch.equal(second.output.weight, first.embedding.weight)


def test_weights_of_another_model_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "weights"
    path.write_bytes(tensor_bytes(model_tensors(Tied(4))))
    with pytest.raises(FolderError, match=r"embedding\.weight` is \(4, 2\).*vocabulary"):
        load_weights(Tied(3), path)
    with pytest.raises(FolderError, match="has no `0"):
        load_weights(nn.Sequential(nn.Linear(1, 1)), path)
    path.write_bytes(tensor_bytes(model_tensors(Tied(3)) | {"more": torch.ones(1)}))
    with pytest.raises(FolderError, match="`more` is unknown"):
        load_weights(Tied(3), path)


@pytest.mark.parametrize("content", [b"", b"\x80\x04\x95pickle", b"\xff" * 100])
def test_what_is_not_safetensors_is_refused(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "weights"
    path.write_bytes(content)
    with pytest.raises(FolderError, match="not a whole safetensors file"):
        read_tensors(path)
    with pytest.raises(FolderError, match="missing"):
        read_tensors(tmp_path / "nothing")
