"""What a run keeps of the study that it came from, for its report."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from optuna.trial import FrozenTrial, TrialState

from .database import DATABASE
from .importance import alpha_beta, by_value, importances
from .records import Record, read_records
from .study_notes import IDENTITY, LOOKS


def snapshot(name: str, trial: int, storage: str | Path = DATABASE) -> dict[str, Any]:
    """A study as it is now.

    Args:
        name: The study.
        trial: The trial that is to be trained.
        storage: SQLite file, or the address of a database.

    Returns:
        ``name``, ``metric``, ``trial``; ``trials``: ``number``, ``state`` and ``score`` (of a
        pruned one: its value when it was given up) of each that has ended; ``importance``,
        ``by_fusion`` and ``alpha_beta`` of `importance`; ``judged``: the scores of this trial
        inside and outside, None where no search chose it.
    """
    record = next(record for record in read_records(storage) if record.name == name)
    identity = record.attributes[IDENTITY]
    return {
        "name": name,
        "metric": identity["metric"],
        "trial": trial,
        "trials": [_ended(t) for t in record.trials if t.state.is_finished()],
        "importance": importances(record.trials, identity["seed"]),
        "by_fusion": [
            {key: value for key, value in row.items() if key != "setting"}
            for row in by_value(record.trials, "fusion")
        ],
        "alpha_beta": alpha_beta(record.trials),
        "judged": _judged(record, trial),
    }


def _ended(trial: FrozenTrial) -> dict[str, Any]:
    score = None if trial.state is TrialState.FAIL else trial.value
    return {"number": trial.number, "state": trial.state.name.lower(), "score": score}


def _judged(record: Record, trial: int) -> dict[str, Any] | None:
    looks = record.attributes.get(LOOKS, [])
    return next((look for look in looks if look["trial"] == trial), None)
