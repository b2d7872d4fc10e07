"""``mmsa extract`` killed, interrupted, out of room, run twice at once; and its memory."""

from __future__ import annotations

import contextlib
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from mmsa_cache.store.index import INDEX, Index
from tests.support import many_pairs
from tests.support.fork_server import ForkServer
from tests.support.pairs import make_pairs
from tests.support.shards import rows_of
from tests.support.small_disk import small_disk
from tests.support.tally import Tally
from tests.support.tiny import tiny_toml

PAIRS = 40


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory, text_model: Path) -> Iterator[ForkServer]:
    """A folder of pairs, and a process that runs commands there."""
    folder = tmp_path_factory.mktemp("faults")
    make_pairs(folder / "posts", PAIRS)
    (folder / "mmsa.toml").write_text(
        tiny_toml(
            text_model,
            "vit_tiny_patch16_224",
            """[cache]
shard_rows = 4
[extract]
batch_size = 4
""",
        )
    )
    server = ForkServer(folder)
    yield server
    server.close()


Rows = dict[tuple[str, bytes], tuple[str, bytes, bytes]]
"""By the name of the encoder's folder and the row's key."""


def indexes(root: Path) -> list[Path]:
    return sorted(root.glob(f"features/*/*/{INDEX}"))


def sealed(root: Path) -> Rows:
    """Every sealed row of a store; none is there twice, no shard is damaged."""
    found: Rows = {}
    for index in indexes(root):
        found |= {(index.parent.name, key): row for key, row in rows_of(index.parent).items()}
    return found


def changes(root: Path) -> int:
    """Lines of all indexes: shards that were sealed or merged."""
    return sum(path.read_bytes().count(b"\n") for path in indexes(root))


def has_ended(process: psutil.Process) -> bool:
    try:
        return bool(process.status() == psutil.STATUS_ZOMBIE)  # its new parent has not looked yet
    except psutil.NoSuchProcess:
        return True


def check_whole(root: Path, wanted: Rows) -> None:
    """A finished store holds these rows, and nothing that was left over."""
    assert sealed(root) == wanted
    assert len(list(root.glob("data/*.parquet"))) == 2
    assert not list(root.rglob(".tmp-*"))
    named = {f"{name}.h5" for index in indexes(root) for name in Index.read(index.parent).entries}
    assert {path.name for path in root.rglob("*.h5")} == named


@pytest.fixture(scope="module")
def whole(server: ForkServer) -> tuple[Rows, float]:
    """The rows of an uninterrupted extraction, and its seconds."""
    started = time.monotonic()
    assert server.run("extract", "--split", "all", "--cache", "whole") == 0, server.log.read_text()
    return sealed(server.folder / "whole"), time.monotonic() - started


@pytest.mark.parametrize("kills", [6, pytest.param(200, marks=pytest.mark.faults)])
def test_kills_at_random_moments_lose_nothing(
    server: ForkServer, whole: tuple[Rows, float], kills: int, tally: Tally
) -> None:
    wanted, seconds = whole
    target = server.folder / "killed"
    shutil.rmtree(target, ignore_errors=True)
    chance = random.Random(0)
    done = finished = most = 0
    before: Rows = {}
    # On a busy machine six kills can all come before the first shard is sealed: then some more.
    while done < kills or (not most and done < 20 * kills):
        pid = server.start("extract", "--split", "all", "--cache", "killed")
        time.sleep(chance.uniform(0.05 * seconds, 0.6 * seconds))
        os.kill(pid, signal.SIGKILL)
        code = server.wait(pid)
        assert code in (0, -signal.SIGKILL), server.log.read_text()[-3000:]
        now = sealed(target)
        assert before.items() <= now.items() <= wanted.items(), "a row was lost or changed"
        before = now
        if code:
            done += 1
            most = max(most, len(now))
            continue
        check_whole(target, wanted)
        finished += 1
        before = {}
        shutil.rmtree(target)
    assert server.run("extract", "--split", "all", "--cache", "killed") == 0
    check_whole(target, wanted)
    assert most, "no kill came after a row was sealed"
    tally("kill -9 of extraction at a random moment", done, f"same rows, {finished + 1} stores")


