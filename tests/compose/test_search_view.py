"""What a person sees while a search runs."""

from __future__ import annotations

import io
import time

import pytest
from optuna.trial import TrialState, create_trial
from rich.console import Console

from fuse.search.coordinator import Progress, Running
from fuse.search.trial_record import Trial, TrialRecord, TrialResult
from fuse.setting import Setting
from mmsa_cache.compose.search import view as live


def make_progress() -> Progress:
    trials = []
    for number, value in enumerate((0.61, 0.64, 0.62)):
        trial = create_trial(value=value, params={})
        trial.number = number
        units = [value - 0.01, value, value + 0.01]
        result = TrialResult(units=units, parameters=1, seconds=1.0)
        trials.append(Trial(trial, TrialRecord(setting={}, result=result)))
    pruned = create_trial(state=TrialState.PRUNED)
    trials.append(Trial(pruned, TrialRecord(setting={})))
    running = Running(4, Setting(), units=[0.6], epoch=3, steps={4: 0.6})
    return Progress(
        10,
        3,
        trials,
        finished_before=1,
        started=time.monotonic() - 90,
        running={4: running},
        failures=[(5, "The loss is nan in epoch 2.")],
    )


def test_one_line_has_rate_time_left_and_the_best() -> None:
    assert live.line_of(make_progress()) == (
        "4/10 trials, 2.0/min, 3 min 0 s left, best 0.6400 (trial 1), 1 failed"
    )


def test_the_table_fits_a_narrow_terminal() -> None:
    console = Console(width=60, record=True, file=io.StringIO())
    console.print(live.table_of("study s", make_progress()))
    text = console.export_text()
    lines = text.splitlines()
    assert lines[0].strip() == "study s"
    assert lines[1].split() == ["trial", "score", "±", "s.e.", "setting"]
    assert [line.split()[0] for line in lines[2:6]] == ["1", "2", "0", "4"]
    assert lines[2].split()[1:3] == ["0.6400", "0.0058"]
    assert "training 2/3, epoch 3" in lines[5]
    assert "Trial 5 failed: The loss is nan in epoch 2." in text
    assert all(len(line) <= 60 for line in lines[:6])


def test_off_a_terminal_failures_and_the_end_are_told(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(live, "human", Console(force_terminal=False))
    told: list[str] = []
    monkeypatch.setattr(live, "say", told.append)
    with live.watch("study s") as show:
        progress = make_progress()
        show(progress)
        show(progress)
        progress.wanted = 4
        show(progress)
        show(progress)
    assert told == [
        "Trial 5 failed: The loss is nan in epoch 2.",
        f"study s: {live.line_of(progress)}",
    ]
