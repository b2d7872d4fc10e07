"""``mmsa bench engine``, and the fleet that it simulates."""

from __future__ import annotations

import re
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from extract.crew.driver import drive
from extract.crew.pieces import Piece
from extract.crew.protocol import Depot, Lost
from extract.crew.simulated import DIM, POSITIONS, Clock, Fleet, SimulatedCrew
from extract.crew.watching import Tally
from extract.plan import FeatureJob, plan_rows
from mmsa_cache.cli.main import app
from mmsa_cache.compose.bench import engine as bench_engine
from mmsa_cache.compose.bench.engine import FAULTY, EngineGrowth
from mmsa_cache.store.index import Index
from tests.support.extraction import make_samples
from tests.support.rows import claimed, row_bytes

WORST = replace(
    FAULTY, workers=9, a_node=3, worker_dies=120, node_dies=150, slow_pieces=0.1, hung=0.05
)


class Skipping(Clock):
    """A clock that only skips: what happens depends on the seed alone."""

    now = 0.0

    def __call__(self) -> float:
        return self.now

    def skip_to(self, moment: float) -> None:
        self.now = max(self.now, moment)

    def stopped(self) -> AbstractContextManager[None]:
        return nullcontext()


@pytest.mark.parametrize("seed", range(3))
def test_every_row_is_there_once_whatever_happens(tmp_path: Path, seed: int) -> None:
    clock, tally, count = Skipping(), Tally(), 3000
    with claimed(tmp_path) as writer:
        crew = SimulatedCrew([writer.sealer], WORST, clock, seed)
        job = FeatureJob[Depot](plan_rows(make_samples(count), {}, "none", "text"), writer)
        drive([job], crew, shard_rows=16, tally=tally, clock=clock)
        assert Index.read(writer.folder).rows == count
    rows = row_bytes(tmp_path)  # refuses rows that are there twice
    assert set(rows) == {key.tobytes() for key in job.rows.keys}
    for key, (_, tokens, pooled, _) in rows.items():
        features = np.frombuffer(key, np.uint8).astype(np.float16).tobytes()
        assert tokens == features * POSITIONS
        assert len(features) == 2 * DIM
        assert pooled == features * 2
    seen = crew.stats
    assert min(seen.deaths, seen.nodes_lost, seen.hung, seen.slowed, tally.retries) > 0
    assert count < seen.rows < 2 * count
    assert job.computed == count


def test_a_fleet_without_faults_wastes_nothing_and_no_time(tmp_path: Path) -> None:
    clock, tally, fleet = Skipping(), Tally(), Fleet(workers=4, rows_a_second=10, load=5)
    started = clock()
    with claimed(tmp_path) as writer:
        crew = SimulatedCrew([writer.sealer], fleet, clock)
        job = FeatureJob[Depot](plan_rows(make_samples(4000), {}, "none", "text"), writer)
        drive([job], crew, shard_rows=16, tally=tally, clock=clock)
    assert (tally.lost, tally.wasted, tally.encoded) == (0, 0, 4000)
    assert tally.retries <= 4  # at the end, by workers that have nothing else
    assert crew.stats.rows == pytest.approx(4000, rel=0.02)
    assert 100 < clock() - started < 115  # 4,000 rows, 40 a second, and the loading


def test_a_worker_that_ends_says_what_it_held(tmp_path: Path) -> None:
    rows = plan_rows(make_samples(4), {}, "none", "text")
    with claimed(tmp_path) as writer:
        fleet = Fleet(workers=1, hung=1.0, restart=9)
        crew = SimulatedCrew([writer.sealer], fleet, Skipping())
        assert (crew.workers, crew.capacity) == (1, 2)
        for number in range(2):
            crew.submit(Piece(number, 0, tuple(rows[2 * number : 2 * number + 2]), (2,)))
        assert (crew.capacity, crew.wait(50.0)) == (0, [])
        crew.forget(0)
        assert (crew.workers, crew.capacity) == (0, 0)
        assert crew.wait(1.0) == [Lost(1, "its worker was ended", by_node=True)]
        assert crew.wait(9.0) == []
        assert (crew.workers, crew.capacity) == (1, 2)


def test_the_table_has_a_column_a_size() -> None:
    asked = ["bench", "engine", "--rows", "1000", "--workers", "3", "--no-faults"]
    result = CliRunner().invoke(app, [*asked, "--json"])
    assert result.exit_code == 0, result.output
    found = EngineGrowth.model_validate_json(result.stdout)
    assert found.simulated is True
    (run,) = found.runs
    assert run.at_least == pytest.approx(1000 / 3 / FAULTY.rows_a_second)
    assert run.seconds > run.at_least
    assert (run.deaths, run.nodes_lost, run.hung, run.slow) == (0, 0, 0, 0)
    assert 0 <= run.wasted < 0.1
    assert 0 < run.driver_share < 1
    assert run.adopted >= run.shards >= run.files > 0
    assert (run.rows, run.peak_bytes) == (1000, pytest.approx(1000 * run.bytes_a_row))
    found.runs.append(run.model_copy(update={"rows": 2000, "pieces": 7}))
    head, _, *lines = (re.split("  +", line) for line in _shown(found).splitlines())
    assert head == ["rows", "1000", "2000"]
    assert ["pieces", str(run.pieces), "7"] in lines
    assert ["wasted", f"{run.wasted:.3g}", f"{run.wasted:.3g}"] in lines


def _shown(found: EngineGrowth) -> str:
    """What the command prints of figures."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(bench_engine, "bench_engine", lambda sizes, workers, faults: found)
        result = CliRunner().invoke(app, ["bench", "engine", "--rows", "1000,2000"])
    assert result.exit_code == 0, result.output
    assert "simulated" in result.stderr
    return result.stdout
