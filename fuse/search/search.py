"""The search: trials scored on inner folds only, a choice among them, its score outside."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from optuna.trial import FrozenTrial, TrialState

from fuse.setting import Setting
from fuse.training import classifier, trainer
from mmsa_cache.data.splits import grouped_folds, outer_split
from mmsa_cache.errors import ModelError, SettingsError
from mmsa_cache.store.fingerprint import differences
from mmsa_cache.store.schema import DEFAULT_ENCODER

from .coordinator import Coordinator, Progress, complete
from .importance import alpha_beta, by_value, importances
from .ledger import DATABASE, FINISHED, Ledger, Record, address_of, read_records
from .pool import Pool, Process, start_process
from .selection import Gap, Scored, optimism, scored, select, ties
from .space import Study, restored
from .worker import Job, Source, Unit

IDENTITY = "identity"
_SELECTION = "selection"
LOOKS = "looks"
_INSIGHT = "insight"


@dataclass(frozen=True, slots=True)
class Chosen:
    """A trial that was chosen, by a study's rule or by name."""

    study: str
    trial: int
    score: float
    setting: Setting
    source: dict[str, Any] = field(default_factory=dict)
    """Where it came from: database, rule, scores of the units, finished trials of the study."""


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
            chosen = _chosen(_by_number(progress.trials, choice.number), study.name)
            ledger.note(_SELECTION, {"how": how, "trial": choice.number})

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
        ledger.note(_INSIGHT, insight)
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


def _stored(attributes: dict[str, Any], key: str, kind: type, default: Any) -> Any:
    """What mmsa noted about a study.

    Raises:
        ModelError: Something else stands there.
    """
    value = attributes.get(key, default)
    records = value if isinstance(value, list) else []
    known = all(isinstance(record, dict) and "trial" in record for record in records)
    if value is not default and not (isinstance(value, kind) and known):
        raise ModelError(f"The database holds what mmsa did not write: {key} of the study.")
    return value


def _identify(ledger: Ledger, study: Study, seed: int, origin: dict[str, Any]) -> None:
    """Refuses to go on with a study that was begun with something else."""
    identity = json.loads(json.dumps({**study.as_dict(), "seed": seed, **origin}))
    with ledger.exclusive("identity"):  # of two that begin it at once, one is refused
        known = _stored(ledger.attributes(), IDENTITY, dict, None)
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
        looks: list[dict[str, Any]] = _stored(ledger.attributes(), LOOKS, list, [])
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


def _by_number(trials: Sequence[FrozenTrial], number: int) -> FrozenTrial:
    return next(trial for trial in trials if trial.number == number)


def _chosen(trial: FrozenTrial, study: str, **source: Any) -> Chosen:
    assert trial.value is not None
    try:
        setting = restored(trial.user_attrs["setting"])
    except ValueError as error:
        raise SettingsError(
            f"Trial {trial.number} of the study {study!r} is not of this version: {error}.",
            "Search again.",
        ) from error
    units = trial.user_attrs["result"]["units"]
    source = {"trial": trial.number, "score": trial.value, "units": units, **source}
    return Chosen(study, trial.number, trial.value, setting, source)


@dataclass(frozen=True, slots=True)
class Summary:
    """A study as a list shows it."""

    name: str
    complete: int = 0
    pruned: int = 0
    failed: int = 0
    score: float | None = None
    """Of its selected trial, or its best one."""
    last: float | None = None
    """When its last trial ended, seconds since 1970."""


def summaries(storage: str | Path = DATABASE) -> list[Summary]:
    """All studies of a database."""
    rows = []
    for record in read_records(storage):
        count = {state: sum(t.state is state for t in record.trials) for state in TrialState}
        ends = [t.datetime_complete.timestamp() for t in record.trials if t.datetime_complete]
        found = _selected(record)
        rows.append(
            Summary(
                record.name,
                count[TrialState.COMPLETE],
                count[TrialState.PRUNED],
                count[TrialState.FAIL],
                None if found is None else found.value,
                max(ends, default=None),
            )
        )
    return rows


def _selected(record: Record) -> FrozenTrial | None:
    """The trial that the study's rule chooses now; the rule is that of its last search."""
    every = scored(record.trials)
    if not every:
        return None
    return _by_number(record.trials, select(every, _rule_of(record)).number)


def _rule_of(record: Record) -> str:
    return str(_stored(record.attributes, _SELECTION, dict, {}).get("how", "best"))


def choose(
    name: str, origin: dict[str, Any], storage: str | Path = DATABASE
) -> tuple[Chosen, Study]:
    """Takes the choice of one study, or of all studies made on the same features, or one trial.

    Args:
        name: A study's name, ``NAME:TRIAL``, or ``best``.
        origin: What the features are, of a modality the cache or all of them by encoder; studies
            on others are passed over.
        storage: SQLite file, or the address of a database.

    Raises:
        SettingsError: There is none.
    """
    hint = "Run mmsa search first."
    place = address_of(storage).render_as_string()
    records = read_records(storage)
    if not records:
        raise SettingsError(f"There are no studies here ({place}).", hint)
    study_name, _, number = name.partition(":")
    if number and not number.isdecimal():
        raise SettingsError(f"{name!r} names no trial.", "Write NAME:TRIAL, e.g. default:17.")
    wanted = json.loads(json.dumps(origin))
    found: list[tuple[Chosen, Study]] = []
    others: list[str] = []
    for record in records:
        identity = _stored(record.attributes, IDENTITY, dict, {})
        if study_name not in ("best", record.name):
            continue
        if not all(_is_of(identity.get(key), value) for key, value in wanted.items()):
            others.append(record.name)
            continue
        trial = _trial(record, int(number)) if number else _selected(record)
        if trial is None:
            continue
        how = "named" if number else _rule_of(record)
        finished = sum(t.state in FINISHED for t in record.trials)
        chosen = _chosen(trial, record.name, how=how, finished=finished, storage=place)
        found.append((chosen, Study.from_dict(identity)))
    if not found:
        problems = [f"{other} was made on other features" for other in others]
        raise SettingsError(
            f"No study {study_name!r} has a finished trial on these features.", hint, problems
        )
    return max(found, key=lambda item: item[0].score)


def _is_of(known: Any, here: Any) -> bool:
    """Whether what a study was made on is what is here, or among it."""
    if not isinstance(here, dict):
        return bool(known == here)
    named = known if isinstance(known, dict) else {DEFAULT_ENCODER: known}
    return named.items() <= here.items()


def _trial(record: Record, number: int) -> FrozenTrial:
    done = {trial.number: trial for trial in complete(record.trials)}
    if number not in done:
        best = sorted(done.values(), key=lambda t: -float(t.values[0]))[:5]
        raise SettingsError(
            f"Trial {number} of the study {record.name!r} was not trained to the end.",
            f"Its best: {', '.join(str(trial.number) for trial in best) or 'none'}.",
        )
    return done[number]
