"""The feature store: rows by key, sealed shards, resume, merges; and banks of them."""

from __future__ import annotations

import errno
import hashlib
import io
import time
from dataclasses import replace
from pathlib import Path

import h5py
import numpy as np
import pytest
import torch

from mmsa_cache.errors import CacheNotFoundError, DamagedCacheError, DiskError, StaleCacheError
from mmsa_cache.features.bank import FeatureBank
from mmsa_cache.features.modality import ModalityFeatures
from mmsa_cache.features.rows import SampleRows
from mmsa_cache.files import hashing
from mmsa_cache.key_table import KeyTable
from mmsa_cache.store import index as index_module
from mmsa_cache.store import shard_file, verification
from mmsa_cache.store import writer as writer_module
from mmsa_cache.store.encoder import StoredEncoder, read_encoder
from mmsa_cache.store.index import INDEX, Index, IndexChange, ShardEntry
from mmsa_cache.store.keys import KEY_BYTES, as_keys, content_keys, variant_key
from mmsa_cache.store.older_schema import older_caches, refuse_older, remove_older
from mmsa_cache.store.reader import open_features, verify_features
from mmsa_cache.store.sealer import FolderSealer
from mmsa_cache.store.shard_bytes import encode
from mmsa_cache.store.verification import VERIFIED
from tests.support.sealed import sealed
from tests.support.shards import (
    ENCODER,
    SHARDS,
    contents,
    make_keys,
    make_shard,
    rows_in,
    rows_of,
    write,
    writer_of,
)

ROWS = rows_in(SHARDS)


def test_round_trip(tmp_path: Path) -> None:
    joint = replace(
        SHARDS[0],
        shared=np.arange(12, dtype=np.float16).reshape(4, 3),
        operations=["", "é", "crop 0.5", "wörd"],
    )
    for number, shards in enumerate((SHARDS, [joint])):
        writer = writer_of(tmp_path / str(number))
        with writer.claim(lambda: None):
            assert [writer.publish(shard) for shard in shards] == [len(shard) for shard in shards]
            assert writer.rows == sum(map(len, shards))
            assert writer.bytes == sum(p.stat().st_size for p in writer.folder.glob("*.h5"))
        features = open_features(writer.folder)
        assert features.starts.tolist() == ([0, 4], [0, 4, 8, 10])[shards is SHARDS]
        keys = np.concatenate([shard.keys for shard in shards])
        assert features.find_rows(keys).tolist() == list(range(len(keys)))
        for want, have in zip(shards, features.shards, strict=True):
            arrays = (want.tokens, want.pooled, *([] if want.shared is None else [want.shared]))
            assert have.nbytes == want.nbytes == sum(array.nbytes for array in arrays)
            assert list(have.operations) == list(want.operations)
            assert have.pools == want.pools
            for name in ("keys", "offsets", "tokens", "pooled", "shared"):
                np.testing.assert_array_equal(getattr(have, name), getattr(want, name))
            for used in (have.tokens, have.pooled):  # where they lie in the file, for any processor
                assert used.ctypes.data % 64 == 0


def test_keys_are_what_a_row_is_computed_from() -> None:
    content = hashlib.sha256(b"a post").digest()
    text = content.hex()
    assert content_keys(np.frombuffer(content, np.uint8)[None]).tobytes() == content[:16]
    assert variant_key(text, "eda:0.1:7", 0) == content[:16]
    want = hashlib.sha256(text.encode() + b"\0eda:0.1:7\x002").digest()[:16]
    assert variant_key(text, "eda:0.1:7", 2) == want


def test_keys_are_found_by_all_their_bytes() -> None:
    keys = np.random.default_rng(0).integers(0, 256, (1000, KEY_BYTES), np.uint8)
    table = KeyTable(KEY_BYTES)
    assert table.find(keys).tolist() == [-1] * 1000
    table.add(keys)
    assert table.find(keys[::-1]).tolist() == list(range(999, -1, -1))
    near = keys.copy()
    near[:, 12] ^= 1  # the first eight bytes are equal
    assert (table.find(near) == -1).all()
    assert table.find(keys[:0]).tolist() == []


