"""The store when every step may fail: kills, I/O errors, lost power, interruptions."""

from __future__ import annotations

import errno
import itertools
import os
import platform
import shutil
import signal
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from mmsa_cache.errors import CacheNotFoundError, DamagedCacheError, DiskError
from mmsa_cache.files.abandoned import is_abandoned, is_abandoned_file, process_mark
from mmsa_cache.files.disk import DISK, Disk, write_atomically
from mmsa_cache.store import writer as writer_module
from mmsa_cache.store.index import SHARD_FILES, Index
from mmsa_cache.store.reader import verify_features
from mmsa_cache.store.sealer import FolderSealer
from mmsa_cache.store.writer import FeatureWriter
from tests.support.faulty import (
    Counting,
    Deadly,
    Failing,
    Forgetful,
    PowerLossError,
    Short,
    forked,
)
from tests.support.sealed import sealed
from tests.support.shards import (
    ENCODER,
    SHARDS,
    Row,
    contents,
    rows_in,
    rows_of,
    write,
    writer_of,
)
from tests.support.tally import Tally

ROWS = rows_in(SHARDS)
KEPT = [key for number, key in enumerate(ROWS) if number not in (1, 2, 4, 5, 6, 7)]
"""Keys that ``keep`` leaves: some rows of the first shard, none of the second, all of the third."""


def _merge(root: Path, disk: Disk = DISK) -> None:
    writer = writer_of(root, disk=disk)
    with writer.claim(lambda: None), pytest.MonkeyPatch.context() as patch:
        patch.setattr(writer_module, "_MOST_SMALL", 1)
        writer.finish()


def _keep(root: Path, disk: Disk = DISK) -> None:
    writer = writer_of(root, disk=disk)
    with writer.claim(lambda: None):
        kept = np.frombuffer(b"".join(KEPT), np.uint8).reshape(-1, 16)
        writer.keep_only(lambda: kept)


def _adopt(root: Path, disk: Disk = DISK) -> None:
    writer = writer_of(root, disk=disk)
    with writer.claim(lambda: None):
        missing = [shard for shard in SHARDS if not writer.has(shard.keys).all()]
        writer.adopt([writer.sealer.seal([shard]) for shard in missing])


def _adopt_partly(root: Path, disk: Disk = DISK) -> None:
    """The rest of a shard of which some rows are there is sealed by the driver."""
    writer = writer_of(root, disk=disk)
    with writer.claim(lambda: None):
        if not writer.has(SHARDS[1].keys).all():
            twins = SHARDS[0].take(np.array([1, 3]))
            writer.adopt([writer.sealer.seal([twins, SHARDS[1]])])
        if not writer.has(SHARDS[2].keys).all():
            writer.adopt([writer.sealer.seal([SHARDS[2]])])


def _sweep(root: Path, disk: Disk = DISK) -> None:
    writer = writer_of(root, disk=disk)
    with writer.claim(lambda: None):
        writer.finish()


def _leave_sealed(folder: Path) -> None:
    """What workers sealed whose driver was killed, and what is no shard."""
    sealer = FolderSealer(folder, ENCODER.fingerprint)
    for shard in SHARDS[1:]:
        sealer.seal([shard])
    sealer.seal([SHARDS[0].take(np.array([0, 2]))])
    (folder / "0123456789abcdef.h5").write_bytes(b"half a shard")


@dataclass(frozen=True)
class Job:
    """One way to change a store."""

    run: Callable[[Path, Disk], object]
    shards: int
    """Those that are sealed before."""
    always: frozenset[bytes]
    """Keys of the rows that are there whatever happens."""
    after: frozenset[bytes]
    """Keys of the rows at the end."""
    ready: Callable[[Path], None] = lambda folder: None
    """What else is done before, to the features' folder."""

    def before(self, root: Path) -> None:
        """The store before the job; a copy of one that is written once."""
        source = root.parent / "before"
        if self.shards and not source.exists():
            self.ready(write(source, self.shards))
        if self.shards:
            shutil.copytree(source, root)


