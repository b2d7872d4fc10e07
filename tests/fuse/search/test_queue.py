"""Settings that a study tries first."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from fuse.search.study import StudyConfig
from fuse.search.study_file import find_study, read_study
from fuse.setting import restore
from mmsa_cache.errors import SettingsError
from tests.support.fake_search import FakeFit, make_study, run, start_thread
from tests.support.study_records import figures, states, trials_of

# Of the space; with a value and a key that are not in it; and one that is poor everywhere.
QUEUE = [
    {"fusion": "encoder", "layers": 2, "text_dim": 32, "learning_rate": 0.02},
    {"fusion": "gated", "text_dim": 16, "learning_rate": 0.01, "dropout": 0.4},
    {"fusion": "concat", "text_dim": 16, "learning_rate": 0.0001},
]
RULE = {"kind": "percentile", "keep": 0.5, "startup": 1, "warmup": 1}


def run_here(folder: Path, trials: int, study: StudyConfig, **options: Any) -> dict[str, Any]:
    return run(folder / "s.db", folder, trials, study=study, start=start_thread, **options)


def test_the_queue_runs_first_in_its_order_and_is_never_pruned(tmp_path: Path) -> None:
    study = make_study(queue=QUEUE, pruner=RULE)
    run_here(tmp_path, 2, study)
    run_here(tmp_path, 6, study)
    trials = trials_of(tmp_path / "s.db")
    tried = [restore(trial.user_attrs["setting"]) for trial in trials]
    assert tried[:3] == study.queued_settings()
    assert [trial.state.name for trial in trials[:3]] == ["COMPLETE"] * 3
    assert not {*tried[3:]} & {*tried[:3]}
    assert trials[0].params == QUEUE[0]
    assert trials[1].params == {"text_dim": 16, "learning_rate": 0.01}, "fusion is not in the space"
    assert trials[2].params == QUEUE[2]
    assert trials[1].user_attrs["setting"]["dropout"] == 0.4
    assert tried[1].epochs == study.fixed["epochs"]


def test_an_unqueued_trial_as_poor_is_pruned(tmp_path: Path) -> None:
    space = {"learning_rate": [0.0001], "fusion": ["combine"]}
    run_here(tmp_path, 4, make_study(queue=QUEUE, pruner=RULE, space=space))
    assert states(tmp_path / "s.db") == {"COMPLETE": 3, "PRUNED": 1}


def test_a_queued_setting_that_fails_is_not_tried_again(tmp_path: Path) -> None:
    study = make_study(queue=QUEUE[:1])
    run_here(tmp_path, 3, study, fit=FakeFit(tmp_path, nan_from=0.02))
    assert [state for _, state, _, _ in figures(tmp_path / "s.db")].count("FAIL") >= 1
    rates = [params["learning_rate"] for _, _, params, _ in figures(tmp_path / "s.db")]
    assert rates.count(0.02) == 1


def test_what_the_queue_reads_is_opened_and_its_mistakes_are_named(tmp_path: Path) -> None:
    path = tmp_path / "s.toml"
    path.write_text(
        """[space]
grid = [2, 4]
[[queue]]
grid = 7
text_pool = "mean+max+other.mean+other.std+ngrams.all"
[[queue]]
image_encoder = "third"
"""
    )
    study = read_study(path)
    sides = [("image", name, side) for name in ("default", "third") for side in (2, 4, 7)]
    assert study.derived_names() == [("text", "default", "max"), ("text", "other", "std"), *sides]
    assert ("default+other+ngrams", "third") in study.encoder_pairs()
    assert study.baseline_setting().text_pool == "mean+max+other.mean+other.std"
    assert StudyConfig.model_validate_json(study.model_dump_json()) == study
    path.write_text('[[queue]]\ndropout = 2\n[[queue]]\nlearnig_rate = 0.1\nmetric = "accuracy"\n')
    with pytest.raises(SettingsError) as caught:
        read_study(path)
    assert caught.value.problems == [
        "queue.0.dropout: 2, a number below 1 is expected",
        "queue.1.learnig_rate: unknown parameter (near: learning_rate)",
        "queue.1.metric: the metric stands in protocol",
    ]


def test_the_default_study_prunes_at_the_end_of_the_first_fold_alone() -> None:
    rule = read_study(find_study("default")).pruner
    others = [dict.fromkeys(range(1, 12), value / 10) for value in range(1, 11)]
    assert [step for step in range(1, 12) if rule.prunes(step, 0.0, others)] == [4]
    assert rule.prunes(4, 0.69, others)
    assert not rule.prunes(4, 0.7, others), "the best third goes on"
    assert not rule.prunes(4, 0.0, others[: rule.startup - 1])
