"""Damage of every file of the store: named, or harmless; never half believed."""

from __future__ import annotations

import json
import os
import shutil
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

from mmsa_cache.errors import CacheError, DamagedCacheError, StaleCacheError
from mmsa_cache.store.encoder import ENCODER as RECORD
from mmsa_cache.store.encoder import StoredEncoder, read_encoder
from mmsa_cache.store.identity import EncoderIdentity
from mmsa_cache.store.index import INDEX, MAX_SHARD_BYTES, Index, IndexChange, ShardEntry
from mmsa_cache.store.reader import open_features, verify_features
from mmsa_cache.store.verification import VERIFIED
from tests.support.faulty import forked
from tests.support.shards import (
    ENCODER,
    FIELDS,
    SHARDS,
    contents,
    rows_in,
    rows_of,
    write,
    writer_of,
)
from tests.support.tally import Tally

ROWS = rows_in(SHARDS)


def shards_of(folder: Path) -> list[Path]:
    """The files in the order in which they were sealed."""
    return [folder / entry.file for entry in Index.read(folder).entries.values()]


def in_time(work: Callable[[], object]) -> int:
    """Exit code of work in a child, which is ended where it hangs."""

    def limited() -> None:
        signal.alarm(60)
        work()

    return forked(limited)


def flip(data: bytearray, rng: np.random.Generator) -> bytes:
    data[rng.integers(len(data))] ^= 1 << int(rng.integers(8))
    return bytes(data)


def _flipped(path: Path, other: Path, rng: np.random.Generator) -> None:
    path.write_bytes(flip(bytearray(path.read_bytes()), rng))


def _swapped(path: Path, other: Path, rng: np.random.Generator) -> None:
    held = path.with_name("held")
    path.rename(held)
    other.rename(path)
    held.rename(other)


DAMAGES: dict[str, Callable[[Path, Path, np.random.Generator], None]] = {
    "truncated": lambda path, other, rng: os.truncate(path, int(rng.integers(path.stat().st_size))),
    "one bit flipped": _flipped,
    "deleted": lambda path, other, rng: path.unlink(),
    "swapped": _swapped,
}


@pytest.mark.parametrize("damage", DAMAGES)
@pytest.mark.parametrize("times", [6, pytest.param(200, marks=pytest.mark.faults)])
def test_damage_is_named_by_verify_and_the_first_open(
    tmp_path: Path, damage: str, times: int, tally: Tally
) -> None:
    rng = np.random.default_rng(0)
    write(tmp_path / "source")
    for number in range(times):
        shutil.copytree(tmp_path / "source", tmp_path / "damaged")
        folder = ENCODER.folder(tmp_path / "damaged")
        if number % 2:  # as after an earlier opening that found all files whole
            (folder / VERIFIED).unlink(missing_ok=True)
            open_features(folder)
        path, other = rng.permutation(np.array(shards_of(folder), object))[:2]
        before = path.stat()
        DAMAGES[damage](path, other, rng)
        if number % 3 == 0 and path.exists():  # and covers its tracks
            os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
        wanted = {path.name, other.name} if damage == "swapped" else {path.name}
        problems = verify_features(folder)
        assert {Path(problem.split()[0]).name for problem in problems} == wanted
        why = {"truncated": "bytes, sealed were", "deleted": "is missing"}
        words = why.get(damage, r"was changed after it was sealed|bytes, sealed were")
        with pytest.raises(DamagedCacheError, match=words) as caught:
            open_features(folder)
        assert any(name in caught.value.message for name in wanted)
        shutil.rmtree(tmp_path / "damaged")
    tally(f"shard {damage}", times, "verify and the first open name file and fault")


def test_verify_hashes_whatever_was_noted(tmp_path: Path) -> None:
    """A medium that rots changes no times: only verify finds that, and it must."""
    folder = write(tmp_path)
    time.sleep(0.2)
    open_features(folder)
    path = shards_of(folder)[0]
    noted = json.loads((folder / VERIFIED).read_text())
    path.write_bytes(flip(bytearray(path.read_bytes()), np.random.default_rng(1)))
    now = path.stat()
    noted[path.stem][1:] = [now.st_size, now.st_mtime_ns, now.st_ctime_ns]
    (folder / VERIFIED).write_text(json.dumps(noted))
    assert len(verify_features(folder)) == 1


def test_a_deleted_shard_is_named_and_its_rows_are_made_again(tmp_path: Path) -> None:
    folder = write(tmp_path)
    path = shards_of(folder)[1]
    path.unlink()
    with pytest.raises(DamagedCacheError, match=rf"{path.name} is missing") as caught:
        open_features(folder)
    assert caught.value.hint == "Run mmsa extract: it computes the rows of missing shards again."
    writer = writer_of(tmp_path)
    with writer.claim(lambda: None):
        assert [writer.has(shard.keys).tolist() for shard in SHARDS] == [
            [True] * 4,
            [False] * 4,
            [True] * 2,
        ]
        assert rows_of(folder) == rows_in([SHARDS[0], SHARDS[2]])
        assert writer.publish(SHARDS[1]) == 4
    assert rows_of(folder) == ROWS


