"""``mmsa cache`` verbs while other processes change the store."""

from __future__ import annotations

import json
import threading
from pathlib import Path

import pytest

from mmsa_cache.compose import caches
from mmsa_cache.store.listing import list_features, remove_features
from tests.cli.test_caches import keys_of, make_store, only, shard, table, write_table
from tests.support.shards import make_keys, writer_of
from tests.support.small_work import mmsa


def test_rows_of_a_split_that_comes_meanwhile_are_not_pruned(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An extraction states its split, then waits for nobody: prune has looked at the splits."""
    store = tmp_path / "cache"
    make_store(store, make_keys(0, 3))
    whole, looked = table([None] * 6), threading.Event()
    unused = caches._unused

    def look(*arguments: object) -> int:
        looked.set()
        return unused(*arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(caches, "_unused", look)
    writer = writer_of(store)
    with writer.claim(lambda: None):
        said: list[str] = []
        prune = threading.Thread(
            target=lambda: said.append(mmsa(tmp_path, "cache", "prune", "--unused", "--yes", "--json").stdout)
        )
        prune.start()
        assert looked.wait(20)
        write_table(store, whole, "test")
        writer.publish(shard(keys_of(table())))
        writer.publish(shard(whole.digests("text")[3:, :16]))
    prune.join()
    (done,) = json.loads(said[0])
    assert done["state"] == "3 rows removed"
    assert only(store).complete == {"train": 1.0, "test": 1.0}


def test_features_that_another_one_has_removed_meanwhile_are_removed(tmp_path: Path) -> None:
    make_store(tmp_path)
    found = list_features(tmp_path)
    for _ in range(2):
        (removal,) = remove_features(found, really=True)
        assert removal.state == "removed"


@pytest.mark.parametrize("name", ["encoder.json", "index.jsonl", "aaaaaaaaaaaaaaaa.h5"])
def test_a_folder_in_the_place_of_a_file_stays(tmp_path: Path, name: str) -> None:
    folder = make_store(tmp_path / "cache")
    (folder / name).unlink(missing_ok=True)
    (folder / name / "somebody's").mkdir(parents=True)
    prune = mmsa(tmp_path, "cache", "prune", "--older-than", "0", "--yes", "--json")
    (done,) = json.loads(prune.stdout)
    assert done["state"] == "removed but for files that are no cache's"
    assert [path.name for path in folder.iterdir()] == [name]
