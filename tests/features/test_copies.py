"""Features on machines that do not see them: fetched once, by their hashes."""

from __future__ import annotations

import shutil
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import torch

from mmsa_cache.errors import CacheError, DamagedCacheError
from mmsa_cache.features.bank import FeatureBank
from mmsa_cache.features.remote_source import RemoteSource
from mmsa_cache.features.source import BankSource, share_derived
from tests.support.bank_sources import WANTED


class Elsewhere:
    """A machine whose store lies in another folder; counts what is read of it."""

    def __init__(self, old: Path, new: Path) -> None:
        self._old, self._new = old, new
        self.pieces: Counter[str] = Counter()
        self.ends_after: int | None = None

    def read(self, path: Path, offset: int, count: int) -> bytes:
        if self.ends_after == sum(self.pieces.values()):
            raise ConnectionError("the machine is gone")
        self.pieces[path.name] += 1
        return (self._new / path.relative_to(self._old)).read_bytes()[offset : offset + count]


def check(source: BankSource, expected: FeatureBank) -> None:
    found = source.open("cpu")
    samples = torch.arange(len(expected))
    for modality in ("text", "image"):
        one, other = getattr(found, modality), getattr(expected, modality)
        assert torch.equal(one.pooled[one.table[samples]], other.pooled[other.table[samples]])


def test_what_a_machine_does_not_see_is_fetched_once_and_whole(
    bank: FeatureBank,
    tmp_path: Path,
) -> None:
    keep = tmp_path / "keep"
    with share_derived(bank, WANTED, [("image", "default", 2)], tmp_path / "grids") as source:
        copied = RemoteSource.of(source)
        there = Elsewhere(tmp_path, tmp_path)
        assert copied.here(there.read, keep) == source, "what is seen was fetched"
        shutil.copytree(tmp_path, tmp_path.with_name("there"))
    shutil.rmtree(tmp_path / "store")
    there = Elsewhere(tmp_path, tmp_path.with_name("there"))
    there.ends_after = 1
    with pytest.raises(CacheError, match="cannot be fetched: the machine is gone"):
        copied.here(there.read, keep)
    there.ends_after = None
    with ThreadPoolExecutor(4) as pool:
        sources = list(pool.map(lambda _: copied.here(there.read, keep), range(4)))
    assert max(there.pieces.values()) == 1, "a file was fetched twice"
    assert len(there.pieces) == 3
    check(sources[0], bank)
    (grid,) = sources[0].derived.values()
    assert grid.parent == keep
    shard = next(keep.rglob("*.h5"))
    shard.write_bytes(shard.read_bytes()[:-1] + b"?")
    check(copied.here(there.read, keep), bank)
    assert sorted(there.pieces.values()) == [1, 1, 2], "a damaged copy is fetched, and it alone"


def test_another_store_at_the_same_path_is_not_read_for_it(
    bank: FeatureBank,
    tmp_path: Path,
) -> None:
    source = BankSource.of(bank, WANTED)
    copied = RemoteSource.of(source)
    for folder in set(source.folders.values()):
        shard = next(folder.glob("*.h5"))
        shard.write_bytes(shard.read_bytes()[:-1] + b"?")
    there = Elsewhere(tmp_path, tmp_path)
    with pytest.raises(DamagedCacheError, match="is not what was sealed"):
        copied.here(there.read, tmp_path / "keep")
    assert not list((tmp_path / "keep").rglob("*.h5")), "a damaged file was kept"
