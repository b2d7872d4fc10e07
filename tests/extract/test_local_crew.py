"""Processes on this machine: the bytes of a plain run, whatever happens to them."""

from __future__ import annotations

import os
import random
import signal
import time
from contextlib import suppress
from pathlib import Path

import psutil
import pytest

from extract.crew.local import LocalCrew
from extract.crew.protocol import PieceReply
from mmsa_cache.errors import DataError, DeviceError
from tests.support.crew import CompanySource, plain_rows
from tests.support.local_work import BATCH, ROWS, WINDOW, work
from tests.support.rows import Rows, row_bytes
from tests.support.tally import Tally


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> Rows:
    return plain_rows(tmp_path_factory.mktemp("plain"), ROWS, WINDOW, BATCH)


@pytest.mark.parametrize("workers", [2, 4])
def test_a_crew_gives_the_bytes_of_one_process(tmp_path: Path, plain: Rows, workers: int) -> None:
    (tmp_path / "notes").mkdir()
    before = psutil.Process().children()
    job, counts = work(tmp_path, CompanySource(seconds=0.005, notes=tmp_path / "notes"), workers)
    assert row_bytes(tmp_path) == plain
    assert (job.computed, job.present, counts.encoded) == (ROWS, 0, ROWS + counts.wasted)
    assert len(list((tmp_path / "notes").iterdir())) == workers
    assert psutil.Process().children() == before


def test_one_that_kills_its_worker_is_listed_and_the_rest_is_there(
    tmp_path: Path, plain: Rows
) -> None:
    source = CompanySource(killing=(100,), bad=(50, 170))
    with pytest.raises(DataError) as caught:
        work(tmp_path, source)
    assert sorted(caught.value.problems) == ["p170: cannot be read", "p50: cannot be read"]
    assert len(row_bytes(tmp_path)) == ROWS - 3 * WINDOW
    with pytest.raises(DeviceError, match=r"from p96 to p103: killed by SIGKILL"):
        work(tmp_path, CompanySource(killing=(100,)))
    assert len(row_bytes(tmp_path)) == ROWS - WINDOW
    work(tmp_path, CompanySource())
    assert row_bytes(tmp_path) == plain


def test_an_encoder_that_no_worker_can_load_ends_the_work(tmp_path: Path) -> None:
    with pytest.raises(DeviceError, match=r"No worker works: .*it is another one"):
        work(tmp_path, CompanySource(fails="it is another one"))


class Hunted(LocalCrew):
    """Whose workers are killed at random moments."""

    chance: random.Random
    kills = 0

    def wait(self, timeout: float) -> list[PieceReply]:
        ready = [worker for worker in self._workers if worker.ready]
        if ready and self.chance.random() < 0.1:
            victim = self.chance.choice(ready)
            time.sleep(self.chance.uniform(0, 0.01))
            if victim.process.is_alive():
                os.kill(victim.process.pid or 0, signal.SIGKILL)
                type(self).kills += 1
        return super().wait(timeout)


@pytest.mark.parametrize("kills", [4, pytest.param(60, marks=pytest.mark.faults)])
def test_workers_killed_at_random_lose_nothing(
    tmp_path: Path, plain: Rows, kills: int, tally: Tally
) -> None:
    Hunted.chance, Hunted.kills = random.Random(kills), 0
    stores = 0
    while Hunted.kills < kills:
        root = tmp_path / str(stores)
        for _ in range(5):  # some windows may have been given up
            with suppress(DeviceError):
                work(root, CompanySource(seconds=0.001), 2, Hunted)
        work(root, CompanySource())
        assert row_bytes(root) == plain
        stores += 1
    tally(
        "kill -9 of a crew's worker at a random moment", Hunted.kills, f"same rows, {stores} stores"
    )
