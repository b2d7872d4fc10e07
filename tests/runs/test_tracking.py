"""Records of runs: JSON lines, and what TensorBoard, MLflow and W&B files hold when read back."""

from __future__ import annotations

import os
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from optuna.trial import TrialState, create_trial

from mmsa_cache.errors import SettingsError
from mmsa_cache.runs import tracking
from mmsa_cache.runs.json_lines import JsonLines, TrialLines
from mmsa_cache.runs.trackers import TRACKERS, TrackedRun
from mmsa_cache.runs.tracking import Tracking, check_trackers, flatten_scalars
from tests.support.tracker_files import read_events, read_mlflow, read_wandb


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> TrackedRun:
    monkeypatch.chdir(tmp_path)
    for name in [name for name in os.environ if name.startswith(("WANDB", "MLFLOW"))]:
        monkeypatch.delenv(name)
    return TrackedRun("a run", tmp_path / "events", {"fusion": "gated", "text_dim": 16})


def record(name: str, place: TrackedRun, *, broken: bool) -> None:
    with tracking.tracking([name, name], place) as tracked:
        for step in (1, 2):
            for member in (1, 2):
                tracked.log(f"member-{member}", step, {"loss": step / 4, "note": "left out"})
        tracked.log("trial", 7, {"mean@1+mean": 0.5})
        if broken:
            raise KeyboardInterrupt
        tracked.final = {"outer/accuracy": 0.75}


@pytest.mark.parametrize("name", ["tensorboard", "mlflow", "wandb"])
def test_every_tracker_keeps_what_it_is_told(name: str, place: TrackedRun) -> None:
    with pytest.raises(KeyboardInterrupt):
        record(name, place, broken=True)
    record(name, place, broken=False)
    if name == "tensorboard":  # in the run's own folder: of the last try only
        assert len(list(place.folder.iterdir())) == 1
        found = [read_events(place.folder)]
    elif name == "mlflow":
        runs = read_mlflow(Path("runs/mlflow.db"))
        assert [status for _, _, status in runs] == ["KILLED", "FINISHED"]
        assert runs[0][1] == runs[1][1] == {"fusion": "gated", "text_dim": "16"}
        assert not Path("mlruns").exists()
        found = [values for values, _, _ in runs]
    else:
        whole = read_wandb(Path("runs/wandb"))
        assert [code for _, _, code in whole] == [1, 0]
        assert all((c["fusion"], c["text_dim"]) == ("gated", 16) for _, c, _ in whole)
        found = [values for values, _, _ in whole]
    want = {(f"member-{m}/loss", s): s / 4 for m in (1, 2) for s in (1, 2)}
    for values in found:
        assert want.items() <= values.items()
        assert [value for (key, step), value in values.items() if step == 7 and "mean" in key] == [
            0.5
        ]
    assert found[-1]["final/outer/accuracy", 0] == 0.75
    assert all(("final/outer/accuracy", 0) not in values for values in found[:-1])


def test_a_tracker_that_fails_is_dropped(
    place: TrackedRun, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    class Failing:
        def __init__(self, place: TrackedRun) -> None:
            self.calls = 0

        def log(self, series: str, step: int, values: dict[str, float]) -> None:
            self.calls += 1
            raise ConnectionError("no such server")

        def close(self, final: dict[str, float] | None) -> None:
            raise AssertionError("it was dropped")

    failing = Failing(place)
    monkeypatch.setitem(TRACKERS, "wandb", (lambda place: failing, "json"))
    with tracking.tracking(["wandb", "tensorboard"], place) as tracked:
        tracked.log("member-1", 1, {"loss": 1.0})
        tracked.log("member-1", 2, {"loss": 0.5})
    assert failing.calls == 1
    said = capsys.readouterr().err
    assert said.count("Tracking by wandb ended: ConnectionError: no such server") == 1
    assert read_events(place.folder)["member-1/loss", 2] == 0.5


def test_unknown_and_missing_trackers_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(SettingsError, match=r"Unknown --track 'comet'\.\n.*tensorboard, mlflow"):
        check_trackers(["comet"])
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(SettingsError, match=r"needs the package wandb\.\n.*'mmsa\[wandb\]'"):
        check_trackers(["wandb"])


def test_numbers_are_taken_by_their_path() -> None:
    values = {"a": {"b": 1, "c": [2]}, "text": "x", "yes": True, "none": None, "d": 0.5}
    assert flatten_scalars(values) == {"a/b": 1.0, "d": 0.5}


def test_half_a_line_of_a_killed_process_costs_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "lines.jsonl"
    JsonLines(path).append("epoch", member=1, note="ü")
    with path.open("ab") as file:
        file.write(b'{"event": "epo')
    JsonLines(path).append("final", accuracy=0.5)
    assert JsonLines(path).read() == [
        {"event": "epoch", "member": 1, "note": "ü"},
        {"event": "final", "accuracy": 0.5},
    ]
    assert JsonLines(path, fresh=True).read() == []


def test_each_trial_is_written_once_and_told_to_every_tracker(tmp_path: Path) -> None:
    told: list[tuple[str, int, dict[str, float]]] = []

    class Listening:
        def log(self, series: str, step: int, values: dict[str, float]) -> None:
            told.append((series, step, dict(values)))

        def close(self, final: dict[str, float] | None) -> None: ...

    def trial(number: int, state: TrialState, value: float | None) -> Any:
        made = create_trial(state=state, value=value)
        made.number, made.params = number, {"text_dim": 16, "fusion": "late"}
        made.datetime_complete = datetime(2026, 1, 1, 0, 0, number, tzinfo=UTC)
        return made

    trials = [trial(0, TrialState.COMPLETE, 0.5), trial(1, TrialState.PRUNED, None)]
    trials.append(create_trial(state=TrialState.RUNNING))
    lines = JsonLines(tmp_path / "study.jsonl")
    first = TrialLines(lines, Tracking({}))
    first.add(trials)
    first.add(trials)
    again = TrialLines(lines, Tracking({"here": Listening()}))
    again.add([*trials[:2], trial(2, TrialState.FAIL, None)])
    again.end({"outer_score": 0.25, "trial": 0.0})
    assert [(x.get("trial"), x.get("state"), x.get("score")) for x in lines.read()] == [
        (0, "complete", 0.5),
        (1, "pruned", None),
        (2, "fail", None),
        (None, None, None),
    ]
    assert lines.read()[0]["parameters"] == {"text_dim": 16, "fusion": "late"}
    assert lines.read()[-1] == {
        "event": "final",
        "figures": {"outer_score": 0.25, "trial": 0.0},
    }
    assert told[0] == ("trial", 0, {"text_dim": 16.0, "score": 0.5})
    assert [step for _, step, _ in told] == [0, 1, 2]
