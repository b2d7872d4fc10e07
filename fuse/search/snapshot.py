"""Snapshots of studies, stored with a run for its report."""

from __future__ import annotations

from pathlib import Path

from optuna.trial import TrialState

from fuse.figures.study import EndedTrial, StudySnapshot
from mmsa_cache.names import unknown_name

from .address import Address, parse_address
from .database import DATABASE, StoredStudy, read_studies
from .importance import best_by_value, importances, loss_weight_scores
from .study import StudyConfig


def take_snapshot(name: str, trial: int, storage: str | Path | Address = DATABASE) -> StudySnapshot:
    """Takes a snapshot of a study.

    Args:
        name: The study.
        trial: The trial that will be trained.
        storage: SQLite file, or the address of a database.

    Raises:
        SettingsError: There is no such study.
    """
    address = parse_address(storage)
    studies = {stored.name: stored for stored in read_studies(address)}
    stored = studies.get(name)
    identity = None if stored is None else stored.record.identity
    if stored is None or identity is None:
        raise unknown_name(f"{address} has no study", name, studies, "Run mmsa search first.")
    return make_snapshot(stored, identity.study, trial)


def make_snapshot(stored: StoredStudy, study: StudyConfig, trial: int) -> StudySnapshot:
    """Takes a snapshot of a study that was read, see `take_snapshot`."""
    ended = [t.frozen for t in stored.trials if t.frozen.state.is_finished()]
    by_fusion = best_by_value(stored.trials, "fusion")
    return StudySnapshot(
        name=stored.name,
        metric=study.metric,
        trial=trial,
        trials=[
            EndedTrial.model_validate(
                {
                    "number": t.number,
                    "state": t.state.name.lower(),
                    "score": None if t.state is TrialState.FAIL else t.value,
                }
            )
            for t in ended
        ],
        importance=importances(stored.trials, study.protocol.seed),
        by_fusion=[row.model_copy(update={"setting": None}) for row in by_fusion],
        alpha_beta=loss_weight_scores(stored.trials),
        judged=stored.record.look_at(trial),
    )
