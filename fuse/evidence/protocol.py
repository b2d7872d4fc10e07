"""The trainings that all cells of an ablation have in common."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fuse.search.worker import Unit
from fuse.training.plan import plan
from mmsa_cache.errors import SettingsError

STOPS = ("held-out", "judged")
"""Rows that say which epoch of a training is kept, see `units`."""
Codes = NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Protocol:
    """The trainings that every cell has in common."""

    units: list[Unit]
    """Members of the first outer part, then those of the next."""
    members: int
    """Trainings that judge all rows once; each part has so many units."""

    @property
    def rows(self) -> Codes:
        """Rows that judge, sorted."""
        return np.sort(np.concatenate([unit.judged for unit in self.units[:: self.members]]))

    def joined(self, predicted: Sequence[Sequence[int]]) -> Codes:
        """Class codes of a cell's units → (members, rows), in the order of `rows`."""
        rows = np.concatenate([unit.judged for unit in self.units[:: self.members]])
        order = np.argsort(rows)
        members = [
            np.concatenate([np.asarray(part, np.int64) for part in predicted[m :: self.members]])
            for m in range(self.members)
        ]
        return np.stack(members)[:, order]


def protocol(
    labels: NDArray[np.int64],
    groups: NDArray[np.int64],
    *,
    outer: str,
    folds: int,
    seeds: int,
    seed: int,
    stop: str = "held-out",
) -> Protocol:
    """Says which rows every training learns from, and which judge it.

    Args:
        labels: Class codes, (rows,).
        groups: Duplicate groups, (rows,).
        outer: Kind of outer split, see `mmsa_cache.data.splits.outer_splits`.
        folds: See `fuse.training.plan.plan`.
        seeds: Trainings a fold.
        seed: Seed of splits and trainings.
        stop: ``held-out``: the epoch is chosen by rows that do not judge; ``judged``: by those
            that do, all others being learned from, as the report did.

    Raises:
        SettingsError: Unknown ``stop``, or folds where no fold is held out.
    """
    if stop not in STOPS:
        raise SettingsError(f"Unknown --stop {stop!r}.", f"Valid: {', '.join(STOPS)}.")
    if stop == "judged" and folds > 1:
        raise SettingsError("--stop judged holds no fold back.", "Give --folds 1.")
    parts = plan(labels, groups, outer=outer, folds=folds, seeds=seeds, seed=seed)
    units = [
        Unit(part.development, part.judged, part.judged, task.seed)
        if stop == "judged"
        else Unit(task.train, task.validation, part.judged, task.seed)
        for part in parts
        for task in part.tasks
    ]
    return Protocol(units, folds * seeds)
