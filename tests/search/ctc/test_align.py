"""Alignments and readings of given targets, against enumeration of every labelling."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
import torch

from transduce.search.ctc.align import align, read
from transduce.search.ctc.prefix import Frames


def paths_of(frames: torch.Tensor, ids: tuple[int, ...], collapsed) -> dict[tuple, float]:
    rows = frames.tolist()
    paths = itertools.product((0, *sorted(set(ids))), repeat=len(rows))
    return {
        path: sum(row[label] for row, label in zip(rows, path, strict=True))
        for path in paths
        if collapsed(path) == ids
    }


def spans(path: tuple[int, ...]) -> list[tuple[int, int]]:
    """Start and end of every label of a path."""
    found, at = [], 0
    for label, group in itertools.groupby(path):
        size = len(list(group))
        if label:
            found.append((at, at + size))
        at += size
    return found


TARGETS = [(), (3,), (3, 3), (4, 3), (5, 4, 3), (3, 3, 4), (4, 4, 4), (3, 4, 5, 3)]
LENGTHS = [6, 2, 5, 7]


@pytest.fixture
def batch(make_frames):
    alone = [make_frames(20 + i, n) for i, n in enumerate(LENGTHS)]
    padded = torch.nn.utils.rnn.pad_sequence(alone, batch_first=True, padding_value=-0.5)
    return Frames.of(padded, torch.tensor(LENGTHS)), alone


def test_the_best_path_of_every_target(batch, collapsed) -> None:
    frames, alone = batch
    pairs = [(row, ids) for row in range(len(LENGTHS)) for ids in TARGETS]
    found = align(frames, [row for row, _ in pairs], [ids for _, ids in pairs])
    impossible = 0
    for (row, ids), alignment in zip(pairs, found, strict=True):
        paths = paths_of(alone[row], ids, collapsed)
        if not paths:
            assert alignment is None
            impossible += 1
            continue
        best = max(paths, key=lambda path: paths[path])
        assert alignment.log_prob == pytest.approx(paths[best])
        got = list(zip(alignment.starts.tolist(), alignment.ends.tolist(), strict=True))
        assert got == spans(best)
        means = [
            alone[row][a:b, label].mean().item() for label, (a, b) in zip(ids, got, strict=True)
        ]
        assert alignment.token_scores == pytest.approx(means)
    assert impossible > 2


def test_readings_sum_over_all_paths(batch, targets_of, collapsed) -> None:
    frames, alone = batch
    tables = [targets_of(one) for one in alone]
    pairs = [(row, ids) for row in range(len(LENGTHS)) for ids in TARGETS if ids in tables[row]]
    readings = read(frames, [row for row, _ in pairs], [ids for _, ids in pairs])
    for (row, ids), reading in zip(pairs, readings, strict=True):
        table, length = tables[row], LENGTHS[row]
        assert sum(reading.token_scores) == pytest.approx(math.log(table[ids]))
        for t in range(len(ids)):
            begun = [sum(p for i, p in table.items() if i[:n] == ids[:n]) for n in (t, t + 1)]
            assert reading.token_scores[t] == pytest.approx(math.log(begun[1] / begun[0]), abs=1e-9)
        # A token's attention is how often its label is on each frame, over all paths.
        expected = np.zeros((len(ids), length))
        for path, log_prob in paths_of(alone[row], ids, collapsed).items():
            for t, (a, b) in enumerate(spans(path)):
                expected[t, a:b] += math.exp(log_prob)
        expected /= expected.sum(axis=1, keepdims=True)
        assert reading.attention.shape == (len(ids) + 1, length)
        np.testing.assert_allclose(reading.attention[:-1], expected, atol=1e-6)
        assert reading.attention[-1].sum() == pytest.approx(1.0)


def test_other_targets_beside_it_change_nothing(batch) -> None:
    frames, _ = batch
    rows, targets = [0, 3, 0, 2], [(3, 3), (3, 4, 5, 3), (), (5,)]
    together, aligned = read(frames, rows, targets), align(frames, rows, targets)
    for n, row in enumerate(rows):
        own = frames.keep(torch.tensor([row]))
        (alone,), (path,) = read(own, [0], targets[n : n + 1]), align(own, [0], targets[n : n + 1])
        assert together[n].token_scores == pytest.approx(alone.token_scores)
        np.testing.assert_allclose(together[n].attention, alone.attention, atol=1e-7)
        assert aligned[n].starts.tolist() == path.starts.tolist()
    assert read(frames, [], []) == [] and align(frames, [], []) == []