def test_a_key_table_finds_the_first_of_each_key(monkeypatch: pytest.MonkeyPatch) -> None:
    """Also keys that end in zero bytes, which NumPy's texts drop; across every way to sort."""
    rng = np.random.default_rng(0)
    keys = rng.integers(0, 2, (600, 16), np.uint8) * rng.integers(0, 2, (600, 1), np.uint8)
    keys[:, 4:] = 0  # many are equal, and many are prefixes of others
    first = {key.tobytes(): place for place, key in reversed(list(enumerate(keys)))}
    absent = as_keys([bytes([9]) * 16, bytes(15) + b"\1"])
    for ratio in (1, 4, 10_000):
        monkeypatch.setattr(KeyTable, "_RATIO", ratio)
        table = KeyTable(KEY_BYTES)
        assert table.find(keys[:3]).tolist() == [-1, -1, -1]
        for part in np.array_split(keys, 40):
            table.add(part)
        assert table.count == 600
        assert table.find(keys).tolist() == [first[key.tobytes()] for key in keys]
        assert table.find(absent).tolist() == [-1, -1]


def test_a_resumed_store_is_byte_identical(tmp_path: Path) -> None:
    whole = write(tmp_path / "whole")
    broken = write(tmp_path / "broken", count=2)
    before = sealed(broken)
    (broken / ".tmp-shard.this-1-00.0").write_bytes(b"half a shard")
    assert rows_of(broken) == rows_in(SHARDS[:2])
    write(tmp_path / "broken")
    (broken / ".tmp-shard.this-1-00.0").unlink()  # of another machine, which may be writing it
    assert contents(broken) == contents(whole)
    assert before.items() <= sealed(broken).items(), "a sealed shard was redone"


def test_nothing_sealed_is_said(tmp_path: Path) -> None:
    with pytest.raises(CacheNotFoundError, match="There are no features in"):
        open_features(ENCODER.folder(tmp_path))
    with pytest.raises(CacheNotFoundError, match="Nothing is sealed in"):
        open_features(write(tmp_path, 0))


def test_the_first_to_seal_a_row_wins(tmp_path: Path) -> None:
    other = make_shard(2, 6, 9)  # rows 2 to 7, with other values
    writer = writer_of(tmp_path)
    with writer.claim(lambda: None):
        assert writer.publish(SHARDS[0]) == 4
        assert writer.has(other.keys).tolist() == [True, True, False, False, False, False]
        assert writer.publish(other) == 4
        assert writer.publish(SHARDS[1]) == 0
        assert writer.publish(*SHARDS) == 2
        assert writer.publish(*SHARDS) == 0
    found = rows_of(writer.folder)
    late = rows_in([other])
    fourth = [key.tobytes() for key in make_keys(4, 4)]
    assert found == {key: late[key] if key in fourth else ROWS[key] for key in ROWS}


