"""The trainings that all cells of an ablation have in common."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fuse.search.messages import FoldSplit
from fuse.training.plan import plan_parts
from mmsa_cache.data.protocol import Protocol

Codes = NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Trainings:
    """The trainings that every cell has in common."""

    units: list[FoldSplit]
    """Members of the first outer part, then those of the next."""
    members: int
    """Trainings that judge all rows once; each part has so many units."""

    @classmethod
    def of(cls, protocol: Protocol, labels: Codes, groups: Codes) -> Trainings:
        """Says which rows every training learns from, and which judge it.

        Args:
            protocol: See `fuse.training.plan.plan_parts`.
            labels: Class codes, (rows,).
            groups: Duplicate groups, (rows,).
        """
        units = [
            FoldSplit(part.development, part.judged, part.judged, task.seed)
            if protocol.stop == "judged"
            else FoldSplit(task.train, task.validation, part.judged, task.seed)
            for part in plan_parts(labels, groups, protocol)
            for task in part.tasks
        ]
        return cls(units, protocol.folds * protocol.seeds)

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
