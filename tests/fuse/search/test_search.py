"""Searches: exact counts, repetition, kills, several coordinators, choices, study files."""

from __future__ import annotations

import contextlib
import gzip
import os
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import optuna
import pytest
import torch
from optuna.distributions import CategoricalDistribution, FloatDistribution
from optuna.trial import TrialState, create_trial
from sklearn.metrics import f1_score, log_loss

from fuse.models.squares import squared_distances
from fuse.search.choice import choose_trial, summarise_studies
from fuse.search.database import parse_address, read_studies
from fuse.search.importance import best_by_value, importances, loss_weight_scores
from fuse.search.ledger import Ledger
from fuse.search.messages import FoldPredictions
from fuse.search.progress import SearchProgress
from fuse.search.pruning import PruningRule, step_of
from fuse.search.sampling import draw
from fuse.search.selection import SELECT, ScoredTrial, optimism, scored_trials, select, ties
from fuse.search.snapshot import take_snapshot
from fuse.search.study import StudyConfig
from fuse.search.study_file import find_study, known_studies, read_study
from fuse.search.trial_record import Trial, TrialRecord
from fuse.setting import Setting, restore
from mmsa_cache.data.splits import outer_split
from mmsa_cache.errors import DeviceError, MmsaError, ModelError, SettingsError
from tests.support.coordinators import (
    kill,
    read_lines,
    run_here,
    start,
    two_coordinators,
    wait_for_trainings,
)
from tests.support.fake_search import (
    EPOCHS,
    GROUPS,
    LABELS,
    ORIGIN,
    FakeFit,
    make_study,
    run,
    score_of,
)
from tests.support.study_records import assert_gone, figures, states, trials_of


def test_a_search_ends_with_the_exact_number_and_a_judged_choice(tmp_path: Path) -> None:
    record = run_here(tmp_path / "s.db", tmp_path, 9, devices=["cpu"] * 2)
    assert record["trials"] == {"complete": 9, "pruned": 0, "fail": 0}
    trials = trials_of(tmp_path / "s.db")
    best = max(trials, key=lambda t: t.value)
    assert record["trial"] == best.number
    assert record["inner_units"] == best.user_attrs["result"]["units"]
    assert best.value == np.mean(record["inner_units"])
    _, outer = outer_split("grouped", LABELS, GROUPS, 1)
    right = np.where(outer % 4 == 0, (LABELS[outer] + 1) % 3, LABELS[outer])
    assert record["outer_score"] == pytest.approx(f1_score(LABELS[outer], right, average="macro"))
    assert record["optimism_gap"] == record["inner_score"] - record["outer_score"]
    low, high = record["optimism_interval"]
    assert low < record["optimism_gap"] < high
    assert record["looks_at_outer_rows"] == 1
    assert 0 < record["overhead_share"] <= 1


def test_interrupted_and_unbroken_searches_have_the_same_trials(tmp_path: Path) -> None:
    rule = {"kind": "percentile", "keep": 0.5, "startup": 3, "warmup": 1}
    study = make_study(pruner=rule)
    run_here(tmp_path / "whole.db", tmp_path, 14, study=study)
    whole = figures(tmp_path / "whole.db")
    assert {state for _, state, _, _ in whole} == {"COMPLETE", "PRUNED"}
    for trials in (3, 3, 8):
        run_here(tmp_path / "parts.db", tmp_path, trials, study=study)

    def interrupt(progress: SearchProgress) -> None:
        if progress.finished == 10 and any(r.epoch > 1 for r in progress.running.values()):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run_here(tmp_path / "parts.db", tmp_path, 14, study=study, on_change=interrupt)
    assert "RUNNING" not in states(tmp_path / "parts.db")
    assert states(tmp_path / "parts.db").get("WAITING") == 1
    run_here(tmp_path / "parts.db", tmp_path, 14, study=study)
    assert figures(tmp_path / "parts.db") == whole
    other = figures_of_seed(tmp_path, 2, study)
    assert other != whole


def figures_of_seed(folder: Path, seed: int, study: StudyConfig) -> list[Any]:
    run_here(folder / "other.db", folder, 4, study=study, seed=seed)
    return figures(folder / "other.db")


def test_no_point_of_the_random_phase_is_drawn_twice(tmp_path: Path) -> None:
    for trials in (1, 2, 5, 8):
        run_here(tmp_path / "s.db", tmp_path, trials)
    rates = [params["learning_rate"] for _, _, params, _ in figures(tmp_path / "s.db")]
    assert len(set(rates)) == 8
    space = {"fusion": ["concat", "combine"], "dropout": [0.1, 0.2, 0.3]}
    study = make_study("lists", space=space)
    run_here(tmp_path / "s.db", tmp_path, 6, study=study)
    drawn = [tuple(t.params.values()) for t in trials_of(tmp_path / "s.db", "lists")]
    assert len(set(drawn)) == 6, "a space of six points was not gone through in six trials"