def test_a_folder_is_what_its_record_says_not_what_it_is_called(tmp_path: Path) -> None:
    folder = write(tmp_path)
    for place in (folder.with_name("tiny-00000000"), tmp_path / "features/image" / folder.name):
        place.parent.mkdir(exist_ok=True)
        shutil.copytree(folder, place)
        with pytest.raises(DamagedCacheError, match=f"belongs into a folder text/{folder.name}"):
            open_features(place)


def test_eight_equal_digits_are_not_one_encoder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = write(tmp_path)
    before = contents(folder)
    other = StoredEncoder.of(EncoderIdentity.of_fields({**FIELDS, "size": 9}))
    monkeypatch.setattr(StoredEncoder, "folder", lambda self, root: folder)
    with (
        pytest.raises(StaleCacheError, match="size: the store has 8, expected 9"),
        writer_of(tmp_path, other).claim(lambda: None),
    ):
        pass
    assert contents(folder) == before


# The index


def last_line(folder: Path) -> tuple[bytes, bytes]:
    """The lines before, and the last one."""
    *before, last = (folder / INDEX).read_bytes().splitlines(keepends=True)
    return b"".join(before), last


@pytest.mark.counted
def test_a_torn_line_does_not_count_and_is_cut_off(tmp_path: Path, tally: Tally) -> None:
    folder = write(tmp_path)
    whole = contents(folder)
    before, last = last_line(folder)
    for size in range(len(last)):
        (folder / INDEX).write_bytes(before + last[:size])
        assert len(Index.read(folder).entries) == 2
        if size % 10 and size < len(last) - 3:
            continue
        assert rows_of(folder, verify=False) == rows_in(SHARDS[:2])
        write(tmp_path)
        assert contents(folder) == whole, f"after {size} bytes"
    tally("index torn at every byte of a line", len(last), "the line does not count, same bytes")


def test_a_torn_first_line_does_not_count(tmp_path: Path) -> None:
    folder = write(tmp_path, 1)
    whole = contents(folder)
    for size in (0, 1, 100):
        (folder / INDEX).write_bytes(whole[INDEX][:size])
        assert write(tmp_path, 1) == folder
        assert contents(folder) == whole


def test_damage_beside_a_torn_line_is_said_at_once(tmp_path: Path) -> None:
    """The line stays torn until somebody writes: nobody may wait for that."""
    folder = write(tmp_path)
    with (folder / INDEX).open("ab") as index:
        index.write(b'{"change"')
    path = shards_of(folder)[0]
    path.write_bytes(path.read_bytes()[:-1])
    words = rf"{path.name} has \d+ bytes"

    def read() -> None:
        with pytest.raises(DamagedCacheError, match=words):
            open_features(folder)
        assert len(verify_features(folder)) == 1

    def add() -> None:
        with pytest.raises(DamagedCacheError, match=words), writer_of(tmp_path).claim(lambda: None):
            pass

    assert in_time(read) == 0
    assert in_time(add) == 0


def flips(content: bytes, each: int) -> Iterator[bytes]:
    """The content with one bit flipped: some of each byte."""
    for place in range(len(content)):
        for bit in range(each):
            changed = bytearray(content)
            changed[place] ^= 1 << (place + bit) % 8
            yield bytes(changed)


EACH = pytest.mark.parametrize("each", [1, pytest.param(8, marks=pytest.mark.faults)])


@pytest.mark.counted
@EACH
def test_a_flipped_bit_of_an_index_is_refused_or_harmless(
    tmp_path: Path, each: int, tally: Tally
) -> None:
    folder = write(tmp_path)
    content = (folder / INDEX).read_bytes()
    entries = list(Index.read(folder).entries.items())
    kept = 0
    for changed in flips(content, each):
        (folder / INDEX).write_bytes(changed)
        try:
            found = list(Index.read(folder).entries.items())
        except DamagedCacheError as error:
            assert str(folder / INDEX) in error.message  # noqa: PT017
        else:  # the end of the last line: it does not count, as a torn one
            assert found == entries[:-1]
            kept += 1
    assert kept == each
    tally("bits of an index flipped", each * len(content), "file and line named")


@pytest.mark.counted
@EACH
def test_a_flipped_bit_of_a_record_is_refused_or_harmless(
    tmp_path: Path, each: int, tally: Tally
) -> None:
    folder = write(tmp_path)
    content = (folder / RECORD).read_bytes()
    whole = read_encoder(folder)
    for changed in flips(content, each):
        (folder / RECORD).write_bytes(changed)
        try:
            assert read_encoder(folder) == whole
        except CacheError as error:
            assert str(folder / RECORD) in error.message  # noqa: PT017
    tally("bits of an encoder's record flipped", each * len(content), "refused by name, or same")


def _raw(**values: object) -> bytes:
    """A line of made-up values whose checksum fits."""
    import zlib

    text = json.dumps({"add": {"sha256": "0" * 64, "rows": 1, "bytes": 1} | values, "drop": []})
    text = text.replace(": ", ":").replace(", ", ",")
    return f'{{"change": {text}, "crc32": {zlib.crc32(text.encode())}}}\n'.encode()


