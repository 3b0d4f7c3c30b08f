"""What a training tells can be read while it is written."""

from __future__ import annotations

import resource
from pathlib import Path

import pytest

from transduce.errors import FolderError
from transduce.training.report import MetricsFile, duration, read_metrics


def test_rows_come_back_without_a_line_that_is_being_written(tmp_path: Path) -> None:
    file = MetricsFile(tmp_path)
    file.append({"update": 1, "samples": ["Straße"]})
    size = file.size()
    file.append({"update": 2})
    with file.path.open("a") as stream:
        stream.write('{"update": 3, "lo')
    assert [row["update"] for row in read_metrics(tmp_path)] == [1, 2]
    file.truncate(size)
    assert read_metrics(tmp_path) == [{"update": 1, "samples": ["Straße"]}]


def test_numbers_that_are_not_finite_are_still_json(tmp_path: Path) -> None:
    MetricsFile(tmp_path).append({"update": 1, "loss": float("nan"), "perplexity": float("inf")})
    assert "NaN" not in (tmp_path / "metrics.jsonl").read_text()
    assert read_metrics(tmp_path) == [{"update": 1, "loss": None, "perplexity": None}]


def test_a_damaged_row_is_named(tmp_path: Path) -> None:
    with pytest.raises(FolderError, match=r"metrics\.jsonl"):
        read_metrics(tmp_path)
    (tmp_path / "metrics.jsonl").write_text('{"update": 1}\nnot json\n')
    with pytest.raises(FolderError, match=r"metrics\.jsonl:2: not JSON"):
        read_metrics(tmp_path)


def test_a_full_disk_leaves_no_half_line(tmp_path: Path) -> None:
    file = MetricsFile(tmp_path)
    file.append({"update": 1})
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (20, limits[1]))
    try:
        with pytest.raises(FolderError, match="disk is full"):
            file.append({"update": 2, "samples": ["x" * 100]})
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert file.path.read_text() == '{"update": 1}\n'


def test_durations() -> None:
    assert [duration(s) for s in (0, 65.9, 3723, None)] == ["0:00", "1:05", "1:02:03", "?"]
