"""Links planted where mmsa writes, moves or removes: what they lead to is left alone."""

from __future__ import annotations

import os
import platform
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from fuse.training.checkpoints import FolderCheckpoint
from mmsa_cache.compose import demo
from mmsa_cache.compose.hub import pull, push
from mmsa_cache.compose.hub.host import RemoteStore
from mmsa_cache.compose.hub.hub_host import HubHost
from mmsa_cache.config.loading import load_settings
from mmsa_cache.data.set_aside import write_set_aside
from mmsa_cache.errors import LinkError, MmsaError, SettingsError
from mmsa_cache.features.source import _sweep
from mmsa_cache.files.disk import make_folders, write_atomically
from mmsa_cache.files.hashing import digest
from mmsa_cache.files.paths import open_parent, resolve_declared
from mmsa_cache.files.result_store import ResultStore
from mmsa_cache.runs.directory import CHECKPOINT, new_run
from mmsa_cache.runs.folder import write_json
from mmsa_cache.runs.json_lines import JsonLines, log_run
from mmsa_cache.runs.trackers import TRACKERS, TrackedRun
from mmsa_cache.store.index import INDEX
from mmsa_cache.store.listing import list_features, remove_features
from mmsa_cache.store.older_schema import older_caches, remove_older
from mmsa_cache.store.reader import open_features
from tests.support.shards import ENCODER, write
from tests.support.small_work import QUICK, call, make_work

IDENTITY = {"what": 1}
UNFINISHED = f"runs/.unfinished-{digest(IDENTITY)[:16]}"
FEATURES = ENCODER.folder(Path("cache"))
ASIDE = "train.set-aside.json"
DEAD = f"{platform.node()}-4194304-00000000"
"""Mark of a process that there cannot be."""


def train() -> None:
    """Writes what a run writes."""
    with new_run("r", IDENTITY) as (_, folder):
        FolderCheckpoint(folder / CHECKPOINT, seconds=0).save(0, {"stopped": True})
        JsonLines(folder / "metrics.jsonl", fresh=True).append("epoch")
        write_json(folder / "config.json", {})
        write_atomically(folder / "model.safetensors", b"weights")
    log_run("train", "r", 1.0, {})


def search() -> None:
    JsonLines(Path("studies/s.jsonl")).append("trial")


def track(name: str) -> Callable[[], None]:
    def act() -> None:
        TRACKERS[name][0](TrackedRun("s", Path("studies/tensorboard/s"), {})).close({})

    return act


def seal() -> None:
    write(Path("cache"))
    open_features(FEATURES)


def prune() -> None:
    remove_features(list_features(Path("cache")), really=True)
    for folder in older_caches(Path("cache")):
        remove_older(folder, really=True)


def set_aside() -> None:
    write_set_aside(Path("cache"), "train", Path("posts"), "", [])


def shelve() -> None:
    shelf = ResultStore(Path("runs/.ablation"))
    with shelf.exclusive():
        shelf.put(IDENTITY, {"score": 1})


def stage_a_pull() -> None:
    pull._stage(HubHost("hf://me/posts"), RemoteStore({}), Path("cache/.pull"), {})


def stage_a_push() -> None:
    with push._staging(Path("cache")) as place:
        push._link_features(Path("cache"), place)


def demonstrate() -> None:
    make_folders(Path("demo"))
    demo.make_posts(Path("demo/posts"), 2, seed=1)


REFUSED = [
    *((train, f"{UNFINISHED}{name}") for name in ("", ".lock", "/checkpoint", "/tensorboard")),
    *((train, f"{UNFINISHED}/{name}") for name in ("metrics.jsonl", "config.json", "report.html")),
    *((train, f"{UNFINISHED}/{name}") for name in ("model.safetensors", "checkpoint/member-0000")),
    *((train, place) for place in ("runs", "runs/log.jsonl")),
    *((search, place) for place in ("studies", "studies/s.jsonl")),
    *((track("tensorboard"), f"studies{name}") for name in ("", "/tensorboard", "/tensorboard/s")),
    *((track("mlflow"), place) for place in ("runs", "runs/mlflow.db")),
    *((track("wandb"), place) for place in ("runs", "runs/wandb")),
    *((seal, place) for place in ("cache", "cache/features", "cache/features/text")),
    *((seal, f"{FEATURES}{name}") for name in ("", f"/{INDEX}", "/encoder.json")),
    *((seal, f"{FEATURES.parent}/.{FEATURES.name}{n}") for n in (".lock", ".1-of-1.claim")),
    *((set_aside, place) for place in ("cache", "cache/data")),
    *((set_aside, f"cache/data/{n}") for n in (".train.set-aside.json.lock", ASIDE)),
    *((shelve, f"runs/.ablation{name}") for name in ("", "/.lock")),
    *((stage_a_pull, f"cache/.pull{name}") for name in ("", "/data", "/.cache", "/data/a.parquet")),
    *((demonstrate, f"demo{name}") for name in ("", "/posts", "/posts/pairs")),
]
"""What is done, and where a link is refused."""
REPLACED = [
    (seal, f"{FEATURES}/.verified.json"),
    (demonstrate, "demo/posts/pairs/1.txt"),
    (demonstrate, "demo/posts/train.txt"),
]
"""Where a link gives way to a file."""


