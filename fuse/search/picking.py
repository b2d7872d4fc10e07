"""An ensemble of trials, picked on the held-out predictions that their searches kept."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fuse.figures.study import PickedEnsemble, PickedTrial
from fuse.setting import Setting

from .database import StoredStudy
from .greedy import EnsembleBudget, greedy, nested_gain
from .held_out import HeldOut, stack_held_out
from .trial_record import Trial


@dataclass(frozen=True, slots=True)
class EnsemblePick:
    """The picked trials, heaviest first, and what the ensemble is worth."""

    members: list[tuple[StoredStudy, Trial]]
    record: PickedEnsemble

    @property
    def weights(self) -> dict[Setting, float]:
        """By setting; trials of one setting are one member."""
        found: dict[Setting, float] = {}
        for (_, trial), member in zip(self.members, self.record.members, strict=True):
            setting = trial.setting()
            found[setting] = found.get(setting, 0.0) + member.weight
        return found

    @property
    def held_out(self) -> dict[Setting, HeldOut]:
        """Their held-out predictions, by setting."""
        every = {trial.setting(): trial.held_out for _, trial in self.members}
        return {setting: found for setting, found in every.items() if found is not None}


def pick(
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
        budget: What the ensemble may cost.
        size_of: Bytes that a setting takes in the model file.

    Returns:
        None where no trial has held-out predictions (earlier versions kept none).

    Raises:
        SettingsError: The held-out rows of the studies differ, or no model is in the budget.
    """
    found = [
        (stored, trial, held_out)
        for stored in studies
        for trial in stored.trials
        if trial.is_complete and (held_out := trial.held_out) is not None
    ]
    if not found:
        return None
    rows, rounded = stack_held_out([held_out for *_, held_out in found], len(labels))
    probabilities = rounded.astype(np.float64)
    sizes = np.array([size_of(trial.setting()) for _, trial, _ in found])
    weights = greedy(probabilities, labels[rows], budget, sizes)
    order = np.argsort(-weights, kind="stable")[: np.count_nonzero(weights)].tolist()
    record = PickedEnsemble(
        members=[
            PickedTrial(
                study=found[place][0].name,
                trial=found[place][1].number,
                score=found[place][1].score,
                weight=float(weights[place]),
            )
            for place in order
        ],
        trials=len(found),
        rows=len(rows),
        gain=nested_gain(probabilities, labels[rows], groups[rows], budget, sizes),
    )
    return EnsemblePick([found[place][:2] for place in order], record)
