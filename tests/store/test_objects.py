"""Features in an object store: sealed by many, indexed from a listing, errors by name."""

from __future__ import annotations

import asyncio
import os
import pickle
from collections.abc import Iterator
from pathlib import Path
from uuid import uuid4

import numpy as np
import pytest

from mmsa_cache.errors import (
    CacheError,
    CacheNotFoundError,
    DamagedCacheError,
    SettingsError,
    StaleCacheError,
)
from mmsa_cache.files.objects import ObjectFolder
from mmsa_cache.store.encoder import StoredEncoder
from mmsa_cache.store.identity import EncoderIdentity
from mmsa_cache.store.index import Index
from mmsa_cache.store.objects import ObjectWriter, object_name
from tests.support.object_server import BUCKET, KEY_ID, SECRET, object_server
from tests.support.shards import ENCODER, FIELDS, SHARDS, make_keys, make_shard


@pytest.fixture(scope="module")
def server() -> Iterator[str]:
    with object_server() as url:
        yield url


@pytest.fixture
def target(server: str) -> ObjectFolder:
    """An address at which there is nothing."""
    return ObjectFolder(f"{server}/{uuid4().hex}")


def index_of(target: ObjectFolder, folder: Path) -> Index:
    """The index of the features of `ENCODER`."""
    objects = target.below(ENCODER.subfolder)
    objects.fetch({"index.jsonl": folder / "index.jsonl"}, objects.sizes())
    return Index.read(folder)


def test_shards_are_whole_objects_and_the_index_comes_last(
    target: ObjectFolder, tmp_path: Path
) -> None:
    writer = ObjectWriter(target, ENCODER)
    entries = [writer.sealer.seal([shard]) for shard in SHARDS]
    assert writer.adopt(entries) == writer.rows == 10
    assert writer.adopt(entries) == 0
    assert writer.has(make_keys(0, 12)).tolist() == [True] * 10 + [False] * 2
    shards = {f"{ENCODER.subfolder}/{object_name(entry)}": entry.bytes for entry in entries}
    assert target.sizes() == shards
    writer.finish()
    assert target.sizes().keys() - shards.keys() == {
        f"{ENCODER.subfolder}/encoder.json",
        f"{ENCODER.subfolder}/index.jsonl",
    }
    found = index_of(target, tmp_path).entries
    assert {entry.sha256 for entry in found.values()} == {entry.sha256 for entry in entries}
    gone = entries[0].model_copy(update={"sha256": "0" * 64})
    assert writer.adopt([gone]) == 0


