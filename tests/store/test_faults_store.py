"""The store when every step may fail: kills, I/O errors, lost power, damage, two writers."""

from __future__ import annotations

import errno
import json
import os
import resource
import shutil
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

from mmsa_cache.disk import Disk, write_atomically
from mmsa_cache.errors import CacheError, DamagedCacheError, DiskError, StaleCacheError
from mmsa_cache.store.lookup import find_cache
from mmsa_cache.store.manifest import MANIFEST, note_path
from mmsa_cache.store.reader import open_shards, verify_cache
from mmsa_cache.store.writer import CacheWriter
from tests.support.faulty import (
    Counting,
    Deadly,
    Failing,
    Forgetful,
    PowerLossError,
    Short,
    fork,
    forked,
)
from tests.support.sealed import sealed
from tests.support.shards import FIELDS, SHARDS, contents
from tests.support.tally import Tally

ROWS = 10


def write(directory: Path, disk: Disk | None = None) -> None:
    writer = CacheWriter(directory, FIELDS, ROWS, disk or Disk())
    with writer.lock(lambda: None):
        for shard in SHARDS[writer.done :]:
            writer.publish(shard)
        writer.finish()


@pytest.fixture
def whole(tmp_path: Path) -> dict[str, bytes]:
    """The files of an uninterrupted cache."""
    write(tmp_path / "whole" / "cache")
    return contents(tmp_path / "whole" / "cache")


def assert_nothing_partial(directory: Path) -> None:
    """Whatever has its final name is whole."""
    if (directory / MANIFEST).exists():
        assert verify_cache(directory) == []
        assert len(list(open_shards(directory))) == len(SHARDS)
        return
    with pytest.raises(CacheError):
        list(open_shards(directory))
    for number, path in enumerate(sorted(directory.glob("shard-*.h5"))):
        assert path.name == f"shard-{number:05d}.h5"


def steps_of(tmp_path: Path) -> list[str]:
    counting = Counting()
    write(tmp_path / "counted" / "folder" / "cache", counting)
    return counting.steps


def test_the_seam_sees_every_step(tmp_path: Path) -> None:
    steps = steps_of(tmp_path)
    # Two new folders above the cache and its own; a shard and its receipt each; the last rename.
    folder, piece = ["folder", "fsync"], ["create", "write", "fsync"]
    each = [*piece, *piece, "rename", "fsync", "rename", "fsync"]
    assert steps == folder * 3 + each * len(SHARDS) + ["rename", "fsync"]


@pytest.mark.counted
def test_a_kill_at_every_step_loses_nothing(
    tmp_path: Path, whole: dict[str, bytes], tally: Tally
) -> None:
    steps = steps_of(tmp_path)
    for at in range(1, len(steps) + 1):
        directory = tmp_path / f"at-{at}" / "folder" / "cache"
        assert forked(lambda d=directory, k=at: write(d, Deadly(k))) == -signal.SIGKILL  # type: ignore[misc]
        assert_nothing_partial(directory)
        before = sealed(directory)
        write(directory)
        assert contents(directory) == whole, f"after a kill at step {at}, {steps[at - 1]}"
        assert before.items() <= sealed(directory).items(), "a sealed shard was made again"
        assert not list((tmp_path / f"at-{at}").rglob(".tmp-*"))
    tally("kill at every write, fsync, rename", len(steps), "same bytes, no shard redone")


@pytest.mark.counted
@pytest.mark.parametrize("lasting", [False, True])
@pytest.mark.parametrize("code", [errno.EIO, errno.ENOSPC])
def test_an_error_at_every_step_publishes_nothing_partial(
    tmp_path: Path, whole: dict[str, bytes], code: int, lasting: bool, tally: Tally
) -> None:
    steps = steps_of(tmp_path)
    for at in range(1, len(steps) + 1):
        directory = tmp_path / f"at-{at}" / "folder" / "cache"
        with pytest.raises(DiskError, match=f"cannot be written: {os.strerror(code)}") as caught:
            write(directory, Failing(at, code, lasting=lasting))
        assert caught.value.exit_code == 5
        assert_nothing_partial(directory)
        assert not list(directory.glob(".tmp-*")), "room on a full disk is not given back"
        before = sealed(directory)
        write(directory)
        assert contents(directory) == whole
        assert before.items() <= sealed(directory).items()
    name = errno.errorcode[code] + (" and from then on" if lasting else "")
    tally(f"{name} at every step", len(steps), "refused, nothing partial, next run completes")


