"""A search whose device is lost: nothing but a new process works after that."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.support.fake_search import FakeFit, fake_baseline, fake_predict, run
from tests.support.study_records import figures, trials_of
from tests.support.tally import Tally

TRIALS = 2


@dataclass(frozen=True)
class _Losing:
    """Calls of a function on the device, at the n-th of which it is lost for that process.

    Args:
        work: The function.
        folder: Where a file a call is left, and who has lost the device.
        at: The call, counted over all that share a folder; 0: none.
    """

    work: Callable[..., Any]
    folder: Path
    at: int

    def __call__(self, *arguments: Any, **options: Any) -> Any:
        number = len(list(self.folder.glob("call-*"))) + 1
        (self.folder / f"call-{number}").touch()
        lost = self.folder / f"lost-{os.getpid()}"
        if number == self.at:
            lost.touch()
        if lost.exists():
            raise torch.AcceleratorError("CUDA error: an illegal memory access was encountered")
        return self.work(*arguments, **options)


def searched(folder: Path, at: int) -> tuple[dict[str, Any], int]:
    """A search's record, without its time, and how many calls the device had."""
    folder.mkdir()
    fit, predict, baseline = (
        _Losing(work, folder, at) for work in (FakeFit(folder), fake_predict, fake_baseline)
    )
    options: dict[str, Any] = {"fit": fit, "baseline": baseline}
    record = run(folder / "s.db", folder, TRIALS, predict=predict, **options)
    return record, len(list(folder.glob("call-*")))


@pytest.mark.parametrize("every", [16, pytest.param(1, marks=pytest.mark.faults)])
def test_a_device_that_is_lost_at_the_nth_call_costs_a_worker_and_no_trial(
    tmp_path: Path, every: int, tally: Tally
) -> None:
    """Trainings, predictions, baselines and the judgement: the study is as of a whole device."""
    whole, calls = searched(tmp_path / "whole", 0)
    assert whole["trials"] == {"complete": TRIALS, "pruned": 0, "fail": 0}
    places = range(1, calls + 1, every)
    for at in places:
        record, _ = searched(folder := tmp_path / str(at), at)
        assert len(list(folder.glob("lost-*"))) == 1
        assert figures(folder / "s.db") == figures(tmp_path / "whole/s.db")
        for key in ("trials", "failed", "trial", "inner_units", "outer_score"):
            assert record[key] == whole[key], f"call {at}: {key}"
        names = [[baseline["name"] for baseline in r["baselines"]] for r in (record, whole)]
        assert names[0] == names[1], f"call {at}: baselines"
        deaths = [trial.user_attrs.get("deaths", 0) for trial in trials_of(folder / "s.db")]
        assert sum(deaths) <= 1
    tally("device lost at the n-th call of a search", len(places), "worker replaced, same trials")