def test_another_space_or_seed_is_refused_by_name(tmp_path: Path) -> None:
    run_here(tmp_path / "s.db", tmp_path, 1)
    with pytest.raises(SettingsError, match="seed: the study has 1, expected 2"):
        run_here(tmp_path / "s.db", tmp_path, 2, seed=2)
    with pytest.raises(SettingsError, match="folds: the study has 3"):
        run_here(tmp_path / "s.db", tmp_path, 2, study=make_study(folds=4))


def test_diverging_trials_are_named_and_the_study_goes_on(tmp_path: Path) -> None:
    fit = FakeFit(tmp_path, nan_from=0.02)
    record = run_here(tmp_path / "s.db", tmp_path, 8, fit=fit)
    assert record["trials"]["complete"] == 8
    assert record["trials"]["fail"] == len(record["failed"]) > 0
    assert all(f["reason"] == "The loss is nan in epoch 1." for f in record["failed"])


def test_a_search_whose_trials_all_fail_ends_clearly(tmp_path: Path) -> None:
    with pytest.raises(DeviceError, match="5 of 5 trials failed") as caught:
        run_here(tmp_path / "s.db", tmp_path, 50, fit=FakeFit(tmp_path, nan_from=0.0))
    assert "trial 4: The loss is nan" in str(caught.value)
    assert states(tmp_path / "s.db") == {"FAIL": 5}


class _OutOfMemory(FakeFit):
    def __call__(self, setting: Setting, *arguments: Any, **options: Any) -> Any:
        if setting.text_dim == 32:
            raise RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate")
        return super().__call__(setting, *arguments, **options)


def test_out_of_memory_fails_one_trial(tmp_path: Path) -> None:
    record = run_here(tmp_path / "s.db", tmp_path, 6, fit=_OutOfMemory(tmp_path))
    assert record["trials"]["complete"] == 6
    assert "can't allocate memory" in record["failed"][0]["reason"]


class _ComparesRows(FakeFit):
    def __call__(self, *arguments: Any, **options: Any) -> Any:
        def block(vectors: Mapping[str, torch.Tensor]) -> torch.Tensor:
            with (self.folder / "compared.txt").open("a") as log:
                log.write("once\n")
            return vectors["rows"]

        rows = {"rows": torch.eye(2)}
        assert squared_distances(block, rows, rows, rows.values()).tolist() == [[0, 2], [2, 0]]
        return super().__call__(*arguments, **options)


def test_the_trials_of_a_worker_share_distances(tmp_path: Path) -> None:
    run_here(tmp_path / "s.db", tmp_path, 3, fit=_ComparesRows(tmp_path), devices=["cpu"])
    assert (tmp_path / "compared.txt").read_text().count("once") == 1  # both sides are the same


def test_a_second_look_at_the_outer_rows_is_counted(tmp_path: Path) -> None:
    looks = []
    for trials in (2, 2, 12):
        record = run_here(tmp_path / "s.db", tmp_path, trials)
        looks.append((record["looks_at_outer_rows"], record["trial"]))
    assert looks[0] == looks[1], "the same choice was judged twice"
    assert looks[2][0] == (2 if looks[2][1] != looks[0][1] else 1)


def test_a_killed_worker_costs_nothing(tmp_path: Path) -> None:
    fit = FakeFit(tmp_path, 0.02, kill=2)
    record = run(tmp_path / "s.db", tmp_path, 6, fit=fit, devices=["cpu"] * 2)
    assert (tmp_path / "killed-1").exists()
    assert record["trials"] == {"complete": 6, "pruned": 0, "fail": 0}
    assert states(tmp_path / "s.db") == {"COMPLETE": 6}
    deaths = [t.user_attrs.get("deaths", 0) for t in trials_of(tmp_path / "s.db")]
    assert sum(deaths) == 2
    for trial in trials_of(tmp_path / "s.db"):
        setting = restore(trial.user_attrs["setting"])
        offsets = np.array(trial.user_attrs["result"]["units"]) - score_of(setting, 0)
        assert set(np.round(offsets, 6)) <= {0.0, 0.01, 0.02}


class _Deadly(FakeFit):
    """A trial with two layers always takes its process with it."""

    def _dies(self) -> bool:
        return (self.folder / "deadly").exists()

    def __call__(self, setting: Setting, *arguments: Any, **options: Any) -> Any:
        if setting.layers == 2 and setting.fusion == "encoder":
            (self.folder / "deadly").touch()
        else:
            (self.folder / "deadly").unlink(missing_ok=True)
        return super().__call__(setting, *arguments, **options)


@pytest.mark.faults
def test_retries_are_capped_and_the_reason_is_kept(tmp_path: Path) -> None:
    record = run(tmp_path / "s.db", tmp_path, 8, fit=_Deadly(tmp_path))
    assert record["trials"]["complete"] == 8
    assert record["failed"]
    assert record["failed"][0]["reason"] == (
        "its worker died 3 times: killed by SIGKILL (out of memory?)"
    )