@pytest.mark.parametrize("times", [1, pytest.param(20, marks=pytest.mark.faults)])
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interruption_is_clean(
    server: ForkServer,
    whole: tuple[Rows, float],
    number: signal.Signals,
    times: int,
    tally: Tally,
) -> None:
    wanted, _ = whole
    target = server.folder / f"interrupted-{number}"
    chance = random.Random(number)
    half = changes(server.folder / "whole") // 2
    done = late = 0
    while done < times:
        shutil.rmtree(target, ignore_errors=True)
        said = server.log.stat().st_size
        pid = server.start("extract", "--split", "all", "--cache", target.name)
        shards = chance.randint(1, half)
        deadline = time.monotonic() + 60
        while changes(target) < shards:
            assert time.monotonic() < deadline
            time.sleep(0.001)
        os.kill(pid, number)
        code = server.wait(pid)
        if code == 0 and not late:  # it had ended before the signal came
            check_whole(target, wanted)
            late += 1
            continue
        assert code == 130
        done += 1
        text = server.said(said)
        assert "Stopped. Finished work is kept" in text
        assert "Traceback" not in text
        assert sealed(target).items() <= wanted.items()
        assert server.run("extract", "--split", "all", "--cache", target.name) == 0
        check_whole(target, wanted)
    tally(f"{number.name} of extraction", times, "exit 130, resumed, no temporary files")


ENGINE = ("extract", "--split", "all", "--workers", "2", "--cache")


@pytest.mark.parametrize("kills", [3, pytest.param(30, marks=pytest.mark.faults)])
def test_kills_of_a_driver_and_its_workers_lose_nothing(
    server: ForkServer, whole: tuple[Rows, float], kills: int, tally: Tally
) -> None:
    wanted, seconds = whole
    target = server.folder / "driven"
    chance = random.Random(kills)
    done = 0
    while done < kills:
        shutil.rmtree(target, ignore_errors=True)
        before: Rows = {}
        for _ in range(3):  # each goes on where the one before was killed
            pid = server.start(*ENGINE, target.name)
            time.sleep(chance.uniform(0.3 * seconds, 2 * seconds))
            driver = psutil.Process(pid)
            with contextlib.suppress(psutil.NoSuchProcess):
                processes = [driver, *driver.children()]
                for process in chance.sample(processes, min(2, len(processes))):
                    process.kill()
                    done += 1
            code = server.wait(pid)
            assert code in (0, -signal.SIGKILL), server.log.read_text()[-3000:]
            now = sealed(target)
            assert before.items() <= now.items() <= wanted.items(), "a row was lost or changed"
            before = now
        # The next one may have any engine; what workers sealed and no driver entered is adopted.
        assert server.run("extract", "--split", "all", "--cache", target.name) == 0
        check_whole(target, wanted)
    tally("kill -9 of a crew's driver and of its workers", done, "same rows, gone on by any engine")


def test_an_interrupted_crew_leaves_no_process(
    server: ForkServer, whole: tuple[Rows, float]
) -> None:
    target, said = server.folder / "stopped", server.log.stat().st_size
    pid = server.start(*ENGINE, target.name)
    deadline = time.monotonic() + 60
    while changes(target) < 3:
        assert time.monotonic() < deadline
        time.sleep(0.001)
    workers = psutil.Process(pid).children()
    assert len(workers) == 2
    os.kill(pid, signal.SIGINT)
    assert server.wait(pid) == 130
    # One that is interrupted while it ends them leaves that to them: they end without it.
    deadline = time.monotonic() + 10
    while not all(has_ended(worker) for worker in workers):
        assert time.monotonic() < deadline
        time.sleep(0.001)
    text = server.said(said)
    assert "Stopped. Finished work is kept" in text
    assert "Traceback" not in text
    assert sealed(target).items() <= whole[0].items()
    assert server.run(*ENGINE, target.name) == 0
    check_whole(target, whole[0])


