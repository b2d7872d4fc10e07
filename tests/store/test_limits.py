"""Limits of the system: descriptors, memory, maps, disks; said by name and never called damage."""

from __future__ import annotations

import errno
import io
import os
import resource
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from mmsa_cache.errors import CacheError, CacheNotFoundError, DeviceError, DiskError
from mmsa_cache.files.disk import write_atomically
from mmsa_cache.store import verification
from mmsa_cache.store.index import SHARD_FILES
from mmsa_cache.store.reader import open_features, verify_features
from mmsa_cache.store.verification import VERIFIED
from tests.support.faulty import forked
from tests.support.shards import (
    ENCODER,
    SHARDS,
    make_keys,
    rows_in,
    rows_of,
    write,
    write_many,
    writer_of,
)
from tests.support.small_disk import small_disk
from tests.support.tally import Tally

ROWS = rows_in(SHARDS)


def check(root: Path) -> None:
    """Whatever is there is whole."""
    try:
        assert rows_of(ENCODER.folder(root)).items() <= ROWS.items()
    except CacheNotFoundError:
        return
    assert verify_features(ENCODER.folder(root)) == []


# Descriptors and memory


@pytest.mark.counted
@pytest.mark.parametrize("count", [400, pytest.param(2000, marks=pytest.mark.faults)])
def test_many_shards_need_few_descriptors(tmp_path: Path, count: int, tally: Tally) -> None:
    keys = make_keys(0, count)
    folder = write_many(tmp_path, keys)

    def work() -> None:
        resource.setrlimit(resource.RLIMIT_NOFILE, (64, 64))
        before = os.listdir("/proc/self/fd")  # noqa: PTH208  (what other tests left open too)
        features = open_features(folder)
        assert len(features.shards) == count
        assert features.find_rows(keys).tolist() == list(range(count))
        assert os.listdir("/proc/self/fd") == before, "a shard keeps a descriptor"  # noqa: PTH208
        assert verify_features(folder) == []
        writer = writer_of(tmp_path)
        with writer.claim(lambda: None):
            assert writer.has(keys).all()
            writer.finish()
        merged = open_features(folder)
        assert len(merged.shards) == 1
        assert merged.find_rows(keys).tolist() == list(range(count))
        assert rows_in(merged.shards) == rows_in(features.shards)

    assert forked(work) == 0
    assert len(list(folder.glob(SHARD_FILES))) == 1
    tally("shards with 64 descriptors", count, "opened, verified, merged")


def _written(root: Path) -> None:
    writer = writer_of(root)
    with writer.claim(lambda: None):
        assert writer.has(SHARDS[0].keys).all()


USES: dict[str, Callable[[Path], object]] = {
    "open": lambda root: open_features(ENCODER.folder(root)),
    "verify": lambda root: verify_features(ENCODER.folder(root)),
    "write": _written,
}


class Scarce:
    """Functions that fail together at their k-th call.

    Args:
        at: The call, from 1; 0 only counts.
        error: What it raises.
    """

    def __init__(self, at: int, error: Exception) -> None:
        self._at, self._error = at, error
        self.calls = 0
        self.paused = False

    def __call__(self, real: Callable[..., Any]) -> Callable[..., Any]:
        def call(*arguments: Any, **options: Any) -> Any:
            self.calls += not self.paused
            if self.calls == self._at and not self.paused:
                raise self._error
            return real(*arguments, **options)

        return call


@pytest.mark.counted
@pytest.mark.parametrize("code", [errno.EMFILE, errno.ENFILE, errno.ENOMEM])
@pytest.mark.parametrize("use", USES)
def test_a_file_that_cannot_be_opened_now_is_not_damaged(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, use: str, code: int, tally: Tally
) -> None:
    folder = write(tmp_path)

    def attempt(at: int) -> int:
        scarce = Scarce(at, OSError(code, os.strerror(code)))
        (folder / VERIFIED).unlink(missing_ok=True)

        def note(*arguments: Any) -> None:  # what was hashed need not be noted
            scarce.paused = True
            write_atomically(*arguments)
            scarce.paused = False

        with monkeypatch.context() as patch:
            patch.setattr(verification, "write_atomically", note)
            patch.setattr(os, "open", scarce(os.open))
            patch.setattr(io, "open", scarce(io.open))
            USES[use](tmp_path)
        return scarce.calls

    calls = attempt(0)
    failed = 0
    for at in range(1, calls + 1):
        try:
            attempt(at)
        except DeviceError as error:
            failed += 1
            assert error.exit_code == 5  # noqa: PT017
            assert os.strerror(code) in error.message  # noqa: PT017
            assert "delete" not in str(error).lower()  # noqa: PT017
    # The notes need not be read.
    assert failed >= calls - 2
    assert failed >= 4
    assert rows_of(folder) == ROWS
    tally(f"{use}: {errno.errorcode[code]} at every opening", calls, "exit 5, never called damage")