JOBS = {
    "publish": Job(lambda root, disk: write(root, disk=disk), 0, frozenset(), frozenset(ROWS)),
    "adopt": Job(_adopt, 1, frozenset(rows_in(SHARDS[:1])), frozenset(ROWS)),
    "adopt in part": Job(_adopt_partly, 1, frozenset(rows_in(SHARDS[:1])), frozenset(ROWS)),
    "sweep": Job(_sweep, 1, frozenset(rows_in(SHARDS[:1])), frozenset(ROWS), _leave_sealed),
    "merge": Job(_merge, 3, frozenset(ROWS), frozenset(ROWS)),
    "keep": Job(_keep, 3, frozenset(KEPT), frozenset(KEPT)),
}
ADOPTING = ("adopt", "adopt in part", "sweep")
EVERY_JOB = pytest.mark.parametrize("name", JOBS)


def folder_in(root: Path) -> Path:
    return ENCODER.folder(root)


def steps_of(job: Job, root: Path) -> list[str]:
    job.before(root)
    counting = Counting()
    job.run(root, counting)
    return counting.steps


def rows_there(root: Path) -> dict[bytes, Row]:
    """What can be read; whatever is there must be whole, and none twice."""
    try:
        return rows_of(folder_in(root))
    except CacheNotFoundError:
        return {}


def check_rows(root: Path, job: Job) -> None:
    found = rows_there(root)
    assert job.always <= found.keys(), "a row is lost"
    assert found.items() <= ROWS.items(), "a row has other bytes"
    if found:
        assert verify_features(folder_in(root)) == []


def check_whole(root: Path, job: Job, whole: dict[str, bytes], when: str) -> None:
    """The job again ends like one that nothing happened to."""
    before = sealed(folder_in(root))
    named = {entry.file for entry in Index.read(folder_in(root)).entries.values()}
    job.run(root, DISK)
    assert rows_of(folder_in(root)) == {key: ROWS[key] for key in ROWS if key in job.after}
    assert contents(folder_in(root)) == whole, when
    now = sealed(folder_in(root))
    assert all(now[n] == s for n, s in before.items() if n in named and n in now), "made again"
    assert not list(root.rglob(".tmp-*")), when


def whole_of(job: Job, root: Path) -> dict[str, bytes]:
    """The files after a job that nothing happened to."""
    job.before(root)
    job.run(root, DISK)
    return contents(folder_in(root))


SOME, EACH = 3, 1
"""Of the steps every third, all kinds among them; the longer series goes through each."""


def at_steps(job: Job, folder: Path, every: int) -> Iterator[tuple[int, str, Path]]:
    """Number and name of each step, and a store for it to go wrong in, which is checked after."""
    whole = whole_of(job, folder / "whole")
    steps = enumerate(steps_of(job, folder / "counted"), start=1)
    for at, step in itertools.islice(steps, 0, None, every):
        root = folder / f"at-{at}"
        job.before(root)
        yield at, step, root
        check_rows(root, job)
        check_whole(root, job, whole, f"after step {at}, {step}")


def test_the_seam_sees_every_step(tmp_path: Path) -> None:
    # The store, its two folders of features and the encoder's own; the encoder's record; the first
    # shard begins the index, the others add a line each.
    new = ["create", "write", "fsync", "rename", "fsync"]
    line = ["append", "write", "fsync"]
    wanted = ["folder", "fsync"] * 4 + new + new + new + (new + line) * (len(SHARDS) - 1)
    assert steps_of(JOBS["publish"], tmp_path / "publish") == wanted
    assert steps_of(JOBS["merge"], tmp_path / "merge") == new + line + ["remove"] * len(SHARDS)
    keep = [*new, *line, "remove", *line, "remove"]
    assert steps_of(JOBS["keep"], tmp_path / "keep") == keep