def test_a_driver_goes_on_from_the_listing_by_ranges(
    target: ObjectFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    large = make_shard(0, 300, 1, 700)  # its directory lies beyond the head
    sealer = ObjectWriter(target, ENCODER).sealer
    sealer.seal([large])
    sealer.seal([make_shard(300, 3, 2, 700)])
    read = []
    real = ObjectFolder.ranges

    def ranges(self: ObjectFolder, names: list[str], wanted: list[tuple[int, int]]) -> object:
        read.extend(end - first for first, end in wanted)
        return real(self, names, wanted)

    monkeypatch.setattr(ObjectFolder, "ranges", ranges)
    again = ObjectWriter(target, ENCODER)
    assert again.has(make_keys(0, 310)).sum() == again.rows == 303
    assert sum(read) < again.bytes / 8


def test_rows_count_as_new_when_they_are_said_to_be_sealed(
    target: ObjectFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("mmsa_cache.store.objects._PAUSE", 0.0)
    monkeypatch.setattr("mmsa_cache.store.objects._SHARE", 0.0)
    writer = ObjectWriter(target, ENCODER)
    before = writer.sealer.seal([SHARDS[0]])
    assert writer.has(make_keys(0, 10)).sum() == 4
    entries = [writer.sealer.seal([shard]) for shard in (SHARDS[1], make_shard(6, 4, 5))]
    assert writer.has(make_keys(0, 10)).all()  # a listing has them before their worker answers
    assert writer.adopt([before]) == 0
    assert [writer.adopt(entries), writer.adopt(entries)] == [6, 0]


def test_two_drivers_lose_nothing_of_each_other(
    target: ObjectFolder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    one, other = ObjectWriter(target, ENCODER), ObjectWriter(target, ENCODER)
    one.adopt([one.sealer.seal([SHARDS[0]])])
    real, late = ObjectFolder.put, [SHARDS[1], SHARDS[2]]

    def put(self: ObjectFolder, name: str, content: bytes) -> None:
        if name == "index.jsonl" and late:  # the other one ends between a listing and its index
            other.adopt([other.sealer.seal([late.pop()])])
            other.finish()
        real(self, name, content)

    monkeypatch.setattr(ObjectFolder, "put", put)
    one.finish()
    assert index_of(target, tmp_path).rows == one.rows == 10


def test_shards_whose_rows_others_have_are_not_named(target: ObjectFolder, tmp_path: Path) -> None:
    writer = ObjectWriter(target, ENCODER)
    for shard in (SHARDS[0], SHARDS[1], make_shard(6, 4, 5)):
        writer.sealer.seal([shard])
    merged = writer.sealer.seal(SHARDS[:2])
    overlapping = writer.sealer.seal([make_shard(6, 4, 5)])
    writer.finish()
    assert set(index_of(target, tmp_path).entries) == {merged.name, overlapping.name}


def test_what_is_no_shard_is_left_out_by_name(
    target: ObjectFolder, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    writer = ObjectWriter(target, ENCODER)
    kept = writer.sealer.seal([SHARDS[0]])
    whole = bytes(np.random.default_rng(0).bytes(3000))
    folder = target.below(ENCODER.subfolder)
    folder.put(f"{'a' * 64}.h5", whole)
    folder.put(f"{'b' * 64}.h5", b"")
    stranger = StoredEncoder.of(EncoderIdentity.of_fields({**FIELDS, "size": 9}))
    other = ObjectWriter(target, stranger).sealer
    other.seal([SHARDS[1]])
    copied = target.sizes()
    name = next(n for n in copied if n.startswith(stranger.subfolder))
    content = target.ranges([name], [(0, copied[name])])[0]
    assert content is not None
    folder.put(name.rpartition("/")[2], content)
    folder.put("notes.txt", b"mine")
    assert writer.has(make_keys(0, 10)).sum() == 4
    said = capsys.readouterr().err
    assert said.count("is no shard of this encoder") == 3
    assert "belongs to another encoder" in said
    writer.finish()
    assert set(index_of(target, tmp_path).entries) == {kept.name}


def test_a_shard_that_claims_many_keys_is_not_read(
    target: ObjectFolder, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("mmsa_cache.store.shard_file._MAX_KEYS_BYTES", 16 * 4)
    writer = ObjectWriter(target, ENCODER)
    writer.sealer.seal([SHARDS[0]])
    writer.sealer.seal([make_shard(4, 5, 2)])
    assert writer.has(make_keys(0, 9)).sum() == 4
    assert "keys are (5, 16) uint8" in capsys.readouterr().err


def test_a_torn_shard_is_sealed_again(target: ObjectFolder) -> None:
    writer = ObjectWriter(target, ENCODER)
    entry = writer.sealer.seal([SHARDS[0]])
    folder = target.below(ENCODER.subfolder)
    whole = folder.ranges([object_name(entry)], [(0, entry.bytes)])[0]
    assert whole is not None
    folder.put(object_name(entry), whole[:700])  # as of a store that does not put whole objects
    again = ObjectWriter(target, ENCODER)
    assert not again.has(SHARDS[0].keys).any()
    assert again.adopt([again.sealer.seal([SHARDS[0]])]) == 4


def test_features_of_another_encoder_are_refused(target: ObjectFolder, tmp_path: Path) -> None:
    ObjectWriter(target, ENCODER).sealer.seal([SHARDS[0]])
    stranger = StoredEncoder.of(EncoderIdentity.of_fields({**FIELDS, "size": 9}))
    stranger.write(tmp_path)
    target.below(ENCODER.subfolder).put_files({"encoder.json": tmp_path / "encoder.json"})
    with pytest.raises((StaleCacheError, CacheError), match="belongs into a folder"):
        ObjectWriter(target, ENCODER).finish()


def test_a_sealer_that_is_sent_has_no_credentials(target: ObjectFolder) -> None:
    sealer = ObjectWriter(target, ENCODER).sealer
    sealer.seal([SHARDS[0]])  # its client is open
    sent = pickle.dumps(sealer)
    assert SECRET.encode() not in sent
    assert KEY_ID.encode() not in sent
    assert pickle.loads(sent).seal([SHARDS[0]]).rows == 4


@pytest.mark.parametrize(
    ("url", "said"),
    [
        (f"s3://me:{SECRET}@bucket/x", "holds a password"),
        ("bucket/x", "is no address"),
        ("s3://", "is no address"),
        ("hf://me/posts", "is no address"),
        ("simplecache::s3://bucket/x", "is no address"),
        ("s3://bucket/../x", "is no address"),
        ("s3://bucket/x?versionId=1", "is no address"),
        ("nosuch://bucket/x", "no client for"),
    ],
)
def test_addresses(url: str, said: str) -> None:
    with pytest.raises(SettingsError, match=said) as caught:
        ObjectFolder(url).sizes()
    assert SECRET not in str(caught.value)


def test_errors_have_names(server: str, monkeypatch: pytest.MonkeyPatch) -> None:
    from moto.core import responses
    from s3fs import S3FileSystem

    with pytest.raises(CacheNotFoundError, match=r"no bucket for s3://nowhere/x"):
        ObjectFolder("s3://nowhere/x").sizes()
    with pytest.raises(CacheNotFoundError, match=r"no bucket for s3://nowhere/x"):
        ObjectFolder("s3://nowhere/x").put("a", b"x")
    place = ObjectFolder(f"{BUCKET}/x")
    with monkeypatch.context() as patch:  # the server looks at keys now, and knows none
        patch.setattr(responses.settings, "INITIAL_NO_AUTH_ACTION_COUNT", 0)
        for ask in (place.sizes, lambda: place.put("a", b"x")):
            with pytest.raises(CacheError, match="may not use s3://bucket/x: Invalid") as refused:
                ask()
            assert "AWS_PROFILE" in str(refused.value)
    S3FileSystem.clear_instance_cache()
    with monkeypatch.context() as patch:
        patch.delenv("AWS_ACCESS_KEY_ID")
        patch.delenv("AWS_SECRET_ACCESS_KEY")
        with pytest.raises(CacheError, match="has no credentials for s3://bucket/y"):
            ObjectFolder(f"{BUCKET}/y").sizes()
    S3FileSystem.clear_instance_cache()
    with monkeypatch.context() as patch:
        patch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
        patch.setenv("AWS_MAX_ATTEMPTS", "1")
        with pytest.raises(CacheError, match="does not answer"):
            ObjectFolder(f"{BUCKET}/z").sizes()
    S3FileSystem.clear_instance_cache()


def test_a_store_that_goes_away_is_waited_for(
    target: ObjectFolder, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    target.put("a", b"1")
    client, failures = target._client[0], [ConnectionError("reset"), TimeoutError()]
    real = client.pipe_file

    def sometimes(path: str, content: bytes) -> None:
        if failures:
            raise failures.pop()
        real(path, content)

    monkeypatch.setattr(client, "pipe_file", sometimes)
    monkeypatch.setattr("mmsa_cache.files.objects.time.sleep", lambda seconds: None)
    target.put("b", b"22")
    assert target.sizes() == {"a": 1, "b": 2}
    assert capsys.readouterr().err.count("does not answer. It is asked again") == 2
    failures += [ConnectionError("reset")] * 2
    with pytest.raises(CacheError, match="does not answer"):
        ObjectFolder(target.url).put("c", b"3")  # never answered: not waited for
    monkeypatch.setattr("mmsa_cache.files.objects.PATIENCE", -1.0)
    with pytest.raises(CacheError, match="does not answer"):
        target.put("c", b"3")


@pytest.mark.parametrize("kind", ["s3", "chunked"])
def test_no_more_comes_than_an_object_had(
    target: ObjectFolder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    target.put("a", b"1" * 1000)
    target.put("b", b"1" * 3000)
    files = {name: tmp_path / name for name in ("a", "b")}
    listed = target.sizes()
    target.put("b", b"2" * (3000 + (1 << 20)))
    if kind == "chunked":  # its answer does not say how long it is
        client = target._client[0]
        asked = client._call_s3

        async def silent(*of: object, **more: object) -> object:
            answer = await asked(*of, **more)
            return {key: value for key, value in answer.items() if key != "ContentLength"}

        monkeypatch.setattr(client, "_call_s3", silent)
    with pytest.raises(DamagedCacheError, match=r"b is larger than the 3000 bytes"):
        target.fetch(files, listed)
    assert not files["b"].exists() or files["b"].stat().st_size < 1 << 18
    target.fetch(files, {"a": 1000, "b": 3000 + (1 << 20)})
    assert [path.stat().st_size for path in files.values()] == [1000, 3000 + (1 << 20)]


def test_a_listing_without_end_is_given_up(
    target: ObjectFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def pages(*_: object, **__: object) -> list[object]:
        for _ in range(500):
            await asyncio.sleep(0.01)
        return []

    monkeypatch.setattr(target._client[0], "_lsdir", pages)
    monkeypatch.setattr("mmsa_cache.files.objects._LONGEST_LISTING", 0.1)
    with pytest.raises(CacheError, match="does not answer"):
        target.sizes()


def test_what_a_client_says_is_told_without_secrets(
    server: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = ObjectFolder(f"{BUCKET}/x")

    def fail(*_: object, **__: object) -> None:
        raise RuntimeError(f"signed with {os.environ['AWS_SECRET_ACCESS_KEY']}")

    monkeypatch.setattr(place._client[0], "pipe_file", fail)
    with pytest.raises(CacheError, match=r"signed with \*\*\*"):
        place.put("a", b"x")


@pytest.mark.parametrize("kind", ["memory", "file"])
def test_other_stores_that_fsspec_knows(kind: str, tmp_path: Path) -> None:
    url = f"file://{tmp_path}/store" if kind == "file" else f"memory://{uuid4().hex}"
    writer = ObjectWriter(ObjectFolder(url), ENCODER)
    assert not writer.has(make_keys(0, 1)).any()
    writer.adopt([writer.sealer.seal([shard]) for shard in SHARDS])
    writer.finish()
    folder = tmp_path / "copy"
    folder.mkdir()
    assert index_of(ObjectFolder(url), folder).rows == 10
    assert ObjectWriter(ObjectFolder(url), ENCODER).has(make_keys(0, 10)).all()