@pytest.mark.parametrize("use", USES)
def test_a_file_that_cannot_be_mapped_now_is_not_damaged(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, use: str
) -> None:
    write(tmp_path)
    text = "unable to mmap 2592 bytes from file </a: b/c>: Cannot allocate memory (12)\nException"
    for at in (1, 3):
        scarce = Scarce(at, RuntimeError(text))
        with monkeypatch.context() as patch:
            patch.setattr(torch, "from_file", scarce(torch.from_file))
            with pytest.raises(
                DeviceError, match=r"h5 cannot be opened now: Cannot .*\(12\)\."
            ) as caught:
                USES[use](tmp_path)
        assert "vm.max_map_count" in caught.value.hint


def test_a_shard_that_a_merge_removes_meanwhile_is_no_limit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = write(tmp_path)
    real = torch.from_file
    removed: list[Path] = []

    def late(*arguments: Any, **options: Any) -> Any:
        if not removed:  # between the look at a shard and its map
            with monkeypatch.context() as patch:
                patch.setattr(torch, "from_file", real)
                patch.setattr("mmsa_cache.store.writer._MOST_SMALL", 1)
                removed.extend(folder.glob(SHARD_FILES))
                write(tmp_path)
        return real(*arguments, **options)

    monkeypatch.setattr(torch, "from_file", late)
    features = open_features(folder)
    assert len(features.shards) == 1
    assert rows_in(features.shards) == ROWS


def test_too_little_address_space_is_said(tmp_path: Path) -> None:
    folder = write_many(tmp_path, make_keys(0, 40))
    ends = []
    for spare in (0, 1 << 14, 1 << 16, 1 << 20, 1 << 26):

        def work(spare: int = spare) -> None:
            signal.alarm(60)
            used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
            resource.setrlimit(resource.RLIMIT_AS, (used + spare, -1))
            try:
                assert len(open_features(folder).shards) == 40
            except DeviceError as error:
                assert "elete" not in str(error)  # noqa: PT017
                os._exit(error.exit_code)

        ends.append(forked(work))
    assert set(ends) <= {0, 5}
    assert (ends[0], ends[-1]) == (5, 0)


def test_a_permission_is_neither_a_limit_nor_damage(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(tmp_path)
    scarce = Scarce(1, PermissionError(errno.EACCES, "Permission denied"))
    monkeypatch.setattr(os, "open", scarce(os.open))
    with pytest.raises(CacheError, match=r"json cannot be read: Permission denied\.") as caught:
        USES["open"](tmp_path)
    assert "elete" not in str(caught.value)


# Disks


@pytest.mark.counted
def test_a_full_disk_is_said_and_gone_on_from(tmp_path: Path, tally: Tally) -> None:
    folder = tmp_path / "small"
    left: list[int] = []
    with small_disk(folder, "24k"):
        ballast = folder / "ballast"
        for pages in range(6, 0, -1):  # less ballast each time: the disk fills up later
            ballast.write_bytes(b"\0" * 4096 * pages)
            with pytest.raises(DiskError, match="No space left on device"):
                write(folder)
            ballast.unlink()
            check(folder)
            left.append(len(list(ENCODER.folder(folder).glob(SHARD_FILES))))
            if left[-1] == len(SHARDS) - 1:
                break
    assert left[-1] > left[0], "every try failed at the same place"
    tally("full disk (tmpfs)", len(left), "refused by name, nothing partial")


@pytest.mark.counted
def test_a_limit_of_file_size_is_an_error_not_a_death(tmp_path: Path, tally: Tally) -> None:
    limits = [0, 100, 1000, 2000]
    for limit in limits:

        def work(limit: int = limit) -> None:
            signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
            resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
            try:
                write(tmp_path)
            except DiskError as error:
                os._exit(error.exit_code)

        assert forked(work) == 5
        check(tmp_path)
    write(tmp_path)
    assert rows_of(ENCODER.folder(tmp_path)) == ROWS
    tally("file-size limit", len(limits), "exit 5, next run completes")
