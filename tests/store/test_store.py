"""The feature cache: sealed shards, resume, damage, hostile files."""

from __future__ import annotations

import time
from dataclasses import replace
from pathlib import Path

import h5py
import numpy as np
import pytest
import torch

from mmsa_cache import hashing
from mmsa_cache.errors import CacheError, CacheNotFoundError, DamagedCacheError, StaleCacheError
from mmsa_cache.features.bank import FeatureBank
from mmsa_cache.features.modality import ModalityFeatures
from mmsa_cache.store import reader
from mmsa_cache.store.fingerprint import cache_name
from mmsa_cache.store.lookup import find_cache
from mmsa_cache.store.manifest import note_path, read_manifest
from mmsa_cache.store.reader import open_shards, verify_cache
from mmsa_cache.store.shard_file import map_shard
from mmsa_cache.store.writer import CacheWriter
from tests.support.shards import FIELDS, SHARDS, contents, make_shard, write


def test_round_trip(tmp_path: Path) -> None:
    for want, have in zip(SHARDS, open_shards(write(tmp_path / "c")), strict=True):
        assert (have.guids, have.operations, have.pools) == (
            want.guids,
            want.operations,
            want.pools,
        )
        for name in ("variant", "offsets", "tokens", "pooled"):
            np.testing.assert_array_equal(getattr(have, name), getattr(want, name))


def test_resumed_cache_is_byte_identical(tmp_path: Path) -> None:
    whole = write(tmp_path / "whole")
    broken = write(tmp_path / "broken", count=2)
    first = (broken / "shard-00000.h5").stat().st_mtime_ns
    (broken / ".tmp-shard-00002.h5").write_bytes(b"half a shard")
    with pytest.raises(CacheNotFoundError, match="no finished cache"):
        list(open_shards(broken))
    write(broken)
    assert contents(broken) == contents(whole)
    assert (broken / "shard-00000.h5").stat().st_mtime_ns == first, "a sealed shard was redone"


