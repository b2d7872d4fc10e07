"""Searches on a GPU, played by workers on the CPU: folds side by side, baselines beside."""

from __future__ import annotations

import threading
from functools import partial
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from optuna.trial import TrialState

from fuse.figures.records import EpochRecord
from fuse.search.group_scores import GroupScores
from fuse.search.pool import TrainingData, WorkerOptions
from fuse.search.pruning import PruningRule, step_of
from fuse.search.search import search
from fuse.search.study import StudyConfig
from fuse.setting import Setting
from fuse.training.task import Fit, Task
from fuse.training.trainer import fit_group
from mmsa_cache.features.bank import FeatureBank
from mmsa_cache.features.modality import ModalityFeatures
from mmsa_cache.store.schema import Shard
from tests.support.fake_search import (
    EPOCHS,
    ORIGIN,
    FakeFit,
    ThreadWorker,
    fake_baseline,
    make_study,
    run,
    start_as_on_a_gpu,
    start_thread,
)
from tests.support.shards import make_keys
from tests.support.study_records import states, trials_of

HALVING = {"kind": "halving", "keep": 0.34, "startup": 4, "warmup": 3}


def as_on_a_gpu(folder: Path, trials: int, **options: Any) -> dict[str, Any]:
    folder.mkdir(exist_ok=True)
    options = {"devices": ["cuda:0"], "start": start_as_on_a_gpu} | options
    return run(folder / "s.db", folder, trials, **options)


def groups_of(folder: Path) -> list[int]:
    """Trainings that were begun together, in order."""
    return [int(line) for line in (folder / "groups.txt").read_text().split()]


class _Counting(FakeFit):
    def __call__(self, setting: Setting, bank: Any, tasks: list[Task], **options: Any) -> list[Fit]:
        with (self.folder / "groups.txt").open("a") as log:
            log.write(f"{len(tasks)}\n")
        return super().__call__(setting, bank, tasks, **options)