@pytest.mark.parametrize("times", [1, pytest.param(10, marks=pytest.mark.faults)])
def test_two_extractions_at_once_make_each_row_once(
    server: ForkServer, whole: tuple[Rows, float], times: int, tally: Tally
) -> None:
    for number in range(times):
        name = f"two-{number}"
        pids = [server.start(*start, name) for start in ((*ENGINE[:3], "--cache"), ENGINE)]
        assert [server.wait(pid) for pid in pids] == [0, 0], server.log.read_text()[-3000:]
        check_whole(server.folder / name, whole[0])
        shutil.rmtree(server.folder / name)
    tally("two extractions of one output at once", times, "both exit 0, same rows")


@pytest.mark.counted
def test_a_full_disk_ends_extraction_with_a_message(
    server: ForkServer, whole: tuple[Rows, float], tally: Tally
) -> None:
    folder = server.folder / "small"
    with small_disk(folder, "100k"):
        said = server.log.stat().st_size
        assert server.run("extract", "--split", "all", "--cache", "small") == 5
        text = server.said(said)
        assert "cannot be written: No space left on device" in text
        assert "the same command resumes" in text.replace("\n", " ")
        assert "Traceback" not in text
        assert not list(folder.rglob(".tmp-*"))
        before = sealed(folder)
        assert before
        subprocess.run(["mount", "-o", "remount,size=64m", str(folder)], check=True)
        assert server.run("extract", "--split", "all", "--cache", "small") == 0
        check_whole(folder, whole[0])
    tally("extraction onto a full disk (tmpfs)", 1, "exit 5, resumed when there was room")


def test_a_picture_that_changes_meanwhile_is_refused(server: ForkServer, tmp_path: Path) -> None:
    from extract.plan import Row
    from mmsa_cache.compose.extraction.readers import reader_of
    from mmsa_cache.compose.session.encoders import resolve_encoder
    from mmsa_cache.config.loading import load_settings
    from mmsa_cache.errors import DataError
    from tests.support.reading import read_split

    make_pairs(tmp_path / "posts", 20)
    sample = read_split(tmp_path / "posts", "train")[0]
    settings = load_settings(folder=server.folder, environ={})
    reader = reader_of(resolve_encoder(settings, "image"), 0)
    row = Row(sample, 0, bytes(16))
    reader(row)
    sample.image_path.write_bytes((tmp_path / "posts/pairs/1.jpg").read_bytes())
    with pytest.raises(DataError, match=r"0\.jpg: was changed after the data was read"):
        reader(row)


@pytest.mark.faults
def test_fifty_thousand_pairs_hold_memory_and_files_flat(
    server: ForkServer,
    tmp_path: Path,
    tally: Tally,
) -> None:
    pairs = 50_000
    out = subprocess.run(
        [sys.executable, many_pairs.__file__, tmp_path, str(pairs)],
        cwd=server.folder,
        env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path), "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=900,
    )
    assert out.returncode == 0, out.stderr
    record = json.loads(out.stdout)
    for modality, looks in record.items():
        (_, first, opened), *later = looks
        assert [share for share, _, _ in looks] == [10, 50, 100]
        for _, memory, handles in later:
            assert memory < 1.1 * first, f"{modality}: memory grows: {looks}"
            assert handles <= opened, f"{modality}: files stay open: {looks}"
        shown = ", ".join(f"{memory / 2**20:.0f}" for _, memory, _ in looks)
        tally(
            f"{modality} of 50,000 generated pairs (random tiny encoder)",
            1,
            f"MiB at 10, 50, 100 %: {shown}; {opened} open files",
        )
