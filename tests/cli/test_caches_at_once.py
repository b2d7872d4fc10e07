"""``mmsa cache`` verbs while other processes change the store."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import random
import shutil
import threading
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from mmsa_cache.cli.main import app
from mmsa_cache.compose.cache import prune as prune_module
from mmsa_cache.compose.hub import pull as pull_module
from mmsa_cache.compose.hub import push as push_module
from mmsa_cache.data.pairs import Sample
from mmsa_cache.data.table import SampleTable
from mmsa_cache.store import listing
from mmsa_cache.store.keys import content_keys
from mmsa_cache.store.listing import list_features, remove_features
from tests.support.caches import keys_of, make_store, only, shard, table, write_table
from tests.support.faulty import fork
from tests.support.shards import make_keys, writer_of
from tests.support.small_work import mmsa
from tests.support.tally import Tally


def test_rows_of_a_split_that_comes_meanwhile_are_not_pruned(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Prune has looked at the splits, and waits for an extraction, which states another one."""
    store = tmp_path / "cache"
    make_store(store, make_keys(0, 3))
    whole, waits = table([None] * 6), threading.Event()
    monkeypatch.setattr(prune_module, "say", lambda text: waits.set())
    writer = writer_of(store)
    with writer.claim(lambda: None):
        said: list[str] = []
        prune = threading.Thread(
            target=lambda: said.append(
                mmsa(tmp_path, "cache", "prune", "--unused", "--yes", "--json").stdout
            )
        )
        prune.start()
        assert waits.wait(20)
        write_table(store, whole, "test")
        writer.publish(shard(keys_of(table())))
        writer.publish(shard(whole.digests("text")[3:, :16]))
    prune.join()
    (done,) = json.loads(said[0])
    assert done["state"] == "3 rows removed"
    assert only(store).complete == {"train": 1.0, "test": 1.0}


def test_features_that_go_while_they_are_listed_are_empty(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_store(tmp_path, make_keys(0, 3))

    def remove(path: Path) -> bool:
        shutil.rmtree(path, ignore_errors=True)
        return not path.exists()  # a lock's file stays

    monkeypatch.setattr(listing, "_holds_features", remove)
    (found,) = list_features(tmp_path)
    assert (found.rows, found.shards, found.bytes) == (0, 0, 0)


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


def test_what_is_extracted_while_files_are_pulled_is_not_lost(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    address, pull = f"file://{tmp_path}/shared", ("cache", "pull", f"file://{tmp_path}/shared")
    make_store(tmp_path / "cache")
    mmsa(tmp_path, "cache", "push", address)
    mmsa(tmp_path, *pull, "--cache", "mine")
    writers = [writer_of(tmp_path / "cache"), writer_of(tmp_path / "mine")]
    with writers[0].claim(lambda: None):
        writers[0].publish(shard(make_keys(0, 3)))
    mmsa(tmp_path, "cache", "push", address)

    def verify(*arguments: object) -> object:
        with writers[1].claim(lambda: None):
            writers[1].publish(shard(make_keys(10, 3)))
        return real(*arguments)  # type: ignore[arg-type]

    real = pull_module.verify
    with monkeypatch.context() as patch:
        patch.setattr(pull_module, "verify", verify)
        said = mmsa(tmp_path, *pull, "--cache", "mine", code=4).stderr
    assert "was changed while files were pulled; nothing of them was put in place" in said
    assert only(tmp_path / "mine").rows == 8
    assert "holds another store" in mmsa(tmp_path, *pull, "--cache", "mine", code=4).stderr


def test_a_push_leaves_features_out_that_go_meanwhile(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_store(tmp_path / "cache")
    found = list_features(tmp_path / "cache")
    remove_features(found, really=True)
    monkeypatch.setattr(push_module, "list_features", lambda root: found)
    said = mmsa(tmp_path, "cache", "push", f"file://{tmp_path}/shared", code=4).stderr
    assert "Nothing is sealed in" in said
    assert not (tmp_path / "shared").exists()


def extract_some(root: Path, rng: random.Random) -> None:
    """What an extraction does: it states a split, then adds its rows in some steps."""
    first, split = rng.randrange(50), rng.choice(["val", "test"])
    samples = SampleTable.from_samples(
        Sample(f"s{row}", None, f"text {row}", None, *(sha256(f"{what}{row}") for what in "ti"))
        for row in range(first, first + 20)
    )
    write_table(root, samples, split)
    writer, keys = writer_of(root), content_keys(samples.digests("text"))
    with writer.claim(lambda: None):
        for start in range(0, 20, 5):
            missing = keys[start : start + 5][~writer.has(keys[start : start + 5])]
            if len(missing):
                writer.publish(shard(missing))
        writer.finish()
        assert writer.has(keys).all(), "a row was taken away while it was claimed"


def sha256(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


ADDRESS = "file:///{}/shared"
VERBS = [
    ("ls",),
    ("verify",),
    ("verify", "--cache", "mine"),
    ("show", "a"),
    ("prune", "--unused", "--yes"),
    ("prune", "--unfinished", "--yes"),
    ("prune", "--encoder", "tiny", "--yes"),
    ("push", ADDRESS),
    ("pull", ADDRESS),
    ("pull", ADDRESS, "--cache", "mine"),
    ("import", "a.npy", "--modality", "text", "--name", "other", "--split", "train"),
]
SAID = (
    "There is no cache in",
    "holds another store",
    "was changed while files were pulled",
    "Nothing is sealed in",
    "There is no finished store",
    "has 0 bytes",  # a push to a folder, which is no object store, is seen in the midst of it
    "What was pulled is no store",
)
"""Of what cannot be done now."""


def use(folder: Path, seed: int, count: int) -> None:
    """Gives commands; what the store holds must never be called damaged."""
    rng = random.Random(seed)
    for _ in range(count):
        if rng.random() < 0.3:
            extract_some(folder / "cache", rng)
            continue
        words = [word.format(folder) for word in rng.choice(VERBS)]
        with contextlib.chdir(folder):
            result = CliRunner().invoke(app, ["cache", *words])
        allowed = result.exit_code == 4 and any(text in result.output for text in SAID)
        assert result.exit_code == 0 or allowed, (words, result.output, result.exception)


@pytest.mark.faults
def test_verbs_of_many_processes_at_once(tmp_path: Path, tally: Tally) -> None:
    make_store(tmp_path / "cache")
    np.save(tmp_path / "a.npy", np.ones((3, 4), np.float32))
    workers, count = 4, 60
    pids = [fork(lambda seed=seed: use(tmp_path, seed, count)) for seed in range(workers)]  # type: ignore[misc]
    assert [os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) for pid in pids] == [0] * workers
    mmsa(tmp_path, "cache", "verify")
    extract_some(tmp_path / "cache", random.Random(0))
    left = [path for path in tmp_path.rglob(".*") if path.name.startswith((".tmp-", ".push-"))]
    assert left == []
    tally("cache verbs and extractions of 4 processes", workers * count, "no row lost, no damage")
