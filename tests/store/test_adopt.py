"""Shards that somebody sealed and nobody entered: adopted, as far as their rows are missing."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from mmsa_cache.store.index import MAX_SHARD_BYTES, Index
from mmsa_cache.store.reader import verify_features
from mmsa_cache.store.sealer import FolderSealer
from mmsa_cache.store.writer import FeatureWriter
from tests.support.shards import ENCODER, SHARDS, contents, rows_in, rows_of, write, writer_of


def sealed_alone(folder: Path, *numbers: int) -> list[str]:
    """Seals some of the shards as a worker does; the names of the files."""
    sealer = FolderSealer(folder, ENCODER.fingerprint)
    return [sealer.seal([SHARDS[number]]).file for number in numbers]


def test_what_a_dead_driver_did_not_enter_is_adopted_by_the_next(tmp_path: Path) -> None:
    folder = write(tmp_path, 1)
    first, second = sealed_alone(folder, 1, 2)
    before = {name: (folder / name).stat().st_ino for name in (first, second)}
    assert rows_of(folder) == rows_in(SHARDS[:1])  # what is not entered does not count
    assert write(tmp_path, 1) == folder
    assert rows_of(folder) == rows_in(SHARDS)
    assert {name: (folder / name).stat().st_ino for name in before} == before


def test_files_that_are_no_shards_of_their_names_are_removed(tmp_path: Path) -> None:
    folder = write(tmp_path, 1)
    whole = contents(folder)
    (damaged,) = sealed_alone(folder, 1)
    content = bytearray((folder / damaged).read_bytes())
    content[-1] ^= 1
    (folder / damaged).write_bytes(content)
    (foreign,) = (FolderSealer(folder, "0" * 64).seal([SHARDS[2]]).file,)
    (folder / "0123456789abcdef.h5").write_bytes(b"half a shard")
    (folder / "fedcba9876543210.h5").symlink_to(folder / "index.jsonl")
    assert (folder / foreign).exists()
    write(tmp_path, 1)
    assert contents(folder) == whole


def test_what_is_too_large_for_a_shard_is_not_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A file with holes takes no disk, and hours to hash."""
    folder = write(tmp_path, 1)
    large = folder / "0123456789abcdef.h5"
    with large.open("wb") as file:
        file.truncate(MAX_SHARD_BYTES + 1)
    read: list[Path] = []
    monkeypatch.setattr("mmsa_cache.files.hashing.file_sha256", read.append)
    write(tmp_path, 0)
    assert (read, large.exists()) == ([], False)


def test_rows_that_are_there_are_left_out(tmp_path: Path) -> None:
    folder = write(tmp_path, 1)
    writer = writer_of(tmp_path)
    both = SHARDS[0].take(np.array([1, 3])), SHARDS[1]
    with writer.claim(lambda: None):
        partly = writer.sealer.seal(both)
        twin = writer.sealer.seal([SHARDS[0], SHARDS[1]])
        again = writer.sealer.seal([SHARDS[0]])  # the file that is there
        assert writer.adopt([partly, twin, again, partly]) == len(SHARDS[1])
        assert writer.has(SHARDS[1].keys).all()
        (gone,) = sealed_alone(folder, 2)
        entry = writer.sealer.seal([SHARDS[2]])
        (folder / gone).unlink()
        assert writer.adopt([entry]) == 0
        assert not writer.has(SHARDS[2].keys).any()
    assert rows_of(folder) == rows_in(SHARDS[:2])
    assert {path.stem for path in folder.glob("*.h5")} == set(Index.read(folder).entries)
    assert verify_features(folder) == []


def test_what_is_needless_does_not_keep_the_rest_out(tmp_path: Path) -> None:
    """One that is entered, one of another encoder and one of known rows, then a new one."""
    folder = write(tmp_path, 1)
    writer = writer_of(tmp_path)
    assert (writer.rows, writer.bytes) == (0, 0)  # nothing is known before it is claimed
    with writer.claim(lambda: None):
        (entered,) = Index.read(folder).entries.values()
        foreign = FolderSealer(folder, "0" * 64).seal([SHARDS[1]])
        known = writer.sealer.seal([SHARDS[0].take(np.array([0, 1]))])
        new = writer.sealer.seal([SHARDS[2]])
        assert writer.adopt([entered, foreign, known, new]) == len(SHARDS[2])
    assert rows_of(folder) == rows_in([SHARDS[0], SHARDS[2]])
    assert {path.stem for path in folder.glob("*.h5")} == set(Index.read(folder).entries)


def test_what_was_dropped_is_not_adopted(tmp_path: Path) -> None:
    """A kill between the index and the removal of a file must not bring its rows back."""
    folder = write(tmp_path)
    writer: FeatureWriter = writer_of(tmp_path)
    kept = {name: content for name, content in contents(folder).items() if name.endswith(".h5")}
    with writer.claim(lambda: None):
        writer.keep_only(lambda: SHARDS[0].keys)
    for name, content in kept.items():
        (folder / name).write_bytes(content)
    write(tmp_path, 0)
    assert rows_of(folder) == rows_in(SHARDS[:1])


def test_many_shards_are_entered_by_one_change_of_the_index(tmp_path: Path) -> None:
    from tests.support.faulty import Counting

    write(tmp_path, 1)
    disk = Counting()
    writer = writer_of(tmp_path, disk=disk)
    with writer.claim(lambda: None):
        entries = [writer.sealer.seal([shard]) for shard in SHARDS[1:]]
        disk.steps.clear()
        assert writer.adopt(entries) == sum(map(len, SHARDS[1:]))
    assert disk.steps == ["append", "write", "fsync"]
