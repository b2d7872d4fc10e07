"""``mmsa extract --target``, ``cache push`` and ``pull`` with an object store."""

from __future__ import annotations

import json
import pickle
import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch

from extract.crew.pieces import Piece
from extract.crew.protocol import EncoderLoader, PieceReply, Sealer
from extract.crew.worker import CrewWorker
from mmsa_cache.compose.extraction.crew import EngineRequest
from mmsa_cache.compose.hub.host import local_files
from mmsa_cache.data.stored_split import read_split, split_path
from mmsa_cache.files.objects import ObjectFolder
from mmsa_cache.store.encoder import read_encoder
from mmsa_cache.store.listing import list_features
from mmsa_cache.store.objects import ObjectWriter
from mmsa_cache.store.reader import open_features, verify_features
from tests.support.object_server import BUCKET, KEY_ID, SECRET, object_server
from tests.support.pairs import make_pairs
from tests.support.shards import rows_of
from tests.support.small_work import call, call_json, mmsa
from tests.support.tiny import tiny_toml

PUSHED = f"{BUCKET}/pushed"


@pytest.fixture(scope="module", autouse=True)
def server() -> Iterator[None]:
    with object_server():
        yield


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory, text_model: Path) -> Path:
    """A working folder whose store is pushed."""
    folder = tmp_path_factory.mktemp("objects")
    make_pairs(folder / "posts", 92)
    more = "[cache]\nshard_rows = 8\n[extract]\nbatch_size = 4\n"
    (folder / "mmsa.toml").write_text(tiny_toml(text_model, "mobilenetv2_035", more))
    call(folder, "extract")
    call(folder, "cache", "push", PUSHED)
    return folder


class Here:
    """A crew of one worker, in this process; its driver may be killed.

    Args:
        worker: It.
        pieces: That are answered before the driver is killed; −1: it is not.
    """

    workers = 1

    def __init__(self, worker: CrewWorker, pieces: int) -> None:
        self._worker, self._left = worker, pieces
        self._hands: list[Piece] = []

    @property
    def capacity(self) -> int:
        return 2 - len(self._hands)

    def submit(self, piece: Piece) -> None:
        self._hands.append(piece)

    def wait(self, timeout: float) -> list[PieceReply]:
        said = [self._worker.run(self._hands.pop(0))]
        self._left -= 1
        if not self._left:
            raise KeyboardInterrupt  # what was sealed just now is never said
        return said

    def forget(self, piece: int) -> None:
        raise AssertionError

    def close(self) -> None:
        pass


