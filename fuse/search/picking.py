"""Picks an ensemble of trials on the held-out predictions that their searches stored."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fuse.figures.study import PickedEnsemble, PickedTrial
from fuse.setting import Setting

from .database import StoredStudy
from .greedy import EnsembleBudget, nested_gain, pick_weights
from .held_out import HeldOut, stack_held_out
from .trial_record import Trial


@dataclass(frozen=True, slots=True)
class EnsemblePick:
    """The picked trials, heaviest first, and the record of the ensemble."""

    members: list[tuple[StoredStudy, Trial]]
    record: PickedEnsemble

    @property
    def weights(self) -> dict[Setting, float]:
        """Weights by setting; trials of the same setting are one member."""
        weights: dict[Setting, float] = {}
        for (_, trial), member in zip(self.members, self.record.members, strict=True):
            setting = trial.setting()
            weights[setting] = weights.get(setting, 0.0) + member.weight
        return weights

    @property
    def held_out(self) -> dict[Setting, HeldOut]:
        """Held-out predictions by setting."""
        return {
            trial.setting(): held_out
            for _, trial in self.members
            if (held_out := trial.held_out) is not None
        }


def pick_ensemble(
    studies: Sequence[StoredStudy],
    labels: NDArray[np.int64],
    groups: NDArray[np.int64],
    budget: EnsembleBudget,
    size_of: Callable[[Setting], int],
) -> EnsemblePick | None:
    """Picks an ensemble from the complete trials of studies.

    Args:
        studies: Their trials were scored on the same rows by the same metric.
        labels: Class codes of all rows.
        groups: Duplicate groups of all rows.
        budget: Limits of the ensemble.
        size_of: Returns the bytes of a setting in the model file.

    Returns:
        None if no trial has held-out predictions (earlier versions stored none).

    Raises:
        SettingsError: The held-out rows of the studies differ, or every model exceeds the budget.
    """
    candidates = [
        (stored, trial, held_out)
        for stored in studies
        for trial in stored.trials
        if trial.is_complete and (held_out := trial.held_out) is not None
    ]
    if not candidates:
        return None
    rows, stacked = stack_held_out([held_out for *_, held_out in candidates], len(labels))
    probabilities = stacked.astype(np.float64)
    sizes = np.array([size_of(trial.setting()) for _, trial, _ in candidates])
    weights = pick_weights(probabilities, labels[rows], budget, sizes)
    order = np.argsort(-weights, kind="stable")[: np.count_nonzero(weights)]
    members = [candidates[index][:2] for index in order]
    record = PickedEnsemble(
        members=[
            PickedTrial(
                study=stored.name, trial=trial.number, score=trial.score, weight=float(weight)
            )
            for (stored, trial), weight in zip(members, weights[order], strict=True)
        ],
        trials=len(candidates),
        rows=len(rows),
        gain=nested_gain(probabilities, labels[rows], groups[rows], budget, sizes),
    )
    return EnsemblePick(members, record)
