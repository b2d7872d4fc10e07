"""Crews that put shards into an object store: dying workers and drivers, two drivers at once."""

from __future__ import annotations

import itertools
import threading
from pathlib import Path
from uuid import uuid4

import numpy as np

from extract.crew.driver import drive
from extract.crew.protocol import PieceReply
from extract.crew.simulated import Clock, Fleet, SimulatedCrew, make_up_rows
from extract.crew.watching import Tally
from extract.plan import FeatureJob
from mmsa_cache.files.objects import ObjectFolder
from mmsa_cache.key_table import KeyTable
from mmsa_cache.store.index import Index
from mmsa_cache.store.keys import KEY_BYTES
from mmsa_cache.store.objects import ObjectWriter, object_name
from mmsa_cache.store.shard_file import check_bytes, map_shard
from tests.support.crew import plan_of
from tests.support.shards import ENCODER

ROWS, WINDOW = 3000, 20
PLAN = plan_of(ROWS)


class Mortal(SimulatedCrew):
    """A crew whose driver is killed at an answer."""

    answers = -1

    def wait(self, timeout: float) -> list[PieceReply]:
        self.answers -= 1
        if not self.answers:
            raise KeyboardInterrupt
        return super().wait(timeout)

    def close(self) -> None:
        """Nothing is entered: the driver is gone."""


def extract(target: ObjectFolder, seed: int, answers: int = -1) -> Tally:
    """One driver that knows nothing of others."""
    writer, clock = ObjectWriter(target, ENCODER), Clock()
    fleet = Fleet(workers=6, worker_dies=80.0, slow_workers=0.2, load=1, restart=5, rows_a_second=5)
    crew = Mortal([writer.sealer], fleet, clock, seed)
    crew.answers = answers
    tally = drive([FeatureJob(PLAN, writer)], crew, shard_rows=WINDOW, tries=50, clock=clock)
    writer.finish()
    return tally


def check(target: ObjectFolder, folder: Path) -> Index:
    """Every row is in a shard that the index names, as it was made."""
    folder.mkdir()
    objects, table = target.below(ENCODER.subfolder), KeyTable(KEY_BYTES)
    sizes = objects.sizes()
    objects.fetch({"index.jsonl": folder / "index.jsonl"}, sizes)
    index = Index.read(folder)
    objects.fetch({object_name(e): folder / e.file for e in index.entries.values()}, sizes)
    for entry in index.entries.values():
        check_bytes(folder, entry)
        shard = map_shard(folder / entry.file, entry.rows, entry.bytes, ENCODER.fingerprint)
        assert np.array_equal(shard.pooled, make_up_rows(shard.keys).pooled)
        table.add(shard.keys)
    assert (table.find(PLAN.keys) >= 0).all()
    return index


def test_drivers_that_die_lose_no_shard(tmp_path: Path) -> None:
    target = ObjectFolder(f"memory://{uuid4().hex}")
    sealed: set[str] = set()
    for number in itertools.count():
        try:
            tally = extract(target, number, answers=20)
            break
        except KeyboardInterrupt:
            found = target.sizes()
            assert found.keys() > sealed  # nothing is taken away, and each adds something
            assert not [name for name in found if not name.endswith(".h5")]
            sealed = set(found)
    assert number >= 3
    assert tally.encoded < ROWS / 2
    index = check(target, tmp_path / "found")
    assert index.rows <= ROWS * 1.2


def test_two_drivers_at_once_end_with_every_row(tmp_path: Path) -> None:
    target = ObjectFolder(f"memory://{uuid4().hex}")
    threads = [threading.Thread(target=extract, args=(target, seed)) for seed in (1, 2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    index = check(target, tmp_path / "found")
    assert index.rows < 2 * ROWS