@pytest.fixture
def workers_here(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Workers are in this process; takes the numbers of pieces after which drivers are killed."""
    killed: list[int] = []

    def crew(
        self: EngineRequest,
        source: EncoderLoader,
        sealers: list[Sealer],
        device: torch.device,
        size: int,
    ) -> Here:
        sent = pickle.loads(pickle.dumps((source, sealers)))
        return Here(CrewWorker(*sent, device, 1, size), killed.pop() if killed else -1)

    monkeypatch.setattr(EngineRequest, "crew", crew)
    return killed


def every_row(root: Path) -> dict[str, object]:
    return {found.folder.name: rows_of(found.folder) for found in list_features(root)}


def copied(name: str, without: str = "/none/") -> ObjectFolder:
    """What was pushed, at another address, without some of its folders."""
    source, target = ObjectFolder(PUSHED), ObjectFolder(f"{BUCKET}/{name}")
    sizes = {path: size for path, size in source.sizes().items() if without not in path}
    for path, size in sizes.items():
        content = source.ranges([path], [(0, size)])[0]
        assert content is not None
        target.put(path, content)
    return target


def test_what_is_pushed_comes_back(work: Path, tmp_path: Path) -> None:
    pull = ("cache", "pull", PUSHED, "--cache", str(tmp_path / "cache"))
    pulled = call_json(tmp_path, *pull)[0]
    there = local_files(work / "cache")
    assert pulled["repository"] == PUSHED
    assert pulled["revision"] == ""
    assert pulled["files"] == pulled["files_new"] == len(there)
    assert pulled["splits"] == {"train": 80}
    found = local_files(tmp_path / "cache")
    assert found.keys() == there.keys()
    shards = [name for name in there if name.endswith(".h5")]
    assert len(shards) >= 2
    assert all(found[name].read_bytes() == there[name].read_bytes() for name in shards)
    assert not any(str(work.parent).encode() in path.read_bytes() for path in found.values())
    again = call_json(tmp_path, *pull)[0]
    assert (again["files"], again["files_new"]) == (len(there), 0)
    assert every_row(tmp_path / "cache") == every_row(work / "cache")


def test_extraction_into_objects_goes_on_after_kills(
    work: Path, tmp_path: Path, workers_here: list[int]
) -> None:
    target = ObjectFolder(f"{BUCKET}/extracted")
    told = ("extract", "--target", target.url, "--cache", str(tmp_path / "unused"))
    workers_here += [4, 3]
    for times in (1, 2):
        mmsa(work, *told, code=130)
        assert len(target.sizes()) > 2 * times
        assert not [name for name in target.sizes() if name.endswith("index.jsonl")]
    there = len([name for name in target.sizes() if name.endswith(".h5")])
    records = call_json(work, *told)
    rows = sum(record["rows"] for record in records)
    assert 0 < sum(record["rows_already_there"] for record in records) < rows
    assert sum(r["rows_computed"] + r["rows_already_there"] for r in records) == rows
    assert len([name for name in target.sizes() if name.endswith(".h5")]) > there
    assert sum(record["rows_computed"] for record in call_json(work, *told)) == 0
    assert local_files(tmp_path / "unused") == {}
    call(tmp_path, "cache", "pull", target.url, "--cache", str(tmp_path / "cache"))
    assert every_row(tmp_path / "cache") == every_row(work / "cache")


@pytest.mark.faults  # processes take seconds to start; above, they are in this one
def test_processes_put_their_shards_themselves(work: Path, tmp_path: Path) -> None:
    url = f"file://{tmp_path}/objects"
    records = call_json(work, "extract", "--workers", "2", "--target", url)
    assert records[0]["directory"].startswith(url)
    call(tmp_path, "cache", "pull", url, "--cache", str(tmp_path / "cache"))
    assert every_row(tmp_path / "cache") == every_row(work / "cache")


def test_what_is_lost_here_alone_is_fetched(work: Path, tmp_path: Path) -> None:
    pull = ("cache", "pull", PUSHED, "--cache", str(tmp_path / "cache"))
    call(tmp_path, *pull)
    shard = next(p for n, p in local_files(tmp_path / "cache").items() if n.endswith(".h5"))
    shard.unlink()
    assert call_json(tmp_path, *pull)[0]["files_new"] == 1
    assert [verify_features(f.folder) for f in list_features(tmp_path / "cache")] == [[], []]


def test_an_interrupted_pull_goes_on(
    work: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pull = ("cache", "pull", PUSHED, "--cache", str(tmp_path / "cache"))
    real, came = ObjectFolder.fetch, []

    def fetch(self: ObjectFolder, files: dict[str, Path], most: dict[str, int]) -> None:
        shards = [name for name in files if name.endswith(".h5")]
        came.append(len(shards))
        if len(came) == 2:  # the first call reads the indexes
            real(self, {shards[0]: files[shards[0]]}, most)
            raise KeyboardInterrupt
        real(self, files, most)

    monkeypatch.setattr(ObjectFolder, "fetch", fetch)
    mmsa(tmp_path, *pull, code=130)
    assert local_files(tmp_path / "cache") == {}
    call(tmp_path, *pull)
    assert came == [0, 2, 0, 1]
    assert every_row(tmp_path / "cache") == every_row(work / "cache")
    assert not (tmp_path / "cache/.pull").exists()


def test_a_push_adds_and_takes_nothing_away(work: Path, tmp_path: Path) -> None:
    address = f"{BUCKET}/added"
    shutil.copytree(work / "cache", tmp_path / "cache")
    resnet = ("--image-model", "resnet10t", "--image-weights", "random")
    call(work, "extract", "--cache", str(tmp_path / "cache"), *resnet)
    call(work, "cache", "push", address, "--cache", str(tmp_path / "cache"))
    before = ObjectFolder(address).sizes()
    call(work, "cache", "push", address)
    assert ObjectFolder(address).sizes().keys() == before.keys()
    pulled = call_json(tmp_path, "cache", "pull", address, "--cache", str(tmp_path / "pulled"))
    assert len(pulled[0]["encoders"]) == 3
    assert every_row(tmp_path / "pulled") == every_row(tmp_path / "cache")
    said = call(work, "cache", "push", address, "--private", code=2)
    assert "Leave --private out" in said


def test_rows_that_two_drivers_sealed_are_taken_once(work: Path, tmp_path: Path) -> None:
    folder = next(found.folder for found in list_features(work / "cache"))
    target, shard = copied("twice", without=folder.name), open_features(folder).shards[0]
    for first, end in ((0, 50), (30, len(shard))):
        writer = ObjectWriter(target, read_encoder(folder))
        writer.sealer.seal([shard.take(np.arange(first, end))])
        writer.finish()
    assert writer.rows == len(shard) + 20
    pull = ("cache", "pull", target.url, "--cache", str(tmp_path / "cache"))
    assert call_json(tmp_path, *pull)[0]["files_new"] == 8
    assert every_row(tmp_path / "cache") == every_row(work / "cache")
    assert call_json(tmp_path, *pull)[0]["files_new"] == 0


def test_what_does_not_hold_together_is_refused(work: Path, tmp_path: Path) -> None:
    def said(name: str, path: str, content: bytes) -> str:
        copied(name).put(path, content)
        target = tmp_path / "refused"
        result = mmsa(tmp_path, "cache", "pull", f"{BUCKET}/{name}", "--cache", str(target), code=4)
        assert not target.exists()
        return result.stderr

    sizes = ObjectFolder(PUSHED).sizes()
    shard = next(path for path in sizes if path.endswith(".h5"))
    content = bytearray(ObjectFolder(PUSHED).ranges([shard], [(0, sizes[shard])])[0] or b"")
    content[-1] ^= 1
    assert "it has another hash than the object store says" in said("flip", shard, bytes(content))
    index = f"{shard.rpartition('/')[0]}/index.jsonl"
    damaged = said("line", index, b"{}\n")
    assert "not a line of an index" in damaged
    assert f"error: {BUCKET}/line/{index}:1" in damaged
    assert "Delete the folder" not in damaged
    by_hand = f"{shard.rpartition('/')[0]}/{shard.rpartition('/')[2][:16]}.h5"
    assert "Somebody copied them there: use mmsa cache push" in said("copied", by_hand, b"x")
    assert "'model.pkl' is no file of a store" in said("alien", "model.pkl", b"x")
    assert "train.parquet" in said("split", "data/train.parquet", b"PAR1 no PAR1")


def test_what_is_not_finished_is_not_taken(work: Path, tmp_path: Path) -> None:
    folder = next(found.folder for found in list_features(work / "cache"))
    target = ObjectFolder(f"{BUCKET}/started")
    writer = ObjectWriter(target, read_encoder(folder))
    writer.sealer.seal([open_features(folder).shards[0]])
    pull = ("cache", "pull", target.url, "--cache", str(tmp_path / "cache"))
    assert f"no finished store at {target.url}" in call(tmp_path, *pull, code=4)
    assert not (tmp_path / "cache").exists()


def test_credentials_are_shown_and_kept_nowhere(work: Path, tmp_path: Path) -> None:
    shown = [mmsa(work, "cache", "push", PUSHED, "--json").output]
    pull = ("cache", "pull", PUSHED, "--cache", str(tmp_path / "cache"))
    shown.append(mmsa(tmp_path, *pull, "--json").output)
    shown.append(mmsa(work, "cache", "push", f"s3://me:{SECRET}@bucket/x", code=2).output)
    shown.append(mmsa(work, "cache", "push", "s3://nowhere/x", code=4).output)
    assert "There is no bucket for s3://nowhere/x" in shown[-1]
    kept = [p.read_bytes() for top in (work, tmp_path) for p in top.rglob("*") if p.is_file()]
    sizes = ObjectFolder(PUSHED).sizes()
    kept += [
        c for c in ObjectFolder(PUSHED).ranges(list(sizes), [(0, n) for n in sizes.values()]) if c
    ]
    for secret in (SECRET, KEY_ID):
        assert secret not in json.dumps(shown)
        assert not [content for content in kept if secret.encode() in content]
    assert read_split(split_path(tmp_path / "cache", "train"))[0].split == "train"
