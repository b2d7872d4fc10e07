"""Many writers on one store, killed again and again, while others read."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

import numpy as np
import pytest

from mmsa_cache.errors import CacheNotFoundError
from mmsa_cache.store import writer as writer_module
from mmsa_cache.store.index import Index
from mmsa_cache.store.reader import open_features, verify_features
from tests.support.faulty import fork
from tests.support.shards import ENCODER, rows_in, rows_of
from tests.support.tally import Tally
from tests.support.writers import (
    KEYS,
    READERS,
    WRITERS,
    ended,
    write_all,
)


def read_on(root: Path, expected: dict[bytes, tuple[str, bytes, bytes, bytes]]) -> None:
    """Reads until there is a file ``stop``; whatever is there must be whole at every moment."""
    folder, opened, before = ENCODER.folder(root), 0, 0
    while not (root / "stop").exists() or not opened:
        try:
            features = open_features(folder, verify=opened % 2 == 0)
        except CacheNotFoundError:
            assert not before, "all rows were gone"
            continue
        found = rows_in(features.shards)
        assert found.items() <= expected.items(), "a row has other bytes"
        assert len(found) >= before, "a row was gone"
        if opened % 4 == 3:
            assert verify_features(folder) == []
        opened, before = opened + 1, len(found)
        time.sleep(0.01)  # the writers need the processor
    (root / f"read-{os.getpid()}").write_text(str(opened))


@pytest.mark.parametrize(
    ("kills", "turns"), [(8, 4), pytest.param(500, 10, marks=pytest.mark.faults)]
)
def test_killed_writers_and_readers_share_a_store(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kills: int, turns: int, tally: Tally
) -> None:
    monkeypatch.setattr(writer_module, "_MOST_SMALL", 3)
    write_all(tmp_path / "alone", 0)
    expected = rows_of(ENCODER.folder(tmp_path / "alone"))
    assert set(expected) == {key.tobytes() for key in KEYS}
    rng = np.random.default_rng(kills)
    done = rounds = 0
    while done < kills:
        root = tmp_path / f"store-{rounds}"
        root.mkdir()
        readers = [fork(lambda r=root: read_on(r, expected)) for _ in range(READERS)]  # type: ignore[misc]
        for _ in range(turns):  # of which each begins where the killed ones were
            seeds = rng.integers(0, 1000, WRITERS) * WRITERS + np.arange(WRITERS)
            steps = rng.integers(1, 40, WRITERS)
            pids = [
                fork(lambda r=root, s=seed, k=step: write_all(r, s, k))  # type: ignore[misc]
                for seed, step in zip(seeds.tolist(), steps.tolist(), strict=True)
            ]
            time.sleep(rng.uniform(0, 0.05))
            os.kill(pids[0], signal.SIGKILL)  # in the middle of anything
            codes = [ended(pid) for pid in pids]
            assert set(codes) <= {0, -signal.SIGKILL}
            done += codes.count(-signal.SIGKILL)
        pids = [fork(lambda r=root, s=seed: write_all(r, s)) for seed in range(WRITERS)]  # type: ignore[misc]
        assert [ended(pid) for pid in pids] == [0] * WRITERS
        (root / "stop").touch()
        assert [ended(pid) for pid in readers] == [0] * READERS
        folder = ENCODER.folder(root)
        assert rows_of(folder) == expected
        assert verify_features(folder) == []
        write_all(root, 0)  # whose claim removes what the killed ones left
        assert not list(root.rglob(".tmp-*"))
        named = set(Index.read(folder).entries)
        assert {path.stem for path in folder.glob("*.h5")} == named
        assert sum(int(path.read_text()) for path in root.glob("read-*")) > 4
        rounds += 1
    tally("kills of 4 writers on one store", done, "every row once, bytes of a single writer")