@pytest.mark.parametrize("opened_before", [False, True])
@pytest.mark.parametrize("damage", ["flip", "truncate", "delete", "swap"])
def test_damage_is_named(tmp_path: Path, damage: str, opened_before: bool) -> None:
    directory = write(tmp_path / "c")
    if opened_before:  # which notes that all files are whole
        list(open_shards(directory))
    path = directory / "shard-00001.h5"
    data = bytearray(path.read_bytes())
    if damage == "flip":
        data[len(data) // 2] ^= 1
        path.write_bytes(bytes(data))
    elif damage == "truncate":
        path.write_bytes(bytes(data[:-1]))
    elif damage == "delete":
        path.unlink()
    else:
        path.write_bytes((directory / "shard-00000.h5").read_bytes())
    with pytest.raises(DamagedCacheError, match=r"shard-00001\.h5"):
        list(open_shards(directory))
    assert len(verify_cache(directory)) == 1
    assert "shard-00001.h5" in verify_cache(directory)[0]


def test_what_was_not_touched_is_hashed_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    directory = write(tmp_path / "c")
    hashed: list[str] = []
    real = hashing.file_sha256

    def counting(path: Path) -> str:
        hashed.append(path.name)
        return real(path)

    monkeypatch.setattr(hashing, "file_sha256", counting)
    with monkeypatch.context() as patch:
        patch.setattr(reader, "_TICK", 60)
        for opened in (1, 2):  # what was just written may change again within one tick
            list(open_shards(directory))
            assert len(hashed) == 3 * opened
    time.sleep(2 * reader._TICK)
    hashed.clear()
    for _ in range(2):
        list(open_shards(directory))
        assert len(hashed) == 3
    (directory / "shard-00001.h5").touch()
    time.sleep(2 * reader._TICK)
    list(open_shards(directory))
    assert hashed[3:] == ["shard-00001.h5"]
    note_path(directory).write_bytes(b"[nonsense")
    list(open_shards(directory))
    assert len(hashed) == 7
    verify_cache(directory)
    assert len(hashed) == 10, "verify hashes everything"


def test_stale_cache_names_the_field(tmp_path: Path) -> None:
    write(tmp_path / cache_name("tiny", FIELDS))
    assert find_cache(tmp_path, "tiny", FIELDS).is_dir()
    with pytest.raises(StaleCacheError, match="size: the cache has 8, wanted is 9"):
        find_cache(tmp_path, "tiny", {**FIELDS, "size": 9})


def test_unfinished_cache_cannot_be_finished(tmp_path: Path) -> None:
    writer = CacheWriter(tmp_path / "c", FIELDS, 10)
    with writer.lock(lambda: None):
        writer.publish(SHARDS[0])
        with pytest.raises(CacheError, match="rows are missing"):
            writer.finish()


def test_external_dataset_is_refused(tmp_path: Path) -> None:
    directory = write(tmp_path / "c")
    secret = tmp_path / "secret"
    secret.write_bytes(b"x" * 4096)
    path = directory / "shard-00000.h5"
    with h5py.File(path, "r+") as file:
        shape = file["tokens"].shape
        del file["tokens"]
        file.create_dataset("tokens", shape, "<f2", external=[(str(secret), 0, h5py.h5f.UNLIMITED)])
    digest = read_manifest(directory).fingerprint
    with pytest.raises(DamagedCacheError, match="tokens is not a dataset of this file"):
        map_shard(path, 4, path.stat().st_size, digest)


@pytest.fixture
def bank(tmp_path: Path) -> FeatureBank:
    directory = write(tmp_path / "c")
    guids = [guid for shard in SHARDS for guid in shard.guids]
    text, image = (ModalityFeatures.open(directory) for _ in range(2))
    return FeatureBank(text, image, guids[::-1], list(range(10)))


def test_bank_gathers_ragged_rows(bank: FeatureBank) -> None:
    everything = {}
    for shard in SHARDS:
        for i, guid in enumerate(shard.guids):
            everything[guid] = shard.tokens[shard.offsets[i] : shard.offsets[i + 1]]
    chosen = [7, 0, 3, 3, 9]
    batch = bank.batch(
        bank.items(chosen, variants=True), level="tokens", text_pool="cls", image_pool="mean"
    )
    assert batch.labels.tolist() == chosen
    for row, index in enumerate(chosen):
        want = everything[bank.guids[index]]
        assert int(batch.text_mask[row].sum()) == len(want)
        np.testing.assert_array_equal(batch.text[row, : len(want)].numpy(), want)
        assert not batch.text[row, len(want) :].any()


def test_bank_pooled_is_a_sequence_of_one(bank: FeatureBank) -> None:
    items = bank.items([9, 1], variants=False)
    batch = bank.batch(items, level="pooled", text_pool="cls", image_pool="mean")
    assert batch.text.shape == (2, 1, 6)
    assert batch.text_mask is None, "no position is padding"
    torch.testing.assert_close(batch.text[0, 0], torch.from_numpy(SHARDS[0].pooled[0, 0]))
    torch.testing.assert_close(batch.image[0, 0], torch.from_numpy(SHARDS[0].pooled[0, 1]))


@pytest.mark.parametrize("partial", [False, True])
@pytest.mark.parametrize("sizes", [[10], [4, 4, 2]])
def test_rows_of_one_length_are_copied_whole_and_need_no_mask(
    sizes: list[int], partial: bool
) -> None:
    shards = []
    for size in sizes:
        ragged = make_shard(sum(len(s.guids) for s in shards), size, 5 + size)
        tokens = np.random.default_rng(size).standard_normal((3 * size, 6)).astype(np.float16)
        shards.append(replace(ragged, offsets=np.arange(0, 3 * size + 1, 3), tokens=tokens))
    every = np.concatenate([shard.tokens.reshape(-1, 3, 6) for shard in shards])
    guids = [guid for shard in shards for guid in shard.guids]
    text, image = (ModalityFeatures(shards, "tiny") for _ in range(2))
    labels = list(range(10 + partial))
    bank = FeatureBank(text, image, guids + ["missing"] * partial, labels, partial=partial)
    chosen = [7, 0, 3, 3, 9] + [10] * partial
    batch = bank.batch(
        bank.items(chosen, variants=False), level="tokens", text_pool="cls", image_pool="mean"
    )
    np.testing.assert_array_equal(batch.text[:5].numpy(), every[chosen[:5]])
    if partial:
        assert batch.text_mask is not None
        assert batch.text_mask.tolist() == [[index < 10] * 3 for index in chosen]
    else:
        assert batch.text_mask is None
