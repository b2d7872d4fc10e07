"""The search: trials scored on inner folds only, a choice among them, its score outside."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from optuna.trial import FrozenTrial, TrialState

from fuse.training import classifier, trainer
from mmsa_cache.data.splits import grouped_folds, outer_split
from mmsa_cache.errors import SettingsError
from mmsa_cache.store.fingerprint import differences

from .choice import Chosen, by_number, chosen_from
from .coordinator import Coordinator, Progress
from .database import DATABASE, FINISHED
from .importance import alpha_beta, by_value, importances
from .ledger import Ledger
from .pool import Pool, Process, start_process
from .selection import Gap, Scored, optimism, scored, select, ties
from .space import Study
from .study_notes import IDENTITY, INSIGHT, LOOKS, SELECTION, stored
from .worker import Job, Source, Unit


@dataclass(frozen=True, slots=True)
class Outcome:
    """A study with as many finished trials as wanted, its choice judged."""

    chosen: Chosen
    record: dict[str, Any]
    """Everything that was found, plain values."""


def search(
    study: Study,
    source: Source,
    labels: NDArray[np.int64],
    groups: NDArray[np.int64],
    *,
    trials: int,
    names: tuple[str, ...],
    seed: int,
    origin: dict[str, Any],
    storage: str | Path = DATABASE,
    devices: Sequence[str] = ("cpu",),
    how: str = "best",
    on_change: Callable[[Progress], None] = lambda progress: None,
    queued: Sequence[FrozenTrial] = (),
    fit: Callable[..., Any] = trainer.fit,
    predict: Callable[..., Any] = classifier.predict,
    start: Callable[..., Process] = start_process,
) -> Outcome:
    """Runs trials until the study has ``trials`` finished ones, and judges the choice outside.

    What is there is gone on with. Any number of processes may do this for one study at a time.

    Args:
        study: The space and the protocol.
        source: Where worker processes open the features.
        labels: Class codes, (samples,).
        groups: Duplicate groups, (samples,).
        trials: Finished (complete or pruned) trials wanted in all.
        names: Class names.
        seed: Seed of splits, sampler and training.
        origin: What the features are; a study is never continued on other ones.
        storage: SQLite file, or the address of a database.
        devices: A worker process each.
        how: Rule of the choice, see `fuse.search.selection.select`.
        on_change: Told where the search is.
        queued: Trials of another record to run first, where this one is empty.
        fit: Trains one model.
        predict: Gives a model's class probabilities.
        start: Starts a worker.

    Raises:
        SettingsError: The study exists for other features or another space.
        DeviceError: Nearly all trials fail.
    """
    started = time.monotonic()
    development, outer = outer_split(study.outer, labels, groups, seed)
    folds = [
        (development[a], development[b])
        for a, b in grouped_folds(labels[development], groups[development], study.folds, seed)
    ]
    units = [
        Unit(inside, outside, outer, seed + turn)
        for turn in range(study.seeds)
        for inside, outside in folds
    ]
    job = Job(source, units, names, study.metric, fit, predict)
    with closing(Ledger(storage, study.name)) as ledger:
        _identify(ledger, study, seed, origin)
        if queued and not ledger.trials():
            for trial in queued:
                ledger.enqueue(trial)
        done = sum(trial.state in FINISHED for trial in ledger.trials())
        devices = devices[: max(trials - done, study.folds * study.seeds)]
        with closing(Pool(job, devices, start)) as pool:
            coordinator = Coordinator(study, ledger, pool, trials, seed, on_change)
            progress = coordinator.run()
            choice = select(scored(progress.trials), how)
            chosen = chosen_from(by_number(progress.trials, choice.number), study.name)
            ledger.note(SELECTION, {"how": how, "trial": choice.number})

            def judge() -> Gap:
                return optimism(
                    coordinator.judge(chosen.setting, len(units)),
                    [unit.validation for unit in units],
                    outer,
                    labels,
                    groups,
                    metric=study.metric,
                    seed=seed,
                )

            looks = _judged_once(ledger, choice.number, judge, progress.finished)
        insight = _insight(progress.trials, study, choice, seed)
        ledger.note(INSIGHT, insight)
        place = ledger.place
    elapsed = time.monotonic() - started
    return Outcome(
        chosen,
        {
            "study": study.name,
            "trial": choice.number,
            "select": how,
            "metric": study.metric,
            "inner_units": list(choice.units),
            **{key: looks[-1][key] for key in looks[-1] if key not in ("trial", "finished")},
            "outer_rows": len(outer),
            "looks_at_outer_rows": len(looks),
            "trials": {
                state.name.lower(): sum(trial.state is state for trial in progress.trials)
                for state in (TrialState.COMPLETE, TrialState.PRUNED, TrialState.FAIL)
            },
            "failed": _failures(progress.trials),
            **insight,
            "storage": place,
            "workers": len(devices),
            "seconds": round(elapsed, 1),
            "overhead_share": max(0.0, 1 - progress.busy / (len(devices) * elapsed)),
            "setting": asdict(chosen.setting),
        },
    )


def _identify(ledger: Ledger, study: Study, seed: int, origin: dict[str, Any]) -> None:
    """Refuses to go on with a study that was begun with something else."""
    identity = json.loads(json.dumps({**study.as_dict(), "seed": seed, **origin}))
    with ledger.exclusive("identity"):  # of two that begin it at once, one is refused
        known = stored(ledger.attributes(), IDENTITY, dict, None)
        if known is None:
            ledger.note(IDENTITY, identity)
            return
    changed = [
        line.replace("the cache has", "the study has") for line in differences(identity, known)
    ]
    if changed:
        raise SettingsError(
            f"The study {study.name!r} was begun with something else.",
            "Give the study file another name, or go back to what it was begun with.",
            changed,
        )


def _judged_once(
    ledger: Ledger, trial: int, judge: Callable[[], Gap], finished: int
) -> list[dict[str, Any]]:
    """Every look at the outer rows, that at this trial last; a trial is never looked at twice."""
    with ledger.exclusive("judge"):
        looks: list[dict[str, Any]] = stored(ledger.attributes(), LOOKS, list, [])
        if trial not in (look["trial"] for look in looks):
            looks = [*looks, {"trial": trial, "finished": finished, **judge().as_dict()}]
            ledger.note(LOOKS, looks)
    return sorted(looks, key=lambda look: look["trial"] == trial)


def _insight(
    trials: Sequence[FrozenTrial], study: Study, choice: Scored, seed: int
) -> dict[str, Any]:
    """What the study says of its space; figures for tables and pictures."""
    every = scored(trials)
    return {
        "cannot_be_told_apart": ties(every, study.folds),
        "complete_trials": len(every),
        "parameters": choice.parameters,
        "importance": importances(trials, seed),
        "by_fusion": by_value(trials, "fusion"),
        "alpha_beta": alpha_beta(trials),
    }


def _failures(trials: Sequence[FrozenTrial]) -> list[dict[str, Any]]:
    return [
        {"trial": trial.number, "reason": trial.user_attrs.get("failure", "")}
        for trial in trials
        if trial.state is TrialState.FAIL
    ]