@pytest.mark.faults
def test_a_killed_coordinator_takes_its_workers_along_and_resumes(tmp_path: Path) -> None:
    process = start(tmp_path / "s.db", tmp_path, 8, seconds=0.05)
    pids = wait_for_trainings(tmp_path, 8)
    kill(process)
    assert_gone(pids)
    left = states(tmp_path / "s.db")
    assert left["RUNNING"] in (1, 2)
    kept = [f for f in figures(tmp_path / "s.db") if f[1] == "COMPLETE"]
    run_here(tmp_path / "s.db", tmp_path, 8)
    assert states(tmp_path / "s.db") == {"COMPLETE": 8}
    assert [f for f in figures(tmp_path / "s.db") if f in kept] == kept


def test_ctrl_c_ends_with_130_and_the_same_command_goes_on(tmp_path: Path) -> None:
    process = start(tmp_path / "s.db", tmp_path, 8, seconds=0.05)
    pids = wait_for_trainings(tmp_path, 8)
    os.killpg(process.pid, signal.SIGINT)  # as a terminal does: to the workers too
    _, err = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "Traceback" not in err
    assert_gone(pids)
    assert "RUNNING" not in states(tmp_path / "s.db")
    assert states(tmp_path / "s.db")["COMPLETE"] >= 1
    run_here(tmp_path / "s.db", tmp_path, 8)
    assert states(tmp_path / "s.db") == {"COMPLETE": 8}
    assert not list(tmp_path.glob(".s.db.owner-*"))