@pytest.mark.counted
def test_lost_power_takes_nothing_that_was_sealed(
    tmp_path: Path, whole: dict[str, bytes], tally: Tally
) -> None:
    steps = steps_of(tmp_path)
    for at in range(1, len(steps) + 1):
        directory = tmp_path / f"at-{at}" / "folder" / "cache"
        disk = Forgetful(at)
        with pytest.raises(PowerLossError):
            write(directory, disk)
        disk.crash()
        assert_nothing_partial(directory)
        write(directory)
        assert contents(directory) == whole, f"after step {at}, {steps[at - 1]}"
    tally("power lost at every step", len(steps), "unsynced bytes and names gone: same bytes")


def test_short_writes_are_gone_on_with(tmp_path: Path, whole: dict[str, bytes]) -> None:
    write(tmp_path / "c", Short())
    assert contents(tmp_path / "c") == whole


def test_a_replaced_file_is_old_or_new_at_every_step(tmp_path: Path) -> None:
    counting = Counting()
    path = tmp_path / "file"
    write_atomically(path, b"old", counting)
    for at in range(1, len(counting.steps) + 1):
        path.write_bytes(b"old")
        assert forked(lambda k=at: write_atomically(path, b"new", Deadly(k))) == -9  # type: ignore[misc]
        assert path.read_bytes() in (b"old", b"new")
        with pytest.raises(DiskError):
            write_atomically(path, b"newer", Failing(at, errno.EIO))
        write_atomically(path, b"newest")
        assert [p.name for p in tmp_path.iterdir()] == ["file"], "temporary files stay"


def test_a_planted_link_is_not_written_through(tmp_path: Path) -> None:
    precious = tmp_path / "precious"
    precious.write_text("precious")
    directory = tmp_path / "c"
    directory.mkdir()
    for name in (".tmp-shard-00000.h5", ".tmp-manifest.partial.json", "shard-00001.h5"):
        (directory / name).symlink_to(precious)
    write(directory)
    assert precious.read_text() == "precious"
    assert verify_cache(directory) == []


def flip(data: bytearray, rng: np.random.Generator) -> bytes:
    data[rng.integers(len(data))] ^= 1 << int(rng.integers(8))
    return bytes(data)


DAMAGES: dict[str, Callable[[Path, Path, np.random.Generator], None]] = {
    "truncated": lambda path, other, rng: os.truncate(path, int(rng.integers(path.stat().st_size))),
    "one bit flipped": lambda path, other, rng: (
        path.write_bytes(flip(bytearray(path.read_bytes()), rng)),
        None,
    )[1],
    "deleted": lambda path, other, rng: path.unlink(),
    "swapped": lambda path, other, rng: _swap(path, other),
}


def _swap(path: Path, other: Path) -> None:
    held = path.with_name("held")
    path.rename(held)
    other.rename(path)
    held.rename(other)


@pytest.mark.parametrize("damage", DAMAGES)
@pytest.mark.parametrize("times", [6, pytest.param(200, marks=pytest.mark.faults)])
def test_damage_is_named_by_verify_and_the_first_open(
    tmp_path: Path, damage: str, times: int, tally: Tally
) -> None:
    rng = np.random.default_rng(0)
    write(tmp_path / "source" / "cache")
    for number in range(times):
        directory = tmp_path / "damaged" / "cache"
        shutil.copytree(tmp_path / "source", directory.parent)
        if number % 2:  # as after an earlier opening that found all files whole
            note_path(directory).unlink(missing_ok=True)
            list(open_shards(directory))
        first, second = rng.permutation(len(SHARDS))[:2]
        path, other = (directory / f"shard-{place:05d}.h5" for place in (first, second))
        times_before = path.stat() if path.exists() else None
        DAMAGES[damage](path, other, rng)
        if number % 3 == 0 and path.exists() and times_before is not None:  # and covers its tracks
            os.utime(path, ns=(times_before.st_atime_ns, times_before.st_mtime_ns))
        wanted = {path.name, other.name} if damage == "swapped" else {path.name}
        problems = verify_cache(directory)
        assert {Path(problem.split()[0]).name for problem in problems} == wanted
        why = {"truncated": "bytes, sealed were", "deleted": "is missing"}
        words = why.get(damage, r"was changed after it was sealed|bytes, sealed were")
        with pytest.raises(DamagedCacheError, match=words) as caught:
            list(open_shards(directory))
        assert any(name in caught.value.message for name in wanted)
        shutil.rmtree(directory.parent)
    tally(f"shard {damage}", times, "verify and the first open name file and fault")