def test_folds_train_side_by_side_and_score_what_they_score_alone(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    study = make_study(sampler={"kind": "random", "startup": 4})
    here = run(tmp_path / "a/s.db", tmp_path / "a", 5, study=study, start=start_thread)
    there = as_on_a_gpu(tmp_path / "b", 5, study=study, fit=_Counting(tmp_path / "b"))
    assert groups_of(tmp_path / "b") == [3] * 6  # five trials and the choice
    for key in ("trial", "trials", "inner_units", "outer_score", "inner_score", "parameters"):
        assert here[key] == there[key], key
    for one, other in zip(*(trials_of(tmp_path / of / "s.db") for of in "ab"), strict=True):
        assert one.params == other.params
        assert one.value == pytest.approx(other.value)
        results = [trial.user_attrs["result"] for trial in (one, other)]
        assert results[0]["units"] == results[1]["units"]
        assert list(map(int, results[1]["steps"])) == [3, 6, 9, 12]
        mean = np.mean(results[0]["units"])
        shares = [0.5 + 0.5 * epoch / EPOCHS for epoch in range(1, EPOCHS + 1)]
        wanted = [share * mean for share in shares]
        assert list(results[1]["steps"].values()) == pytest.approx(wanted)


def test_halving_after_the_first_fold_prunes_the_same_trials_as_on_a_cpu(tmp_path: Path) -> None:
    """The first fold runs alone, and the others together where it was good enough."""
    study = make_study(pruner=HALVING, sampler={"kind": "random", "startup": 4})
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    run(tmp_path / "a/s.db", tmp_path / "a", 16, study=study, start=start_thread)
    fit = _Counting(tmp_path / "b")
    as_on_a_gpu(tmp_path / "b", 16, study=study, fit=fit)
    assert states(tmp_path / "a/s.db") == states(tmp_path / "b/s.db")
    pairs = zip(*(trials_of(tmp_path / of / "s.db") for of in "ab"), strict=True)
    assert [one.state for one, _ in pairs] == [t.state for t in trials_of(tmp_path / "b/s.db")]
    pruned = states(tmp_path / "b/s.db")["PRUNED"]
    assert pruned > 4
    assert groups_of(tmp_path / "b").count(1) == 16
    assert groups_of(tmp_path / "b").count(2) == 16 - pruned
    assert groups_of(tmp_path / "b").count(3) == 1  # the choice


def test_folds_side_by_side_are_pruned_by_their_mean_at_once(tmp_path: Path) -> None:
    rule = {"kind": "percentile", "keep": 0.3, "startup": 4, "warmup": 1}
    study = make_study(pruner=rule, sampler={"kind": "random", "startup": 4})
    as_on_a_gpu(tmp_path / "b", 16, study=study)
    trials = trials_of(tmp_path / "b/s.db")
    pruned = [t for t in trials if t.state is TrialState.PRUNED]
    assert len(pruned) > 4
    finished: list[dict[int, float]] = []
    for trial in trials:
        steps = {int(k): v for k, v in trial.user_attrs["result"]["steps"].items()}
        at = {s: v for s, v in steps.items() if 3 < s < 12}  # the first quarter is warm-up
        judged = [
            step
            for step, value in at.items()
            if len(finished) >= 4 and value < np.quantile([_at(of, step) for of in finished], 0.7)
        ]
        if trial.state is TrialState.PRUNED:
            assert judged == [max(steps)]
            assert trial.user_attrs["result"]["units"] == []
        else:
            assert judged == []
        finished.append(steps)


def _at(steps: dict[int, float], step: int) -> float:
    return steps[max(known for known in steps if known <= step)]


def test_settings_of_the_queue_are_never_pruned_and_train_all_folds_at_once(tmp_path: Path) -> None:
    queue = [{"fusion": "concat", "text_dim": 16, "learning_rate": 0.09}]
    study = make_study(pruner=HALVING, queue=queue)
    as_on_a_gpu(tmp_path / "b", 2, study=study, fit=_Counting(tmp_path / "b"))
    assert groups_of(tmp_path / "b") == [3, 1, 2, 3]


def test_a_group_that_diverges_or_dies_is_one_trial(tmp_path: Path) -> None:
    record = as_on_a_gpu(tmp_path / "b", 6, fit=FakeFit(tmp_path / "b", nan_from=0.02))
    assert record["trials"]["complete"] == 6
    assert {of["reason"] for of in record["failed"]} == {"The loss is nan in epoch 1."}


def test_the_choice_is_judged_in_as_many_parts_as_there_are_gpus(tmp_path: Path) -> None:
    fit = _Counting(tmp_path / "b")
    as_on_a_gpu(tmp_path / "b", 1, fit=fit, devices=["cuda:0", "cuda:1"])
    assert sorted(groups_of(tmp_path / "b")) == [1, 2, 3]


TRAINED = threading.Event()


class _Telling(FakeFit):
    def __call__(self, *arguments: Any, **options: Any) -> list[Fit]:
        fits = super().__call__(*arguments, **options)
        TRAINED.set()
        return fits


def waiting_baseline(*arguments: Any) -> Any:
    """Takes until a trial is trained, for ever if one worker does both."""
    assert TRAINED.wait(20)
    return fake_baseline(*arguments)


def test_baselines_are_fitted_on_the_cpu_beside_the_gpu(tmp_path: Path) -> None:
    TRAINED.clear()
    seen = []

    def start(pipe: Connection, device: str) -> ThreadWorker:
        seen.append(device)
        return start_as_on_a_gpu(pipe, device)

    folder = tmp_path / "b"
    record = as_on_a_gpu(folder, 2, fit=_Telling(folder), start=start, baseline=waiting_baseline)
    assert [baseline["name"] for baseline in record["baselines"]] == [
        "logistic regression",
        "RBF support vectors",
    ]
    assert seen[0] == "cuda:0"
    assert set(seen[1:]) == {"cpu"}
    assert record["workers"] == 1
    seen.clear()
    as_on_a_gpu(folder, 3, start=start)  # the study has its baselines
    assert seen == ["cuda:0"]
    assert record["overhead_share"] >= 0


@pytest.mark.parametrize(
    ("rule", "cuts"),
    [
        ({"kind": "none"}, []),
        ({"kind": "halving", "keep": 0.34, "warmup": 3}, [1, 3]),
        ({"kind": "halving", "keep": 0.5, "warmup": 3}, [1, 2, 4]),
        ({"kind": "percentile", "keep": 0.35, "warmup": 3}, [1]),
        ({"kind": "percentile", "keep": 0.35, "warmup": 4}, [2]),
        ({"kind": "percentile", "keep": 0.35, "warmup": 0}, []),
        ({"kind": "halving", "keep": 0.5, "warmup": 0}, []),
        ({"kind": "halving", "keep": 0.5, "warmup": 30}, []),
    ],
)
def test_folds_are_cut_where_the_rule_judges_their_end(
    rule: dict[str, Any], cuts: list[int]
) -> None:
    assert PruningRule(**rule).cuts(5) == cuts


def test_steps_count_the_quarters_of_all_folds_at_work() -> None:
    assert [step_of(0, epoch, 4, 3) for epoch in range(1, 5)] == [3, 6, 9, None]
    assert [step_of(1, epoch, 4, 2) for epoch in range(1, 5)] == [6, 8, 10, None]
    finished = [{3: 0.5, 6: 0.6, 9: 0.7}] * 4
    rule = PruningRule(kind="percentile", startup=4, warmup=1)
    assert not rule.prunes(3, 0.1, finished, 0, 3), "the first quarter is warm-up"
    assert rule.prunes(6, 0.1, finished, 0, 3)
    rule = PruningRule(kind="halving", keep=0.5, startup=4, warmup=0)
    assert rule.prunes(3, 0.1, finished, 0, 3), "rungs 1 and 2 lie within"
    assert rule.prunes(9, 0.1, [{9: 0.5}] * 4, 1, 2), "rung 8 lies within"
    assert not rule.prunes(9, 0.1, [{9: 0.5}] * 4, 2, 1)


def records(member: int, values: list[float]) -> list[EpochRecord]:
    return [
        EpochRecord(member=member, epoch=epoch, loss=1, learning_rate=1, accuracy=value)
        for epoch, value in enumerate(values, start=1)
    ]


def test_an_epoch_is_done_when_every_training_has_it_or_has_stopped() -> None:
    setting = Setting(keep="best", patience=1, epochs=4, metric="accuracy")
    group = GroupScores(setting, "accuracy", 2)
    one, other = records(1, [0.5, 0.4]), records(2, [0.3, 0.6, 0.5])
    assert [group.add(one[0]), group.add(other[0])] == [None, 1]
    assert group.values == [0.5, 0.3]
    assert group.add(one[1]) is None  # it stops: the second epoch was no better
    assert group.add(other[1]) == 2
    assert group.values == [0.5, 0.6]
    assert group.add(other[2]) == 3
    assert group.values == [0.5, 0.6]
    last = GroupScores(Setting(keep="last", epochs=2, metric="accuracy"), "accuracy", 2)
    one, other = records(1, [0.5, 0.4]), records(2, [0.3, 0.6])
    # One after another, as where a stack has no memory for both.
    assert [last.add(of) for of in (*one, *other)] == [None, None, 1, 2]
    assert last.values == [0.4, 0.6]


class _InMemory:
    """A bank of made up vectors."""

    def open(self, device: str) -> FeatureBank:
        rng = np.random.default_rng(0)
        sides = []
        for _ in range(2):
            pooled = (rng.standard_normal((120, 1, 6)) + np.eye(3, 6)[CODES][:, None]).astype("f2")
            offsets, tokens = np.zeros(121, np.int64), np.zeros((0, 6), np.float16)
            shard = Shard(make_keys(0, 120), [""] * 120, offsets, tokens, pooled, ("mean",))
            sides.append(ModalityFeatures([shard], "made up"))
        return FeatureBank(*sides, [str(i) for i in range(120)], CODES.tolist())


CODES = np.random.default_rng(1).integers(0, 3, 120)


@pytest.mark.parametrize("keep", ["last", "best"])
def test_a_stack_scores_its_trials_as_trainings_one_by_one(tmp_path: Path, keep: str) -> None:
    """The real trainer, stacked on the CPU as on a GPU."""
    study = StudyConfig.model_validate(
        {
            "name": "fake",
            "protocol": {"outer": "grouped", "folds": 3, "seed": 1},
            "pruner": {"kind": "halving", "keep": 0.5, "startup": 1, "warmup": 3},
            "fixed": {
                "level": "pooled",
                "epochs": 4,
                "keep": keep,
                "patience": 1,
                "text_dim": 8,
                "image_dim": 8,
                "head": "8",
                "batch_size": 16,
            },
            "space": {"fusion": ["concat", "gated"], "dropout": [0.0, 0.3]},
        }
    )
    data = TrainingData(_InMemory(), CODES, np.arange(120), ORIGIN)
    here, there = (
        search(study, data, 4, storage=tmp_path / f"{name}.db", workers=workers)
        for name, workers in (
            ("cpu", WorkerOptions(("cpu",), start=start_thread, baseline=fake_baseline)),
            (
                "gpu",
                WorkerOptions(
                    ("cuda:0",),
                    partial(fit_group, stacked=True),
                    start=start_as_on_a_gpu,
                    baseline=fake_baseline,
                ),
            ),
        )
    )
    assert there.trials == here.trials
    assert there.trial == here.trial
    assert there.inner_units == pytest.approx(here.inner_units, abs=1e-6)
    assert there.outer_score == pytest.approx(here.outer_score, abs=1e-6)
    pairs = zip(trials_of(tmp_path / "cpu.db"), trials_of(tmp_path / "gpu.db"), strict=True)
    for one, other in pairs:
        assert one.state == other.state
        assert one.value == pytest.approx(other.value, abs=1e-6)