@pytest.mark.faults
def test_a_series_of_kills_ends_with_the_trials_of_an_unbroken_search(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    for _ in range(5):
        before = len(read_lines(tmp_path))
        process = start(tmp_path / "s.db", tmp_path, 20, workers=1, seconds=0.02)
        wait_for_trainings(tmp_path, before + int(rng.integers(1, 9)))
        kill(process)
    run_here(tmp_path / "s.db", tmp_path, 20)
    run_here(tmp_path / "whole.db", tmp_path, 20)
    assert figures(tmp_path / "s.db") == figures(tmp_path / "whole.db")


def test_two_coordinators_share_a_fresh_sqlite_file(tmp_path: Path) -> None:
    two_coordinators(tmp_path / "new" / "s.db", tmp_path)


def test_a_locked_database_is_waited_for(tmp_path: Path) -> None:
    run_here(tmp_path / "s.db", tmp_path, 1)
    lock = (  # locks of this process would not keep it out
        "import sqlite3, sys, time; connection = sqlite3.connect(sys.argv[1]); "
        "connection.execute('begin exclusive'); print(flush=True); time.sleep(1)"
    )
    command = [sys.executable, "-c", lock, str(tmp_path / "s.db")]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as other:
        assert other.stdout is not None
        other.stdout.readline()
        started = time.monotonic()
        run_here(tmp_path / "s.db", tmp_path, 3)
    assert time.monotonic() - started > 0.8
    assert states(tmp_path / "s.db") == {"COMPLETE": 3}


def test_addresses(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    hidden = str(parse_address("postgresql://me:secret@host/db"))
    assert hidden == "postgresql+pg8000://me:***@host/db"
    for wrong in ("mysql://host/db", "sqlite://", "sqlite:///:memory:", "here"):
        with pytest.raises(SettingsError, match="--storage"):
            parse_address(wrong)
    monkeypatch.setattr("fuse.search.locks.PATIENCE", 0.2)
    pytest.importorskip("pg8000")
    with pytest.raises(MmsaError, match=r"me:\*\*\*@127\.0\.0\.1:1/db does not answer"):
        Ledger("postgresql://me:secret@127.0.0.1:1/db", "s")


def test_steps_are_quarters_whatever_the_number_of_epochs() -> None:
    assert [step_of(0, epoch, 8) for epoch in range(1, 9)] == [
        None,
        1,
        None,
        2,
        None,
        3,
        None,
        None,
    ]
    assert [step_of(2, epoch, 3) for epoch in (1, 2, 3)] == [9, 10, None]
    assert [step_of(0, epoch, 1) for epoch in (1,)] == [None]
    ends = {epoch: step_of(1, epoch, 10) for epoch in range(1, 11)}
    assert {epoch: step for epoch, step in ends.items() if step} == {3: 5, 5: 6, 8: 7}


def test_only_what_is_weak_among_all_finished_trials_is_pruned() -> None:
    rule = PruningRule(kind="percentile", keep=0.5, startup=4, warmup=1)
    finished = [{2: 0.1}, {2: 0.2, 4: 0.3}, {2: 0.4, 4: 0.5}, {2: 0.5, 4: 0.6}]
    early = [{1: 0.5}] * 4
    assert rule.prunes(2, 0.4, early)
    assert not rule.prunes(1, 0.4, early), "the warm-up is judged"
    assert not rule.prunes(2, 0.0, [*early[:3], {4: 0.5}]), "one has not come so far"
    assert not rule.prunes(2, 0.0, finished[:3]), "three trials are fewer than four"
    assert rule.prunes(2, 0.29, finished)
    assert not rule.prunes(2, 0.31, finished)
    # The median at step 4 is that of 0.1 (where it stopped), 0.3, 0.5 and 0.6, not of the rest.
    assert rule.prunes(4, 0.39, finished)
    assert not rule.prunes(4, 0.41, finished)
    assert not PruningRule(kind="none").prunes(4, 0.0, finished * 10)


def test_the_share_that_is_kept_is_the_upper_one() -> None:
    finished = [{4: value / 10} for value in range(11)]
    for keep, limit in ((0.8, 0.2), (0.3, 0.7)):
        rule = PruningRule(kind="percentile", keep=keep, startup=4, warmup=1)
        assert rule.prunes(4, limit - 0.01, finished)
        assert not rule.prunes(4, limit + 0.01, finished)
    median = PruningRule(kind="percentile", keep=0.5, startup=3, warmup=1)
    assert not median.prunes(4, 0.5, [{4: 0.25}, {4: 0.5}, {4: 0.75}]), "as good as the median"


def test_a_step_is_the_mean_of_the_folds_done_and_the_present_one(tmp_path: Path) -> None:
    run_here(tmp_path / "s.db", tmp_path, 1)
    (trial,) = trials_of(tmp_path / "s.db")
    result = trial.user_attrs["result"]
    one, two, three = result["units"]
    at = [0.5 + 0.5 * epoch / EPOCHS for epoch in range(1, EPOCHS)]  # shares of the last score
    wanted = [*(share * one for share in at), one]
    wanted += [*((one + share * two) / 2 for share in at), (one + two) / 2]
    wanted += [*((one + two + share * three) / 3 for share in at), (one + two + three) / 3]
    assert list(result["steps"].values()) == pytest.approx(wanted)
    assert list(map(int, result["steps"])) == list(range(1, 13))
    (stored,) = read_studies(tmp_path / "s.db")
    wanted = ScoredTrial(0, (one, two, three), result["parameters"], result["seconds"])
    assert scored_trials(stored.trials) == [wanted]


def test_halving_judges_at_growing_steps_among_those_that_came_so_far() -> None:
    rule = PruningRule(kind="halving", keep=0.5, startup=2, warmup=0)
    finished = [{1: 0.1}, {1: 0.2, 2: 0.3}, {1: 0.3, 2: 0.4, 4: 0.5}]
    assert rule.prunes(1, 0.19, finished)
    assert rule.prunes(2, 0.34, finished)
    assert not rule.prunes(3, 0.0, finished), "step 3 is no rung"
    assert not rule.prunes(4, 0.0, finished), "only one trial came so far"


@pytest.mark.parametrize(
    ("keep", "warmup", "rungs"),
    [
        (0.5, 0, [1, 2, 4, 8, 16]),
        (0.5, 3, [4, 8, 16]),
        (1 / 3, 0, [1, 3, 9, 27]),
        (0.9, 0, [1, 2, 3, 5, 8, 11, 17, 26]),  # 1.5 at least
    ],
)
def test_halving_judges_at_powers_of_its_factor(keep: float, warmup: int, rungs: list[int]) -> None:
    rule = PruningRule(kind="halving", keep=keep, startup=1, warmup=warmup)
    finished = [dict.fromkeys(range(1, 30), 1.0)]
    assert [step for step in range(1, 30) if rule.prunes(step, 0.0, finished)] == rungs


def test_trials_side_by_side_are_compared_with_finished_ones_only(tmp_path: Path) -> None:
    rule = {"kind": "percentile", "keep": 0.5, "startup": 5, "warmup": 1}
    study = make_study(pruner=rule)
    record = run_here(tmp_path / "s.db", tmp_path, 24, study=study, devices=["cpu"] * 3)
    trials = trials_of(tmp_path / "s.db")
    assert record["trials"]["complete"] + record["trials"]["pruned"] == 24
    assert record["trials"]["pruned"] > 0
    complete = [t for t in trials if t.state is TrialState.COMPLETE]
    assert len(complete) >= 5
    truth = {
        t.number: np.mean([score_of(restore(t.user_attrs["setting"]), f) for f in range(3)])
        for t in trials
    }
    best = max(truth, key=lambda number: truth[number])
    assert trials[best].state is TrialState.COMPLETE, "the best trial was given up"
    for trial in trials:
        if trial.state is TrialState.PRUNED:
            steps = {int(k): v for k, v in trial.user_attrs["result"]["steps"].items()}
            assert trial.value == steps[max(steps)]
            assert len(trial.user_attrs["result"]["units"]) < 3 or max(steps) < 12


def trial_of(number: int, *units: float, parameters: int = 10, seconds: float = 1.0) -> ScoredTrial:
    return ScoredTrial(number, units, parameters, seconds)


def test_one_standard_error_takes_the_simplest_near_the_best() -> None:
    best = trial_of(0, 0.70, 0.60, 0.65, parameters=100)  # mean 0.65, s.e. 0.05/√3 = 0.0289
    near = trial_of(1, 0.66, 0.60, 0.62, parameters=50)  # 0.6267
    nearer = trial_of(2, 0.70, 0.60, 0.63, parameters=50, seconds=2.0)  # 0.6433
    far = trial_of(3, 0.62, 0.62, 0.62, parameters=1)  # 0.62 < 0.6211
    assert best.standard_error == pytest.approx(0.05 / 3**0.5)
    every = [far, nearer, near, best]
    assert select(every, "best").number == 0
    assert select(every, "one-se").number == 1, "of two equally simple ones the faster"
    assert select([best, far], "one-se").number == 0
    equal = [trial_of(number, 0.6, 0.7) for number in (2, 1, 3)]
    assert [select(equal, how).number for how in SELECT] == [1, 1], "of equal ones the first"
    single = [trial_of(0, 0.6, parameters=9), trial_of(1, 0.6, parameters=3)]
    assert [select(single, how).number for how in SELECT] == [0, 1], "without an error to allow"
    with pytest.raises(SettingsError, match=r"'worst'.*\n.*best, one-se"):
        select(every, "worst")
    with pytest.raises(SettingsError, match="No trial was trained to the end"):
        select([], "best")


def test_ties_are_paired_over_the_folds() -> None:
    # Difference 0.02 in every fold but for ±0.001: told apart, however much the folds differ.
    a = trial_of(0, 0.50, 0.60, 0.70)
    b = trial_of(1, 0.481, 0.58, 0.679)
    c = trial_of(2, 0.40, 0.60, 0.75)  # 0.1, 0, −0.05: mean 0.0167, not told apart
    assert ties([a, b, c], folds=3) == [0, 2]
    # By hand for c: s² = 0.005833, (1/3 + 1/2) s² = 0.004861, t₂ = 4.303: 0.0167 < 0.300.
    # For b: differences 0.019, 0.02, 0.021, s² = 1e-6, √(8.33e-7) · 4.303 = 0.0039 < 0.02.
    assert ties([a], folds=3) == [0]


@pytest.mark.parametrize(
    ("spread", "folds", "limit"),
    [
        ((-1, 0, 1), 3, 3.9278),  # t₂ = 4.3027, s² = 1: 4.3027 · √(1/3 + 1/2)
        ((-1, -1, 1, 1), 2, 4.1085),  # two seeds of two folds: 3.1824 · √((1/4 + 1) · 4/3)
    ],
)
def test_ties_end_at_students_t(spread: tuple[int, ...], folds: int, limit: float) -> None:
    best = trial_of(0, *(0.8 for _ in spread))
    for mean, numbers in ((limit - 0.001, [0, 1]), (limit + 0.001, [0])):
        other = trial_of(1, *(0.8 - 0.01 * (mean + step) for step in spread))
        assert ties([other, best], folds) == numbers
    alike = [trial_of(number, 0.8, 0.8) for number in (1, 0)]
    assert ties(alike, 2) == [0, 1], "no difference, no doubt"
    assert ties([trial_of(1, 0.5), trial_of(0, 0.6)], 2) == [0, 1], "one unit tells nothing"
    assert ties([trial_of(1, 0.5, 0.7), trial_of(0, 0.6, 0.8)], 2) == [0], "always 0.1 worse"


def test_the_optimism_gap_is_that_of_counted_rows() -> None:
    labels = np.array([0, 0, 1, 1, 0, 0, 1, 1, 0, 1])
    groups = np.arange(10)
    eye = np.eye(2)
    validation = [np.array([0, 2]), np.array([1, 3])]
    outer = np.arange(4, 10)
    results = [
        FoldPredictions(eye[[0, 1]], eye[[0, 0, 1, 1, 1, 0]]),  # 2 of 2; 4 of 6
        FoldPredictions(eye[[0, 0]], eye[[0, 1, 1, 1, 0, 1]]),  # 1 of 2; 5 of 6
    ]
    common: Any = {"seed": 0}
    gap = optimism(results, validation, outer, labels, groups, metric="accuracy", **common)
    assert gap.inner_score == pytest.approx(0.75)
    assert gap.outer_score == pytest.approx(0.75)
    assert gap.optimism_gap == pytest.approx(0.0)
    # Halves count as class 0: rows 4 … 9 become 0, 0, 1, 1, 0, 0.
    assert gap.outer_score_together == pytest.approx(5 / 6)
    low, high = gap.optimism_interval
    assert low < 0 < high
    f1 = optimism(results, validation, outer, labels, groups, metric="macro_f1", **common)
    want = [
        f1_score(labels[rows], r.held_out.argmax(1), average="macro", zero_division=0)
        for rows, r in zip(validation, results, strict=True)
    ]
    assert f1.inner_score == pytest.approx(np.mean(want))
    want = [f1_score(labels[outer], r.outer.argmax(1), average="macro") for r in results]
    assert f1.outer_score == pytest.approx(np.mean(want))
    soft = [FoldPredictions(0.8 * r.held_out + 0.1, 0.8 * r.outer + 0.1) for r in results]
    loss = optimism(soft, validation, outer, labels, groups, metric="neg_log_loss", **common)
    want = [-log_loss(labels[outer], r.outer) for r in soft]
    assert loss.outer_score == pytest.approx(np.mean(want))
    want = [
        -log_loss(labels[v], r.held_out, labels=[0, 1])
        for v, r in zip(validation, soft, strict=True)
    ]
    assert loss.inner_score == pytest.approx(np.mean(want))
    # Their intervals again, from 2,000 draws of each set of rows, a hundred at a time.
    draws = np.random.default_rng(0)
    drawn = [
        rows
        for _ in range(20)
        for rows in zip(
            *([draws.integers(0, n, n) for _ in range(100)] for n in (2, 2, 6)), strict=True
        )
    ]
    for found, of, value in (
        (gap, results, lambda y, p: p.argmax(1) == y),
        (loss, soft, lambda y, p: np.log(p[np.arange(len(y)), y])),
    ):
        inside = [value(labels[v], r.held_out) for v, r in zip(validation, of, strict=True)]
        outside = np.mean([value(labels[outer], r.outer) for r in of], axis=0)
        gaps = [
            (inside[0][one].mean() + inside[1][two].mean()) / 2 - outside[out].mean()
            for one, two, out in drawn
        ]
        assert found.optimism_interval == pytest.approx(tuple(np.quantile(gaps, [0.025, 0.975])))


def test_the_interval_covers_what_resampling_of_posts_gives() -> None:
    """Of n rows, p right: the standard error of the gap is √(p(1−p)(1/n_in + 1/n_out))."""
    rng = np.random.default_rng(0)
    labels = np.repeat(rng.integers(0, 2, 1200), 2)
    right = np.repeat(rng.random(1200) < 0.7, 2)
    predicted = np.eye(2)[np.where(right, labels, 1 - labels)]
    rows = np.arange(2400)
    inside, outer = rows[:1200], rows[1200:]
    results = [FoldPredictions(predicted[inside], predicted[outer])]
    error = (0.21 * 2 / 1200) ** 0.5
    # The rows are twins. Each for itself they would seem twice as many posts as they are.
    for groups, times in ((rows, 1.0), (rows // 2, 2**0.5)):
        gap = optimism(results, [inside], outer, labels, groups, metric="accuracy", seed=0)
        low, high = gap.optimism_interval
        assert high - low == pytest.approx(2 * 1.96 * error * times, rel=0.06)


def test_train_finds_the_choice_and_where_it_came_from(tmp_path: Path) -> None:
    database = tmp_path / "s.db"
    record = run_here(database, tmp_path, 6, how="one-se")
    chosen = choose_trial("best", ORIGIN, database)
    assert (chosen.source.trial, chosen.study) == (record["trial"], make_study())
    assert chosen.source.how == "one-se"
    assert chosen.source.finished == 6
    assert chosen.source.units == record["inner_units"]
    assert chosen.setting == Setting(**record["setting"])
    named = choose_trial("fake:3", ORIGIN, database).source
    assert (named.trial, named.how) == (3, "named")
    with pytest.raises(SettingsError, match=r"Trial 99 .*\n.*Its best: \d"):
        choose_trial("fake:99", ORIGIN, database)
    with pytest.raises(SettingsError, match="fake was made on other features"):
        choose_trial("fake", ORIGIN.model_copy(update={"text": "another"}), database)
    with pytest.raises(SettingsError, match="Write NAME:TRIAL"):
        choose_trial("fake:best", ORIGIN, database)
    with pytest.raises(SettingsError, match="There are no studies here"):
        choose_trial("best", ORIGIN, tmp_path / "none.db")
    (summary,) = summarise_studies(database)
    assert (summary.study, summary.complete, summary.best) == ("fake", 6, chosen.source.score)
    assert summary.age_seconds == pytest.approx(0, abs=60)


def test_a_setting_in_a_database_is_checked(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="fusion: 'glue', valid: concat"):
        restore({"fusion": "glue"})
    with pytest.raises(ValueError, match="text_dim: 'big' is str, a whole number is expected"):
        restore({"text_dim": "big"})
    with pytest.raises(ValueError, match="colour: unknown"):
        restore({"colour": 1})


@pytest.fixture
def earlier(tmp_path: Path) -> Path:
    """Eight trials of `make_study`, searched by the commit that the file is named after."""
    asset = Path(__file__).parents[2] / "assets/studies_57fd047.db.gz"
    database = tmp_path / "earlier.db"
    database.write_bytes(gzip.decompress(asset.read_bytes()))
    return database


def test_a_study_of_an_earlier_version_is_continued(earlier: Path, tmp_path: Path) -> None:
    rule = {"kind": "percentile", "keep": 0.5, "startup": 3, "warmup": 1}
    study = make_study(pruner=rule)
    chosen = choose_trial("best", ORIGIN, earlier)
    assert (chosen.study, chosen.source.trial, chosen.source.finished) == (study, 7, 8)
    (summary,) = summarise_studies(earlier)
    assert (summary.complete, summary.pruned) == (6, 2)
    assert take_snapshot("fake", 7, earlier).judged is not None
    assert not any(trial.held_out for trial in read_studies(earlier)[0].trials)
    found = run_here(earlier, tmp_path, 10, study=study)
    assert found["baselines"]
    assert any(trial.held_out for trial in read_studies(earlier)[0].trials)
    run_here(tmp_path / "whole.db", tmp_path, 10, study=study)
    assert figures(earlier) == figures(tmp_path / "whole.db")


def test_a_study_of_a_later_version_is_refused_by_number(earlier: Path, tmp_path: Path) -> None:
    with contextlib.closing(sqlite3.connect(earlier)) as connection, connection:
        connection.execute(
            "update study_user_attributes set value_json = json_set(value_json, '$.version', 2) "
            "where key = 'identity'"
        )
    for read in (
        lambda: summarise_studies(earlier),
        lambda: choose_trial("best", ORIGIN, earlier),
        lambda: run_here(earlier, tmp_path, 9),
    ):
        with pytest.raises(ModelError, match=r"version 2.*reads version 1\.\n.*mmsa search"):
            read()


def made_up(number: int, value: float, **params: Any) -> Trial:
    distributions: dict[str, Any] = {
        "learning_rate": FloatDistribution(1e-4, 1e-1, log=True),
        "fusion": CategoricalDistribution(["concat", "encoder"]),
        "text_dim": CategoricalDistribution([16, 32]),
    }
    alpha = params["text_dim"] / 64
    trial = create_trial(
        params=params,
        distributions={key: distributions[key] for key in params},
        value=value,
    )
    trial.number = number
    setting = {**params, "loss": "acb", "alpha": alpha, "beta": 1 - alpha}
    return Trial(trial, TrialRecord(setting=setting))


def test_the_parameter_that_sets_the_score_is_the_important_one() -> None:
    rng = np.random.default_rng(0)
    trials = []
    for number in range(60):
        rate = float(10 ** rng.uniform(-4, -1))
        fusion = str(rng.choice(["concat", "encoder"]))
        dim = int(rng.choice([16, 32]))
        value = -abs(np.log10(rate) + 2) + 0.01 * rng.normal()
        trials.append(made_up(number, value, learning_rate=rate, fusion=fusion, text_dim=dim))
    rows = importances(trials, 0)
    assert rows[0].parameter == "learning_rate"
    assert rows[0].low > rows[1].high
    assert all(0 <= row.low <= row.median <= row.high <= 1 for row in rows)
    assert importances(trials[:9], 0) == []
    assert importances(trials, 0) == rows
    best = best_by_value(trials, "fusion")
    assert best[0].score == max(t.score for t in trials)
    assert sum(row.trials for row in best) == 60
    surface = loss_weight_scores(trials)
    assert [(row.alpha, row.beta) for row in surface] == [(0.25, 0.75), (0.5, 0.5)]
    quarter = [t.score for t in trials if t.frozen.params["text_dim"] == 16]
    assert surface[0].mean == pytest.approx(np.mean(quarter))
    assert surface[0].best == max(quarter)


def drawn(study: StudyConfig, number: int) -> tuple[dict[str, Any], Setting]:
    protocol = study.protocol.model_copy(update={"seed": number})
    found = draw(study.model_copy(update={"protocol": protocol}), [])
    return found.params, found.setting


def test_parameters_are_asked_for_only_where_they_matter(tmp_path: Path) -> None:
    path = tmp_path / "s.toml"
    path.write_text(
        """[space]
fusion = ["concat", "encoder", "attention"]
level = ["pooled", "tokens"]
grid = [2, 4]
layers = { values = [1, 2], when = { fusion = ["encoder"], level = ["tokens"] } }
image_dim = [64, 128]
text_dim = [256]
loss = ["acb", "ce"]
alpha = [0.25, 0.9]
[space.batch_size]
low = 16
high = 64
step = 16
"""
    )
    study = read_study(path)
    seen = set()
    for number in range(60):
        params, setting = drawn(study, number)
        assert ("grid" in params) == (setting.level == "tokens")
        assert ("layers" in params) == (setting.fusion == "encoder" and setting.level == "tokens")
        assert ("alpha" in params) == (setting.loss == "acb")
        assert ("image_dim" in params) == (setting.fusion == "concat")
        assert setting.image_dim == params.get("image_dim", 256)
        assert setting.beta == (1 - params["alpha"] if "alpha" in params else Setting().beta)
        assert setting.batch_size in (16, 32, 48, 64)
        seen.add((setting.fusion, setting.level, setting.loss))
    assert len(seen) == 12
    assert StudyConfig.model_validate_json(study.model_dump_json()) == study


def test_the_order_of_a_file_does_not_change_what_is_drawn() -> None:
    space = make_study().model_dump()["space"]
    turned = make_study(space=dict(reversed(space.items())))
    for number in range(5):
        assert drawn(make_study(), number) == drawn(turned, number)


def test_all_mistakes_of_a_study_file_are_listed_at_once(tmp_path: Path) -> None:
    path = tmp_path / "wrong.toml"
    path.write_text(
        """[protocoll]
[protocol]
outer = "inner"
folds = 1
seed = 3
metric = "luck"
[sampler]
kind = "magic"
[pruner]
keep = 2
[fixed]
text_dim = "wide"
variants = 1
loss = "mse"
dropout = 0.1
metric = "accuracy"
[space]
dropout = [0.1]
learnig_rate = [0.1]
layers = { low = 3, high = 1 }
weight_decay = { low = 0, high = 9, log = true }
fusion = { low = "concat", high = "encoder" }
batch_size = []
level = ["pooled", "words"]
alpha = { values = [0.5], when = { los = ["acb"] } }
beta = { values = [0.5], when = { loss = ["abc"] } }
"""
    )
    with pytest.raises(SettingsError) as caught:
        read_study(path)
    problems = caught.value.problems
    assert problems == [
        "protocol.outer: 'inner', valid: val, report, report-parity, grouped",
        "protocol.folds: 1, a number from 2 is expected",
        "protocol.metric: 'luck', valid: macro_f1, accuracy, neg_log_loss",
        "protocol.seed: unknown key (near: seeds)",
        "sampler.kind: 'magic', valid: tpe, random",
        "pruner.keep: 2, a number below 1 is expected",
        "fixed.text_dim: 'wide' is str, a whole number is expected",
        "fixed.variants: 1 is int, true or false is expected",
        problems[8],
        "fixed.metric: the metric stands in protocol",
        "space.dropout: stands in fixed too",
        "space.learnig_rate: unknown parameter (near: learning_rate)",
        "space.layers: low 3 is above high 1",
        "space.weight_decay: log needs a low above 0",
        "space.fusion: has no range, write a list",
        problems[15],
        "space.level: 'words', valid: pooled, tokens",
        "space.alpha: when.los: unknown parameter (near: loss)",
        problems[18],
        "protocoll: unknown key (near: protocol)",
    ]
    assert problems[8].startswith("fixed.loss: 'mse', valid: acb, ce")
    assert problems[15].startswith("space.batch_size: write a list")
    assert problems[18].startswith("space.beta: when.loss: 'abc' (near: acb), valid: acb")


def test_a_fixed_value_holds_where_the_conditions_of_the_space_do_not(tmp_path: Path) -> None:
    path = tmp_path / "both.toml"
    path.write_text(
        """
[fixed]
optimiser = "adamw"
loss = "ce"
[space]
fusion = ["kernel", "concat"]
optimiser = { values = ["lbfgs"], when = { fusion = "kernel" } }
loss = { values = ["acb"], when = { fusion = "concat" } }
ridge = { low = 1.0, high = 9.0 }
"""
    )
    study = read_study(path)
    drawn = [
        study.suggest(optuna.trial.FixedTrial({"fusion": name, **rest}))
        for name, rest in (
            ("kernel", {"optimiser": "lbfgs", "ridge": 2.0}),
            ("concat", {"loss": "acb"}),
        )
    ]
    assert [(s.optimiser, s.loss, s.ridge) for s in drawn] == [
        ("lbfgs", "ce", 2.0),
        ("adamw", "acb", 1.0),
    ]
    assert study.candidates("loss") == ["acb", "ce"]


def test_conditions_in_a_ring_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "ring.toml"
    path.write_text(
        """[space]
layers = { values = [1, 2], when = { ffn = [64] } }
ffn = { values = [64, 128], when = { layers = [1] } }
"""
    )
    with pytest.raises(SettingsError, match=r"the conditions of .* depend on each other"):
        read_study(path)


def test_every_shipped_study_is_right() -> None:
    known = known_studies()
    assert {"default", "pooled", "report-table", "tokens", "demo"} <= known.keys()
    for name in known:
        study = read_study(find_study(name))
        for number in range(20):
            _, setting = drawn(study, number)
            assert restore(asdict(setting)) == setting
    report = read_study(find_study("report-table"))
    assert report.candidates("learning_rate") == [5e-6, 1e-5, 2e-5, 8e-5, 1e-4]
    assert report.candidates("text_dim") == [128, 256, 512]
    assert read_study(find_study("pooled")).fixed["level"] == "pooled"