@pytest.fixture
def victim(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder outside; the working folder is another one."""
    folder = tmp_path / "outside"
    (folder / "s").mkdir(parents=True)
    for path in (folder / "precious", folder / "s" / "precious"):
        path.write_text("precious")
    (tmp_path / "work").mkdir()
    monkeypatch.chdir(tmp_path / "work")
    return folder


def plant(place: str, victim: Path) -> None:
    """Puts a link to a file where a file belongs, else to a folder."""
    path = Path(place)
    path.parent.mkdir(parents=True, exist_ok=True)
    is_file = path.suffix in (".json", ".jsonl", ".lock", ".claim", ".db", ".txt", ".parquet")
    path.symlink_to(victim / "precious" if is_file else victim)


def tree(folder: Path) -> dict[str, bytes]:
    """All that lies in a folder."""
    return {str(p): p.read_bytes() if p.is_file() else b"" for p in folder.rglob("*")}


@pytest.mark.parametrize(("act", "place"), REFUSED)
def test_nothing_is_written_through_a_link(
    act: Callable[[], None], place: str, victim: Path
) -> None:
    before = tree(victim)
    plant(place, victim)
    with pytest.raises(MmsaError) as refused:
        act()
    if not place.startswith(f"{FEATURES}/") and not place.endswith(ASIDE):  # they are damage
        assert isinstance(refused.value, LinkError)
        assert f"{place} is a link" in refused.value.message
        assert "Remove it, or name the folder that it leads to" in refused.value.hint
    assert tree(victim) == before
    assert Path(place).is_symlink()


@pytest.mark.parametrize(("act", "place"), REPLACED)
def test_a_link_is_replaced_and_not_written_through(
    act: Callable[[], None], place: str, victim: Path
) -> None:
    before = tree(victim)
    plant(place, victim)
    act()
    assert tree(victim) == before
    assert not Path(place).is_symlink()


@pytest.mark.parametrize("place", ["cache", "cache/features", "cache/features/text"])
def test_prune_removes_nothing_behind_a_link(place: str, victim: Path) -> None:
    write(victim / "cache")
    before = tree(victim)
    Path(place).parent.mkdir(parents=True, exist_ok=True)
    Path(place).symlink_to(victim / place)
    with pytest.raises(LinkError, match=f"{place} is a link"):
        prune()
    assert tree(victim) == before


@pytest.mark.parametrize("place", ["cache", "cache/train", "cache/train/text"])
def test_prune_removes_nothing_of_an_older_cache_behind_a_link(place: str, victim: Path) -> None:
    folder = victim / "cache" / "train" / "text" / "bert"
    folder.mkdir(parents=True)
    for name in ("manifest.json", "shard-0.h5"):
        (folder / name).write_text("precious")
    before = tree(victim)
    Path(place).parent.mkdir(parents=True, exist_ok=True)
    Path(place).symlink_to(victim / place)
    with pytest.raises(LinkError, match=f"{place} is a link"):
        prune()
    assert tree(victim) == before


def test_what_killed_processes_left_is_not_removed_through_links(victim: Path) -> None:
    write(Path("cache"))
    before = tree(victim)
    links = [Path(f"cache/.push-{DEAD}"), Path(f"studies/.derived-{DEAD}")]
    links += [FEATURES / f".tmp-shard.{DEAD}.1", FEATURES / f"{'0' * 16}.h5"]
    Path("studies").mkdir()
    for link in links:
        link.symlink_to(victim)
    stage_a_push()
    _sweep(Path("studies"))
    seal()
    assert tree(victim) == before
    assert [link.is_symlink() for link in links] == [True, True, False, False]


def test_a_run_is_not_removed_or_published_through_links(victim: Path) -> None:
    before = tree(victim)

    def interrupted(place: str) -> None:
        with new_run("r", IDENTITY) as (_, folder):
            shutil.rmtree(folder)
            (folder.parent / place).symlink_to(victim)
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted(Path(UNFINISHED).name)
    Path(UNFINISHED).unlink()
    with pytest.raises(SettingsError, match="exists by now"), new_run("r", IDENTITY):
        Path("runs/r").symlink_to(victim / "none")
    assert tree(victim) == before
    assert not (victim / "none").exists()


def test_a_step_that_becomes_a_link_meanwhile_leads_nowhere(victim: Path) -> None:
    Path("a/b").mkdir(parents=True)
    with open_parent(Path("a/b/file")) as (folder, name):
        Path("a").rename("old")
        Path("a").symlink_to(victim)
        os.close(os.open(name, os.O_CREAT | os.O_EXCL | os.O_WRONLY, dir_fd=folder))
    assert Path("old/b/file").exists()
    assert not (victim / "b").exists()


def test_what_is_no_file_is_neither_waited_for_nor_written(victim: Path) -> None:
    for place, act in (("runs/log.jsonl", train), ("studies/s.jsonl", search)):
        Path(place).parent.mkdir(exist_ok=True)
        os.mkfifo(place)
        with pytest.raises(LinkError, match=f"{place} is no regular file"):
            act()
    with pytest.raises(SettingsError, match=r"s\.jsonl cannot be read: it is no regular file"):
        JsonLines(Path("studies/s.jsonl")).read()
    Path("studies/s.jsonl").unlink()
    Path("studies/s.jsonl").touch()
    os.truncate("studies/s.jsonl", 1 << 40)
    with pytest.raises(SettingsError, match=r"s\.jsonl cannot be read: it is larger than"):
        JsonLines(Path("studies/s.jsonl")).read()


def test_the_demo_writes_over_nobodys_settings(victim: Path) -> None:
    Path("mmsa.toml").write_text("precious")
    with pytest.raises(SettingsError, match=r"mmsa\.toml is not the demo's"):
        demo.run(Path(), 60, 1)
    assert [path.name for path in Path().iterdir()] == ["mmsa.toml"]
    Path("mmsa.toml").unlink()
    Path("mmsa.toml").symlink_to(victim / "precious")
    with pytest.raises(SettingsError, match=r"mmsa\.toml is not the demo's"):
        demo.run(Path(), 60, 1)
    assert (victim / "precious").read_text() == "precious"


def test_links_outside_the_working_folder_are_the_users_own(victim: Path, tmp_path: Path) -> None:
    (tmp_path / "disk").symlink_to(victim)
    (tmp_path / "circle").symlink_to(tmp_path / "circle")
    Path("own").symlink_to(victim)
    folder = load_settings({"cache.dir": tmp_path / "disk" / "cache"}, environ={}).cache.dir
    assert folder == victim / "cache"
    write(folder)
    assert list_features(victim / "cache")
    assert resolve_declared(tmp_path / "circle") == tmp_path / "circle"
    assert resolve_declared(Path("~nobody-of-this-name/x")) == Path("~nobody-of-this-name/x")
    inside = load_settings({"cache.dir": "own/cache"}, environ={}).cache.dir
    with pytest.raises(LinkError, match="own is a link"):
        write(inside)


def test_the_command_line_names_the_link_and_the_cure(text_model: Path, victim: Path) -> None:
    Path("cache").symlink_to(victim)
    before = tree(victim)
    with pytest.raises(AssertionError, match="cache is a link"):
        make_work(Path.cwd(), text_model)
    said = call(Path.cwd(), "extract", code=2)
    assert "cache is a link: nothing is written through links" in said
    assert "or name the folder that it leads to (as --cache DIR" in said
    assert tree(victim) == before
    call(Path.cwd(), "extract", "--cache", str(victim / "cache"))
    plant("runs/log.jsonl", victim)
    train = ("train", *QUICK, "--name", "r", "--cache", str(victim / "cache"))
    assert "runs/log.jsonl is a link" in call(Path.cwd(), *train, code=2)
    assert (victim / "precious").read_text() == "precious"
