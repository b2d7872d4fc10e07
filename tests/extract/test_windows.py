"""Windows of several jobs: one job after another on a CPU, side by side on a GPU."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path

import pytest
import torch

from extract.engine import extract
from extract.plan import Job, RowPlan
from mmsa_cache.errors import DiskError
from mmsa_cache.store.writer import FeatureWriter
from tests.support.extraction import Counting, make_rows, read
from tests.support.rows import claimed, row_bytes

Told = list[tuple[str, int]]


def extract_two(root: Path, rows: RowPlan, device: str) -> Told:
    """Adds all rows to ``a`` and the first 24 to ``b``; what was told of which, in order."""
    told: Told = []

    def watching(name: str) -> Callable[[], AbstractContextManager[Callable[[int], None]]]:
        @contextlib.contextmanager
        def watch() -> Iterator[Callable[[int], None]]:
            told.append((f"{name} begins", 0))
            yield lambda count: told.append((name, count))
            told.append((f"{name} ends", 0))

        return watch

    with claimed(root / "a") as a, claimed(root / "b") as b:
        jobs = [
            Job(plan, writer, watch=watching(name), reader=read, encoder=Counting())
            for name, writer, plan in (("a", a, rows), ("b", b, RowPlan.of_rows(rows[:24])))
        ]
        extract(jobs, torch.device(device), shard_rows=8, batch_size=4)
    return told


def test_beside_a_device_jobs_are_worked_on_side_by_side(tmp_path: Path) -> None:
    rows = make_rows(tmp_path)
    here = extract_two(tmp_path / "here", rows, "cpu")
    there = extract_two(tmp_path / "there", rows, "meta")
    alone = ["a begins", *["a"] * 7, "a ends", "b begins", *["b"] * 3, "b ends"]
    assert [name for name, _ in here] == alone
    mixed = ["a", "b", "a", "a", "a", "b", "a", "a", "b", "a"]
    assert [name for name, _ in there] == ["a begins", "b begins", *mixed, "b ends", "a ends"]
    assert sorted(here) == sorted(there)
    for name in "ab":
        assert row_bytes(tmp_path / "here" / name) == row_bytes(tmp_path / "there" / name)


def test_what_is_taken_of_all_jobs_is_sealed_whatever_ends_the_work(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = make_rows(tmp_path)
    whole = extract_two(tmp_path / "whole", rows, "meta")
    assert len(whole) == 14
    real, failed = FeatureWriter.publish, []

    def publish(writer: FeatureWriter, *shards: object) -> int:
        if writer.folder.is_relative_to(tmp_path / "broken" / "a"):
            failed.append(len(shards))
            raise DiskError("no room", "make some")
        return real(writer, *shards)  # type: ignore[arg-type]

    monkeypatch.setattr(FeatureWriter, "publish", publish)
    with pytest.raises(DiskError, match="no room"):
        extract_two(tmp_path / "broken", rows, "meta")
    assert failed == [7]
    assert row_bytes(tmp_path / "broken" / "b") == row_bytes(tmp_path / "whole" / "b")
