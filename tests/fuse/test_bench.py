"""What ``mmsa bench train`` measures, on a tiny store."""

from __future__ import annotations

import time
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from fuse import bench
from mmsa_cache.compose.bench.gpu.sizes import REHEARSAL
from mmsa_cache.compose.bench.gpu.stores import BenchStore, generate
from mmsa_cache.store import verification
from mmsa_cache.store.index import ShardEntry

NAMES = ("positive", "neutral", "negative")


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> BenchStore:
    made = generate(tmp_path_factory.mktemp("store"), REHEARSAL)
    time.sleep(0.1)  # until its files count as untouched
    return made


def test_the_first_opening_hashes_everything_and_the_second_nothing(
    store: BenchStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    hashed: Counter[str] = Counter()
    check = verification.check_bytes

    def counted(folder: Path, entry: ShardEntry) -> None:
        hashed[entry.name] += 1
        check(folder, entry)

    monkeypatch.setattr(verification, "check_bytes", counted)
    found = bench.bench_reading(store.source(), rounds=2)
    files = [path for folder in store.folders for path in folder.glob("*.h5")]
    assert hashed == {path.stem: 2 for path in files}
    assert found["cache_bytes"] == sum(path.stat().st_size for path in files)
    seconds = [value for key, value in found.items() if key.endswith("_seconds")]
    assert len(seconds) == 4
    assert min(seconds) > 0
    assert found["ratio_per_sample_h5py"] == pytest.approx(
        found["per_sample_h5py_seconds"] / found["open_seconds"]
    )


def test_epochs_and_folds_are_those_of_all_rows_and_variants(
    store: BenchStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    bank = store.bank()
    found = bench.bench_epochs(bank, NAMES, rounds=2)
    rows = int((store.rows.table >= 0).sum())
    assert rows > len(bank)
    assert found["batches"] == -(-rows // 32)
    assert len(found["ratio_textbook_rounds"]) == 2
    trained: list[int] = []

    def fit_group(setting: Any, bank: Any, tasks: Any, **options: Any) -> None:
        trained.append(len(tasks))

    monkeypatch.setattr(bench, "fit_group", fit_group)
    assert bench.bench_folds(bank, NAMES, rounds=1)["five_folds_seconds"] > 0
    assert trained == [1, 1, 5]
