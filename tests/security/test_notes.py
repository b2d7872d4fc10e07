"""What mmsa keeps for itself, by somebody else: lines of trials, notes of pulls, splits."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from fuse.evidence.ablation import Ablation
from fuse.evidence.training_plan import TrainingPlan
from fuse.search.pool import TrainingData, WorkerOptions
from fuse.setting import Setting
from mmsa_cache.compose import demo
from mmsa_cache.compose.hub import pull
from mmsa_cache.compose.session.store import Store
from mmsa_cache.data.protocol import Protocol
from mmsa_cache.data.stored_split import read_split, split_path
from mmsa_cache.errors import LinkError, ModelError, SettingsError
from mmsa_cache.files.result_store import ResultStore
from mmsa_cache.runs.folder import RunFolder
from mmsa_cache.runs.json_lines import JsonLines, TrialLines
from mmsa_cache.runs.trackers import TrackedRun
from mmsa_cache.runs.tracking import tracking
from tests.support.fake_search import (
    GROUPS,
    LABELS,
    ORIGIN,
    FakeFit,
    FakeSource,
    fake_predict,
    run,
    start_thread,
)
from tests.support.made_up_run import write_run
from tests.support.study_records import trials_of


@pytest.fixture(autouse=True)
def work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "work").mkdir()
    monkeypatch.chdir(tmp_path / "work")
    return tmp_path / "work"


def test_lines_of_trials_of_any_kind_are_passed_over(tmp_path: Path) -> None:
    run(tmp_path / "s.db", tmp_path, 1, start=start_thread)
    lines = JsonLines(Path("studies/s.jsonl"))
    lines.path.write_text('{"trial": [1], "ended": {}}\n{"trial": 1e999}\n[]\n7\n')
    with tracking([], TrackedRun("s", Path("events"), {})) as tracked:
        for _ in range(2):  # the second time each is there already
            TrialLines(lines, tracked).add(trials_of(tmp_path / "s.db"))
    assert [line.get("trial") for line in lines.read()] == [[1], 0]


@pytest.mark.parametrize(
    "files", [{"data/train.parquet": 5}, {"data/train.parquet": None}, ["data/train.parquet"], 7]
)
def test_a_note_of_a_pull_that_is_none_counts_as_missing(tmp_path: Path, files: object) -> None:
    note = {"repository": "me/posts", "files": files}
    (tmp_path / pull._NOTE).write_text(json.dumps(note))
    assert pull._read_note(tmp_path, "me/posts") == {}


@pytest.mark.parametrize("place", ["cache/data", "cache/data/train.parquet"])
def test_a_split_of_another_store_is_not_read_through_a_link(tmp_path: Path, place: str) -> None:
    """A push would share its texts."""
    theirs = tmp_path / "theirs/data/train.parquet"
    theirs.parent.mkdir(parents=True)
    theirs.write_bytes(np.random.default_rng(0).bytes(99))
    Path(place).parent.mkdir(parents=True)
    Path(place).symlink_to(theirs if place.endswith("parquet") else theirs.parent)
    reads: list[Callable[[], object]] = [
        lambda: read_split(split_path(Path("cache"), "train")),
        lambda: Store(Path("cache")).split("train"),
    ]
    for read in reads:
        with pytest.raises(LinkError, match=f"{place} is a link"):
            read()


@pytest.mark.parametrize("kind", ["pipe", "large", "folder", "other"])
def test_settings_that_are_not_the_demos_are_left_alone(kind: str) -> None:
    path = Path("mmsa.toml")
    make: dict[str, Callable[[], object]] = {
        "pipe": lambda: os.mkfifo(path),
        "large": lambda: path.write_bytes(bytes(2 << 20)),
        "folder": path.mkdir,
        "other": lambda: path.write_text("[data]\n"),
    }
    make[kind]()
    with pytest.raises(SettingsError, match=r"mmsa\.toml is not the demo's"):
        demo.run(Path(), 60, 1)
    assert [*Path().iterdir()] == [path]


@pytest.mark.parametrize("predicted", [[7] * 40, [3] * 40, [], [0] * 99])
def test_trainings_on_the_shelf_that_do_not_fit_are_run_again(
    tmp_path: Path, predicted: list[int]
) -> None:
    shelf = ResultStore(tmp_path / "shelf")
    how = TrainingPlan.of(Protocol(outer="grouped", folds=3, seed=1), LABELS, GROUPS)

    def ablation() -> Ablation:
        data = TrainingData(FakeSource(), LABELS, GROUPS, ORIGIN)
        workers = WorkerOptions(("cpu",), FakeFit(tmp_path), fake_predict, start_thread)
        return Ablation([Setting(epochs=1, keep="last")], how, data, shelf, "macro_f1", workers)

    ablation().run()
    files = sorted((tmp_path / "shelf").glob("*.json"))
    assert len(ablation().finished) == len(files) == 3
    record = json.loads(files[0].read_text())
    record["record"]["predicted"] = predicted
    files[0].write_text(json.dumps(record))
    assert len(ablation().finished) == 2


@pytest.mark.parametrize("name", ["predictions.csv", "config.json", "metrics.json", "env.json"])
def test_files_of_a_run_are_not_links_that_lead_out(tmp_path: Path, name: str) -> None:
    """Else what is wrong with somebody's file is quoted."""
    Path("runs").mkdir()
    run_folder = write_run(Path("runs/r"))
    (tmp_path / "outside").write_text("precious")
    theirs, own = run_folder / name, Path("own")
    theirs.rename(own)
    reads = {"predictions.csv": "predictions", "config.json": "record"}
    reads |= {"metrics.json": "figures", "env.json": "environment"}
    theirs.symlink_to(tmp_path / "outside")
    with pytest.raises(ModelError, match=f"{name} is a link that leads out") as refused:
        getattr(RunFolder(run_folder), reads[name])
    assert "precious" not in str(refused.value)
    theirs.unlink()
    theirs.symlink_to(own.absolute())  # as some tools keep versions
    assert getattr(RunFolder(run_folder), reads[name])