@EVERY_JOB
@pytest.mark.parametrize("every", [SOME, pytest.param(EACH, marks=pytest.mark.faults)])
def test_a_kill_at_every_step_loses_nothing(
    tmp_path: Path, name: str, every: int, tally: Tally
) -> None:
    job = JOBS[name]
    for at, _, root in at_steps(job, tmp_path, every):
        assert forked(lambda r=root, k=at: job.run(r, Deadly(k))) == -signal.SIGKILL  # type: ignore[misc]
    tally(f"{name}: kill at every step", at, "same bytes, no shard redone")


@EVERY_JOB
@pytest.mark.parametrize(
    ("code", "lasting", "every"),
    [
        (errno.EIO, False, SOME),
        (errno.ENOSPC, True, SOME),
        *(
            pytest.param(code, lasting, EACH, marks=pytest.mark.faults)
            for code in (errno.EIO, errno.ENOSPC)
            for lasting in (False, True)
        ),
    ],
)
def test_an_error_at_every_step_publishes_nothing_partial(
    tmp_path: Path, name: str, code: int, lasting: bool, every: int, tally: Tally
) -> None:
    job = JOBS[name]
    for at, step, root in at_steps(job, tmp_path, every):
        with pytest.raises(DiskError, match=f"cannot be written: {os.strerror(code)}") as caught:
            job.run(root, Failing(at, code, lasting=lasting))
        assert caught.value.exit_code == 5
        assert not list(root.rglob(".tmp-*")), "room on a full disk is not given back"
        entered = {entry.file for entry in Index.read(folder_in(root)).entries.values()}
        files = {path.name for path in folder_in(root).glob(SHARD_FILES)}
        # Only where the disk no longer obeys, files stay that the next run removes. What waits to
        # be adopted stays, and is.
        stays = lasting or step == "remove" or name in ADOPTING
        assert entered <= files if stays else entered == files
    kind = errno.errorcode[code] + (" and from then on" if lasting else "")
    tally(f"{name}: {kind} at every step", at, "refused, nothing partial, next completes")


@EVERY_JOB
@pytest.mark.parametrize(
    ("torn", "every"),
    [(True, SOME), *(pytest.param(t, EACH, marks=pytest.mark.faults) for t in (True, False))],
)
def test_lost_power_takes_nothing_that_was_sealed(
    tmp_path: Path, name: str, torn: bool, every: int, tally: Tally
) -> None:
    job = JOBS[name]
    for at, _, root in at_steps(job, tmp_path, every):

        def work(root: Path = root, at: int = at) -> None:
            disk = Forgetful(at, torn=torn)
            promised: dict[bytes, Row] = {}

            def noting(real: Callable[..., int]) -> Callable[..., int]:
                def call(*arguments: object) -> int:
                    rows = real(*arguments)
                    promised.update(rows_there(root))
                    return rows

                return call

            FeatureWriter.publish = noting(FeatureWriter.publish)  # type: ignore[method-assign]
            FeatureWriter.adopt = noting(FeatureWriter.adopt)  # type: ignore[method-assign]
            with pytest.raises(PowerLossError):
                job.run(root, disk)
            disk.crash()
            assert promised.items() <= rows_there(root).items()

        assert forked(work) == 0
    kind = "torn" if torn else "gone"
    tally(f"{name}: power lost at every step", at, f"unsynced lines {kind}: same bytes")


def test_short_writes_are_gone_on_with(tmp_path: Path) -> None:
    assert contents(write(tmp_path / "short", disk=Short())) == contents(write(tmp_path / "whole"))


def test_a_replaced_file_is_old_or_new_at_every_step(tmp_path: Path) -> None:
    counting = Counting()
    path = tmp_path / "file [1]*"
    write_atomically(path, b"old", counting)
    for at in range(1, len(counting.steps) + 1):
        path.write_bytes(b"old")
        assert forked(lambda k=at: write_atomically(path, b"new", Deadly(k))) == -9  # type: ignore[misc]
        assert path.read_bytes() in (b"old", b"new")
        with pytest.raises(DiskError):
            write_atomically(path, b"newer", Failing(at, errno.EIO))
        write_atomically(path, b"newest")
        assert list(tmp_path.iterdir()) == [path], "temporary files stay"


