"""The search: one coordinator, ask and tell, every trial scored on inner folds only."""

from __future__ import annotations

import hashlib
import json
import warnings
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import optuna
from filelock import FileLock, Timeout
from numpy.typing import NDArray
from optuna.trial import TrialState

from mmsa_cache.bank import FeatureBank
from mmsa_cache.errors import DeviceError, SettingsError
from mmsa_cache.fingerprint import differences
from mmsa_cache.splits import grouped_folds, outer_split

from .space import Study
from .trainer import Setting, TrainingError, fit

DATABASE = Path("studies/studies.db")
_UNPRUNED = 5
_FINISHED = (TrialState.COMPLETE, TrialState.PRUNED)


@dataclass(frozen=True, slots=True)
class Chosen:
    """The trial that a study selected."""

    study: str
    trial: int
    score: float
    setting: Setting


def storage(database: Path) -> str:
    """The SQLite address of a database file; its folder is made."""
    database.parent.mkdir(parents=True, exist_ok=True)
    return f"sqlite:///{database}"


def search(
    study: Study,
    bank: FeatureBank,
    groups: NDArray[np.int64],
    *,
    trials: int,
    names: tuple[str, ...],
    seed: int,
    origin: dict[str, Any],
    database: Path = DATABASE,
    on_trial: Callable[[int, str], None] = lambda finished, note: None,
) -> Chosen:
    """Runs trials until the study has ``trials`` finished ones; resumes what is there.

    Args:
        study: The space and the protocol.
        bank: Features of the labelled rows.
        groups: Duplicate groups, (samples,).
        trials: Finished (complete or pruned) trials wanted in all.
        names: Class names.
        seed: Seed of splits, sampler and training.
        origin: What the features are; a study is never continued on other ones.
        database: SQLite file.
        on_trial: Called after each trial with the number finished and a note on the best.

    Raises:
        SettingsError: The study exists for other features or another space, or another process
            runs it.
        DeviceError: Nearly all trials fail.
    """
    address = storage(database)
    try:
        with FileLock(database.with_name(f".{study.name}.lock"), timeout=0):
            return _search(study, bank, groups, trials, names, seed, origin, address, on_trial)
    except Timeout as error:
        raise SettingsError(
            f"Another process runs the study {study.name!r} in {database}.",
            "Wait for it, or work in another folder.",
        ) from error


def _search(
    study: Study,
    bank: FeatureBank,
    groups: NDArray[np.int64],
    trials: int,
    names: tuple[str, ...],
    seed: int,
    origin: dict[str, Any],
    address: str,
    on_trial: Callable[[int, str], None],
) -> Chosen:
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    record = optuna.create_study(
        study_name=study.name,
        storage=address,
        direction="maximize",
        load_if_exists=True,
        # A trial below the median of the earlier ones after as many folds is given up.
        pruner=optuna.pruners.MedianPruner(n_startup_trials=_UNPRUNED),
    )
    identity = json.loads(json.dumps({**study.as_dict(), "seed": seed, **origin}))
    known = record.user_attrs.get("identity", identity)
    changed = [
        line.replace("the cache has", "the study has") for line in differences(identity, known)
    ]
    if changed:
        raise SettingsError(
            f"The study {study.name!r} was begun with something else.",
            "Give the study file another name, or go back to what it was begun with.",
            changed,
        )
    record.set_user_attr("identity", identity)
    for stale in record.get_trials(deepcopy=False, states=(TrialState.RUNNING,)):
        record.tell(stale.number, state=TrialState.FAIL)  # its process is gone: we hold the lock

    labels = bank.labels.cpu().numpy()
    development, _ = outer_split(study.outer, labels, groups, seed)
    folds = [
        (development[a], development[b])
        for a, b in grouped_folds(labels[development], groups[development], study.folds, seed)
    ]
    failures = 0
    while (finished := _count(record)) < trials:
        # A sampler of its own for every trial: a resumed study draws what an unbroken one would.
        record.sampler = optuna.samplers.TPESampler(
            seed=_derive(seed, len(record.get_trials(deepcopy=False))), n_startup_trials=20
        )
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
            trial = record.ask()
        setting = study.suggest(trial)
        values: list[float] = []
        try:
            for step, (a, b) in enumerate(folds):
                result = fit(setting, bank, a, b, names=names, seed=seed)
                values.append(result.kept[study.metric])
                trial.report(float(np.mean(values)), step)
                if trial.should_prune():
                    break
        except TrainingError as error:
            failures += 1
            trial.set_user_attr("failure", str(error))
            record.tell(trial, state=TrialState.FAIL)
            if failures > max(3, trials // 2):
                raise DeviceError(f"{failures} trials failed, the last with: {error}") from error
            continue
        trial.set_user_attr("setting", asdict(setting))
        trial.set_user_attr("folds", values)
        if len(values) < len(folds):
            record.tell(trial, state=TrialState.PRUNED)
        else:
            record.tell(trial, float(np.mean(values)))
        best = record.best_trial
        on_trial(finished + 1, f"best {best.value:.4f} (trial {best.number})")
    return _chosen(record)


def _count(record: optuna.Study) -> int:
    return len(record.get_trials(deepcopy=False, states=_FINISHED))


def _derive(seed: int, number: int) -> int:
    return int.from_bytes(hashlib.sha256(f"{seed}:{number}".encode()).digest()[:4], "big")


def _chosen(record: optuna.Study) -> Chosen:
    best = record.best_trial
    assert best.value is not None
    return Chosen(record.study_name, best.number, best.value, Setting(**best.user_attrs["setting"]))


def choose(name: str, origin: dict[str, Any], database: Path = DATABASE) -> tuple[Chosen, Study]:
    """Takes the best trial of one study, or of all studies made on the same features.

    Args:
        name: A study's name, or ``best``.
        origin: What the features are; studies on others are passed over.
        database: SQLite file.

    Raises:
        SettingsError: There is none.
    """
    hint = "Run mmsa search first."
    if not database.is_file():
        raise SettingsError(f"There are no studies here ({database}).", hint)
    address = storage(database)
    found: list[tuple[Chosen, Study]] = []
    wanted = json.loads(json.dumps(origin))
    for candidate in optuna.get_all_study_names(address):
        record = optuna.load_study(study_name=candidate, storage=address)
        identity = record.user_attrs.get("identity", {})
        if name not in ("best", candidate) or any(identity.get(k) != v for k, v in wanted.items()):
            continue
        if record.get_trials(deepcopy=False, states=(TrialState.COMPLETE,)):
            keys = ("name", "outer", "folds", "metric", "fixed", "space")
            found.append((_chosen(record), Study(**{key: identity[key] for key in keys})))
    if not found:
        raise SettingsError(f"No study {name!r} has a finished trial on these features.", hint)
    return max(found, key=lambda item: item[0].score)
