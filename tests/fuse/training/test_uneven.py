"""Members of a stack that take fewer steps an epoch than others."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from fuse.fields import Level
from fuse.training import trainer
from fuse.training.classifier import predict
from fuse.training.stack import Stack
from fuse.training.task import Task
from fuse.training.trainer import fit_group
from fuse.training.uneven import FinishedMembers, group_by_steps
from mmsa_cache.features.bank import FeatureBank
from tests.support.stacks import NAMES, SMALL

HELD_OUT = np.arange(20)


def tasks_of(*rows: int) -> list[Task]:
    return [Task(np.arange(count), HELD_OUT, seed) for seed, count in enumerate(rows)]


def test_members_that_take_about_as_many_steps_are_together() -> None:
    assert group_by_steps([40, 50, 51, 12, 10, 40]) == [[3, 4], [0, 1, 5], [2]]
    assert group_by_steps([7]) == [[0]]


def test_what_a_member_changes_after_its_steps_is_put_back() -> None:
    values, counts = torch.zeros(3, 2), torch.zeros(3, dtype=torch.int64)
    rest = FinishedMembers([3, 2, 4])
    assert rest.steps == 4
    assert rest.counts == [0, 0, 1, 2]
    for _ in range(2):  # epochs
        for ended in rest.counts:
            rest.store(ended, [values, counts])
            values += 1
            counts += 1
        rest.restore([values, counts])
    assert values.tolist() == [[6, 6], [4, 4], [8, 8]]
    assert counts.tolist() == [6, 4, 8]


@pytest.mark.parametrize(
    ("level", "changes"),
    [
        ("pooled", {"loss": "acb", "statistics": "running", "clip": 0.5}),
        ("pooled", {"schedule": "onecycle", "ema": 0.8}),
        ("pooled", {"loss": "ce", "keep": "best", "schedule": "plateau"}),
        ("tokens", {"fusion": "attention_concat"}),
    ],
)
def test_uneven_members_are_those_of_trainings_one_by_one(
    bank: FeatureBank, level: Level, changes: dict[str, object], monkeypatch: pytest.MonkeyPatch
) -> None:
    setting = replace(SMALL, level=level, batch_size=8, epochs=3, variants=False, **changes)  # type: ignore[arg-type]
    tasks = tasks_of(47, 40, 48, 56)  # 6, 5, 6 and 7 steps
    stacks: list[int] = []

    def counted(runners: list[object]) -> Stack:
        stacks.append(len(runners))
        return Stack(runners)  # type: ignore[arg-type]

    monkeypatch.setattr(trainer, "Stack", counted)
    found = fit_group(setting, bank, tasks, names=NAMES, stacked=True)
    assert stacks == [3, 1]
    alone = [
        fit_group(setting, bank, [task], names=NAMES, stacked=False, whole_length=True)[0]
        for task in tasks
    ]
    for one, other in zip(found, alone, strict=True):
        assert [e.epoch for e in one.history] == [e.epoch for e in other.history]
        np.testing.assert_allclose(
            [e.loss for e in one.history], [e.loss for e in other.history], rtol=2e-4
        )
        # Not the weights: gradients of what batch normalisation takes away are rounding errors.
        np.testing.assert_allclose(
            predict(one.model, bank, HELD_OUT, setting),
            predict(other.model, bank, HELD_OUT, setting),
            atol=5e-4,
        )