def test_what_another_process_of_the_same_number_left_is_removed(tmp_path: Path) -> None:
    """In a container, every run may have the same process number."""
    folder = write(tmp_path, 1)
    mine, earlier = (f".tmp-shard.{mark}.0" for mark in (process_mark(), process_mark()[:-1]))
    for name in (mine, earlier):
        (folder / name).write_bytes(b"half a shard")
    write(tmp_path)
    assert {path.name for path in folder.glob(".tmp-*")} == {mine}


def test_what_is_left_is_removed_through_the_disk_that_was_given(tmp_path: Path) -> None:
    class Stuck(Counting):
        def append(self, path: Path, size: int | None = None) -> int:
            self._step("append")
            raise OSError(errno.EIO, "Input/output error")

    folder, disk = write(tmp_path, 1), Stuck()
    (folder / f".tmp-shard.{process_mark()[:-1]}.0").write_bytes(b"half a shard")
    writer = writer_of(tmp_path, disk=disk)
    with writer.claim(lambda: None):
        assert disk.steps == ["remove"]
        with pytest.raises(DiskError):
            writer.publish(SHARDS[1])
    assert disk.steps[-2:] == ["append", "remove"]


def test_what_a_machine_writes_whose_name_begins_the_same_stays(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """``node`` must not take process 31 of ``node-999999`` for its own process 999999."""
    monkeypatch.setattr(platform, "node", lambda: "node")
    gone = forked(lambda: None) or 999_999
    assert is_abandoned(f"node-{gone}-0badcafe.0")
    for name in ("node-999999-31-0badcafe", "nodes-999999-0badcafe", "node.b-999999-0badcafe"):
        assert not is_abandoned(f"{name}.0"), name
        assert not is_abandoned_file(tmp_path / f".tmp-shard.{name}.0"), name


def test_a_planted_link_is_not_written_through(tmp_path: Path) -> None:
    precious = tmp_path / "precious"
    precious.write_text("precious")
    whole = write(tmp_path / "whole")
    folder = folder_in(tmp_path / "planted")
    folder.mkdir(parents=True)
    for name in (*contents(whole), ".tmp-index.jsonl.planted.0"):
        if name != "encoder.json":
            (folder / name).symlink_to(precious)
    with pytest.raises(DamagedCacheError, match=r"index\.jsonl cannot be read: Too many levels"):
        write(tmp_path / "planted")
    (folder / "index.jsonl").unlink()
    write(tmp_path / "planted")
    assert precious.read_text() == "precious"
    assert verify_features(folder) == []
    assert rows_of(folder) == ROWS


def test_what_was_entered_before_an_error_stays(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An interruption right after a line was written must not take the shard away under it."""
    real = Index.append

    def interrupted(index: Index, *arguments: object) -> None:
        real(index, *arguments)  # type: ignore[arg-type]
        raise KeyboardInterrupt

    folder = write(tmp_path, 1)
    monkeypatch.setattr(Index, "append", interrupted)
    with pytest.raises(KeyboardInterrupt):
        write(tmp_path, 2)
    assert rows_of(folder) == rows_in(SHARDS[:2])


def test_a_merge_does_not_seal_damage_anew(tmp_path: Path) -> None:
    for job in (_merge, _keep):
        root = tmp_path / job.__name__
        folder = write(root)
        path = folder / (entry := next(iter(Index.read(folder).entries.values()))).file
        content = bytearray(path.read_bytes())
        content[content.rindex(SHARDS[0].tokens.tobytes())] ^= 1
        path.write_bytes(content)
        with pytest.raises(DamagedCacheError, match=rf"{entry.file} was changed after"):
            job(root)
        assert [problem.split()[0] for problem in verify_features(folder)] == [str(path)]
        path.unlink()
        assert write(root) == folder
        assert rows_of(folder) == ROWS