def test_small_shards_are_merged(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(writer_module, "_MOST_SMALL", 2)
    shards = [make_shard(4 * number, 4, number) for number in range(12)]
    writer = writer_of(tmp_path)
    with writer.claim(lambda: None):
        for shard in shards:
            writer.publish(shard)
        size = next(iter(Index.read(writer.folder).entries.values())).bytes
        monkeypatch.setattr(writer_module, "MERGED_BYTES", 5 * size)
        mapped: list[str] = []
        see = writer._map
        monkeypatch.setattr(writer, "_map", lambda entry: mapped.append(entry.name) or see(entry))
        writer.finish()
        assert len(mapped) == len(set(mapped)), "what was merged was read again"
        assert writer.has(np.concatenate([shard.keys for shard in shards])).all()
        assert not writer.has(make_keys(100, 3)).any()
        assert len(mapped) == len(set(mapped))
    features = open_features(writer.folder)
    assert len(features.shards) < 6
    assert rows_in(features.shards) == rows_in(shards)
    assert verify_features(writer.folder) == []
    assert {path.stem for path in writer.folder.glob("*.h5")} == set(
        Index.read(writer.folder).entries
    )


def test_shards_below_half_of_a_merged_one_are_merged_up_to_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As many as may stand beside each other stay; a merge takes the first that fit together."""
    writer = writer_of(tmp_path)
    with writer.claim(lambda: None):
        for number in range(4):
            writer.publish(replace(SHARDS[0], keys=make_keys(4 * number, 4)))
        (size,) = {entry.bytes for entry in Index.read(writer.folder).entries.values()}

        def rows(most: int, merged_bytes: int) -> list[int]:
            monkeypatch.setattr(writer_module, "_MOST_SMALL", most)
            monkeypatch.setattr(writer_module, "MERGED_BYTES", merged_bytes)
            writer.finish()
            return [len(shard) for shard in open_features(writer.folder).shards]

        assert rows(4, 10 * size) == [4, 4, 4, 4]
        assert rows(3, 2 * size) == [4, 4, 4, 4]  # none is below half
        assert rows(3, 3 * size) == [4, 12]
        assert rows(1, 10 * size) == [16]


def test_only_wanted_rows_are_kept(tmp_path: Path) -> None:
    folder = write(tmp_path)
    before = Index.read(folder).bytes
    keep = np.concatenate([SHARDS[0].keys[[2]], SHARDS[2].keys, make_keys(50, 3)])
    writer = writer_of(tmp_path)
    with writer.claim(lambda: None):
        rows, freed = writer.keep_only(lambda: keep)
    assert rows_of(folder) == {key.tobytes(): ROWS[key.tobytes()] for key in keep[:3]}
    assert freed == before - Index.read(folder).bytes > 0
    assert rows == len(ROWS) - 3
    with writer.claim(lambda: None):
        assert writer.keep_only(lambda: keep) == (0, 0)
        writer.keep_only(lambda: keep[:0])
    with pytest.raises(CacheNotFoundError, match="Nothing is sealed"):
        open_features(folder)
    assert rows_of(write(tmp_path)) == ROWS


def test_what_was_not_touched_is_hashed_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = write(tmp_path)
    names = [entry.file for entry in Index.read(folder).entries.values()]
    hashed: list[str] = []
    real = hashing.file_sha256

    def counting(path: Path) -> str:
        hashed.append(path.name)
        return real(path)

    monkeypatch.setattr(hashing, "file_sha256", counting)
    with monkeypatch.context() as patch:
        patch.setattr(verification, "CLOCK_TICK", 60)
        for opened in (1, 2):  # what was just written may change again within one tick
            open_features(folder)
            assert len(hashed) == 3 * opened
    time.sleep(2 * verification.CLOCK_TICK)
    hashed.clear()
    for _ in range(2):
        open_features(folder)
        assert len(hashed) == 3
    (folder / names[1]).touch()
    time.sleep(2 * verification.CLOCK_TICK)
    open_features(folder)
    assert hashed[3:] == [names[1]]
    (folder / VERIFIED).write_bytes(b"[nonsense")
    open_features(folder)
    assert len(hashed) == 7
    verify_features(folder)
    assert len(hashed) == 10, "verify hashes everything"
    monkeypatch.setattr(verification, "_THREADED_BYTES", 0)
    (folder / VERIFIED).unlink()
    open_features(folder)
    assert sorted(hashed[10:]) == sorted(names), "side by side"


def test_times_are_noted_where_that_is_possible_and_read_from_no_link(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, hashed = write(tmp_path), []
    monkeypatch.setattr(
        verification, "check_bytes", lambda folder, entry: hashed.append(entry.name)
    )
    time.sleep(2 * verification.CLOCK_TICK)

    def refused(*_: object) -> None:
        raise OSError(errno.EROFS, "Read-only file system")

    for _ in range(2):
        with monkeypatch.context() as patch:
            patch.setattr(verification, "write_atomically", refused)
            open_features(folder)
    assert len(hashed) == 6, "noted nowhere: hashed each time"
    open_features(folder)
    open_features(folder)
    assert len(hashed) == 9
    (folder / VERIFIED).rename(tmp_path / "elsewhere")
    (folder / VERIFIED).symlink_to(tmp_path / "elsewhere")
    open_features(folder)
    assert len(hashed) == 12


def test_the_keys_of_a_shard_are_read_alone(tmp_path: Path) -> None:
    """Of any file-like thing; a claim of more keys than it has bytes is refused."""
    content = b"".join(encode([SHARDS[0]], ENCODER.fingerprint))
    found = shard_file.read_keys(io.BytesIO(content), len(content), ENCODER.fingerprint)
    np.testing.assert_array_equal(found, SHARDS[0].keys)
    for size, fingerprint, said in (
        (len(content), "0" * 64, "belongs to another encoder"),
        (SHARDS[0].keys.size - 1, ENCODER.fingerprint, r"keys are \(4, 16\) uint8"),
    ):
        with pytest.raises(ValueError, match=said):
            shard_file.read_keys(io.BytesIO(content), size, fingerprint)
    for keys in (np.zeros((4, 8), np.uint8), np.zeros((4, 16), np.int8), np.zeros((0, 16), "u1")):
        changed = io.BytesIO(content)
        with h5py.File(changed, "r+") as file:
            del file["keys"]
            file.create_dataset("keys", data=keys)
        with pytest.raises(ValueError, match="keys are"):
            shard_file.read_keys(changed, len(changed.getvalue()), ENCODER.fingerprint)


def test_a_link_is_no_shard_and_rows_may_have_no_positions(tmp_path: Path) -> None:
    empty = replace(SHARDS[0], offsets=np.zeros(5, np.int64), tokens=SHARDS[0].tokens[:0])
    writer = writer_of(tmp_path)
    with writer.claim(lambda: None):
        writer.publish(empty)
    (shard,) = open_features(writer.folder).shards
    assert (shard.tokens.shape, shard.tokens.dtype) == ((0, 6), np.float16)
    (entry,) = Index.read(writer.folder).entries.values()
    (writer.folder / entry.file).rename(tmp_path / "elsewhere")
    (writer.folder / entry.file).symlink_to(tmp_path / "elsewhere")
    with pytest.raises(DamagedCacheError, match=r"\.h5 is a link, not a shard"):
        open_features(writer.folder)


def test_an_untouched_store_is_not_read_through(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Only the structure of a shard is read, whatever its tokens weigh."""
    rows = 2000
    shard = make_shard(0, rows, 1, dim=64)
    writer = writer_of(tmp_path)
    with writer.claim(lambda: None):
        writer.publish(shard)
    time.sleep(2 * verification.CLOCK_TICK)
    open_features(writer.folder)

    def read_bytes() -> int:
        counts = Path("/proc/self/io").read_text().splitlines()
        return int(counts[0].removeprefix("rchar: "))

    before = read_bytes()
    open_features(writer.folder)
    assert writer.bytes > 600_000
    assert read_bytes() - before < 100_000


def test_names_and_sections_are_those_asked_for_last(tmp_path: Path) -> None:
    def stored(**values: object) -> StoredEncoder:
        return StoredEncoder.of(ENCODER.identity, **values)  # type: ignore[arg-type]

    first = stored(names=("default",), told={"text": {"max": 1}}, versions={"torch": "1"})
    second = stored(names=("small",), told={"text": {"max": 1}, "x": 2}, versions={"torch": "2"})
    for encoder in (first, second, second):
        with writer_of(tmp_path, encoder).claim(lambda: None):
            pass
    found = read_encoder(ENCODER.folder(tmp_path))
    assert found.names == ("default", "small")
    assert found.told == second.told
    assert found.versions == first.versions


def test_one_encoder_of_several_names_has_them_all(tmp_path: Path) -> None:
    small, large = (StoredEncoder.of(ENCODER.identity, names=(name,)) for name in ("s", "l"))
    writer = writer_of(tmp_path, small)
    writer.add_names(large)
    with writer.claim(lambda: None):
        assert read_encoder(writer.folder).names == ("s", "l")


JOINT = replace(SHARDS[0], shared=np.arange(12, dtype=np.float16).reshape(4, 3))


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"operations": [""]}, r"operations: \(1,\), expected \(4,\)"),
        ({"keys": SHARDS[0].keys[:, :8]}, r"keys: \(4, 8\), expected \(4, 16\)"),
        ({"tokens": JOINT.tokens[1:]}, r"tokens: \(\d+, 6\), expected \(\d+, 6\)"),
        ({"pools": ("cls",)}, r"pooled: \(4, 2, 6\), expected \(4, 1, 6\)"),
        ({"shared": np.zeros((3, 3), np.float16)}, r"shared: \(3, 3\), expected \(4, 3\)"),
        ({"offsets": JOINT.offsets - 1}, "offsets: must start at 0 and never fall"),
        ({"offsets": JOINT.offsets[[0, 2, 1, 3, 4]]}, "offsets: must start at 0 and never fall"),
    ],
)
def test_parts_of_a_shard_fit_together(changes: dict[str, object], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        replace(JOINT, **changes)  # type: ignore[arg-type]


def test_some_rows_of_a_joint_model_have_its_shared_vectors(tmp_path: Path) -> None:
    some = JOINT.take(np.array([1, 3]))
    assert rows_in([some]) == {key.tobytes(): rows_in([JOINT])[key.tobytes()] for key in some.keys}
    writer = writer_of(tmp_path)
    with writer.claim(lambda: None):
        writer.publish(SHARDS[1])
        writer.publish(some)
    with pytest.raises(DamagedCacheError, match="shards have different pools"):
        open_features(writer.folder)


def test_an_error_of_the_disk_names_the_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def failing() -> None:
        raise OSError(errno.EIO, "Input/output error")

    writer = writer_of(tmp_path)
    with writer.claim(lambda: None):
        monkeypatch.setattr(writer, "_lock", failing)
        for job in (
            lambda: writer.publish(SHARDS[0]),
            lambda: writer.adopt([]),
            lambda: writer.keep_only(SHARDS[0].keys),
            writer.finish,
            lambda: FolderSealer(tmp_path / "text/tiny-01234567", "0" * 64).seal(SHARDS),
            lambda: writer_of(tmp_path / "file" / "store").claim(print).__enter__(),
        ):
            (tmp_path / "file").touch()
            with pytest.raises(DiskError, match=r"text/tiny-\w{8} cannot be written: \w"):
                job()


def test_another_schema_is_refused_by_number(tmp_path: Path) -> None:
    folder = write(tmp_path)
    record = folder / "encoder.json"
    record.write_text(record.read_text().replace('"schema": 2', '"schema": 3'))
    with pytest.raises(StaleCacheError, match="has schema 3, this program reads 2"):
        open_features(folder)


def test_an_older_store_is_refused_and_its_own_files_removed(tmp_path: Path) -> None:
    cache = tmp_path / "train/text/tiny-12345678"
    site = tmp_path / "my/web/site"
    for folder in (cache, site):
        folder.mkdir(parents=True)
        (folder / "manifest.json").write_text("{}")
        (folder / "shard-00000.h5").write_text("a shard")
    (tmp_path / "train/text/linked").symlink_to(site)
    beside = [tmp_path / f"train/text/.tiny-12345678.{of}" for of in ("lock", "verified")]
    for path in beside:
        path.touch()
    with pytest.raises(StaleCacheError, match="tiny-12345678 is a cache of schema 1, this program"):
        refuse_older(tmp_path)
    assert older_caches(tmp_path) == [cache]
    (cache / "notes.txt").write_text("mine")
    size = len("{}" + "a shard")
    removal = remove_older(cache, really=False)
    assert (removal.bytes, removal.state) == (size, "would be removed")
    assert len(list(cache.iterdir())) == 3
    removal = remove_older(cache, really=True)
    assert (removal.bytes, removal.state) == (size, "removed but for files that are no cache's")
    assert [path.name for path in cache.iterdir()] == ["notes.txt"]
    assert not any(path.exists() for path in beside)
    (cache / "notes.txt").unlink()
    (cache / "manifest.partial.json").write_text("{}")
    removal = remove_older(cache, really=True)
    assert (removal.bytes, removal.state) == (2, "removed")
    assert not cache.exists()
    assert len(list(site.iterdir())) == 2
    refuse_older(tmp_path)
    assert (write(tmp_path) / INDEX).exists()


@pytest.fixture
def bank(tmp_path: Path) -> FeatureBank:
    """The stored rows in reverse."""
    keys = np.concatenate([shard.keys for shard in SHARDS])[::-1]
    wanted = SampleRows(keys, np.arange(10)[:, None])
    text, image = (ModalityFeatures.open(write(tmp_path), wanted) for _ in range(2))
    return FeatureBank(text, image, [f"p{i}" for i in range(10)], list(range(10)))


def test_bank_gathers_ragged_rows(bank: FeatureBank) -> None:
    everything = [
        shard.tokens[shard.offsets[i] : shard.offsets[i + 1]]
        for shard in SHARDS
        for i in range(len(shard))
    ][::-1]
    chosen = [7, 0, 3, 3, 9]
    batch = bank.batch(
        bank.items(chosen, variants=True), level="tokens", text_pool="cls", image_pool="mean"
    )
    assert batch.labels.tolist() == chosen
    for row, index in enumerate(chosen):
        want = everything[index]
        assert int(batch.text_mask[row].sum()) == len(want)
        np.testing.assert_array_equal(batch.text[row, : len(want)].numpy(), want)
        assert not batch.text[row, len(want) :].any()


def test_rows_of_a_modality_that_is_missing_are_masked_out_beside_the_padding() -> None:
    table = np.arange(11)[:, None]
    table[10] = -1
    text, image = (ModalityFeatures(SHARDS, "tiny", table=table) for _ in range(2))
    guids = [f"p{i}" for i in range(11)]
    bank = FeatureBank(text, image, guids, list(range(11)), partial=True)
    chosen = [7, 10, *range(7)]
    items = bank.items(chosen, variants=False)
    batch = bank.batch(items, level="tokens", text_pool="cls", image_pool="mean")
    lengths = [*np.concatenate([np.diff(shard.offsets) for shard in SHARDS]), 0]
    for mask in (batch.text_mask, batch.image_mask):
        assert mask.sum(1).tolist() == [lengths[row] for row in chosen]


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
        ragged = make_shard(sum(map(len, shards)), size, 5 + size)
        tokens = np.random.default_rng(size).standard_normal((3 * size, 6)).astype(np.float16)
        shards.append(replace(ragged, offsets=np.arange(0, 3 * size + 1, 3), tokens=tokens))
    every = np.concatenate([shard.tokens.reshape(-1, 3, 6) for shard in shards])
    table = np.arange(10 + partial)[:, None]
    table[10:] = -1
    text, image = (ModalityFeatures(shards, "tiny", table=table) for _ in range(2))
    labels = list(range(10 + partial))
    bank = FeatureBank(text, image, [f"p{i}" for i in labels], labels, partial=partial)
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


def test_an_index_that_grew_is_read_on_from_where_it_was(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As if it were read whole; lines that were read before are not parsed again."""
    entries = [
        ShardEntry(sha256=hashlib.sha256(bytes([i])).hexdigest(), rows=1, bytes=1) for i in range(9)
    ]
    index = Index.read(tmp_path)
    index.append([IndexChange(add=entry) for entry in entries[:4]])
    earlier = Index.read(tmp_path, Index(tmp_path))
    index.append(
        [IndexChange(add=entries[4], drop=(entries[0].name,)), IndexChange(add=entries[5])]
    )
    parsed: list[bytes] = []
    parse = index_module._parse_line

    def counting(line: bytes, where: str, folder: Path) -> IndexChange:
        parsed.append(line)
        return parse(line, where, folder)

    monkeypatch.setattr(index_module, "_parse_line", counting)
    with index.path.open("ab") as file:
        file.write(b'{"change": ')  # another writer is about to add one
    found = Index.read(tmp_path, earlier)
    assert len(parsed) == 2
    assert (found.size, found.dropped) == (index.size, index.dropped)
    assert list(found.entries.items()) == list(Index.read(tmp_path).entries.items())
    assert list(found.entries.values()) == entries[1:6]
    assert list(earlier.entries.values()) == entries[:4]
    index.path.write_bytes(IndexChange(add=entries[8]).line())  # another index in its place
    assert list(Index.read(tmp_path, found).entries.values()) == entries[8:]
