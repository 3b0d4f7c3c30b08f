"""Batches: shapes, budget, every example once an epoch, exact positions, little padding."""

from __future__ import annotations

import json
import threading
from collections import Counter
from itertools import islice
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from transduce.data.batches import (
    Batch,
    BatchStream,
    collate,
    collate_source,
)
from transduce.data.corpus import open_corpora
from transduce.data.grouping import groups
from transduce.data.prepare import prepare
from transduce.data.store import Store
from transduce.data.text import TextSide
from transduce.data.tokenizers import BOS, EOS, PAD

from .conftest import DATA, write_pairs

Sides = tuple[TextSide, TextSide]
Rows = st.lists(st.lists(st.integers(4, 99), max_size=12), min_size=1, max_size=9)


def stream_of(store: Store, sides: Sides, tokens: int = 500, seed: int = 1) -> BatchStream:
    return BatchStream(store, *sides, batch_tokens=tokens, seed=seed)


def same(a: Batch, b: Batch) -> bool:
    tensors = ("source", "source_lengths", "target_input", "target_output", "target_lengths")
    equal = all(torch.equal(getattr(a, name), getattr(b, name)) for name in tensors)
    return equal and np.array_equal(a.indices, b.indices) and a.tokens == b.tokens


# ----------------------------------------------------------------------------------- collate


@given(sources=Rows, data=st.data())
def test_collate_pads_and_shifts(sources: list[list[int]], data: st.DataObject) -> None:
    count = len(sources)
    targets = data.draw(
        st.lists(st.lists(st.integers(4, 99), max_size=12), min_size=count, max_size=count)
    )
    batch = collate(sources, [np.array(t, np.uint16) for t in targets], range(count))
    assert batch.size == count
    assert batch.source.shape == (count, 1 + max(map(len, sources)))
    for i, (source, target) in enumerate(zip(sources, targets, strict=True)):
        wide = batch.target_output.shape[1]
        assert batch.source[i].tolist()[: len(source) + 1] == [*source, EOS]
        assert batch.target_input[i].tolist() == [BOS, *target] + [PAD] * (wide - len(target) - 1)
        assert batch.target_output[i].tolist() == [*target, EOS] + [PAD] * (wide - len(target) - 1)
    assert (
        batch.tokens == int((batch.target_output != PAD).sum()) == int(batch.target_lengths.sum())
    )
    assert torch.equal(batch.source_lengths, (batch.source != PAD).sum(1))
    assert batch.source.dtype == batch.target_input.dtype == torch.int64
    source, lengths = collate_source(sources)
    assert torch.equal(source, batch.source)
    assert torch.equal(lengths, batch.source_lengths)


def test_a_batch_moves_to_a_device() -> None:
    batch = collate([[4, 5]], [[6]], [0]).to("meta")
    assert batch.source.device.type == batch.target_lengths.device.type == "meta"
    assert batch.tokens == 2


# --------------------------------------------------------------------------------- by length


@given(
    lengths=st.lists(st.tuples(st.integers(0, 60), st.integers(0, 60)), min_size=1, max_size=80),
    budget=st.integers(1, 300),
    frames=st.booleans(),
)
def test_groups_are_within_the_budget_and_lose_nothing(
    lengths: list[tuple[int, int]], budget: int, frames: bool
) -> None:
    source, target = np.array(lengths).T
    found = groups(source, target, budget, frames=frames)
    assert sorted(np.concatenate(found).tolist()) == list(range(len(lengths)))
    for rows in found:
        widest = max(source[rows].max() + (not frames), target[rows].max() + 1)
        assert widest * len(rows) <= budget or len(rows) == 1


def test_no_examples_make_no_groups() -> None:
    assert groups(np.array([], int), np.array([], int), 100, frames=False) == []


def test_few_of_the_positions_are_padding_and_few_batches_are_not_full() -> None:
    """Of pairs like those of translation; rows are a multiple of 8."""
    rng = np.random.default_rng(1)
    source = rng.gamma(12, 1.2, 20_000).astype(int)
    target = np.maximum(1, source * rng.normal(1, 0.15, 20_000) + rng.normal(0, 2, 20_000))
    target = target.astype(int)
    found = groups(source, target, 3000, frames=False)
    padded = [len(rows) * (source[rows].max() + target[rows].max() + 2) for rows in found]
    assert 1 - (source.sum() + target.sum() + 2 * len(source)) / sum(padded) < 0.03
    longer = [len(rows) * (max(source[rows].max(), target[rows].max()) + 1) for rows in found]
    assert sum(longer) / len(found) > 0.87 * 3000
    assert sum(len(rows) % 8 > 0 for rows in found) <= 1


