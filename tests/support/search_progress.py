"""Progress of a search."""

from __future__ import annotations

import time

from optuna.trial import TrialState, create_trial

from fuse.search.progress import RunningTrial, SearchProgress
from fuse.search.trial_record import Trial, TrialRecord, TrialResult
from fuse.setting import Setting


def make_progress() -> SearchProgress:
    trials = []
    for number, value in enumerate((0.61, 0.64, 0.62)):
        trial = create_trial(value=value, params={})
        trial.number = number
        units = [value - 0.01, value, value + 0.01]
        result = TrialResult(units=units, parameters=1, seconds=1.0)
        trials.append(Trial(trial, TrialRecord(setting={}, result=result)))
    pruned = create_trial(state=TrialState.PRUNED)
    trials.append(Trial(pruned, TrialRecord(setting={})))
    running = RunningTrial(4, Setting(), scores=[0.6], epoch=3, steps={4: 0.6})
    return SearchProgress(
        10,
        3,
        trials,
        finished_before=1,
        started=time.monotonic() - 90,
        running={4: running},
        failures=[(5, "The loss is nan in epoch 2.")],
    )
