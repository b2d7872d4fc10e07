"""A second name of somebody's file, planted where mmsa adds to a file or locks one."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from mmsa_cache.compose import demo
from mmsa_cache.compose.hub import pull
from mmsa_cache.compose.hub.host import RemoteFile, RemoteStore, local_files
from mmsa_cache.compose.hub.hub_host import HubHost
from mmsa_cache.errors import LinkError, SettingsError
from mmsa_cache.files.locks import hold_lock
from mmsa_cache.files.results import check_outputs, write_result
from mmsa_cache.files.sqlite_file import check_sqlite
from mmsa_cache.runs.directory import CHECKPOINT, new_run
from mmsa_cache.runs.json_lines import JsonLines, log_run
from mmsa_cache.store.index import INDEX
from tests.support.shards import ENCODER, write


@pytest.fixture(autouse=True)
def victim(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "work").mkdir()
    monkeypatch.chdir(tmp_path / "work")
    (tmp_path / "precious").write_text("precious\n")
    return tmp_path / "precious"


def lock() -> None:
    with hold_lock(Path("runs/.lock")):
        pass


def train() -> None:
    with new_run("r", {"what": 1}) as (_, folder):
        (folder / CHECKPOINT).mkdir(exist_ok=True)
        os.link("../precious", folder / "metrics.jsonl")
        raise KeyboardInterrupt


@pytest.mark.parametrize(
    ("act", "place"),
    [
        (lambda: log_run("train", "r", 1.0, {}), "runs/log.jsonl"),
        (lambda: JsonLines(Path("studies/s.jsonl")).append("trial"), "studies/s.jsonl"),
        (lock, "runs/.lock"),
        (lambda: check_sqlite(Path("s.db"), write=True), "s.db"),
        (lambda: check_sqlite(Path("s.db"), write=True), "s.db-journal"),
        (lambda: write(Path("cache")), f"{ENCODER.folder(Path('cache'))}/{INDEX}"),
    ],
)
def test_nothing_is_added_to_a_file_of_two_names(
    act: Callable[[], None], place: str, victim: Path
) -> None:
    if INDEX in place:
        write(Path("cache"), 2)
        victim.unlink()
        os.link(place, victim)
    else:
        Path(place).parent.mkdir(exist_ok=True)
        os.link(victim, place)
    before = victim.read_bytes()
    with pytest.raises(LinkError, match=r"has another name \(a hard link\)") as refused:
        act()
    assert f"cp {place} COPY && mv COPY {place}" in refused.value.hint
    assert victim.read_bytes() == before


def test_a_folder_that_is_gone_on_with_holds_none(victim: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        train()
    with pytest.raises(LinkError, match=r"metrics\.jsonl has another name"):
        train()
    assert victim.read_text() == "precious\n"


def test_a_file_that_is_replaced_may_have_one(victim: Path) -> None:
    os.link(victim, "table.csv")
    check_outputs(Path("table.csv"), force=True)
    write_result(Path("table.csv"), "new")
    assert victim.read_text() == "precious\n"


def test_a_pull_that_is_resumed_gives_no_index_a_second_name(victim: Path) -> None:
    """Else the next extraction, which adds to it, would be refused."""
    root, staging = Path("cache"), Path("cache/.pull")
    write(root, 2)
    there = local_files(root)
    remote = RemoteStore(dict.fromkeys(there, RemoteFile(1)))
    for _ in range(2):
        pull._stage(HubHost("hf://me/posts"), remote, staging, there)
    assert {path.stat().st_nlink for path in root.rglob("*.h5")} == {2}
    write(root)
    (staging / ".cache").mkdir()
    os.link(victim, staging / ".cache/a.incomplete")
    with pytest.raises(LinkError, match=r"a\.incomplete has another name"):
        pull._stage(HubHost("hf://me/posts"), remote, staging, there)


def test_the_demo_makes_no_posts_among_somebodys(victim: Path) -> None:
    Path("posts/pairs").mkdir(parents=True)
    Path("posts/pairs/1.txt").write_text("mine")
    with pytest.raises(SettingsError, match="posts is not the demo's"):
        demo.run(Path(), 60, 1)
    assert [path.name for path in Path().rglob("*.*")] == ["1.txt"]