@pytest.mark.parametrize("length", [9, 49])
def test_batches_of_equal_lengths_are_full(length: int) -> None:
    rows = np.full(20_000, length - 1)
    found = groups(rows, rows, 3000, frames=False)
    most = 3000 // length // 8 * 8
    assert len(found) <= -(-20_000 // most) + 1


# -------------------------------------------------------------------------------- the stream


@pytest.mark.parametrize("kind", ["plain", "sampled"])
def test_an_epoch_has_every_example_once(request: pytest.FixtureRequest, kind: str) -> None:
    sides: Sides = request.getfixturevalue(kind)
    store: Store = request.getfixturevalue("store" if kind == "plain" else "sampled_store")
    stream = stream_of(store, sides)
    seen: Counter[int] = Counter()
    while stream.epoch < 1.0:
        batch = stream.next()
        seen.update(batch.indices.tolist())
        longer = max(batch.source.shape[1], batch.target_output.shape[1])
        assert batch.size * longer <= 500 or batch.size == 1
        for row, i in zip(batch.source.tolist(), batch.indices.tolist(), strict=True):
            assert sides[0].decode(row) == sides[0].decode(store.source_ids([i])[0].tolist())
    stream.close()
    assert seen == Counter(range(len(store)))
    assert stream.epoch == 1.0
    assert stream.position()["epoch"] == 1


def test_shares_are_dealt_out_of_one_stream_and_nothing_is_left(store: Store, plain: Sides) -> None:
    whole = stream_of(store, plain)
    shares = [
        BatchStream(store, *plain, batch_tokens=500, seed=1, share=(rank, 3)) for rank in range(3)
    ]
    while shares[0].epoch < 1.1:  # rounds do not end with the epoch, they go across
        assert all(same(share.next(), whole.next()) for share in shares)
        assert all(share.position() == whole.position() for share in shares)
    other = [
        BatchStream(store, *plain, batch_tokens=500, seed=1, share=(rank, 2)) for rank in range(2)
    ]
    for share in other:
        share.seek(shares[0].position())
    assert all(same(share.next(), whole.next()) for share in other)
    for stream in (whole, *shares, *other):
        stream.close()


def test_epochs_and_seeds_differ_and_repeat(sampled_store: Store, sampled: Sides) -> None:
    def epoch(seed: int, number: int) -> list[Batch]:
        stream = stream_of(sampled_store, sampled, 2000, seed)
        batches = []
        while stream.epoch < number + 1:
            batch = stream.next()
            if stream.epoch > number:
                batches.append(batch)
        stream.close()
        return batches

    first, again, second, other = epoch(1, 0), epoch(1, 0), epoch(1, 1), epoch(2, 0)
    assert all(map(same, first, again))
    assert len(first) == len(again)
    for changed in (second, other):
        assert not all(map(same, first, changed))
    # BPE-dropout: one word is cut in other ways in another epoch.
    assert {tuple(row) for b in first for row in b.source.tolist()} != {
        tuple(row) for b in second for row in b.source.tolist()
    }


@pytest.mark.parametrize("consumed", [0, 1, 7, 40, 60])
def test_seeking_goes_on_exactly(
    sampled_store: Store, sampled: Sides, consumed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    from transduce.data import batches

    monkeypatch.setattr(batches, "_POOL_TOKENS", 4000)  # several pools an epoch
    monkeypatch.setattr(batches, "_POOL_BATCHES", 4)
    stream = stream_of(sampled_store, sampled, 1000)
    for _ in range(consumed):
        stream.next()
    position, progress = json.loads(json.dumps(stream.position())), stream.epoch
    wanted = list(islice(stream, 30))
    stream.close()
    other = stream_of(sampled_store, sampled, 1000)
    other.next()
    other.seek(position)
    assert other.epoch == progress
    assert other.position() == position
    assert all(map(same, wanted, islice(other, 30)))
    assert other.position() == stream.position()
    other.close()


def test_weights_draw_examples_so_often(tmp_path: Path, plain: Sides) -> None:
    names = "abcdefghij"
    corpora = [
        write_pairs(tmp_path, [(c, "A") for c in names], f"w{weight}").model_copy(
            update={"weight": weight}
        )
        for weight in (1.0, 2.5, 0.2, 0.01)
    ]
    store = prepare(open_corpora(corpora), *plain, DATA, tmp_path / "c")
    stream = stream_of(store, plain, 8)
    seen: Counter[int] = Counter()
    while stream.epoch < 1.0:
        seen.update(stream.next().indices.tolist())
    stream.close()
    totals = [sum(seen[i] for i in range(start, start + 10)) for start in (0, 10, 20, 30)]
    assert totals == [10, 25, 2, 1]  # and no corpus is left out
    assert {seen[i] for i in range(10, 20)} == {2, 3}


def test_padding_is_small(store: Store, plain: Sides) -> None:
    stream = stream_of(store, plain, 1000)
    real = padded = 0
    while stream.epoch < 1.0:
        batch = stream.next()
        real += batch.tokens + int(batch.source_lengths.sum())
        padded += batch.target_output.numel() + batch.source.numel()
    stream.close()
    assert 1 - real / padded < 0.08  # of 4,000 words; larger corpora pad less


def test_what_goes_wrong_behind_is_raised_in_front(store: Store, plain: Sides) -> None:
    stream = stream_of(store, plain)

    def fail(*_: object) -> None:
        raise MemoryError("behind")

    stream._collate = fail  # type: ignore[assignment, method-assign]
    for _ in range(2):
        with pytest.raises(MemoryError, match="behind"):
            stream.next()
    stream.close()


def test_closing_ends_the_thread_and_iterating_goes_on(store: Store, plain: Sides) -> None:
    whole = stream_of(store, plain)
    wanted = [whole.next() for _ in range(6)]
    whole.close()
    stream = stream_of(store, plain)
    got = [stream.next() for _ in range(3)]
    stream.close()
    stream.close()
    assert not any(thread.name == "batches" for thread in threading.enumerate())
    got += [stream.next() for _ in range(3)]
    stream.close()
    assert all(map(same, got, wanted))