def test_verify_hashes_whatever_was_noted(tmp_path: Path) -> None:
    """A medium that rots changes no times: only verify finds that, and it must."""
    directory = tmp_path / "c"
    write(directory)
    time.sleep(0.2)
    list(open_shards(directory))
    path = directory / "shard-00000.h5"
    noted = note_path(directory).read_text()
    path.write_bytes(flip(bytearray(path.read_bytes()), np.random.default_rng(1)))
    now = path.stat()
    raw = json.loads(noted)
    raw[path.name][1:] = [now.st_size, now.st_mtime_ns, now.st_ctime_ns]
    note_path(directory).write_text(json.dumps(raw))
    assert len(verify_cache(directory)) == 1


def test_a_folder_is_what_its_manifest_says_not_what_it_is_called(tmp_path: Path) -> None:
    from mmsa_cache.store.fingerprint import cache_name

    other = {**FIELDS, "size": 9}
    write(tmp_path / cache_name("tiny", other))  # moved, or eight equal hexadecimal digits
    with pytest.raises(StaleCacheError, match="size: the cache has 8, wanted is 9"):
        find_cache(tmp_path, "tiny", other)
    writer = CacheWriter(tmp_path / cache_name("tiny", other), other, ROWS)
    with pytest.raises(StaleCacheError, match="size: the cache has 8"), writer.lock(lambda: None):
        pass


def test_a_gap_among_sealed_shards_is_named(tmp_path: Path) -> None:
    writer = CacheWriter(tmp_path / "c", FIELDS, ROWS)
    with writer.lock(lambda: None):
        for shard in SHARDS:
            writer.publish(shard)
    (tmp_path / "c" / "shard-00001.h5").unlink()
    with pytest.raises(DamagedCacheError, match=r"shard-00001\.h5 is missing"):
        write(tmp_path / "c")


@pytest.mark.parametrize("times", [2, pytest.param(50, marks=pytest.mark.faults)])
def test_two_writers_make_each_row_once(
    tmp_path: Path, whole: dict[str, bytes], times: int, tally: Tally
) -> None:
    for number in range(times):
        directory = tmp_path / f"n-{number}" / "cache"
        pids = [fork(lambda d=directory: write(d)) for _ in range(2)]  # type: ignore[misc]
        codes = [os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) for pid in pids]
        assert codes == [0, 0]
        assert contents(directory) == whole
    tally("two processes on one fresh cache", times, "each row once, same bytes")


def test_a_folder_that_is_removed_while_one_waits_is_made_again(
    tmp_path: Path, whole: dict[str, bytes]
) -> None:
    directory = tmp_path / "c"
    asked = threading.Event()

    def second() -> None:
        writer = CacheWriter(directory, FIELDS, ROWS)
        with writer.lock(asked.set):
            for shard in SHARDS:
                writer.publish(shard)
            writer.finish()

    thread = threading.Thread(target=second)
    with CacheWriter(directory, FIELDS, ROWS).lock(lambda: None):
        thread.start()
        assert asked.wait(10)
        shutil.rmtree(directory)
    thread.join()
    assert contents(directory) == whole


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of 24 KiB, where one can be mounted."""
    folder = tmp_path / "small"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=24k", "tmpfs", str(folder)]
    try:
        mounted = subprocess.run(mount, capture_output=True).returncode == 0
    except FileNotFoundError:
        mounted = False
    if not mounted:
        pytest.skip("no file system can be mounted here")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


@pytest.mark.counted
def test_a_full_disk_is_said_and_gone_on_from(
    small_disk: Path, whole: dict[str, bytes], tally: Tally
) -> None:
    ballast = small_disk / "ballast"
    left: list[int] = []
    for pages in range(6, 0, -1):  # less ballast each time: the disk fills up later
        ballast.write_bytes(b"\0" * 4096 * pages)
        with pytest.raises(DiskError, match="No space left on device"):
            write(small_disk / "cache")
        ballast.unlink()
        assert_nothing_partial(small_disk / "cache")
        left.append(len(list(small_disk.glob("cache/shard-*"))))
        if left[-1] == len(SHARDS) - 1:
            break
    assert left[-1] > left[0], "every try failed at the same place"
    tally("full disk (tmpfs)", len(left), "refused by name, nothing partial")


@pytest.mark.counted
def test_a_limit_of_file_size_is_an_error_not_a_death(
    tmp_path: Path, whole: dict[str, bytes], tally: Tally
) -> None:
    limits = [0, 100, 1000, 3000]
    for limit in limits:

        def work(limit: int = limit) -> None:
            signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
            resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
            try:
                write(tmp_path / "c")
            except DiskError as error:
                os._exit(error.exit_code)

        assert forked(work) == 5
        assert_nothing_partial(tmp_path / "c")
    write(tmp_path / "c")
    assert contents(tmp_path / "c") == whole
    tally("file-size limit", len(limits), "exit 5, next run completes")