def _entry(**values: object) -> ShardEntry:
    return ShardEntry.model_construct(**{"sha256": "0" * 64, "rows": 1, "bytes": 1, **values})


HOSTILE: dict[str, tuple[Callable[[Path], bytes], str]] = {
    "a path for a hash": (lambda f: _raw(sha256="../" * 21 + "x"), "not a line of an index"),
    "a long hash": (lambda f: _raw(sha256="0" * 10_000), "not a line of an index"),
    "capitals": (lambda f: _raw(sha256="A" * 64), "not a line of an index"),
    "a name": (lambda f: _raw(file="../../secret.h5"), "not a line of an index"),
    "no rows": (lambda f: _raw(rows=0), "not a line of an index"),
    "negative rows": (lambda f: _raw(rows=-4), "not a line of an index"),
    "rows beyond all bounds": (lambda f: _raw(rows=1 << 62), "not a line of an index"),
    "endless rows": (lambda f: _raw(rows=float("inf")), "not a line of an index"),
    "bytes beyond all bounds": (
        lambda f: _raw(bytes=MAX_SHARD_BYTES + 1),
        "not a line of an index",
    ),
    "a long number": (lambda f: _raw(bytes=10**400), "not a line of an index"),
    "rows of text": (lambda f: _raw(rows="12"), "not a line of an index"),
    "true for a number": (lambda f: _raw(rows=True), "not a line of an index"),
    "a line by hand": (
        lambda f: IndexChange(add=_entry()).line().replace(b": ", b":"),
        "its checksum or its form is wrong",
    ),
    "a wrong checksum": (
        lambda f: IndexChange(add=_entry()).line().replace(b'"rows":1', b'"rows":2'),
        "its checksum or its form is wrong",
    ),
    "another key": (lambda f: b'{"change":{},"crc32":0,"x":1}\n', "it has other keys"),
    "a list": (lambda f: b"[1]\n", "it has other keys"),
    "an empty line": (lambda f: b"\n", "not a line of an index"),
    "a carriage return": (lambda f: last_line(f)[1].replace(b"\n", b"\r\n"), "not a line|its form"),
    "a deep line": (lambda f: b"[" * 200_000 + b"\n", "nested too deeply"),
    "bytes": (lambda f: b"\xff\xfe\n", "not a line of an index"),
    "a name twice": (lambda f: last_line(f)[1], "adds a shard again"),
    "an unknown removal": (
        lambda f: IndexChange(drop=("0" * 16,)).line(),
        "drops an unknown shard",
    ),
    "a path removed": (
        lambda f: IndexChange.model_construct(add=None, drop=("../../../x",)).line(),
        "not a line of an index",
    ),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_lines_are_refused_by_file_and_line(tmp_path: Path, name: str) -> None:
    folder = write(tmp_path)
    make, words = HOSTILE[name]
    with (folder / INDEX).open("ab") as index:
        index.write(make(folder))
    for reading in (open_features, verify_features):
        with pytest.raises(DamagedCacheError, match=words) as caught:
            reading(folder)
        assert str(folder / INDEX) + ":4" in caught.value.message
        assert len(caught.value.message) < 600
    with pytest.raises(DamagedCacheError, match=words), writer_of(tmp_path).claim(lambda: None):
        pass


@pytest.mark.parametrize("field", ["rows", "bytes"])
def test_more_than_a_shard_has_is_refused(tmp_path: Path, field: str) -> None:
    folder = write(tmp_path, 1)
    (entry,) = Index.read(folder).entries.values()
    for value in (getattr(entry, field) + 1, MAX_SHARD_BYTES):
        change = IndexChange(add=entry.model_copy(update={field: value}))
        (folder / INDEX).write_bytes(change.line())
        with pytest.raises(DamagedCacheError, match=rf"{entry.file}") as caught:
            open_features(folder, verify=False)
        assert "expected" in caught.value.message or "sealed were" in caught.value.message


def test_shards_of_other_shapes_are_refused_together(tmp_path: Path) -> None:
    from dataclasses import replace

    shard = SHARDS[1]
    first = replace(SHARDS[0], shared=np.zeros((4, 3), np.float16))
    others = {
        "pools": replace(shard, pools=("mean", "cls"), shared=np.zeros((4, 3), np.float16)),
        "no shared": shard,
        "longer shared": replace(shard, shared=np.zeros((4, 5), np.float16)),
        "dim": replace(
            shard,
            tokens=np.zeros((len(shard.tokens), 9), np.float16),
            pooled=np.zeros((4, 2, 9), np.float16),
            shared=np.zeros((4, 3), np.float16),
        ),
    }
    for name, other in others.items():
        writer = writer_of(tmp_path / name)
        with writer.claim(lambda: None):
            writer.publish(first)
            writer.publish(other)
        with pytest.raises(DamagedCacheError, match="shards have different pools"):
            open_features(writer.folder)
